"""Sequences of labelled images: classes, labels and order, counted in NumPy."""

import json

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.datasets.functions.sinusoid import Sinusoid
from maml_tf.episodes import manifest
from maml_tf.episodes.images import ClassImages, ImageClasses
from maml_tf.episodes.random_bits import KEYS, Stream
from maml_tf.episodes.task import Sequence, SequenceSpec
from maml_tf.errors import UserError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 6, 5, 5, 1), np.uint8)
SPLITS = {'train': list(range(7))}


def places(sequences, turns):
    """(classes, images, quarter turns, labels), each int [tasks, length]."""
    x, y = sequences.x.numpy(), sequences.y.numpy()
    assert (np.sort(y, -1)[..., :-1] == 0).all() and (y.sum(-1) == 1).all()
    turned = np.stack([np.rot90(IMAGES, turn, axes=(2, 3)) for turn in range(turns)], 2)
    found = {
        (image * np.float32(1 / 255)).tobytes(): index
        for index, image in zip(np.ndindex(7, 6, turns), turned.reshape(-1, 5, 5, 1))
    }
    where = np.array([[found[image.tobytes()] for image in task] for task in x])
    return *np.moveaxis(where, -1, 0), y.argmax(-1)


@pytest.mark.parametrize('rotations, turns', [('none', 1), ('classes', 4), ('per_class', 4)])
@pytest.mark.parametrize('way, length', [(3, 12), (3, 14), (5, 5), (2, 11)])
def test_by_brute_force(rotations, turns, way, length):
    source = ImageClasses.from_arrays(IMAGES, SPLITS, rotations)
    sequences = source.tasks('train', SequenceSpec(way, length), 2)(0, 60)
    assert isinstance(sequences, Sequence)
    assert sequences.x.shape == (60, length, 5, 5, 1) and sequences.y.shape == (60, length, way)
    for classes, images, quarters, labels in zip(*places(sequences, turns)):
        drawn = set()
        for label in range(way):
            there = labels == label
            assert there.sum() in (length // way, -(-length // way))
            ((kind, turn),) = {*zip(classes[there], quarters[there])}
            assert len(set(images[there])) == there.sum(), 'no image twice'
            drawn.add((kind, turn) if rotations == 'classes' else kind)
        assert len(drawn) == way, 'a class for each label'


def test_everything_is_drawn_alike_often():
    """Counts of 3000 sequences, within five standard deviations."""
    source = ImageClasses.from_arrays(IMAGES, SPLITS)
    sequences = source.tasks('train', SequenceSpec(3, 10), 0)(0, 3000)
    classes, images, _, labels = places(sequences, 1)

    def uniform(numbers, of):
        expected = len(numbers) / of
        assert np.abs(np.bincount(numbers, minlength=of) - expected).max() < 5 * expected**0.5

    for place in (0, 4, 9):
        uniform(classes[:, place], 7)
        uniform(images[:, place], 6)
        uniform(labels[:, place], 3)
        # The label says nothing of the class.
        uniform(classes[labels[:, place] == 0][:, place], 7)
    # Which label has one example more.
    uniform(np.array([np.bincount(task).argmax() for task in labels]), 3)
    # Neighbours: of 10 examples 4, 3 and 3 are of one class.
    same = np.mean(labels[:, 0] == labels[:, 1])
    assert abs(same - (4 * 3 + 2 * 3 * 2) / 90) < 5 * (0.27 * 0.73 / 3000) ** 0.5


@pytest.fixture
def streamed(tmp_path):
    np.save(tmp_path / 'pixels.npy', IMAGES.reshape(-1, 5, 5, 1))
    pixels = np.load(tmp_path / 'pixels.npy', mmap_mode='r')
    return ImageClasses(
        lambda split: ClassImages(pixels, np.full(7, 6)), (5, 5, 1), ('train',), 'classes'
    )


def test_a_sequence_is_a_function_of_its_number(streamed):
    source, spec = ImageClasses.from_arrays(IMAGES, SPLITS, 'classes'), SequenceSpec(5, 13)
    draw, from_file = source.tasks('train', spec, 3), streamed.tasks('train', spec, 3)
    assert from_file.streams and not draw.streams
    compiled = tf.function(draw, jit_compile=True)(tf.constant(4, tf.int64), 3)
    dataset = next(iter(source.dataset(spec, 3, seed=3).skip(2)))
    for whole, *parts in zip(draw(0, 9), draw(4, 3), from_file(4, 3), compiled):
        for part in parts:
            np.testing.assert_array_equal(whole[4:7], part)
    for ours, drawn in zip(dataset, draw(6, 3)):
        np.testing.assert_array_equal(ours, drawn)
    np.testing.assert_array_equal(draw(4, 3).key, Stream(3, 'train', KEYS).bits(4, 3, 2))
    other = source.tasks('train', spec, 4)(0, 9)
    assert np.any(other.x != draw(0, 9).x)


@pytest.mark.parametrize(
    'spec, words',
    [
        (SequenceSpec(8, 16), '^way=8: the train split has 7 classes'),
        (SequenceSpec(2, 13), '^length=13: 7 images per class are more than the 6 of the smallest'),
        (SequenceSpec(5, 4), '^length=4: at least one example of 5 classes'),
    ],
)
def test_what_the_classes_cannot_give(spec, words):
    with pytest.raises(UserError, match=words):
        ImageClasses.from_arrays(IMAGES, SPLITS).tasks('train', spec, 0)


def test_functions_have_no_sequences():
    with pytest.raises(UserError, match='spec=SequenceSpec.*regression has tasks only'):
        Sinusoid().tasks('train', SequenceSpec(1, 4), 0)


def test_a_list_of_sequences(streamed, tmp_path):
    """The list names the images that are drawn, and tells sequences apart."""
    draw = streamed.tasks('train', SequenceSpec(3, 7), 3)
    manifest.write(tmp_path / 'list.jsonl', draw, 4, {'way': 3})
    header, *lines = map(json.loads, (tmp_path / 'list.jsonl').read_text().splitlines())
    assert header == {'way': 3, 'tasks': 4}
    drawn = draw(0, 4)
    for line, x, y in zip(lines, drawn.x.numpy(), drawn.y.numpy(), strict=True):
        np.testing.assert_array_equal(np.eye(3)[line['labels']], y)
        for image, turn, pixels in zip(line['images'], line['turns'], x, strict=True):
            c, number = map(int, image.split('/'))
            expected = np.rot90(IMAGES[c, number], turn) * np.float32(1 / 255)
            np.testing.assert_array_equal(expected, pixels)
    assert manifest.fingerprint(draw, 4) == manifest.fingerprint(draw, 4)
    others = streamed.tasks('train', SequenceSpec(3, 7), 4)
    assert manifest.fingerprint(draw, 4) != manifest.fingerprint(others, 4)
