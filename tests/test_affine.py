"""Distortions against plain loops, and their random numbers."""

import math

import metric_oracle as oracle
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.episodes.random_bits import Stream
from maml_tf.ops import affine


def bits(n, seed=0):
    return Stream(seed, 'train', 0).bits(0, n, affine.WORDS)


@pytest.mark.parametrize('shape', [(13, 13), (9, 14)])
@pytest.mark.parametrize('background', [0.0, 1.0])
def test_distort_equals_the_loops(shape, background):
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(6, *shape, 2))
    parts = affine.components(bits(6)).numpy().astype(float)
    parts[0] = [math.radians(10), 0.3, -0.3, 0.8, 1.2, 2, -2]
    parts[1] = [math.radians(170), 0, 0, 1, 1, 30, 0]
    distorted = tf.function(affine.distort, jit_compile=True)(
        tf.constant(images), tf.constant(parts), background
    )
    for image, (theta, *rest), out in zip(images, parts, distorted.numpy()):
        for channel in range(2):
            expected = oracle.distort(
                image[..., channel], math.degrees(theta), rest[:2], rest[2:4], rest[4:], background
            )
            np.testing.assert_allclose(out[..., channel], expected, atol=1e-9)


def test_neutral_components_change_nothing():
    images = np.random.default_rng(0).uniform(size=(2, 8, 8, 1)).astype(np.float32)
    nothing = tf.constant([[0.0, 0, 0, 1, 1, 0, 0]] * 2)
    np.testing.assert_array_equal(affine.distort(tf.constant(images), nothing), images)


def test_components_are_there_half_of_the_time_and_uniform():
    drawn = affine.components(bits(20000)).numpy()
    neutral, low, high = (
        np.float32(values) for values in (affine._NEUTRAL, affine._LOW, affine._HIGH)
    )
    np.testing.assert_allclose(high[[0, 1, 3, 5]], [math.pi / 18, 0.3, 1.2, 2], rtol=1e-6)
    np.testing.assert_allclose(low[[0, 1, 3, 5]], [-math.pi / 18, -0.3, 0.8, -2], rtol=1e-6)
    there = drawn != neutral
    assert np.abs(there.mean(0) - 0.5).max() < 0.015
    assert np.abs(np.corrcoef(there, rowvar=False) - np.eye(affine.WORDS)).max() < 0.03
    for column, a, b in zip(range(affine.WORDS), low, high):
        values = np.sort((drawn[there[:, column], column] - a) / (b - a))
        assert values[0] >= 0 and values[-1] < 1
        assert (
            np.abs(values - np.linspace(0, 1, len(values))).max() < 0.02
        )  # Kolmogorov and Smirnov's
