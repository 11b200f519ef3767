"""A damaged or a malicious pickle, npz or csv file of images is refused in one line; no code in it
runs."""

import csv
import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
from damaged import each_damaged
from PIL import Image
from raw_files import Python2Pickler, dump

from maml_tf.datasets.raw import miniimagenet, pickles, tieredimagenet
from maml_tf.datasets.raw.npz import NpzImages
from maml_tf.datasets.raw.splits import class_names
from maml_tf.errors import UserError

RNG = np.random.default_rng(0)
ODD = 'directory', 'fifo', 'missing'
MINI = class_names('miniimagenet_ravi')['val']
TIERED = [line.split(',') for line in class_names('tieredimagenet')['val']]


def png():
    file = io.BytesIO()
    pixels = RNG.integers(0, 256, (2, 2, 3), np.uint8).repeat(42, 0).repeat(42, 1)
    Image.fromarray(pixels).save(file, 'png')
    return file.getvalue()


def split_read(find, folder):
    """Reads all of a split, the other two of which are the same files."""

    def read():
        images = find(folder)['val']().images
        return [image.read() for image in images[:3]], len(images)

    return read


def copied(folder, files):
    """The other splits are there as well."""
    for file in files:
        for split in ('train', 'test'):
            (folder / file.name.replace('val', split)).write_bytes(file.read_bytes())


def of_images(images_and_count):
    images, count = images_and_count
    assert count
    for image in images:
        assert isinstance(image, bytes) or image.shape == (84, 84, 3)


@pytest.mark.parametrize('python, protocol', [(3, 4), (3, 2), (2, 2), (3, 0)])
def test_the_cache_of_miniimagenet(tmp_path, python, protocol):
    path = tmp_path / 'mini-imagenet-cache-val.pkl'
    content = {
        'image_data': RNG.integers(0, 256, (17, 84, 84, 3), np.uint8),
        'class_dict': {name: [number, 16] for number, name in enumerate(MINI)},
    }
    content['class_dict'] = {name: numbers[:1] for name, numbers in content['class_dict'].items()}
    content['class_dict'][MINI[0]] = np.array([0, 16])
    dump(content, path, python, protocol)
    copied(tmp_path, [path])
    read = split_read(miniimagenet.find, tmp_path)
    assert read()[1] == 17
    counts = each_damaged(
        f'pickles of miniImageNet {python}.{protocol}',
        *([path], read, [tmp_path], 30, 0.25, ODD, of_images),
    )
    assert counts.refused


@pytest.mark.parametrize('python, protocol', [(3, 4), (2, 2)])
@pytest.mark.parametrize('damaged', ['images', 'labels'])
def test_the_pickles_of_tieredimagenet(tmp_path, python, protocol, damaged):
    images, labels = tmp_path / 'val_images_png.pkl', tmp_path / 'val_labels.pkl'
    encoded = [np.frombuffer(png(), np.uint8) for _ in TIERED]
    dump(encoded, images, python, protocol)
    groups = sorted({group for _, group in TIERED})
    content = {
        'label_specific': np.arange(len(TIERED)),
        'label_specific_str': [name for name, _ in TIERED],
        'label_general': [groups.index(group) for _, group in TIERED],
    }
    dump(content, labels, python, protocol)
    copied(tmp_path, [images, labels])
    read = split_read(tieredimagenet.find, tmp_path)
    assert read()[1] == len(TIERED)
    file = images if damaged == 'images' else labels
    counts = each_damaged(
        f'{damaged} of tieredImageNet, Python {python}',
        *([file], read, [tmp_path], 15, 0.2, ODD, of_images),
    )
    assert counts.refused


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    path, pixels = tmp_path / 'images.npz', RNG.integers(0, 256, (3, 84, 84, 3), np.uint8)
    save(path, images=pixels)

    def read():
        array = NpzImages(path)
        return [array.read(number) for number in range(array.count)]

    def check(images):  # What a zip file holds has checksums.
        np.testing.assert_array_equal(images, pixels[..., ::-1])

    counts = each_damaged('npz files', [path], read, [path], 60, 0.25, ODD, check)
    assert counts.refused


def test_npz_of_more_images_than_bytes(tmp_path):
    """A list of as many would fill the memory."""
    header = io.BytesIO()
    shape = 10**12, 84, 84, 3
    np.lib.format.write_array_header_1_0(
        header, {'descr': '|u1', 'fortran_order': False, 'shape': shape}
    )
    path = tmp_path / 'images.npz'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('images.npy', header.getvalue())
    with pytest.raises(UserError, match='images.npz: .*1000000000000.* holds 0 bytes'):
        NpzImages(path)


