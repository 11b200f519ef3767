"""Training on several devices, of one machine or of many: the tasks of a meta-batch are split over
replicas."""

import functools
import signal
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.terminal.interrupts import ended_at_once
from maml_tf.training import shares
from maml_tf.training.distribution import cluster
from maml_tf.training.distribution.workers import Workers
from maml_tf.training.iterate import Run, loop
from maml_tf.training.operations import TrainingOp

NAMES = ('auto', 'one_device', 'mirrored', 'multi_worker')


def make_strategy(name: str, tasks: int | None = None) -> tf.distribute.Strategy:
    """Returns a tf.distribute strategy; learners and optimizers belong into its scope().

    Args:
      name: 'mirrored' over all GPUs (without any: all logical CPUs), 'one_device', or 'auto', which
        mirrors where there is more than one GPU and at least one of the meta-batch's `tasks` for
        each. 'multi_worker' over the GPUs of all processes of the cluster (of one without any: its
        CPU), see cluster.py; it waits for them, and has to be made before TensorFlow computes
        anything.
    Raises: ArgumentError where there is no cluster; UserError where it cannot be understood.
    """
    if name == 'multi_worker':
        found = cluster.find()
        if found is None:
            raise ArgumentError(
                'strategy',
                name,
                f'neither {cluster.VARIABLE} nor Slurm says which workers there are. Start the '
                f"workers by `srun`, or each with {cluster.VARIABLE}='{cluster.EXAMPLE}', or all "
                'on this machine by `python -m maml_tf.commands.workers`',
            )
        return _multi_worker() if len(found.workers) > 1 else make_strategy('auto', tasks)
    gpus = [device.name for device in tf.config.list_logical_devices('GPU')]
    if name == 'mirrored' or (name == 'auto' and 1 < len(gpus) <= (tasks or len(gpus))):
        cpus = [device.name for device in tf.config.list_logical_devices('CPU')]
        return _mirrored(tuple(gpus or cpus))
    return tf.distribute.get_strategy()


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """Makes one strategy for all of a process.

    Every strategy numbers its reductions from the same start, and TensorFlow takes those of two
    strategies on the same devices for each other's.
    """
    return tf.distribute.MirroredStrategy(devices)


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
    """Makes the one strategy that a process can have with others."""
    with ended_at_once(signal.SIGINT):  # It may wait for long.
        return tf.distribute.MultiWorkerMirroredStrategy(cluster.find().resolver())


def workers_of(strategy: tf.distribute.Strategy) -> Workers:
    """Returns the processes that a strategy spans."""
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return Workers(strategy, cluster.find() if several else None)


def iterate(
    strategy: tf.distribute.Strategy,
    op: TrainingOp,
    draw: Callable[[Any, int], Any],
    meta_batch_size: int,
    share: Callable[[int], int] = lambda tasks: tasks,
    phase_start: int = 0,
) -> Run:
    """Does what iterate.iterate does, each replica on its part of every meta-batch.

    Gradients, logs and assigned state are averaged over all tasks, wherever they were computed, so
    that the result is that of one device.

    Args:
      share: tasks of a replica -> how many of them to compute at a time.
    Raises: ArgumentError where there are more replicas than tasks.
    """
    replicas = strategy.num_replicas_in_sync
    if meta_batch_size < replicas:
        raise ArgumentError(
            'meta_batch_size',
            meta_batch_size,
            f'at least one task for each of the {replicas} replicas',
        )
    # XLA wants fixed shapes, but not the same on every replica: the first ones take a task more.
    parts = [
        meta_batch_size // replicas + (r < meta_batch_size % replicas) for r in range(replicas)
    ]
    updates = [
        _weighted_update(op, draw, part, part / meta_batch_size, share(part)) for part in parts
    ]

    def on_replica(first, step):
        context = tf.distribute.get_replica_context()
        replica = int(tf.get_static_value(context.replica_id_in_sync_group))
        return op.apply_together(updates[replica](first + sum(parts[:replica]), step))

    @tf.function(autograph=False)
    def step(iteration):
        place = iteration * meta_batch_size, iteration - phase_start
        logs = strategy.run(on_replica, place)
        return {name: strategy.experimental_local_results(v)[0] for name, v in logs.items()}

    return loop(step, jit_compile=False)


def _weighted_update(op: TrainingOp, draw, tasks: int, weight: float, at_once: int):
    """Makes (first task, step) -> these tasks' part of the meta-batch's Update.

    It is a function of its own for each replica, since a trace holds on to its replica's variables.
    """

    def update(task, step):
        return tf.nest.map_structure(lambda value: value * weight, op.gradients(task, step))

    return shares.mean(update, draw, tasks, at_once, op.xla)


def define_flags(flags) -> None:
    """Defines the flags of the devices."""
    flags.DEFINE_enum(
        'strategy',
        'auto',
        NAMES,
        'devices: mirrored splits the tasks of a meta-batch over all GPUs '
        '(without any, all logical CPUs); multi_worker over all processes that TF_CONFIG or Slurm '
        'names; auto mirrors where there is more than one GPU',
    )
