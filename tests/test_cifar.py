"""CIFAR-FS and FC100 through TFDS's own builder, from an archive in CIFAR-100's format that the
test writes."""

import io
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.datasets import cifar
from maml_tf.datasets.cifar import cifar_fs, fc100
from maml_tf.datasets.raw.splits import class_names
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import Classification
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import metatrain_op
from maml_tf.training.outer_optimizers import adam

# The super-classes and their classes as CIFAR-100's authors list them; labels are alphabetical.
SUPER_CLASSES = {
    row.split(':')[0]: row.split(':')[1].split()
    for row in """
aquatic_mammals: beaver dolphin otter seal whale
fish: aquarium_fish flatfish ray shark trout
flowers: orchid poppy rose sunflower tulip
food_containers: bottle bowl can cup plate
fruit_and_vegetables: apple mushroom orange pear sweet_pepper
household_electrical_devices: clock keyboard lamp telephone television
household_furniture: bed chair couch table wardrobe
insects: bee beetle butterfly caterpillar cockroach
large_carnivores: bear leopard lion tiger wolf
large_man-made_outdoor_things: bridge castle house road skyscraper
large_natural_outdoor_scenes: cloud forest mountain plain sea
large_omnivores_and_herbivores: camel cattle chimpanzee elephant kangaroo
medium_mammals: fox porcupine possum raccoon skunk
non-insect_invertebrates: crab lobster snail spider worm
people: baby boy girl man woman
reptiles: crocodile dinosaur lizard snake turtle
small_mammals: hamster mouse rabbit shrew squirrel
trees: maple_tree oak_tree palm_tree pine_tree willow_tree
vehicles_1: bicycle bus motorcycle pickup_truck train
vehicles_2: lawn_mower rocket streetcar tank tractor""".strip().splitlines()
}
COARSE = sorted(SUPER_CLASSES)
FINE = sorted(name for names in SUPER_CLASSES.values() for name in names)
SUPER_CLASS = {name: coarse for coarse, names in SUPER_CLASSES.items() for name in names}
SIZES = {'cifar_fs': (64, 16, 20), 'fc100': (60, 20, 20)}


def archive(path, files):
    """Writes a .tgz of {name: bytes}."""
    with tarfile.open(path, 'w:gz', compresslevel=1) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def offline(patch, folder):
    """TFDS finds what it would download in `folder`, under the last part of the address."""

    def local(url):
        return folder / url.split('/')[-1].split('?')[0]

    def extracted(url):
        with tarfile.open(local(url)) as tar:
            tar.extractall(folder / f'{local(url).name}.extracted', filter='data')
        return folder / f'{local(url).name}.extracted'

    for name, function in (('download', local), ('download_and_extract', extracted)):
        patch.setattr(
            tfds.download.DownloadManager,
            name,
            lambda self, urls, function=function: (
                function(urls) if isinstance(urls, str) else [function(url) for url in urls]
            ),
        )


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """(TFDS directory, {class: {id: image}}); each class has a colour, and its own number of
    images."""
    raw, rng, expected = (
        tmp_path_factory.mktemp('raw'),
        np.random.default_rng(0),
        {name: {} for name in FINE},
    )
    colours, files = rng.integers(0, 192, (100, 3)), {}
    for part, least in (('train', 5), ('test', 2)):
        records = []
        labels = np.repeat(np.arange(100), least + np.arange(100) % 3)
        for i, label in enumerate(rng.permutation(labels)):
            image = (colours[label] + rng.integers(0, 64, (32, 32, 3))).astype(np.uint8)
            expected[FINE[label]][f'{part}_{i:05d}'] = image
            coarse = COARSE.index(SUPER_CLASS[FINE[label]])
            records.append(bytes([coarse, label]) + image.transpose(2, 0, 1).tobytes())
        files[f'cifar-100-binary/{part}.bin'] = b''.join(records)
    for kind, names in (('fine', FINE), ('coarse', COARSE)):
        files[f'cifar-100-binary/{kind}_label_names.txt'] = '\n'.join([*names, '']).encode()
    archive(raw / 'cifar-100-binary.tar.gz', files)
    data_dir = tmp_path_factory.mktemp('tfds')
    with pytest.MonkeyPatch.context() as patch:
        offline(patch, raw)
        tfds.builder('cifar100', data_dir=data_dir).download_and_prepare()
    return str(data_dir), expected


def source(name, data_dir):
    return {'cifar_fs': cifar_fs, 'fc100': fc100}[name](data_dir)


def classes_of(name, split):
    """What the published list says, in its order."""
    listed = class_names(name)[split]
    return (
        listed
        if name == 'cifar_fs'
        else [fine for coarse in listed for fine in SUPER_CLASSES[coarse]]
    )


