"""Episodes: pure functions of (seed, split, index), and the tasks that they claim to be."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.datasets.functions.sinusoid import Sinusoid
from maml_tf.episodes.class_images import pixels
from maml_tf.episodes.images import ClassImages, ImageClasses
from maml_tf.episodes.random_bits import Stream, choose, uniform
from maml_tf.episodes.task import BatchSpec, EpisodeSpec

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (12, 6, 5, 5, 1), np.uint8)
SPLITS = {'train': list(range(8)), 'val': [8, 9], 'test': [10, 11]}
SPEC = EpisodeSpec(way=4, shot=2, query=3)


def test_bits_do_not_depend_on_the_batch_or_on_compilation():
    stream = Stream(5, 'train', 0)
    all_rows = stream.bits(0, 40, 13).numpy()
    compiled = tf.function(stream.bits, jit_compile=True)
    for start, count in [(7, 5), (0, 1), (39, 1)]:
        np.testing.assert_array_equal(
            stream.bits(start, count, 13), all_rows[start : start + count]
        )
        np.testing.assert_array_equal(
            compiled(tf.constant(start, tf.int64), count, 13), all_rows[start : start + count]
        )


def test_streams_differ():
    rows = [
        Stream(seed, split, stream).bits(0, 1, 8).numpy().tobytes()
        for seed in (0, 1)
        for split in ('train', 'val', 'test')
        for stream in (0, 1)
    ]
    assert len(set(rows)) == len(rows)


def test_known_bits():
    """These words stay the same in every version: published results name tasks by their index."""
    assert Stream(1, 'test', 0).bits(3, 1, 4).numpy().tolist() == [
        [2187586186, 3310891119, 461936391, 2735030580]
    ]


def test_uniform_and_choose():
    bits = Stream(0, 'train', 0).bits(0, 4000, 10)
    values = uniform(bits, -2.0, 3.0).numpy()
    assert values.min() >= -2 and values.max() < 3 and values.mean() == pytest.approx(0.5, abs=0.02)
    chosen = choose(bits, 4).numpy()
    assert all(len(set(row)) == 4 for row in chosen)
    # Every number is equally likely at every place: 4000 / 10 expected, standard deviation 19.
    counts = np.array([np.bincount(chosen[:, place], minlength=10) for place in range(4)])
    assert np.abs(counts - 400).max() < 5 * 19


def test_choose_breaks_ties_alike_compiled():
    bits = tf.zeros([2, 9], tf.uint32)
    np.testing.assert_array_equal(choose(bits, 3), tf.function(choose, jit_compile=True)(bits, 3))


@pytest.fixture(scope='module', params=['images', 'turned images', 'sinusoid', 'oracle'])
def source_and_spec(request):
    if 'images' in request.param:
        return ImageClasses.from_arrays(
            IMAGES, SPLITS, 'per_class' if 'turned' in request.param else 'none'
        ), SPEC
    return Sinusoid(oracle=request.param == 'oracle'), EpisodeSpec(1, 5, 7)


def test_a_task_is_a_function_of_its_index(source_and_spec):
    source, spec = source_and_spec
    draw = source.tasks('train', spec, seed=3)
    compiled = tf.function(draw, jit_compile=True)
    batch = draw(0, 9)
    for start, count in [(4, 3), (8, 1)]:
        for whole, part, xla in zip(
            batch[:4], draw(start, count), compiled(tf.constant(start, tf.int64), count)
        ):
            np.testing.assert_array_equal(whole[start : start + count], part)
            np.testing.assert_allclose(
                part, xla, rtol=1e-5, atol=1e-6
            )  # sin() is compiled to other rounding


@pytest.mark.slow
def test_the_same_task_in_another_process():
    program = (
        'import zlib, numpy as np, test_episodes as t; '
        "task = t.ImageClasses.from_arrays(t.IMAGES, t.SPLITS, 'per_class').tasks('train', "
        't.SPEC, 3)(5, 2); '
        'print(zlib.crc32(b"".join(np.asarray(x).tobytes() for x in task[:4])))'
    )
    outputs = {
        subprocess.run(
            [sys.executable, '-c', program],
            cwd=__file__.rsplit('/', 1)[0],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for _ in range(2)
    }
    assert len(outputs) == 1


@pytest.mark.parametrize('rotate', [False, True])
def test_image_tasks_by_brute_force(rotate):
    """Every image is found in the data; classes of the split, distinct; images distinct; one turn
    per class."""
    turns_seen = set()
    tasks = ImageClasses.from_arrays(IMAGES, SPLITS, 'per_class' if rotate else 'none').tasks(
        'train', SPEC, 0
    )(0, 30)
    for support_x, support_y, query_x, query_y in zip(*tasks[:4]):
        classes = []
        for label in range(SPEC.way):
            support = [x for x, y in zip(support_x, support_y) if np.argmax(y) == label]
            query = [x for x, y in zip(query_x, query_y) if np.argmax(y) == label]
            assert len(support) == SPEC.shot and len(query) == SPEC.query
            found = {find(image.numpy(), rotate) for image in support + query}
            assert len(found) == SPEC.shot + SPEC.query
            ((number, turn),) = {(number, turn) for number, _, turn in found}
            classes.append(number)
            turns_seen.add(turn)
        assert len(set(classes)) == SPEC.way and set(classes) <= set(SPLITS['train'])
    assert turns_seen == ({0, 1, 2, 3} if rotate else {0})


def find(image, rotate):
    """(class, image number, quarter turns) of a task's image."""
    for turn in range(4 if rotate else 1):
        match = np.argwhere(
            (np.rot90(IMAGES, turn, axes=(2, 3)) * np.float32(1 / 255) == image).all((2, 3, 4))
        )
        if len(match):
            return *match[0].tolist(), turn
    raise AssertionError('an image that is not in the data')


