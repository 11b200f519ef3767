"""The inner loop in the memory of one step: its gradient goes back over the stored fast weights."""

import tensorflow as tf

from maml_tf.inner_loop import InnerProblem, inner_step
from maml_tf.update_rules import Tensors


def rematerialised_inner_loop(
    problem: InnerProblem, steps: int, stop_grad: bool = False, first: int = 0
) -> tuple[Tensors, Tensors]:
    """Returns (fast weights, slots) after `steps` steps, as `inner_loop` has them, with the same
    derivatives.

    On the way back each step is taken once more and differentiated by itself: with gradient
    descent, v <- v - alpha H(w_j) v. So the activations of one step are held at a time, whatever
    the number of steps, and the program does not grow with it; it takes the time of one gradient
    more per step. A loop in the graph, so that a compiler cannot keep the activations after all.

    The derivatives reach the problem's weights, slots, others and parameters: what the loss or the
    rule reads past these counts as constant.

    first: the number of the first step, where the loop goes on from another one.
    """
    state = problem.weights, problem.start()
    constants = problem.others, problem.parameters
    flat = tf.nest.flatten
    as_state = lambda values: tf.nest.pack_sequence_as(state, list(values))

    def take_step(state, step, constants):
        others, parameters = constants
        now = problem._replace(others=others, parameters=parameters)
        return inner_step(now, *state, step + first, stop_grad)[:2]

    size = len(flat(state))

    @tf.custom_gradient
    def run(*values):
        start, given = values[:size], tf.nest.pack_sequence_as(constants, list(values[size:]))
        past = [tf.TensorArray(w.dtype, steps, element_shape=w.shape) for w in start]

        def forth(step, now, past):
            past = [array.write(step, w) for array, w in zip(past, now)]
            return step + 1, flat(take_step(as_state(now), step, given)), past

        _, end, past = tf.while_loop(
            lambda step, *_: step < steps,
            forth,
            (tf.constant(0), list(start), past),
            maximum_iterations=steps,
        )
        past = [array.stack() for array in past]

        # variables: frozen ones that a network reads; what is learnt comes with the problem.
        def gradient(*upstream, variables=()):
            def back(step, to_state, to_constants):
                step -= 1
                then = as_state(tf.gather(w, step) for w in past)
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch([then, given])
                    after = flat(take_step(then, step, given))
                to_then, to_given = tape.gradient(
                    after,
                    [flat(then), flat(given)],
                    output_gradients=to_state,
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
                return step, to_then, [total + g for total, g in zip(to_constants, to_given)]

            zeros = [tf.zeros_like(value) for value in flat(given)]
            _, to_state, to_constants = tf.while_loop(
                lambda step, *_: step > 0,
                back,
                (tf.constant(steps), list(upstream), zeros),
                maximum_iterations=steps,
            )
            gradients = [*to_state, *to_constants]
            if not variables:
                return gradients
            return gradients, [tf.zeros_like(variable) for variable in variables]

        return end, gradient

    return as_state(run(*flat(state), *flat(constants)))
