"""Products of inputs and weights, y(x, w), linear in both, with their own derivatives."""

import abc

import tensorflow as tf

from maml_tf.ops.traced import Traced


class Bilinear(Traced, abc.ABC):
    """A product of inputs and weights whose derivatives of every order are exact and fast.

    The gradient to the inputs and the gradient to the weights are bilinear too, and the derivatives
    of each of the three are the other two. TensorFlow would instead differentiate the steps by
    which they are computed, which XLA compiles into slower code. A subclass writes the three
    functions with an underscore; no tape looks inside.

    Args:
      dtype: in which they are computed, whatever goes in and comes out; None: as it comes.
    """

    def __init__(self, dtype: tf.DType | None = None):
        super().__init__()
        self._dtype = dtype

    def product(self, x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
        """Returns y(x, w)."""

        @tf.custom_gradient
        def apply(x, w):
            return self._compute(self._product, x, w), lambda dy: (
                self.to_input(dy, w),
                self.to_weight(x, dy),
            )

        return apply(x, w)

    def to_input(self, dy: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
        """Returns the gradient of <dy, y(x, w)> with respect to x."""

        @tf.custom_gradient
        def apply(dy, w):
            return self._compute(self._to_input, dy, w), lambda u: (
                self.product(u, w),
                self.to_weight(u, dy),
            )

        return apply(dy, w)

    def to_weight(self, x: tf.Tensor, dy: tf.Tensor) -> tf.Tensor:
        """Returns the gradient of <dy, y(x, w)> with respect to w."""

        @tf.custom_gradient
        def apply(x, dy):
            return self._compute(self._to_weight, x, dy), lambda v: (
                self.to_input(dy, v),
                self.product(x, v),
            )

        return apply(x, dy)

    @abc.abstractmethod
    def _product(self, x, w):
        """Computes `product`."""

    @abc.abstractmethod
    def _to_input(self, dy, w):
        """Computes `to_input`."""

    @abc.abstractmethod
    def _to_weight(self, x, dy):
        """Computes `to_weight`."""

    def _compute(self, method, a, b):
        if self._dtype is None:
            return self.trace(method, a, b)
        product = self.trace(method, tf.cast(a, self._dtype), tf.cast(b, self._dtype))
        return tf.cast(product, a.dtype)
