"""Images that are read while tasks are computed: the same tasks, and both at a time."""

import os
import time

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.datasets.functions.sinusoid import Sinusoid
from maml_tf.episodes.images import ClassImages, ImageClasses
from maml_tf.episodes.streaming import in_two_parts, on_fresh_tasks, streams
from maml_tf.episodes.task import BatchSpec, EpisodeSpec, SequenceSpec

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 5, 5, 1), np.uint8)
COUNT = 3


@pytest.fixture
def source(tmp_path):
    np.save(tmp_path / 'pixels.npy', IMAGES)
    pixels = np.load(tmp_path / 'pixels.npy', mmap_mode='r')
    return lambda rotations='none': ImageClasses(
        lambda split: ClassImages(pixels, np.full(4, 6)), (5, 5, 1), ('train',), rotations
    )


def int64(number):
    return tf.constant(number, tf.int64)


def total(drawn, step):
    """A number that tells what was drawn, and when."""
    return tf.reduce_sum(drawn[0]) * tf.cast(1 + step, tf.float32)


@pytest.mark.parametrize('xla', [True, False])
@pytest.mark.parametrize('spec', [EpisodeSpec(3, 1, 2), BatchSpec(4), SequenceSpec(3, 7)])
@pytest.mark.parametrize('rotations', ['none', 'classes'])
def test_in_one_and_in_two_parts(source, spec, rotations, xla):
    draw = source(rotations).tasks('train', spec, 0)
    assert streams(draw)
    expected = total(draw(6, COUNT), tf.constant(2))
    np.testing.assert_allclose(
        on_fresh_tasks(total, draw, COUNT, xla)(int64(6), int64(2)), expected, rtol=1e-6
    )
    parts = in_two_parts(total, draw, COUNT, xla)
    np.testing.assert_allclose(parts.compute(parts.fetch(int64(6)), int64(2)), expected, rtol=1e-6)


@pytest.mark.parametrize('xla', [True, False])
def test_what_does_not_stream(xla):
    draw = Sinusoid().tasks('train', EpisodeSpec(1, 3, 4), 0)
    for drawing in (draw, lambda start, count: draw(start, count)):
        assert not streams(drawing)
        np.testing.assert_allclose(
            on_fresh_tasks(total, drawing, COUNT, xla)(int64(6), int64(2)),
            total(draw(6, COUNT), tf.constant(2)),
            rtol=1e-5,
        )


@pytest.mark.skipif(os.cpu_count() < 2, reason='one core does one thing at a time')
def test_the_next_is_read_while_this_one_is_computed(source, monkeypatch):
    """As in_two_parts' docstring says. Whoever waits is counted, not timed."""
    reading, computing, both = [], [], []
    read = ClassImages._read

    def slow_read(classes, numbers):
        reading.append(1)
        time.sleep(0.2)
        both.append(bool(computing))
        reading.pop()
        return read(classes, numbers)

    def slow_total(value):
        computing.append(1)
        time.sleep(0.2)
        both.append(bool(reading))
        computing.pop()
        return value

    monkeypatch.setattr(ClassImages, '_read', slow_read)
    draw = source().tasks('train', EpisodeSpec(3, 1, 2), 0)
    slowly = lambda task, step: tf.ensure_shape(
        tf.numpy_function(slow_total, [total(task, step)], tf.float32), []
    )
    parts = in_two_parts(slowly, draw, COUNT, xla=False)

    @tf.function(autograph=False)
    def run(first, last):
        def body(i, fetched, so_far):
            following = parts.fetch((i + 1) * COUNT)
            return i + 1, following, so_far + parts.compute(fetched, i)

        start = first, parts.fetch(first * COUNT), 0.0
        return tf.while_loop(lambda i, *_: i < last, body, start, parallel_iterations=1)[-1]

    result = run(int64(2), int64(7))
    assert sum(both) >= 2, 'reading and computing never met'
    monkeypatch.setattr(ClassImages, '_read', read)
    expected = sum(total(draw(i * COUNT, COUNT), tf.constant(i)) for i in range(2, 7))
    np.testing.assert_allclose(result, expected, rtol=1e-5)
