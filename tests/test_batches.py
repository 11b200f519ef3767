"""Plain labelled batches: passes over all images, counted in NumPy."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.datasets.functions.sinusoid import Sinusoid
from maml_tf.episodes.image_completion import ImageCompletion
from maml_tf.episodes.images import ClassImages, ImageClasses
from maml_tf.episodes.random_bits import PERMUTATION_WORDS, Stream, permuted
from maml_tf.episodes.task import Batch, BatchSpec
from maml_tf.errors import UserError

SIZES = [3, 6, 4]
IMAGES = np.random.default_rng(0).integers(0, 256, (13, 5, 5, 1), np.uint8)
CLASS_OF = np.repeat(range(3), SIZES)


def source(rotations='none', path=None):
    images = IMAGES
    if path:
        np.save(path, IMAGES)
        images = np.load(path, mmap_mode='r')
    return ImageClasses(lambda split: ClassImages(images, SIZES), (5, 5, 1), ('train',), rotations)


def places(batch, turns):
    """For each example (image, quarter turns, label)."""
    turned = np.stack([np.rot90(IMAGES, turn, axes=(1, 2)) for turn in range(turns)], 1)
    turned = turned * np.float32(1 / 255)
    for x, y in zip(batch.x.numpy(), batch.y.numpy()):
        match = np.argwhere((turned == x).all((2, 3, 4)))
        assert len(match) == 1 and sorted(set(y)) == [0, 1] and y.sum() == 1
        yield (*match[0].tolist(), int(np.argmax(y)))


@pytest.mark.parametrize('rotations, turns', [('none', 1), ('classes', 4), ('per_class', 1)])
@pytest.mark.parametrize('size', [1, 5, 13, 30])
def test_every_image_once_in_every_pass(rotations, turns, size):
    images = source(rotations)
    draw, total = images.tasks('train', BatchSpec(size), 7), 13 * turns
    count = -(-5 * total // size)
    batch = draw(0, count)
    assert isinstance(batch, Batch) and batch.x.shape == (count * size, 5, 5, 1)
    assert batch.y.shape == (count * size, 3 * turns)
    assert draw.classes_in_all == 3 * turns and draw.examples == total
    if rotations != 'per_class':  # Turned with the tasks only.
        assert images.count_classes('train') == 3 * turns
    drawn = list(places(batch, turns))
    orders = set()
    for start in range(0, 5 * total, total):
        one_pass = drawn[start : start + total]
        assert {pair[:2] for pair in one_pass} == set(itertools.product(range(13), range(turns)))
        for image, turn, label in one_pass:
            assert label == CLASS_OF[image] * turns + turn
        orders.add(tuple(one_pass))
    assert len(orders) == 5, 'every pass has an order of its own'


def test_a_batch_is_a_function_of_its_number():
    draw = source('classes').tasks('train', BatchSpec(9), 3)
    compiled = tf.function(draw, jit_compile=True)
    whole = draw(0, 40)
    for start, count in [(0, 1), (7, 3), (39, 1)]:
        at = tf.constant(start, tf.int64)
        for all_of_them, part, xla in zip(whole, draw(start, count), compiled(at, count)):
            np.testing.assert_array_equal(all_of_them[9 * start : 9 * (start + count)], part)
            np.testing.assert_array_equal(part, xla)
    far = compiled(tf.constant(10**12, tf.int64), 3)
    assert len({pair[:2] for pair in places(far, 4)}) >= 14
    others = [source('classes').tasks('train', BatchSpec(9), 4)(0, 5)]
    assert all(np.any(whole.x[:45] != other.x) for other in others)


def test_streamed_images_make_the_same_batches(tmp_path):
    draws = [
        source('classes', path).tasks('train', BatchSpec(9), 3)
        for path in (None, tmp_path / 'a.npy')
    ]
    assert [draw.streams for draw in draws] == [False, True]
    for in_memory, from_file in zip(*(draw(4, 3) for draw in draws)):
        np.testing.assert_array_equal(in_memory, from_file)


def test_the_dataset_gives_batches():
    draw, dataset = (
        source().tasks('train', BatchSpec(4), 1),
        source().dataset(BatchSpec(4), 2, seed=1),
    )
    for i, batch in enumerate(dataset.take(3)):
        assert isinstance(batch, Batch)
        for ours, drawn in zip(batch, draw(2 * i, 2)):
            np.testing.assert_array_equal(ours, drawn)


def test_train_and_validation_together():
    images = np.random.default_rng(1).integers(0, 256, (5, 4, 3, 3, 1), np.uint8)
    both = ImageClasses.from_arrays(images, {'train': [0, 1, 2], 'val': [3], 'test': [4]})
    batch = both.tasks('trainval', BatchSpec(16), 0)(0, 1)
    np.testing.assert_array_equal(np.sum(batch.y, 0), [4, 4, 4, 4])


def test_who_has_no_batches():
    for regression in (Sinusoid(), ImageCompletion(source())):
        with pytest.raises(UserError, match='spec=BatchSpec.*regression has tasks only'):
            regression.tasks('train', BatchSpec(4), 0)
    with pytest.raises(UserError, match='^size=0: at least 1'):
        source().tasks('train', BatchSpec(0), 0)


def orders(total, count):
    """`count` orders of `total` numbers, int [count, total]."""
    keys = Stream(0, 'train', 6).bits(0, count, PERMUTATION_WORDS)[:, None]
    return permuted(tf.tile(tf.range(total)[None], [count, 1]), total, keys).numpy()


@pytest.mark.parametrize('total', [1, 2, 3, 5, 16, 17, 100, 1000])
def test_orders_are_permutations(total):
    drawn = orders(total, 50)
    assert (np.sort(drawn, 1) == np.arange(total)).all()
    keys = Stream(0, 'train', 6).bits(0, 50, PERMUTATION_WORDS)[:, None]
    compiled = tf.function(
        lambda keys: permuted(tf.range(total)[None], total, keys), jit_compile=True
    )
    np.testing.assert_array_equal(compiled(keys), drawn)


def test_orders_of_a_few_are_alike_likely():
    """All 24 orders of 4 numbers: chi-square of 23 degrees, beyond 60 in one of 30,000 seeds."""
    drawn, counts = orders(4, 6000), {}
    for order in map(tuple, drawn):
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert sum((n - 250) ** 2 / 250 for n in counts.values()) < 60


@pytest.mark.parametrize('total', [13, 64, 200])
def test_places_and_neighbours_are_uniform(total):
    """Each number at each place, and each difference of neighbours: five standard deviations."""
    count = 4000
    drawn = orders(total, count)
    for place in (0, 1, total // 2, total - 1):
        numbers = np.bincount(drawn[:, place], minlength=total)
        expected = count / total
        assert np.abs(numbers - expected).max() < 5 * math.sqrt(expected)
    for stride in (1, 2, total // 2):
        differences = (drawn[:, 0] - drawn[:, stride]) % total
        numbers, expected = np.bincount(differences, minlength=total), count / (total - 1)
        assert numbers[0] == 0 and np.abs(numbers[1:] - expected).max() < 5 * math.sqrt(expected)


def test_known_order():
    """It stays the same in every version: batches are told by their numbers."""
    keys = Stream(1, 'train', 6).bits(0, 1, PERMUTATION_WORDS)
    assert permuted(tf.range(10), 10, keys).numpy().tolist() == [7, 5, 1, 6, 4, 3, 8, 0, 2, 9]
