"""Linear systems of several tasks, solved by conjugate gradients (Hestenes and Stiefel 1952)."""

from collections.abc import Callable

import tensorflow as tf

Tensors = dict[str, tf.Tensor]


def conjugate_gradients(
    product: Callable[[Tensors], Tensors], goal: Tensors, steps: int
) -> Tensors:
    """Solves A x = goal for each task by `steps` steps from x = 0, A symmetric and positive.

    Args:
      product: v -> A v, of all tasks at once.
      goal: {name: [tasks, ...]}.
    Returns: x, {name: [tasks, ...]}. A task whose residual is zero stays where it is.
    """

    def dot(a, b):  # [tasks]
        products = (tf.reshape(a[name] * b[name], [tf.shape(a[name])[0], -1]) for name in a)
        return tf.add_n([tf.reduce_sum(one, -1) for one in products])

    def plus(a, factor, b):
        along = lambda x: tf.reshape(factor, [-1] + [1] * (x.shape.rank - 1))
        return {name: x + along(x) * b[name] for name, x in a.items()}

    def step(number, x, residual, direction, square):
        along = product(direction)
        length = tf.math.divide_no_nan(square, dot(direction, along))
        x, residual = plus(x, length, direction), plus(residual, -length, along)
        new_square = dot(residual, residual)
        direction = plus(residual, tf.math.divide_no_nan(new_square, square), direction)
        return number + 1, x, residual, direction, new_square

    zeros = {name: tf.zeros_like(value) for name, value in goal.items()}
    # A loop in the graph: the program does not grow with the steps.
    _, x, *_ = tf.while_loop(
        lambda number, *_: number < steps,
        step,
        (tf.constant(0), zeros, goal, goal, dot(goal, goal)),
        maximum_iterations=steps,
    )
    return x