@pytest.mark.parametrize('name', SIZES)
def test_class_lists(name):
    classes = [classes_of(name, split) for split in ('train', 'val', 'test')]
    assert tuple(map(len, classes)) == SIZES[name]
    assert sorted(sum(classes, [])) == FINE


@pytest.mark.parametrize('name', SIZES)
def test_holds_the_training_and_test_images_of_its_classes(name, written):
    data_dir, expected = written
    of_set = source(name, data_dir)
    for split in ('train', 'val', 'test'):
        images, sizes, names, ids, groups = of_set.split(split)[:5]
        assert names == classes_of(name, split)
        assert sizes.tolist() == [7 + 2 * (FINE.index(fine) % 3) for fine in names]
        by_id = [pair for fine in names for pair in sorted(expected[fine].items())]
        assert ids == [number for number, _ in by_id]
        np.testing.assert_array_equal(images, [image for _, image in by_id])
        assert [COARSE[group] for group in groups] == [SUPER_CLASS[fine] for fine in names]


@pytest.mark.parametrize('name', SIZES)
def test_tasks_by_brute_force(name, written):
    data_dir, expected = written
    owner = {
        image.tobytes(): fine for fine, images in expected.items() for image in images.values()
    }
    for split in ('train', 'val', 'test'):
        task = source(name, data_dir).tasks(split, EpisodeSpec(way=5, shot=2, query=3), seed=1)(
            0, 4
        )
        for support_x, support_y, query_x, query_y in zip(*task[:4]):
            x, y = (
                np.concatenate([support_x, query_x]),
                np.concatenate([support_y, query_y]).argmax(-1),
            )
            pixels = [np.round(image * 255).astype(np.uint8).tobytes() for image in x]
            found = np.array([owner[image] for image in pixels])
            assert (
                len(set(pixels)) == 25
                and len(set(found)) == 5
                and set(found) <= set(classes_of(name, split))
            )
            assert all(len(set(found[y == label])) == 1 for label in range(5))


def test_within_a_super_class(written):
    of_set = fc100(written[0])
    picks = of_set.tasks('val', EpisodeSpec(way=5, shot=1, query=1, within_groups=True), 0).pick(
        0, 50
    )
    groups = of_set.split('val').groups[picks.classes]
    assert (groups == groups[:, :1]).all() and len(set(groups[:, 0])) == 4


def test_reads_a_split_when_it_is_first_needed_and_once(written, monkeypatch):
    read, reads = cifar._read, []
    monkeypatch.setattr(cifar, '_read', lambda *arguments: reads.append(1) or read(*arguments))
    of_set = cifar_fs(written[0])
    assert not reads
    for _ in range(2):
        of_set.split('val')
        of_set.tasks('val', EpisodeSpec(5, 1, 1), 0)
    assert len(reads) == 1


@pytest.mark.parametrize('load, title', [(cifar_fs, 'CIFAR-FS'), (fc100, 'FC100')])
def test_a_directory_without_it(load, title, tmp_path):
    with pytest.raises(UserError) as raised:
        load(str(tmp_path))
    message = str(raised.value)
    assert message.startswith(f'data_dir={tmp_path}: no prepared CIFAR-100') and title in message
    assert (
        f'{tmp_path}/cifar100/3.0.2' in message
        and "tfds.load('cifar100')" in message
        and '\n' not in message
    )
    assert not list(tmp_path.iterdir())


def test_without_a_directory_it_is_downloaded_where_it_is_missing(written, tmp_path, monkeypatch):
    builder, downloads = tfds.builder, []
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, 'download_and_prepare', lambda self: downloads.append(self.name)
    )
    for default in (tmp_path, written[0]):
        monkeypatch.setattr(
            tfds,
            'builder',
            lambda name, data_dir, at=default: builder(name, data_dir=data_dir or at),
        )
        cifar_fs()
        assert downloads == ['cifar100']


def test_training(written):
    learner = MAML(
        FullyConnected((32, 32, 3), 5, (32,), 'batch_norm'),
        Classification(),
        inner_lr=0.05,
        inner_steps=1,
    )
    draw = cifar_fs(written[0]).tasks('train', EpisodeSpec(way=5, shot=1, query=3), seed=0)
    run = iterate(metatrain_op(learner, adam(1e-3)), draw, meta_batch_size=4)
    first, _, last = (run(20 * i, 20) for i in range(3))
    assert last['post_loss'] < first['post_loss'] and last['post_accuracy'] > 0.4
    assert all(tf.math.is_finite(value) for value in last.values())
