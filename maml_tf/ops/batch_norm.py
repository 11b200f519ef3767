"""Batch normalisation by each task's own statistics, with first and second derivatives written out.

`tf.nn.moments` has wrong second derivatives (its variance holds the mean constant), and taping the
right formula leaves XLA dozens of passes over the images, many of them sums that it compiles into
slow loops. With z the input, M the number of its pixels, p = max_pool(z) (or z itself), m and r the
mean and the inverse standard deviation of z, and all sums over pixels, channel by channel:

    y      = (p - m) r

The gradient of z when that of y is g, with x = (z - m) r, G = unpool(g), a = sum(g y)/M:

    B(z,g) = r (G - sum(g)/M - x a)

The gradients of g and z when that of B is u; pool(u) takes u where p is:

    to g   : r (pool(u) - sum(u)/M - y b)
    to z   : -r^2 (x (c - 3 a b) + b (G - sum(g)/M) + a (u - sum(u)/M)),
             b = sum(u x)/M,  c = sum(pool(u) g)/M - sum(u) sum(g)/M^2
"""

import math

import tensorflow as tf

from maml_tf.ops.pooling import CHOICES, Choice, Padding
from maml_tf.ops.shapes import sizes
from maml_tf.ops.traced import Traced


def standardise(z: tf.Tensor, epsilon: float, pool: Padding | None = None) -> tf.Tensor:
    """Subtracts the mean of each task's batch and divides by its standard deviation, per channel.

    Args:
      z: [tasks, n, ..., c]; mean and deviation are over all axes between the first and the last.
      epsilon: added to the variance.
      pool: 2x2 max-pooling of images follows, with 'valid' or 'same' padding; None: none. (The code
        pools first, which comes to the same and is less work.)
    """
    return _Standardise.of(epsilon, CHOICES[pool]).value(z)


class _Standardise(Traced):
    """Computes y(z), B(z, g) and B's gradients, see above."""

    def __init__(self, epsilon, choose):
        super().__init__()
        self._epsilon, self._choose = epsilon, choose

    def value(self, z):
        @tf.custom_gradient
        def apply(z):
            return self.trace(self._y, z), lambda g: self._gradient(z, g)

        return apply(z)

    def _gradient(self, z, g):
        @tf.custom_gradient
        def apply(z, g):
            return self.trace(self._b, z, g), lambda u: self.trace(self._of_b, z, g, u)

        return apply(z, g)

    # All three compute the statistics again: no tape has seen the insides of the others. XLA keeps
    # one copy.

    def _y(self, z):
        return _Statistics(z, self._epsilon, self._choose).y

    def _b(self, z, g):
        s = _Statistics(z, self._epsilon, self._choose)
        return s.r * (s.choice.put(g) - s.total(g) - s.x * s.total(g * s.y))

    def _of_b(self, z, g, u):
        s = _Statistics(z, self._epsilon, self._choose)
        sum_g, a = s.total(g), s.total(g * s.y)
        sum_u, b = s.total(u), s.total(u * s.x)
        pooled_u = s.choice.take(u)
        c = s.total(pooled_u * g) - sum_u * sum_g
        to_z = -tf.square(s.r) * (
            s.x * (c - 3 * a * b) + b * (s.choice.put(g) - sum_g) + a * (u - sum_u)
        )
        return to_z, s.r * (pooled_u - sum_u - s.y * b)


class _Statistics:
    """Has the names of the module's docstring; `total(v)` is sum(v)/M, [tasks, 1, ..., 1, c]."""

    def __init__(self, z, epsilon, choose: type[Choice]):
        tasks, *_, channels = sizes(z)
        self._shape = [tasks, *[1] * (z.shape.rank - 2), channels]
        self._pixels = tf.cast(tf.reduce_prod(tf.shape(z)[1:-1]), z.dtype)
        centred = z - self.total(z)
        self.r = tf.math.rsqrt(self.total(tf.square(centred)) + epsilon)
        self.x = centred * self.r
        self.choice = choose(z)
        self.y = self.choice.take(self.x)

    def total(self, v):
        # Image by image a matrix product: XLA would compute the summands of a sum over leading axes
        # anew, element by element. One product for all images would be slower and add up too many
        # float32 in a row.
        tasks, n, *sides, channels = sizes(v)
        pixels = math.prod(sides)
        images = tf.matmul(
            tf.ones([tasks, n, 1, pixels], v.dtype), tf.reshape(v, [tasks, n, pixels, channels])
        )
        return tf.reshape(tf.reduce_sum(images, 1), self._shape) / self._pixels
