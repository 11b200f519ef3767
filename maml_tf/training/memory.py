"""Gives memory back that TensorFlow keeps of programs which are no longer used."""

import ctypes
import gc
import sys

from tensorflow.python.framework import ops

from maml_tf.ops.traced import Traced


def free_programs() -> None:
    """Frees the graphs of learners that are gone: of many, one after the other, it is gigabytes.

    No graph that lives on may be differentiated afterwards.
    """
    Traced.of.cache_clear()
    # TensorFlow keeps every custom gradient for ever, and with it the graph that it stands in.
    registry = ops.gradient_registry._registry
    for name in [name for name in registry if name.startswith('CustomGradient-')]:
        del registry[name]
    gc.collect()
    if sys.platform.startswith('linux'):
        ctypes.CDLL('libc.so.6').malloc_trim(0)
