"""Runs before TensorFlow is imported."""

import os

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault(
    'CUDA_VISIBLE_DEVICES', '-1'
)  # The oracles compare float32 on one kind of device.
