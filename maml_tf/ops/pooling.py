"""2x2 max-pooling as a choice of pixels, which is made once and applied to several tensors."""

import math
from typing import Literal, Protocol

import tensorflow as tf

from maml_tf.ops.shapes import sizes

Padding = Literal['valid', 'same']


class Choice(Protocol):
    """Says which pixels of z go on into y."""

    def take(self, v: tf.Tensor) -> tf.Tensor:
        """Returns the chosen pixels of v, which has the shape of z."""

    def put(self, g: tf.Tensor) -> tf.Tensor:
        """Returns a tensor of z's shape that has g at the chosen pixels and 0 elsewhere."""


class Everything:
    """The choice of all pixels."""

    def __init__(self, z: tf.Tensor):
        del z

    def take(self, v: tf.Tensor) -> tf.Tensor:
        return v

    def put(self, g: tf.Tensor) -> tf.Tensor:
        return g


class MaxPool:
    """The choice of the largest of each 2x2 pixels of z: [tasks, n, height, width, c].

    Of equal pixels the first is chosen. An odd last row or column is left out (VALID padding).
    """

    def __init__(self, z: tf.Tensor):
        self._sides = z.shape[2:4]
        self._half = [self._windows(side) for side in self._sides]
        corners = self._corners(z, -math.inf)
        largest = tf.maximum(tf.maximum(corners[0], corners[1]), tf.maximum(corners[2], corners[3]))
        place = tf.fill(tf.shape(largest), tf.constant(3, tf.int32))
        for corner in (2, 1, 0):
            place = tf.where(tf.equal(corners[corner], largest), corner, place)
        self._place = place

    def take(self, v: tf.Tensor) -> tf.Tensor:
        """[tasks, n, height, width, c] -> [tasks, n, height // 2, width // 2, c]"""
        return tf.add_n(
            [
                tf.where(tf.equal(self._place, i), corner, 0)
                for i, corner in enumerate(self._corners(v, 0))
            ]
        )

    def put(self, g: tf.Tensor) -> tf.Tensor:
        """[tasks, n, height // 2, width // 2, c] -> [tasks, n, height, width, c]"""
        wide = lambda v: v[:, :, :, tf.newaxis, :, tf.newaxis]
        corners = tf.reshape(tf.range(4), [2, 1, 2, 1])
        spread = tf.where(tf.equal(wide(self._place), corners), wide(g), 0)
        tasks, n, height, _, width, _, channels = sizes(spread)
        return self._fit(tf.reshape(spread, [tasks, n, 2 * height, 2 * width, channels]))

    def _windows(self, side):
        """Counts the windows along a side."""
        return side // 2

    def _corners(self, v, filling):
        """Returns the upper left, upper right, lower left and lower right pixels of all windows.

        filling: the value of pixels that a window has outside of v.
        """
        del filling
        height, width = (2 * half for half in self._half)
        return [v[:, :, i:height:2, j:width:2] for i in range(2) for j in range(2)]

    def _fit(self, spread):
        """Gives the pixels of all windows the sides of z."""
        return tf.pad(spread, [[0, 0], [0, 0], *[[0, side % 2] for side in self._sides], [0, 0]])


class PaddedMaxPool(MaxPool):
    """As MaxPool, but an odd last row or column is pooled by itself (SAME padding).

    `take` and `put` have (height + 1) // 2 and (width + 1) // 2 windows.
    """

    def _windows(self, side):
        return (side + 1) // 2

    def _corners(self, v, filling):
        odd = [[0, side % 2] for side in self._sides]
        return super()._corners(
            tf.pad(v, [[0, 0], [0, 0], *odd, [0, 0]], constant_values=filling), filling
        )

    def _fit(self, spread):
        height, width = self._sides
        return spread[:, :, :height, :width]


# By the padding of the pooling that follows; None: no pooling.
CHOICES = {None: Everything, 'valid': MaxPool, 'same': PaddedMaxPool}
