"""Bilinear layers whose derivatives are computed as well as they are: y(x, w), linear in x and in
w."""

import tensorflow as tf

from maml_tf.ops.traced import Traced


class Bilinear(Traced):
    """A product of inputs and weights, its gradient to the inputs and its gradient to the weights.

    All three are bilinear, and the derivatives of each are the other two, so these serve
    derivatives of every order. TensorFlow would differentiate how they are computed instead, step
    by step, which XLA compiles into slower code. A subclass writes the three functions with an
    underscore; no tape looks inside.

    dtype: in which they are computed, whatever goes in and comes out; None: as it comes.
    """

    def __init__(self, dtype=None):
        super().__init__()
        self._dtype = dtype

    def product(self, x, w):
        """y(x, w)"""

        @tf.custom_gradient
        def apply(x, w):
            return self._compute(self._product, x, w), lambda dy: (
                self.to_input(dy, w),
                self.to_weight(x, dy),
            )

        return apply(x, w)

    def to_input(self, dy, w):
        """The gradient of <dy, y(x, w)> with respect to x."""

        @tf.custom_gradient
        def apply(dy, w):
            return self._compute(self._to_input, dy, w), lambda u: (
                self.product(u, w),
                self.to_weight(u, dy),
            )

        return apply(dy, w)

    def to_weight(self, x, dy):
        """The gradient of <dy, y(x, w)> with respect to w."""

        @tf.custom_gradient
        def apply(x, dy):
            return self._compute(self._to_weight, x, dy), lambda v: (
                self.to_input(dy, v),
                self.product(x, v),
            )

        return apply(x, dy)

    def _compute(self, method, a, b):
        if self._dtype is None:
            return self.trace(method, a, b)
        return tf.cast(
            self.trace(method, tf.cast(a, self._dtype), tf.cast(b, self._dtype)), a.dtype
        )
