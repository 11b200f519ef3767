"""The inner loop: a few gradient steps on the support set, for all tasks of a meta-batch at
once."""

from typing import NamedTuple

import tensorflow as tf


class InnerLoop(NamedTuple):
    """What happened in an inner loop of `steps` steps; entry s belongs to the weights after s
    steps.

    fast_weights: steps + 1 dicts of tensors [tasks, ...]; entry 0 is the initialisation, stacked.
    support_losses: steps tensors [tasks], the support loss at fast_weights[s], before step s + 1.
    support_outputs: steps tensors [tasks, support, out], the predictions behind these losses.
    """

    fast_weights: list
    support_losses: list
    support_outputs: list


def stack_over_tasks(weights, tasks):
    """Gives each weight a leading task axis: {name: [...]} -> {name: [tasks, ...]}."""
    return {
        name: tf.broadcast_to(w, tf.concat([[tasks], tf.shape(w)], 0))
        for name, w in weights.items()
    }


def inner_loop(loss, weights, update_rule, steps, stop_grad=False):
    """Adapts task-stacked weights by `steps` gradient steps, each recorded by a tape of its own.

    The gradient of the *sum* of the tasks' losses with respect to task-stacked weights is the stack
    of the tasks' gradients, so no code here loops over tasks. An outer tape around the call sees
    through the steps and yields second-order meta-gradients (Finn et al. 2017, section 2.2).

    Args:
      loss: (fast_weights, step) -> (losses [tasks], outputs [tasks, support, out]).
      weights: {name: [tasks, ...]}, the weights to adapt; `loss` closes over those that stay.
      update_rule: (fast_weights, gradients, slots, step) -> (fast_weights, slots), see
        update_rules.py.
      steps: number of steps, a Python int: the loop is unrolled in the graph.
      stop_grad: holds each inner gradient constant for the outer one (first-order MAML).

    Returns: an InnerLoop.
    """
    fast_weights, slots = dict(weights), {}
    trajectory = InnerLoop([fast_weights], [], [])
    for step in range(steps):
        fast_weights, slots, losses, outputs = inner_step(
            loss, fast_weights, update_rule, slots, step, stop_grad
        )
        trajectory.fast_weights.append(fast_weights)
        trajectory.support_losses.append(losses)
        trajectory.support_outputs.append(outputs)
    return trajectory


def read_out_every_step(loss, weights, update_rule, steps, read_out):
    """The same steps as a loop in the graph, for evaluation: compiling takes no longer for more
    steps.

    Args: as `inner_loop`, and read_out: fast_weights -> a tensor.
    Returns: read_out before adaptation and after every step, [steps + 1, ...].
    """
    read_outs = tf.TensorArray(
        weights[next(iter(weights))].dtype, size=steps + 1, clear_after_read=False
    )

    def body(step, fast_weights, slots, read_outs):
        fast_weights, slots, _, _ = inner_step(
            loss, fast_weights, update_rule, slots, step, stop_grad=True
        )
        return step + 1, fast_weights, slots, read_outs.write(step + 1, read_out(fast_weights))

    start = tf.constant(0), dict(weights), {}, read_outs.write(0, read_out(weights))
    *_, read_outs = tf.while_loop(
        lambda step, *_: step < steps, body, start, maximum_iterations=steps
    )
    return read_outs.stack()


def inner_step(loss, fast_weights, update_rule, slots, step, stop_grad):
    """One step of `inner_loop` -> (fast weights, slots, losses [tasks] before it, outputs behind
    these)."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(fast_weights)
        losses, outputs = loss(fast_weights, step)
        total = tf.reduce_sum(losses)
    gradients = tape.gradient(
        total, fast_weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    if stop_grad:
        gradients = {name: tf.stop_gradient(g) for name, g in gradients.items()}
    fast_weights, slots = update_rule(fast_weights, gradients, slots, step)
    return fast_weights, slots, losses, outputs


def define_flags(flags):
    """Flags of every algorithm that adapts by gradient steps."""
    flags.DEFINE_float(
        'update_lr',
        1e-3,
        'step size alpha of the inner gradient update (on a loss summed over the '
        'examples and divided by the shots, as in the reference)',
        lower_bound=0,
    )
    flags.DEFINE_integer(
        'num_updates', 1, 'number of inner gradient updates during training', lower_bound=1
    )
    flags.DEFINE_bool(
        'stop_grad', False, 'first-order MAML: no second derivatives in the meta-gradient'
    )
    flags.DEFINE_bool(
        'rematerialise',
        False,
        'compute each inner step once more on the way back instead of keeping '
        'its activations: the same meta-gradient in the memory of one step, in more time',
    )
