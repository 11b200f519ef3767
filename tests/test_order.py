"""Mini-batches of a task's pool: against the authors' generator, in plain Python."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.episodes.order import minibatches
from maml_tf.episodes.random_bits import KEYS, Stream
from maml_tf.errors import UserError

KEY = Stream(0, 'train', KEYS).bits(0, 2000, 2)


def reference(passes, size, steps):
    """What openai/supervised-reptile's _mini_batches yields when its shuffles are `passes`."""
    batches, batch = [], []
    for example in itertools.chain.from_iterable(passes):
        batch.append(example)
        if len(batch) < size:
            continue
        batches.append(batch)
        batch = []
        if len(batches) == steps:
            return batches
    raise AssertionError('too few passes')


@pytest.mark.parametrize(
    'examples, size, steps',
    [(10, 5, 4), (10, 4, 7), (5, 10, 3), (15, 10, 8), (1, 1, 1), (3, 3, 1), (7, 2, 3)],
)
def test_passes_without_replacement(examples, size, steps):
    numbers = minibatches(KEY, examples, size, steps).numpy()
    assert numbers.shape == (2000, steps, size) and numbers.dtype == np.int32
    total = size * steps
    for task in numbers[:50]:
        flat = task.ravel().tolist()
        passes = [flat[i : i + examples] for i in range(0, total, examples)]
        for order in passes[:-1]:
            assert sorted(order) == list(range(examples))
        assert len(set(passes[-1])) == len(passes[-1]) and set(passes[-1]) <= set(range(examples))
        assert reference(passes, size, steps) == task.tolist()


def test_every_order_is_as_likely_in_every_pass():
    numbers = minibatches(KEY, 3, 3, 2).numpy()
    for step in range(2):
        counts = np.bincount(numbers[:, step] @ [9, 3, 1])
        counts = counts[counts > 0]
        assert len(counts) == 6 and np.abs(counts - 2000 / 6).max() < 5 * 16.7
    same = np.mean((numbers[:, 0] == numbers[:, 1]).all(1))
    assert abs(same - 1 / 6) < 5 * 0.0083, 'one pass does not tell the next'


def test_a_task_by_itself_and_compiled():
    numbers = minibatches(KEY[:9], 10, 4, 7).numpy()
    np.testing.assert_array_equal(minibatches(KEY[4:6], 10, 4, 7), numbers[4:6])
    np.testing.assert_array_equal(minibatches(KEY[:9], 10, 4, 12)[:, :7], numbers)
    compiled = tf.function(lambda key: minibatches(key, 10, 4, 7), jit_compile=True)
    np.testing.assert_array_equal(compiled(KEY[:9]), numbers)


def test_without_a_key():
    numbers = minibatches(None, 10, 5, 4).numpy()
    assert numbers.shape == (1, 4, 5)
    np.testing.assert_array_equal(numbers, minibatches(None, 10, 5, 4))
    assert sorted(numbers[0, :2].ravel()) == list(range(10))


@pytest.mark.parametrize('argument', ['examples', 'size', 'steps'])
def test_nothing_to_draw(argument):
    with pytest.raises(UserError, match=f'{argument}=0: at least 1'):
        minibatches(KEY, **{'examples': 5, 'size': 2, 'steps': 3, argument: 0})
