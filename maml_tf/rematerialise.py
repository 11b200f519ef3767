"""The inner loop in the memory of one step: its gradient goes back over the stored fast weights."""

import tensorflow as tf

from maml_tf.inner_loop import inner_step


def rematerialised_inner_loop(loss, weights, others, update_rule, steps, stop_grad=False):
    """The fast weights after `steps` steps, as `inner_loop` has them, with the same derivatives.

    On the way back each step is taken once more and differentiated by itself: with gradient
    descent, v <- v - alpha H(w_j) v. So the activations of one step are held at a time, whatever
    the number of steps, and the program does not grow with it; it takes the time of one gradient
    more per step. A loop in the graph, so that a compiler cannot keep the activations after all.

    Args: as inner_loop's, and
      loss: (fast_weights, step, others) -> (losses [tasks], outputs); `step` is a tensor.
      others: {name: tensor}, all else that the meta-gradient flows to through the loss: what the
        loss or the update rule reads past its arguments counts as constant.
    Raises ValueError for an update rule with slots.
    """

    def flat(fast_weights):
        return [fast_weights[name] for name in weights]

    def named(values):
        return dict(zip([*weights, *others], values))

    def take_step(fast_weights, step, others):
        after, slots, *_ = inner_step(
            lambda w, s: loss(w, s, others), fast_weights, update_rule, {}, step, stop_grad
        )
        if slots:
            raise ValueError('an update rule with slots cannot be rematerialised')
        return after

    @tf.custom_gradient
    def run(*values):
        start, rest = values[: len(weights)], dict(zip(others, values[len(weights) :]))
        past = [tf.TensorArray(w.dtype, steps, element_shape=w.shape) for w in start]

        def forth(step, now, past):
            past = [array.write(step, w) for array, w in zip(past, now)]
            return step + 1, flat(take_step(named(now), step, rest)), past

        _, end, past = tf.while_loop(
            lambda step, *_: step < steps,
            forth,
            (tf.constant(0), list(start), past),
            maximum_iterations=steps,
        )
        past = [array.stack() for array in past]

        # variables: frozen ones that a network reads; what is learnt comes by `weights` and
        # `others`.
        def gradient(*upstream, variables=()):
            def back(step, to_weights, to_others):
                step -= 1
                then = named([tf.gather(w, step) for w in past])
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch([then, rest])
                    after = flat(take_step(then, step, rest))
                gradients = tape.gradient(
                    after,
                    [flat(then), list(rest.values())],
                    output_gradients=to_weights,
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
                return step, gradients[0], [total + g for total, g in zip(to_others, gradients[1])]

            start_back = (
                tf.constant(steps),
                list(upstream),
                [tf.zeros_like(value) for value in rest.values()],
            )
            _, to_weights, to_others = tf.while_loop(
                lambda step, *_: step > 0, back, start_back, maximum_iterations=steps
            )
            gradients = [*to_weights, *to_others]
            return (
                (gradients, [tf.zeros_like(variable) for variable in variables])
                if variables
                else gradients
            )

        return end, gradient

    return named(run(*flat(weights), *others.values()))
