"""The real Omniglot where it is prepared (beside the project, or in TFDS's own directory)."""
import numpy as np
import pytest
import tensorflow as tf
from golden import SHARED

from maml_tf.episodes.omniglot import omniglot, split_numbers
from maml_tf.episodes.splits import class_names
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError

DATA = SHARED / 'tfds'


def test_split_lists():
    lists = class_names('omniglot_cbfinn')
    assert [len(lists[split]) for split in ('train', 'val', 'test')] == [1100, 100, 423]
    assert len(set().union(*lists.values())) == 1623
    assert split_numbers(sorted(set().union(*lists.values())))['val'] != list(range(100))


def test_a_wrong_directory_is_named_at_once(tmp_path):
    with pytest.raises(UserError, match='no prepared Omniglot, looked for .*omniglot/3.0.0'):
        omniglot(str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope='module')
def source():
    if not DATA.exists():
        pytest.skip('no prepared Omniglot beside the project; test_episodes.py tests the same path on made-up images')
    return omniglot(str(DATA))


def test_pixels_are_nearest_neighbour_samples(source):
    import tensorflow_datasets as tfds
    train = tfds.load('omniglot', split='train', data_dir=str(DATA))
    names = tfds.builder('omniglot', data_dir=str(DATA)).info.features['label'].names
    pick = ((np.arange(28) + .5) * 105 / 28).astype(int)
    lists = class_names('omniglot_cbfinn')
    position = {name: (split, i) for split, listed in lists.items() for i, name in enumerate(listed)}
    images = {split: np.asarray(source.split(split).images).reshape(-1, 20, 28, 28) for split in lists}
    for example in train.take(25):
        expected = 255 - example['image'].numpy()[pick][:, pick, 0]
        alphabet, number = names[example['label']].rsplit('_', 1)
        assert number == str(int(example['alphabet_char_id']))
        split, i = position[f'{alphabet}/character{int(number) + 1:02d}']
        assert any(np.array_equal(expected, image) for image in images[split][i])
    assert set(np.unique(images['val'])) == {0, 255} and images['val'].mean() < 40  # ink is 255, there is little of it


def test_tasks(source):
    assert [len(source.split(split).sizes) for split in ('train', 'val', 'test')] == [1100, 100, 423]
    task = source.tasks('test', EpisodeSpec(way=20, shot=1, query=1), seed=1)(0, 2)
    assert task.support_x.shape == (2, 20, 28, 28, 1) and task.query_y.shape == (2, 20, 20)
    assert set(np.unique(task.support_x)) == {0., 1.}
    np.testing.assert_array_equal(tf.argmax(task.query_y, -1)[0], range(20))
