"""Bilinear layers whose derivatives are computed as well as they are: y(x, w), linear in x and in w."""
import functools

import tensorflow as tf


class Bilinear:
    """A product of inputs and weights, its gradient to the inputs and its gradient to the weights.

    All three are bilinear, and the derivatives of each are the other two, so these serve derivatives of every order.
    TensorFlow would differentiate how they are computed instead, step by step, which XLA compiles into slower code.
    A subclass writes the three functions with an underscore; no tape looks inside.
    """

    def __init__(self):
        self._traces = {}

    @classmethod
    @functools.cache
    def of(cls, *arguments):
        """The one instance with these arguments, which holds its traces."""
        return cls(*arguments)

    def product(self, x, w):
        """y(x, w)"""
        @tf.custom_gradient
        def apply(x, w):
            return self._trace('_product', x, w), lambda dy: (self.to_input(dy, w), self.to_weight(x, dy))
        return apply(x, w)

    def to_input(self, dy, w):
        """The gradient of <dy, y(x, w)> with respect to x."""
        @tf.custom_gradient
        def apply(dy, w):
            return self._trace('_to_input', dy, w), lambda u: (self.product(u, w), self.to_weight(u, dy))
        return apply(dy, w)

    def to_weight(self, x, dy):
        """The gradient of <dy, y(x, w)> with respect to w."""
        @tf.custom_gradient
        def apply(x, dy):
            return self._trace('_to_weight', x, dy), lambda v: (self.to_input(dy, v), self.product(x, v))
        return apply(x, dy)

    def _trace(self, name, *arguments):
        """Calls the function of this name, traced once for all its uses: a network differentiated twice has many."""
        signature = tuple(tf.TensorSpec(x.shape, x.dtype) for x in arguments)
        if (name, signature) not in self._traces:
            self._traces[name, signature] = tf.function(getattr(self, name), signature, autograph=False)
        return self._traces[name, signature](*arguments)
