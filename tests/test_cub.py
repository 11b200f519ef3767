"""CUB through TFDS's own builder, from archives in CUB-200-2011's format that the test writes; and
mapped files."""

import io
import os
import resource
import sys
import time
import types

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image
from test_cifar import archive, offline

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.datasets import cub as cub_module
from maml_tf.datasets.cub import attributes, cub
from maml_tf.datasets.raw import memory_map
from maml_tf.datasets.raw.memory_map import gathered, memory_mapped
from maml_tf.datasets.raw.splits import class_names
from maml_tf.episodes.streaming import on_fresh_tasks
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import Classification
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import metatrain_op
from maml_tf.training.outer_optimizers import adam

SIDE = 12
SPLITS = ('train', 'val', 'test')
CLASSES = sorted(name for names in class_names('cub').values() for name in names)


def encoded(image, format):
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def write_raw(folder, images):
    """CUB's two archives from {(class, file): JPEG}; every third image is a test image."""
    files, masks, lists = {}, {}, {'images': [], 'train_test_split': [], 'bounding_boxes': []}
    for i, ((name, file), jpeg) in enumerate(images.items(), start=1):
        files[f'CUB_200_2011/images/{name}/{file}'] = jpeg
        with Image.open(io.BytesIO(jpeg)) as image:
            masks[f'segmentations/{name}/{file[:-4]}.png'] = encoded(
                Image.new('L', image.size), 'PNG'
            )
        for table, value in zip(lists, (f'{name}/{file}', int(i % 3 > 0), '1.0 2.0 8.0 9.0')):
            lists[table].append(f'{i} {value}\n')
    tables = {
        f'CUB_200_2011/{table}.txt': ''.join(lines).encode() for table, lines in lists.items()
    }
    archive(folder / 'CUB_200_2011.tgz', tables | files)
    archive(folder / 'segmentations.tgz', masks)


def prepare(raw, data_dir):
    """TFDS reads the masks, which the package does not use, with OpenCV: here with Pillow."""

    def imdecode(buffer, flags):
        assert flags == 0
        return np.asarray(Image.open(io.BytesIO(buffer.tobytes())).convert('L'))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, 'cv2', types.SimpleNamespace(imdecode=imdecode))
        offline(patch, raw)
        tfds.builder('caltech_birds2011', data_dir=data_dir).download_and_prepare()


def resized(jpeg, side):
    """The same by another way: the channels apart."""
    channels = [
        channel.resize((side, side), Image.LANCZOS)
        for channel in Image.open(io.BytesIO(jpeg)).split()
    ]
    return np.stack([np.asarray(channels[i % len(channels)]) for i in range(3)], -1)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """(TFDS directory, {class: {file: JPEG}}); images of many sizes, grey ones among them, and a
    colour a class."""
    raw, rng, images = tmp_path_factory.mktemp('raw'), np.random.default_rng(0), {}
    for c, name in enumerate(CLASSES):
        colour = rng.integers(0, 192, 3)
        for i in rng.permutation(4 + c % 3):
            height, width = rng.integers(SIDE - 4, 3 * SIDE, 2)
            pixels = (colour + rng.integers(0, 64, (height, width, 3))).astype(np.uint8)
            image = Image.fromarray(pixels[..., 0] if (c + i) % 7 == 0 else pixels)
            images[name, f'{name[4:]}_{i:04d}_{rng.integers(100000)}.jpg'] = encoded(image, 'JPEG')
    write_raw(raw, images)
    data_dir = tmp_path_factory.mktemp('tfds')
    prepare(raw, data_dir)
    expected = {name: {} for name in CLASSES}
    for (name, file), jpeg in images.items():
        expected[name][file] = jpeg
    return data_dir, expected


@pytest.fixture
def copy(written, tmp_path):
    """A TFDS directory with the set, by links."""
    (tmp_path / 'caltech_birds2011' / '0.2.0').mkdir(parents=True)
    for path in (written[0] / 'caltech_birds2011' / '0.2.0').iterdir():
        (tmp_path / 'caltech_birds2011' / '0.2.0' / path.name).symlink_to(path)
    return tmp_path


def cached(data_dir):
    return sorted(path.name for path in data_dir.glob('caltech_birds2011/0.2.0/maml_tf/*'))


def test_class_lists():
    """Chen et al.: of the sorted classes every second trains, and of the others validation and test
    have half each."""
    assert class_names('cub') == {
        'train': CLASSES[::2],
        'val': CLASSES[1::4],
        'test': CLASSES[3::4],
    }
    meta_dataset = class_names('cub_meta_dataset')
    assert [len(meta_dataset[split]) for split in SPLITS] == [140, 30, 30]
    assert sorted(sum(meta_dataset.values(), [])) == CLASSES
    assert [name[:4] for name in CLASSES] == [f'{i:03d}.' for i in range(1, 201)]


