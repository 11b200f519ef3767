"""The inner loop: gradient steps on the support set, for all tasks of a meta-batch at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from maml_tf.update_rules import Tensors, UpdateRule


class InnerProblem(NamedTuple):
    """The loss, the weights and the rule of an inner loop.

    loss: (weights, step, others) -> (losses [tasks], outputs [tasks, support, out]); a loop in the
      graph counts its steps by a tensor.
    weights: {name: [tasks, ...]}, the weights to adapt, as they start.
    rule: see update_rules.py.
    others: {name: tensor}, what else the loss reads and a meta-gradient flows to, such as weights
      that all tasks share.
    parameters: {name: tensor}, what the rule has learnt.
    slots: the rule's memory before the first step; None: as the rule starts it.
    """

    loss: Callable[[Tensors, Any, Tensors], tuple[tf.Tensor, tf.Tensor]]
    weights: Tensors
    rule: UpdateRule
    others: Tensors = {}
    parameters: Tensors = {}
    slots: Tensors | None = None

    def start(self) -> Tensors:
        """Returns the slots before the first step."""
        return self.rule.start(self.weights) if self.slots is None else self.slots


class InnerLoop(NamedTuple):
    """What happened in an inner loop; entry s belongs to the weights after s steps.

    fast_weights: steps + 1 dicts of tensors [tasks, ...]; entry 0 is the initialisation, stacked.
    support_losses: steps tensors [tasks], the support loss at fast_weights[s], before step s + 1.
    support_outputs: steps tensors [tasks, support, out], the predictions behind these losses.
    slots: the update rule's memory after the last step.
    """

    fast_weights: list[Tensors]
    support_losses: list[tf.Tensor]
    support_outputs: list[tf.Tensor]
    slots: Tensors


def stack_over_tasks(weights: Tensors, tasks: tf.Tensor | int) -> Tensors:
    """Gives each weight a leading task axis: {name: [...]} -> {name: [tasks, ...]}."""
    return {
        name: tf.broadcast_to(w, tf.concat([[tasks], tf.shape(w)], 0))
        for name, w in weights.items()
    }


def inner_loop(problem: InnerProblem, steps: int, stop_grad: bool = False) -> InnerLoop:
    """Adapts task-stacked weights by `steps` gradient steps, each recorded by a tape of its own.

    The gradient of the *sum* of the tasks' losses with respect to task-stacked weights is the stack
    of the tasks' gradients, so no code here loops over tasks. An outer tape around the call sees
    through the steps and yields second-order meta-gradients (Finn et al. 2017, section 2.2).

    Args:
      steps: the loop is unrolled in the graph.
      stop_grad: holds each inner gradient constant for the outer one (first-order MAML).
    """
    fast_weights, slots = dict(problem.weights), problem.start()
    trajectory, all_losses, all_outputs = [fast_weights], [], []
    for step in range(steps):
        fast_weights, slots, losses, outputs = inner_step(
            problem, fast_weights, slots, step, stop_grad
        )
        trajectory.append(fast_weights)
        all_losses.append(losses)
        all_outputs.append(outputs)
    return InnerLoop(trajectory, all_losses, all_outputs, slots)


def adapt_in_graph(problem: InnerProblem, steps: tf.Tensor | int) -> tuple[Tensors, Tensors]:
    """Takes the same steps as a loop in the graph: compiling takes no longer for more of them.

    No tape sees through it: for evaluation, long adaptations, and methods that need no derivative
    of the path. Returns (fast weights, slots) after the last step.
    """

    def body(step, fast_weights, slots):
        return step + 1, *inner_step(problem, fast_weights, slots, step, stop_grad=True)[:2]

    _, fast_weights, slots = tf.while_loop(
        lambda step, *_: step < steps,
        body,
        (tf.constant(0), dict(problem.weights), problem.start()),
        maximum_iterations=steps,
    )
    return fast_weights, slots


def read_out_every_step(
    problem: InnerProblem, steps: int, read_out: Callable[[Tensors, Any], tf.Tensor]
) -> tf.Tensor:
    """Reads something out before adaptation and after every step of a loop in the graph.

    Args:
      read_out: (fast weights, steps taken) -> a tensor of one shape.
    Returns: [steps + 1, ...].
    """
    dtype = next(iter(problem.weights.values())).dtype
    read_outs = tf.TensorArray(dtype, size=steps + 1, clear_after_read=False)

    def body(step, fast_weights, slots, read_outs):
        fast_weights, slots, *_ = inner_step(problem, fast_weights, slots, step, stop_grad=True)
        step += 1
        return step, fast_weights, slots, read_outs.write(step, read_out(fast_weights, step))

    first, weights = tf.constant(0), dict(problem.weights)
    start = first, weights, problem.start(), read_outs.write(0, read_out(weights, first))
    *_, read_outs = tf.while_loop(
        lambda step, *_: step < steps, body, start, maximum_iterations=steps
    )
    return read_outs.stack()


def inner_step(
    problem: InnerProblem, weights: Tensors, slots: Tensors, step: tf.Tensor | int, stop_grad: bool
) -> tuple[Tensors, Tensors, tf.Tensor, tf.Tensor]:
    """Takes one step -> (fast weights, slots, losses [tasks] before it, outputs behind these)."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        losses, outputs = problem.loss(weights, step, problem.others)
        total = tf.reduce_sum(losses)
    gradients = tape.gradient(total, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    # Of a lookup TensorFlow gives slices, which rules cannot compute with.
    gradients = {name: tf.convert_to_tensor(g) for name, g in gradients.items()}
    if stop_grad:
        gradients = {name: tf.stop_gradient(g) for name, g in gradients.items()}
    weights, slots = problem.rule(weights, gradients, slots, problem.parameters, step)
    return weights, slots, losses, outputs


def rates(flags, default: float) -> tuple[float, float]:
    """Returns the inner rates of training and of evaluation.

    default: the method's own, where the command line leaves the rate to it.
    """
    rate = default if flags.update_lr is None else flags.update_lr
    own = flags.train_update_lr
    return (rate if own == -1 else own), rate


def define_flags(flags) -> None:
    """Defines the flags of every method that adapts by gradient steps."""
    flags.DEFINE_float(
        'update_lr',
        None,
        'step size alpha of the inner gradient update (default: by method, for maml 0.001, on a '
        'loss summed over the examples and divided by the shots, as in the reference)',
        lower_bound=0,
    )
    flags.DEFINE_float('train_update_lr', -1, 'update_lr of training, to evaluate with another')
    flags.DEFINE_integer(
        'num_updates',
        None,
        'number of inner gradient updates during training (default: by method, for maml 1)',
        lower_bound=1,
    )
    flags.DEFINE_integer(
        'test_num_updates',
        None,
        'number of inner gradient updates in evaluation (default: by method, for maml 10)',
        lower_bound=0,
    )
    flags.DEFINE_float(
        'clip',
        None,
        'bound every entry of the meta-gradient by plus and minus this; 0: do not (default: by '
        'method and data source, 10 for cavia and for miniimagenet, else 0)',
        lower_bound=0,
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
