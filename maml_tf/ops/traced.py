"""Functions that are traced once and called from many places of a program."""

import functools
from collections.abc import Callable
from typing import Any, Self

import tensorflow as tf


class Traced:
    """Keeps one trace of each of its methods and shapes, for all the places that call it.

    A network that is differentiated twice calls such methods hundreds of times, and tracing them
    each time takes longer than compiling.
    """

    def __init__(self):
        self._traces = {}

    @classmethod
    @functools.cache
    def of(cls, *arguments: Any) -> Self:
        """Returns the one instance with these arguments, which holds its traces."""
        return cls(*arguments)

    def trace(self, method: Callable[..., Any], *arguments: tf.Tensor) -> Any:
        """Calls a method of this object, tracing it the first time that it meets these shapes."""
        signature = tuple(tf.TensorSpec(x.shape, x.dtype) for x in arguments)
        key = method.__name__, signature
        if key not in self._traces:
            # A partial, since TensorFlow counts traces by their code, and would warn of many.
            self._traces[key] = tf.function(functools.partial(method), signature, autograph=False)
        return self._traces[key](*arguments)