@pytest.mark.parametrize('class_split', ['cub', 'cub_meta_dataset'])
def test_holds_the_training_and_test_images_of_its_classes(class_split, written):
    data_dir, expected = written
    source = cub(str(data_dir), SIDE, class_split)
    for split in SPLITS:
        images, sizes, names, files = source.split(split)[:4]
        assert names == class_names(class_split)[split]
        assert sizes.tolist() == [4 + CLASSES.index(name) % 3 for name in names]
        by_file = [pair for name in names for pair in sorted(expected[name].items())]
        assert files == [file for file, _ in by_file]
        np.testing.assert_array_equal(images, [resized(jpeg, SIDE) for _, jpeg in by_file])
    assert source.input_shape == (SIDE, SIDE, 3) and not cached(data_dir)


def test_tasks_by_brute_force(written):
    data_dir, expected = written
    owner = {
        resized(jpeg, SIDE).tobytes(): name
        for name, files in expected.items()
        for jpeg in files.values()
    }
    for split in SPLITS:
        task = cub(str(data_dir), SIDE).tasks(split, EpisodeSpec(way=5, shot=1, query=3), seed=1)(
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
                len(set(pixels)) == 20
                and len(set(found)) == 5
                and set(found) <= set(class_names('cub')[split])
            )
            assert all(len(set(found[y == label])) == 1 for label in range(5))


def test_streamed_tasks_are_those_of_memory(copy, monkeypatch):
    spec = EpisodeSpec(way=5, shot=1, query=3, least_way=3)
    draw = cub(str(copy), SIDE).tasks('test', spec, seed=2)
    monkeypatch.setattr(memory_map, 'IN_MEMORY', 0)
    stream = cub(str(copy), SIDE).tasks('test', spec, seed=2)
    assert stream.streams and not draw.streams
    compiled, in_parts = (
        on_fresh_tasks(lambda task, step: task, tasks, 3) for tasks in (draw, stream)
    )
    for start in tf.constant([0, 3], tf.int64):
        tasks = zip(draw(start, 3), stream(start, 3), compiled(start, 0), in_parts(start, 0))
        for in_memory, streamed, compiled_in_memory, compiled_streamed in tasks:
            np.testing.assert_array_equal(in_memory, streamed)
            np.testing.assert_array_equal(compiled_in_memory, compiled_streamed)
            np.testing.assert_allclose(
                in_memory, compiled_in_memory, rtol=1e-6
            )  # XLA multiplies by 1 / 255.


def test_a_streamed_split_is_written_once(copy, monkeypatch, capsys):
    monkeypatch.setattr(memory_map, 'IN_MEMORY', 0)
    first = cub(str(copy), SIDE).split('val').images
    assert cached(copy) == [f'cub-val-{SIDE}.npy']
    assert f'cub-val-{SIDE}.npy, 0.0 GB, once\n' in capsys.readouterr().out
    monkeypatch.setattr(cub_module, '_decoded', None)
    again = cub(str(copy), SIDE).split('val').images
    assert isinstance(again, np.memmap) and not capsys.readouterr().out
    np.testing.assert_array_equal(again, first)


def test_interrupted_writing_leaves_nothing_and_is_redone(copy, monkeypatch):
    decoded, count = cub_module._decoded, iter(range(1000))

    def interrupted(*arguments):
        if next(count) == 100:
            raise KeyboardInterrupt
        return decoded(*arguments)

    source = cub(str(copy), SIDE)
    in_memory = source.split('train').images
    monkeypatch.setattr(memory_map, 'IN_MEMORY', 0)
    monkeypatch.setattr(cub_module, '_decoded', interrupted)
    streamed = cub(str(copy), SIDE)
    with pytest.raises(KeyboardInterrupt):
        streamed.split('train')
    assert not cached(copy)
    np.testing.assert_array_equal(streamed.split('train').images, in_memory)
    assert cached(copy) == [f'cub-train-{SIDE}.npy']


