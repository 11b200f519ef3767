"""The real Omniglot where it is prepared (beside the project, or in TFDS's own directory), in every
convention."""

import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from golden import SHARED
from PIL import Image

from maml_tf.datasets.omniglot import Convention, omniglot
from maml_tf.datasets.raw.splits import class_names
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError

DATA = SHARED / 'tfds'
SIZES = {'cbfinn': [1100, 100, 423], 'vinyals': [1028, 172, 423], 'lake': [964, 659]}


@pytest.mark.parametrize('split', SIZES)
def test_split_lists(split):
    lists = class_names(f'omniglot_{split}')
    assert list(map(len, lists.values())) == SIZES[split]
    assert len(set().union(*lists.values())) == 1623, 'disjoint and complete'
    alphabets = {part: {name.split('/')[0] for name in listed} for part, listed in lists.items()}
    if split == 'lake':
        assert [len(names) for names in alphabets.values()] == [30, 20] and not alphabets[
            'train'
        ] & alphabets['test']
    if split == 'vinyals':
        assert [len(names) for names in alphabets.values()] == [33, 5, 13]
        assert alphabets['train'] & alphabets['test'] == {'Gurmukhi'}


def test_a_wrong_directory_is_named_at_once(tmp_path):
    with pytest.raises(UserError, match='no prepared Omniglot, looked for .*omniglot/3.0.0'):
        omniglot(str(tmp_path))
    assert not list(tmp_path.iterdir())


needs_data = pytest.mark.skipif(
    not DATA.exists(),
    reason='no prepared Omniglot beside the project; test_episodes.py '
    'tests the same path on made-up images',
)


@pytest.fixture(scope='module')
def source():
    if not DATA.exists():
        pytest.skip(
            'no prepared Omniglot beside the project; test_episodes.py tests the same path on '
            'made-up images'
        )
    return omniglot(str(DATA))


@pytest.fixture(scope='module')
def some_drawings():
    """25 drawings as TFDS has them: [(Alphabet/characterNN, uint8 [105, 105], dark ink)]."""
    import tensorflow_datasets as tfds

    train = tfds.load('omniglot', split='train', data_dir=str(DATA))
    names = tfds.builder('omniglot', data_dir=str(DATA)).info.features['label'].names
    drawings = []
    for example in train.take(25):
        alphabet, number = names[example['label']].rsplit('_', 1)
        assert number == str(int(example['alphabet_char_id']))
        drawings.append(
            (f'{alphabet}/character{int(number) + 1:02d}', example['image'].numpy()[..., 0])
        )
    return drawings


def images_of(source, name):
    """[20, side, side]: all drawings of a character."""
    for split in source.splits:
        classes = source.split(split)
        if name in classes.class_names:
            number = classes.class_names.index(name)
            return np.asarray(classes.images).reshape(-1, 20, *source.input_shape[:2])[number]
    raise AssertionError(name)


def test_pixels_are_nearest_neighbour_samples(source, some_drawings):
    pick = ((np.arange(28) + 0.5) * 105 / 28).astype(int)
    for name, drawing in some_drawings:
        expected = 255 - drawing[pick][:, pick]
        assert any(np.array_equal(expected, image) for image in images_of(source, name))
    images = source.split('val').images
    assert (
        set(np.unique(images)) == {0, 255} and np.mean(images) < 40
    )  # ink is 255, there is little of it


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize(
    'convention',
    [
        Convention('lake', image_size=105),
        Convention('vinyals', image_size=20, ink='dark', resize='lanczos'),
    ],
    ids=lambda convention: f'{convention.class_split}-{convention.image_size}',
)
def test_other_conventions(convention, some_drawings):
    source = omniglot(str(DATA), convention)
    assert [len(source.split(split).sizes) for split in source.splits] == SIZES[
        convention.class_split
    ]
    size = (convention.image_size, convention.image_size)
    for name, drawing in some_drawings:
        small = (
            drawing
            if convention.image_size == 105
            else np.asarray(Image.fromarray(drawing).resize(size, Image.Resampling.LANCZOS))
        )
        expected = 255 - small if convention.ink == 'bright' else small
        assert any(np.array_equal(expected, image) for image in images_of(source, name))
    if convention.class_split == 'lake':
        with pytest.raises(
            UserError,
            match='^split: there are no val classes, only train and test; evaluate on the test',
        ):
            source.tasks('val', EpisodeSpec(5, 1, 1), 0)


def test_tasks(source):
    assert [len(source.split(split).sizes) for split in ('train', 'val', 'test')] == SIZES['cbfinn']
    assert all(set(source.split(split).sizes) == {20} for split in ('train', 'val', 'test'))
    task = source.tasks('test', EpisodeSpec(way=20, shot=1, query=1), seed=1)(0, 2)
    assert task.support_x.shape == (2, 20, 28, 28, 1) and task.query_y.shape == (2, 20, 20)
    assert set(np.unique(task.support_x)) == {0.0, 1.0}
    np.testing.assert_array_equal(tf.argmax(task.query_y, -1)[0], range(20))


def test_one_alphabet_a_task(source):
    tasks = source.tasks('test', EpisodeSpec(way=5, shot=1, query=1, within_groups=True), seed=1)
    names = np.array(tasks.classes.class_names)[tasks.pick(0, 50).classes]
    alphabets = {tuple(sorted({name.split('/')[0] for name in task})) for task in names}
    assert all(len(alphabet) == 1 for alphabet in alphabets) and len(alphabets) > 10


@pytest.mark.slow
def test_rotations_as_classes_quadruple_them(source):
    vinyals = omniglot(str(DATA), Convention('vinyals'))
    assert vinyals.tasks('train', EpisodeSpec(60, 1, 1), 0).pick.candidates == 4112
    rotated_in_training_only = omniglot(str(DATA), Convention('vinyals', test_rotations='none'))
    assert [
        rotated_in_training_only.tasks(split, EpisodeSpec(5, 1, 1), 0).pick.candidates
        for split in ('train', 'val', 'test')
    ] == [4112, 172, 423]
    assert vinyals.tasks('trainval', EpisodeSpec(5, 1, 1), 0).pick.candidates == 4 * 1200


@pytest.mark.slow
def test_the_same_pixels_in_another_process(source):
    program = (
        'import zlib, numpy as np; from maml_tf.terminal import quiet; quiet.import_tensorflow(); '
        'from maml_tf.datasets.omniglot import omniglot; from maml_tf.episodes.task import '
        'EpisodeSpec; '
        f'task = omniglot({str(DATA)!r}).tasks("test", EpisodeSpec(5, 1, 1), 1)(7, 2); '
        'print(zlib.crc32(np.asarray(task.query_x).tobytes()))'
    )
    printed = subprocess.run(
        [sys.executable, '-c', program], check=True, capture_output=True, text=True
    ).stdout
    batch = source.tasks('test', EpisodeSpec(5, 1, 1), 1)(0, 12)
    assert int(printed) == zlib.crc32(batch.query_x[7:9].numpy().tobytes())
