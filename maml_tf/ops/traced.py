"""Layers that many places of a program share a trace of."""

import functools

import tensorflow as tf


class Traced:
    """Methods of tensors, each traced once for all its uses: a network that is differentiated twice
    has hundreds."""

    def __init__(self):
        self._traces = {}

    @classmethod
    @functools.cache
    def of(cls, *arguments):
        """The one instance with these arguments, which holds its traces."""
        return cls(*arguments)

    def trace(self, method, *arguments):
        """Calls a method of this object."""
        signature = tuple(tf.TensorSpec(x.shape, x.dtype) for x in arguments)
        key = method.__name__, signature
        if key not in self._traces:
            # A partial, since TensorFlow counts traces by their code, and would warn of many.
            self._traces[key] = tf.function(functools.partial(method), signature, autograph=False)
        return self._traces[key](*arguments)
