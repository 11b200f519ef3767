"""Runs before TensorFlow is imported, and after every test file."""

import os

import memory
import pytest

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# The oracles compare float32 on one kind of device.
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '-1')
# oneDNN's own allocator keeps what was once the most.
os.environ.setdefault('TF_ONEDNN_USE_SYSTEM_ALLOCATOR', '1')


@pytest.fixture(scope='module', autouse=True)
def free_memory():
    """Frees what the tests of a file leave behind."""
    yield
    memory.free()


@pytest.fixture
def float64():
    """Learners and layers compute in float64."""
    import keras

    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx('float64')
    keras.config.set_dtype_policy('float64')
    yield
    keras.config.set_dtype_policy(before[0])
    keras.config.set_floatx(before[1])