def test_a_damaged_image_is_named(tmp_path):
    whole = encoded(Image.new('RGB', (40, 30)), 'JPEG')
    damaged = encoded(Image.effect_noise((40, 30), 50).convert('RGB'), 'JPEG')[:-300]
    raw = tmp_path / 'raw'
    raw.mkdir()
    write_raw(
        raw,
        {
            (CLASSES[0], 'whole_1_1.jpg'): whole,
            (CLASSES[2], 'bad_1_2.jpg'): damaged,
            (CLASSES[1], 'other_1_3.jpg'): whole,
        },
    )
    prepare(raw, tmp_path / 'tfds')
    source = cub(str(tmp_path / 'tfds'), SIDE)
    assert source.split('val').sizes.sum() == 1
    with pytest.raises(
        UserError, match=f'^CUB: {CLASSES[2]}/bad_1_2.jpg is not a whole image .*prepare it anew$'
    ):
        source.split('train')


def test_a_split_that_it_does_not_have():
    with pytest.raises(ArgumentError, match='^class_split=lake: CUB has cub and cub_meta_dataset$'):
        cub('anywhere', class_split='lake')


@pytest.mark.parametrize('opencv', [None, types.SimpleNamespace(__spec__=1)])
def test_a_directory_without_it(opencv, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', opencv)
    with pytest.raises(UserError) as raised:
        cub(str(tmp_path))
    message = str(raised.value)
    assert message.startswith(
        f'data_dir={tmp_path}: no prepared CUB, looked for {tmp_path}/caltech_birds2011/0.2.0'
    )
    assert ('pip install opencv-python-headless && python -c' in message) == (opencv is None)
    assert '\n' not in message and not list(tmp_path.iterdir())


def test_preparing_without_opencv_is_refused_before_the_download(tmp_path, monkeypatch):
    builder = tfds.builder
    monkeypatch.setitem(sys.modules, 'cv2', None)
    monkeypatch.setattr(tfds, 'builder', lambda name, data_dir: builder(name, data_dir=tmp_path))
    with pytest.raises(
        UserError, match='CUB is not prepared in .*: pip install opencv-python-headless$'
    ):
        cub()


def test_training(written):
    learner = MAML(
        FullyConnected((SIDE, SIDE, 3), 5, (32,), 'batch_norm'), Classification(), inner_lr=0.05
    )
    draw = cub(str(written[0]), SIDE).tasks('train', EpisodeSpec(way=5, shot=1, query=3), seed=0)
    run = iterate(metatrain_op(learner, adam(1e-3)), draw, meta_batch_size=4)
    first, _, last = (run(20 * i, 20) for i in range(3))
    assert last['post_loss'] < first['post_loss'] and last['post_accuracy'] > 0.4


# Attributes.

RNG = np.random.default_rng(1)
PERCENT = RNG.integers(0, 101, (200, 312)) * (RNG.random((200, 312)) < 0.3)


@pytest.fixture
def manual_dir(tmp_path):
    (tmp_path / 'CUB_200_2011' / 'attributes').mkdir(parents=True)
    (tmp_path / 'CUB_200_2011' / 'classes.txt').write_text(
        ''.join(f'{i} {name}\n' for i, name in enumerate(CLASSES, start=1))
    )
    (tmp_path / 'CUB_200_2011' / 'attributes' / 'class_attribute_labels_continuous.txt').write_text(
        ''.join(' '.join(f'{value / 1.01:.12g}' for value in row) + '\n' for row in PERCENT)
    )
    return tmp_path


def test_attributes(manual_dir):
    read = attributes(str(manual_dir))
    assert list(read) == CLASSES and {row.dtype for row in read.values()} == {np.dtype('float32')}
    np.testing.assert_allclose(np.stack(list(read.values())), PERCENT / 1.01, rtol=1e-6)


TABLE, NAMES = 'attributes/class_attribute_labels_continuous.txt', 'classes.txt'
BAD = {
    'missing': (TABLE, None, 'cannot be read .*CUB_200_2011.tgz holds it'),
    'no classes': (NAMES, None, 'cannot be read'),
    'not text': (TABLE, lambda lines: ['\udcff'], 'cannot be read'),
    'a line too few': (
        TABLE,
        lambda lines: lines[:-1],
        '199 lines, not one for each of the 200 classes',
    ),
    'a line too many': (TABLE, lambda lines: lines + lines[:1], '201 lines'),
    'a number too few': (
        TABLE,
        lambda lines: [lines[0], lines[1].rsplit(' ', 1)[0]],
        'line 2 is not 312 numbers',
    ),
    'a word': (TABLE, lambda lines: [lines[0].replace('0', 'x', 1)], 'line 1 is not 312 numbers'),
    'not a number': (
        TABLE,
        lambda lines: ['nan' + ' 0' * 311],
        'line 1 is not 312 numbers from 0 to 100',
    ),
    'not a percentage': (
        TABLE,
        lambda lines: ['101' + ' 0' * 311],
        'line 1 is not 312 numbers from 0 to 100',
    ),
    'other classes': (
        NAMES,
        lambda lines: lines[:3] + ['4 004.Anna'] + lines[4:],
        'not the 200 lines of CUB-200-2011',
    ),
}


@pytest.mark.parametrize('name, spoil, message', BAD.values(), ids=BAD)
def test_bad_attributes(name, spoil, message, manual_dir):
    path = manual_dir / 'CUB_200_2011' / name
    lines = path.read_text().splitlines()
    path.unlink() if spoil is None else path.write_bytes(
        '\n'.join(spoil(lines)).encode(errors='surrogateescape')
    )
    with pytest.raises(UserError, match=message) as raised:
        attributes(str(manual_dir))
    assert str(path) in str(raised.value) and '\n' not in str(raised.value)


# Mapped files.

PIXELS = RNG.integers(0, 256, (7, 3, 2, 3), np.uint8)


def singly():
    return ((i, PIXELS[i]) for i in (3, 0, 1, 6, 5, 2, 4))


def in_batches():
    return ((numbers, PIXELS[numbers]) for numbers in (np.array([5, 0]), np.array([1, 2, 3, 4, 6])))


@pytest.mark.parametrize('images', [singly, in_batches])
def test_mapped_file(images, tmp_path):
    path = tmp_path / 'new' / 'a.npy'
    mapped = memory_mapped(path, 7, (3, 2, 3), images())
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    np.testing.assert_array_equal(mapped, PIXELS)
    np.testing.assert_array_equal(np.load(path), PIXELS)
    np.testing.assert_array_equal(memory_mapped(path, 7, (3, 2, 3), None), PIXELS)
    in_memory = gathered(path, 7, (3, 2, 3), images(), whole=7)
    assert not isinstance(in_memory, np.memmap)
    np.testing.assert_array_equal(in_memory, PIXELS)


@pytest.mark.parametrize('side, streams', [(84, False), (224, True)])
def test_a_set_larger_than_a_gigabyte_streams(side, streams, tmp_path):
    images = ((i, np.full((side, side, 3), i, np.uint8)) for i in range(2))
    array = gathered(tmp_path / 'a.npy', 2, (side, side, 3), images, whole=11788)
    assert isinstance(array, np.memmap) == streams and (tmp_path / 'a.npy').exists() == streams


def test_a_set_that_lacks_images(tmp_path):
    for whole in (6, 10**10):
        with pytest.raises(UserError, match='^a: 6 of 7 images are there'):
            gathered(tmp_path / 'a.npy', 7, (3, 2, 3), enumerate(PIXELS[:6]), whole)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r'a.npy: needs [\d.]+ GB, and its disk has [\d.]+ GB free'):
        memory_mapped(tmp_path / 'a.npy', 10**12, (224, 224, 3), None)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_becomes_full(tmp_path):
    """A limit on the size of files stands for the disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(UserError, match='a.npy: could not be written .*too large'):
            memory_mapped(tmp_path / 'a.npy', 7, (3, 2, 3), singly())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed(tmp_path, monkeypatch):
    """Without locks its age tells."""
    monkeypatch.setattr(memory_map, 'taken', lambda file: None)
    path = tmp_path / 'a.npy'
    for name, age in (('a.npy.1.unfinished', 3600), ('a.npy.2.unfinished', 10)):
        (tmp_path / name).write_bytes(b'half')
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    memory_mapped(path, 7, (3, 2, 3), singly())
    assert sorted(left.name for left in tmp_path.iterdir()) == ['a.npy', 'a.npy.2.unfinished']


def test_two_writers_at_once(tmp_path):
    path = tmp_path / 'a.npy'

    def overtaken():
        memory_mapped(path, 7, (3, 2, 3), singly())
        yield from in_batches()

    np.testing.assert_array_equal(memory_mapped(path, 7, (3, 2, 3), overtaken()), PIXELS)
    assert [left.name for left in tmp_path.iterdir()] == ['a.npy']


@pytest.mark.parametrize('content', [b'', b'\x93NUMPY', b'text', 'cut', 'other'])
def test_a_file_that_is_another(content, tmp_path):
    path = tmp_path / 'a.npy'
    np.save(path, PIXELS[:6] if content == 'other' else PIXELS)
    path.write_bytes(
        {'cut': path.read_bytes()[:-1], 'other': path.read_bytes()}.get(content, content)
    )
    with pytest.raises(
        UserError, match=r'a.npy: (not a whole .npy file|holds uint8 \(6, 3, 2, 3\)).*remove it'
    ):
        memory_mapped(path, 7, (3, 2, 3), None)