def test_classes_of_different_sizes():
    sizes = [3, 6, 4]
    images = np.repeat(np.arange(13, dtype=np.uint8), 4).reshape(
        13, 2, 2, 1
    )  # every pixel is the image's number
    source = ImageClasses(lambda split: ClassImages(images, sizes), (2, 2, 1))
    task = source.tasks('train', EpisodeSpec(way=3, shot=2, query=1), 0)(0, 200)
    numbers = (
        np.concatenate(
            [np.reshape(x, [200, 3, -1, 4])[..., 0] for x in (task.support_x, task.query_x)], 2
        )
        * 255
    )
    seen = {frozenset(np.searchsorted([2.5, 8.5], row)) for row in numbers.reshape(600, 3)}
    assert seen == {frozenset([c]) for c in range(3)}, 'a task mixes classes'
    assert set(numbers.round().astype(int).ravel()) == set(range(13)), 'an image is never drawn'


def test_growing_shots_keep_classes_and_images():
    source = ImageClasses.from_arrays(IMAGES, SPLITS)
    draw = lambda shot: source.tasks('test', EpisodeSpec(2, shot, 1), 1)(0, 4).support_x
    np.testing.assert_array_equal(draw(1)[:, 1], draw(3)[:, 3])


def test_images_that_are_not_square_are_not_turned():
    wide = np.zeros((3, 4, 5, 6, 1), np.uint8)
    for spec in (EpisodeSpec(2, 1, 1), BatchSpec(4)):
        with pytest.raises(ValueError, match='^rotations=classes: images of 5x6 have no quarter'):
            ImageClasses.from_arrays(wide, {'train': [0, 1, 2]}, 'classes').tasks('train', spec, 0)


@pytest.mark.parametrize('shape', [(1, 2, 3, 5, 5, 1), (4, 5, 5, 3)])
@pytest.mark.parametrize('compiled', [False, True])
def test_pixels_by_brute_force(shape, compiled):
    images = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    turns = np.random.default_rng(2).integers(0, 4, shape[:-3]).astype(np.int32)
    expected = np.empty(shape, np.float32)
    for place in np.ndindex(*turns.shape):
        expected[place] = np.rot90(images[place], turns[place]) * np.float32(1 / 255)
    function = tf.function(pixels, jit_compile=True) if compiled else pixels
    np.testing.assert_array_equal(function(images, turns), expected)
    np.testing.assert_array_equal(function(images), images * np.float32(1 / 255))


def test_words_of_a_bad_seed_or_split():
    for arguments, words in [((-1, 'train'), '^seed=-1: '), ((0, 'all'), '^split=all: one of ')]:
        with pytest.raises(ValueError, match=words):
            Stream(*arguments, 0)


def test_what_a_split_cannot_give():
    source = ImageClasses.from_arrays(IMAGES, SPLITS)
    with pytest.raises(ValueError, match='^way=3: the val split has 2 classes'):
        source.tasks('val', EpisodeSpec(3, 1, 1), 0)
    with pytest.raises(ValueError, match='^shot=4: 4 support . 3 query.* 6 of'):
        source.tasks('val', EpisodeSpec(2, 4, 3), 0)


def test_sinusoid_is_the_paper_s():
    task = Sinusoid(oracle=True).tasks('train', EpisodeSpec(1, 10, 10), 0)(0, 2000)
    x, amplitude, phase = np.moveaxis(np.concatenate([task.support_x, task.query_x], 1), -1, 0)
    y = np.concatenate([task.support_y, task.query_y], 1)[..., 0]
    np.testing.assert_allclose(y, amplitude * np.sin(x - phase), atol=1e-5)
    for values, low, high in [(x, -5, 5), (amplitude, 0.1, 5), (phase, 0, np.pi)]:
        assert low <= values.min() and values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, rel=0.05, abs=0.1)
    plain = Sinusoid().tasks('train', EpisodeSpec(1, 10, 10), 0)(0, 2000)
    np.testing.assert_array_equal(plain.support_x[..., 0], x[:, :10])
    np.testing.assert_array_equal(plain.query_y[..., 0], y[:, 10:])


def test_curves_show_the_tasks_that_are_scored():
    source, spec = Sinusoid(), EpisodeSpec(1, 5, 5)
    curves, task = source.curves('test', spec, 1, 3, 50), source.tasks('test', spec, 1)(0, 3)
    np.testing.assert_array_equal(curves.support_x, task.support_x)
    np.testing.assert_allclose(curves.support_y, task.support_y)
    nearest = np.argmin(np.abs(curves.query_x - task.query_x[:, 0, None]), axis=1)
    assert (
        np.abs(
            np.take_along_axis(curves.query_y.numpy(), nearest[:, None], 1)[:, 0]
            - task.query_y[:, 0]
        ).max()
        < 0.6
    )
