"""3x3 pooling that keeps the size of the images: the largest and the mean of what is around.

Both take rows first and columns then, which is a third of the work. What lies outside of an image
counts neither in a maximum nor in a mean. All derivatives are exact.
"""

import math

import numpy as np
import tensorflow as tf

from maml_tf.ops.convolution import window


def max_pool3x3(x: tf.Tensor) -> tf.Tensor:
    """Takes the largest of each pixel's 3x3 neighbours: [tasks, n, height, width, c], as x.

    The first of equal maxima takes the gradient.
    """
    for axis in (1, 0):
        before, same, after = _neighbours(x, axis, -math.inf)
        x = tf.maximum(tf.maximum(before, same), after)  # Of equal ones, the first.
    return x


def average_pool3x3(x: tf.Tensor) -> tf.Tensor:
    """Averages each pixel's 3x3 neighbours: [tasks, n, height, width, c], as x."""
    sides = [np.minimum(np.arange(side) + 2, side) for side in x.shape[2:4]]
    first = [np.maximum(np.arange(side) - 1, 0) for side in x.shape[2:4]]
    rows, columns = (end - start for end, start in zip(sides, first))
    shares = 1 / np.outer(rows, columns)[..., np.newaxis]
    return _sum3x3(x) * tf.constant(shares, x.dtype)


@tf.custom_gradient
def _sum3x3(x):
    """Adds up neighbours. What a pixel gives to others it takes from them: its own gradient."""
    total = x
    for axis in (1, 0):
        total = tf.add_n(_neighbours(total, axis, 0.0))
    return total, _sum3x3


def _neighbours(x, axis, filling):
    """Returns the pixels before, at and after each one, along the rows (0) or the columns (1)."""
    starts = [[0, 0] for _ in range(3)]
    for shift, start in zip((-1, 0, 1), starts):
        start[axis] = shift
    return [window(x, tuple(start), x.shape[2:4], filling) for start in starts]
