"""Damaged lists of tasks, split files and prepared sets: one line, or what they held before."""

import json
import shutil

import numpy as np
import pytest
from damaged import each_damaged
from PIL import Image
from test_cifar import written  # noqa: F401  (a fixture: a prepared CIFAR-100)

from maml_tf.datasets.cifar import cifar_fs
from maml_tf.datasets.raw.folder_images import Wanted, mapped
from maml_tf.datasets.raw.folder_split import read_split_file
from maml_tf.episodes import manifest
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError, UserError

ODD = 'directory', 'fifo', 'missing'
SOURCE = ImageClasses.from_arrays(
    np.random.default_rng(0).integers(0, 256, (6, 5, 4, 4, 1), np.uint8), {'test': range(6)}
)


def test_lists_of_tasks(tmp_path):
    path = tmp_path / 'tasks.jsonl'
    manifest.write(path, SOURCE.tasks('test', EpisodeSpec(3, 1, 2), 1), 4, {'seed': 1})

    def read():
        sizes = manifest.sizes(path)
        tasks, count = manifest.read(path, SOURCE, 'test', EpisodeSpec(*sizes[:3]))
        return tasks.pick(0, count)

    def check(picks):
        images, classes = picks.images.numpy(), picks.classes.numpy()
        assert (images >= 0).all() and (images < 5).all()
        assert (classes >= 0).all() and (classes < 6).all()

    counts = each_damaged('lists of tasks', [path], read, [path], 60, 0.5, ODD, check)
    assert counts.refused


@pytest.mark.parametrize('number', ['Infinity', 'NaN', '1e999', '[]', '9' * 5000])
def test_a_number_of_tasks_that_is_none(tmp_path, number):
    path = tmp_path / 'tasks.jsonl'
    task = {'classes': ['0'], 'support': [['0/0']], 'query': [['0/1']], 'turns': []}
    path.write_text(f'{{"tasks": {number}}}\n{json.dumps(task)}\n')
    with pytest.raises(ArgumentError, match=f'^tasks_file={path}: '):
        manifest.sizes(path)


def test_names_with_other_ends_of_lines(tmp_path):
    """Unicode has several, and so can names of files."""
    names = ['a\u2028b', 'c\x85d', 'e\x1cf']
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 4, 1), np.uint8)
    classes = ImageClasses.from_arrays(images, {'test': range(3)}).split('test')
    load = lambda split: classes._replace(class_names=names, images=classes.images.numpy())
    source = ImageClasses(load, (4, 4, 1), ['test'])
    path = tmp_path / 'tasks.jsonl'
    tasks = source.tasks('test', EpisodeSpec(3, 1, 1), 1)
    manifest.write(path, tasks, 2, {})
    assert manifest.sizes(path).count == 2
    read, _ = manifest.read(path, source, 'test', EpisodeSpec(3, 1, 1))
    np.testing.assert_array_equal(read.pick(0, 2).images, tasks.pick(0, 2).images)


def test_split_files(tmp_path):
    path, names = tmp_path / 'split.csv', ['cat', 'dog', 'Ærø']
    path.write_text('class,split\ncat,train\ndog,val\nÆrø,test\n', 'utf-8')

    def check(of_class):
        assert sorted(of_class) == sorted(names)
        assert set(of_class.values()) <= {'train', 'val', 'test'}

    counts = each_damaged(
        'split files',
        *([path], lambda: read_split_file(path, names), [path], 60, 0.5, ODD, check),
    )
    assert counts.refused


def test_a_prepared_set(written, tmp_path):  # noqa: F811
    data_dir = shutil.copytree(written[0], tmp_path / 'tfds')
    folder = next(data_dir.glob('cifar100/*'))

    def read():
        return cifar_fs(data_dir).split('val')

    whole = read()

    def check(split):
        np.testing.assert_array_equal(split.images, whole.images)
        np.testing.assert_array_equal(split.sizes, whole.sizes)
        assert split.class_names == whole.class_names

    shards = sorted(folder.glob('*.tfrecord*'))
    files = [path for path in folder.iterdir() if path.is_file()] + shards * 3
    counts = each_damaged('prepared sets', files, read, [data_dir], 8, 0.15, ODD, check)
    assert counts.refused


def test_a_shard_that_ends_between_records(written, tmp_path):  # noqa: F811
    """No checksum tells it."""
    data_dir = shutil.copytree(written[0], tmp_path / 'tfds')
    path = next(data_dir.glob('cifar100/*/*train.tfrecord*'))
    content = path.read_bytes()
    last = at = 0
    while at < len(content):
        last, at = at, at + 8 + 4 + int.from_bytes(content[at : at + 8], 'little') + 4
    path.write_bytes(content[:last])
    with pytest.raises(UserError, match='cifar100.* is damaged .* examples are there'):
        cifar_fs(data_dir).split('val')


def test_images_that_stream(tmp_path):
    """The file of a set larger than memory, and the record beside it."""
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    for number in range(6):
        (tmp_path / f'class{number % 3}').mkdir(exist_ok=True)
        Image.fromarray(images[number]).save(tmp_path / f'class{number % 3}' / f'{number}.png')
    paths = {f'class{c}': sorted((tmp_path / f'class{c}').iterdir()) for c in range(3)}
    wanted = Wanted('train', tmp_path, paths, (8, 8, 3), 1)

    def read():
        values, outcome = mapped(wanted, tmp_path)
        return np.array(values), outcome

    def check(value):
        values, outcome = value
        assert values.shape == (6, 8, 8, 3) and outcome.kept.keys() <= paths.keys()

    read()
    files = sorted((tmp_path / '.maml_tf').iterdir())
    assert len(files) == 2
    counts = each_damaged('streamed images', files, read, [tmp_path], 60, 0.25, ODD[:2], check)
    assert counts.refused
