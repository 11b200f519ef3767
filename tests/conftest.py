"""Runs before TensorFlow is imported, and after every test file."""

import ctypes
import gc
import os
import sys

import pytest

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# The oracles compare float32 on one kind of device.
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '-1')


@pytest.fixture(scope='module', autouse=True)
def free_memory():
    """Frees the graphs of a file's tests: the suite would hold several gigabytes in the end."""
    yield
    if 'tensorflow' not in sys.modules:
        return
    from tensorflow.python.framework import ops

    from maml_tf.ops.traced import Traced

    Traced.of.cache_clear()
    # TensorFlow keeps every custom gradient for ever, and with it the graph that it stands in.
    registry = ops.gradient_registry._registry
    for name in [name for name in registry if name.startswith('CustomGradient-')]:
        del registry[name]
    gc.collect()
    if sys.platform.startswith('linux'):
        ctypes.CDLL('libc.so.6').malloc_trim(0)
