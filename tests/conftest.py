"""Runs before TensorFlow is imported, and after every test file."""

import os

import memory
import precision
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


@pytest.fixture(name='float64')
def compute_in_float64():
    """Makes the test's learners in float64."""
    with precision.float64():
        yield