def test_the_table_of_miniimagenet(tmp_path):
    (tmp_path / 'images').mkdir()
    for split in ('train', 'val', 'test'):
        rows = [('filename', 'label')]
        for name in MINI:
            rows.append((f'{name}.png', name))
            (tmp_path / 'images' / f'{name}.png').write_bytes(png())
        with open(tmp_path / f'{split}.csv', 'w', newline='') as file:
            csv.writer(file).writerows(rows)
    read = split_read(miniimagenet.find, tmp_path)
    assert read()[1] == len(MINI)
    counts = each_damaged(
        'tables of miniImageNet',
        *([tmp_path / 'val.csv'], read, [tmp_path], 60, 0.5, ODD, of_images),
    )
    assert counts.refused


def test_a_table_with_a_cell_larger_than_csv_takes(tmp_path):
    for split in ('train', 'val', 'test'):
        (tmp_path / f'{split}.csv').write_text(f'filename,label\n{"x" * 200_000},a\n')
    with pytest.raises(UserError, match='val.csv: not a csv file'):
        miniimagenet.find(tmp_path)['val']()


class Called:
    """Pickled, it is a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Made:
    """Pickled, it is an object of a class, with a state."""


def op(*parts):
    return b'\x80\x02' + b''.join(parts) + b'.'


def text(value):
    return b'X' + struct.pack('<I', len(value)) + value


MALICIOUS = {
    'a call': pickle.dumps(Called(os.system, 'touch executed')),
    'a call as Python 2 wrote it': pickle.dumps(Called(os.system, 'touch executed'), 0),
    'eval': pickle.dumps(Called(eval, 'open("executed", "w")')),
    'inside an array': pickle.dumps(np.array([Called(os.system, 'touch executed')], object)),
    'a class': pickle.dumps(Made()),
    'an old-style class': b"(S'touch executed'\nios\nsystem\n.",
    'an object of a known class': op(b'cnumpy\nndarray\n', b'(I9\ntt', b'\x81'),
    'a path through a known module': op(b'cnumpy\nndarray.__class__\n', text(b'a'), b'\x85R'),
    'an array of any size': op(b'cnumpy\nndarray\n', b'(I9\nI84\nI84\nI3\nt\x85R'),
    'any codec': op(b'c_codecs\nencode\n', text(b'a'), text(b'executed'), b'\x86R'),
    'the defaults of a function': op(
        b'cnumpy.core.numeric\n_frombuffer\n', b'N}', text(b'__defaults__'), b')s\x86b'
    ),
    'pointers': pickle.dumps(np.zeros(1, [('a', object)])).replace(b'K?t', b'K\0t'),
}


@pytest.mark.parametrize('content', MALICIOUS.values(), ids=MALICIOUS)
def test_malicious_pickles(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'labels.pkl'
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=f'^{path}: (refused|not a whole pickle of arrays)'
    ) as error:
        pickles.load_arrays(path)
    assert '\n' not in str(error.value) and os.listdir() == ['labels.pkl']
    # To look for images in it runs nothing, either.
    assert not list(pickles.png_positions(path))
    assert os.listdir() == ['labels.pkl']


def test_a_memo_larger_than_the_file(tmp_path):
    """The unpickler in C makes room for 2 ** 33 entries here, and fills them."""
    path = tmp_path / 'labels.pkl'
    path.write_bytes(b'\x80\x02]r\xff\xff\xff\xff.')
    assert isinstance(pickles._ArraysOnly(io.BytesIO(), encoding='latin1').memo, dict)
    assert pickles.load_arrays(path) == []


def test_what_arrays_are_made_of(tmp_path):
    """Of all kinds that a set may use, by every protocol and by Python 2."""
    content = {
        'array': RNG.integers(0, 256, (2, 3), np.uint8),
        'fortran': np.asfortranarray(RNG.random((2, 3))),
        'large': np.arange(5, dtype='>i4'),
        'text': np.array(['a', 'bc']),
        'bytes': np.array([b'a', b'bc']),
        'objects': np.array(['a', 1], object),
        'scalar': np.int64(3),
        'list': [1, 2.5, 'a', b'b', None, True, (1, {2: 3})],
    }
    path = tmp_path / 'content.pkl'
    for pickler in (Python2Pickler, pickle.Pickler):
        for protocol in (2,) if pickler is Python2Pickler else range(pickle.HIGHEST_PROTOCOL + 1):
            kept = {**content, 'list': content['list'][:3]} if protocol < 3 else content
            with open(path, 'wb') as file:
                pickler(file, protocol).dump(kept)
            loaded = pickles.load_arrays(path)
            for name in set(kept) - {'list', 'bytes'}:
                np.testing.assert_array_equal(loaded[name], kept[name])
                assert np.asarray(loaded[name]).dtype.kind == np.asarray(kept[name]).dtype.kind
