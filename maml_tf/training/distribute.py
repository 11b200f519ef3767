"""Training on several devices: the tasks of a meta-batch are split over the replicas of a
tf.distribute strategy."""

import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.training import shares
from maml_tf.training.train import loop

NAMES = ('auto', 'one_device', 'mirrored')


def make_strategy(name, tasks=None):
    """A tf.distribute strategy: 'mirrored' over all GPUs (without any: all logical CPUs),
    'one_device', or 'auto'.

    'auto' mirrors where there is more than one GPU and at least one of the meta-batch's `tasks` for
    each. Learners and optimizers belong into its scope().
    """
    gpus = [device.name for device in tf.config.list_logical_devices('GPU')]
    if name == 'mirrored' or name == 'auto' and 1 < len(gpus) <= (tasks or len(gpus)):
        return tf.distribute.MirroredStrategy(
            gpus or [device.name for device in tf.config.list_logical_devices('CPU')]
        )
    return tf.distribute.get_strategy()


def iterate(strategy, op, draw, meta_batch_size, at_once=None):
    """As train.iterate, each replica on its share of every meta-batch, with the same result.

    Raises UserError where there are more replicas than tasks.
    """
    replicas = strategy.num_replicas_in_sync
    if meta_batch_size < replicas:
        raise UserError(
            f'--meta_batch_size={meta_batch_size}: at least one task for each of the {replicas} '
            'replicas'
        )
    # XLA wants fixed shapes, but not the same on every replica: the first ones take a task more.
    parts = [
        meta_batch_size // replicas + (r < meta_batch_size % replicas) for r in range(replicas)
    ]
    gradients = [
        _weighted_gradients(op, draw, part, part / meta_batch_size, at_once) for part in parts
    ]

    def on_replica(first):
        context = tf.distribute.get_replica_context()
        replica = int(tf.get_static_value(context.replica_id_in_sync_group))
        total = context.all_reduce(
            tf.distribute.ReduceOp.SUM, gradients[replica](first + sum(parts[:replica]))
        )
        op.apply(total[0], replicas)
        return total[1]

    @tf.function(autograph=False)
    def step(iteration):
        logs = strategy.run(on_replica, (iteration * meta_batch_size,))
        return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}

    return loop(step, jit_compile=False)


def _weighted_gradients(op, draw, tasks, weight, at_once=None):
    """first task -> these tasks' part of the meta-batch's mean gradients and log. A function of its
    own for each replica, since a trace holds on to its replica's variables."""

    def gradients(task):
        values, log = op.gradients(task)
        return [g * weight for g in values], {name: value * weight for name, value in log.items()}

    at_once = shares.share(tasks, 1, at_once) if at_once else tasks
    return shares.mean(gradients, draw, tasks, at_once, op.xla)


def define_flags(flags):
    """Flags of the devices."""
    flags.DEFINE_enum(
        'strategy',
        'auto',
        NAMES,
        'devices: mirrored splits the tasks of a meta-batch over all GPUs '
        '(without any, all logical CPUs); auto mirrors where there is more than one GPU',
    )
