"""Encoded images prepared by a SavedModel, beside what Pillow makes of the same files."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from maml_tf.datasets.raw.image_files import FILTERS, Preparation, read_prepared
from maml_tf.errors import ArgumentError
from maml_tf.saving.exports.prepare_images import signatures

SIDE = 24
ROUNDED = 1.01  # grey levels


def scene(width, height, seed=0):
    """A smooth image, as photographs are, with a corner that tells which way is up."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    image = np.array(small.resize((width, height), Image.BICUBIC))
    image[: height // 4, : width // 4] = (250, 20, 20)
    return Image.fromarray(image)


def oriented(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def encoded(image, kind='PNG', **kwargs):
    file = io.BytesIO()
    image.save(file, kind, **kwargs)
    return file.getvalue()


def check(tmp_path, preparation, files, within=ROUNDED, most=np.inf):
    """Prepares all files in one call; each is as Pillow reads it, but for `most` values."""
    found = signatures(preparation)['prepare'](image_bytes=tf.constant(files))['images'].numpy()
    far = 0
    assert found.dtype == np.float32
    for number, data in enumerate(files):
        (tmp_path / 'image').write_bytes(data)
        expected = read_prepared(tmp_path / 'image', preparation)
        if preparation.inverts(expected):
            expected = 255 - expected
        difference = np.abs(found[number] * 255 - expected)
        far += (difference > ROUNDED).sum()
        assert difference.max() <= within, (preparation, number, difference.max())
    assert far <= most, (preparation, far)
    return found


@pytest.mark.parametrize('square', ['centre', 'whole'])
@pytest.mark.parametrize('name', FILTERS)
def test_every_filter_and_square(tmp_path, name, square):
    sizes = [(24, 24), (32, 24), (24, 40), (40, 64), (64, 40), (10, 14), (64, 64)]
    if name not in ('nearest', 'box'):  # With these rounding decides between two pixels.
        sizes += [(31, 24), (24, 31), (40, 63), (63, 40), (65, 65), (11, 17)]
    files = [encoded(scene(*size, seed)) for seed, size in enumerate(sizes)]
    # Pillow's Lanczos can be off where it goes beyond white.
    check(tmp_path, Preparation(SIDE, 3, square, name), files, within=12, most=3)


def test_every_kind_of_file(tmp_path):
    image = scene(50, 40)
    clear = np.dstack([np.array(image), np.linspace(0, 255, 2000).reshape(40, 50)])
    kinds = [
        encoded(image.convert('L')),
        encoded(image.convert('1')),
        encoded(image.convert('P')),
        encoded(image.convert('LA')),
        encoded(Image.fromarray(clear.astype(np.uint8), 'RGBA')),
        encoded(Image.fromarray(np.array(image)[..., 0].astype(np.uint16) * 257)),
        encoded(image, 'JPEG', quality=90),
        encoded(image, 'JPEG', quality=90, progressive=True, subsampling=0),
        encoded(image.convert('L'), 'JPEG'),
        encoded(image, 'GIF'),
        encoded(image, 'BMP'),
        encoded(image, 'WEBP', lossless=True),
    ]
    for channels in (1, 3):
        check(tmp_path, Preparation(SIDE, channels), kinds, within=2.01)


@pytest.mark.parametrize('held', range(10))
def test_every_orientation(tmp_path, held):
    image, exif = scene(60, 40), oriented(held)
    files = [encoded(image, 'JPEG', exif=exif), encoded(image, exif=exif)]
    big = bytearray(files[0])
    # The same entry as a camera with big-endian numbers writes it.
    start = big.index(b'II*\0') if b'II*\0' in big else None
    if start is not None:
        big[start : start + 26] = (
            b'MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0' + bytes([held]) + b'\0\0' + b'\0' * 4
        )
        files.append(bytes(big))
    found = check(tmp_path, Preparation(SIDE), files)
    red = [np.abs(image - np.array([250, 20, 20]) / 255).max(-1) < 0.2 for image in found]
    turned = {2: (0, 1), 3: (1, 1), 4: (1, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
    row, column = turned.get(held, (0, 0))
    for corner in red:
        assert corner[-row, -column] and corner.sum() < SIDE * SIDE / 4


def test_damaged_exif_data_are_no_orientation(tmp_path):
    whole = encoded(scene(60, 40), 'JPEG', exif=oriented(6))
    at = whole.index(b'Exif\0\0')
    files = []
    for text in (b'\0' * 20, b'\xff' * 20, b'MM\0*\xff\xff\xff\xff', b'II*\0\x08\0\0\0\xff\xff'):
        files.append(whole[: at + 6] + text + whole[at + 6 + len(text) :])
    found = signatures(Preparation(SIDE))['prepare'](image_bytes=tf.constant(files))['images']
    upright = encoded(scene(60, 40), 'JPEG')
    (tmp_path / 'image').write_bytes(upright)
    expected = read_prepared(tmp_path / 'image', Preparation(SIDE))
    for image in found.numpy():
        assert np.abs(image * 255 - expected).max() <= ROUNDED


def test_large_photos_are_a_grey_level_apart(tmp_path):
    files = [encoded(scene(900, 700), 'JPEG', quality=95), encoded(scene(400, 700))]
    found = check(tmp_path, Preparation(SIDE), files, within=40)  # at the edge of the red corner
    (tmp_path / 'image').write_bytes(files[0])
    expected = read_prepared(tmp_path / 'image', Preparation(SIDE))
    assert np.abs(found[0] * 255 - expected).mean() < 1


@pytest.mark.slow
def test_drawings_are_made_of_their_size_first_and_inverted(tmp_path):
    ink = np.full((300, 300), 235, np.uint8)
    ink[100:110] = 30
    on_white, on_black = Image.fromarray(ink), Image.fromarray(255 - ink)
    files = [encoded(on_white), encoded(on_black)]
    for wanted in ('bright', 'dark'):
        preparation = Preparation(28, 1, 'centre', 'nearest', 105, wanted)
        found = check(tmp_path, preparation, files)
        np.testing.assert_allclose(found[0], found[1], atol=0.01)
        assert (found.mean() < 0.5) == (wanted == 'bright')
    for name in FILTERS:
        check(tmp_path, Preparation(28, 1, 'centre', name, 105, 'bright', 'false'), files)
    check(tmp_path, Preparation(28, 1, invert='true'), files, within=2.01)


def test_what_is_no_image_is_refused():
    prepare = signatures(Preparation(SIDE))['prepare']
    whole = encoded(scene(60, 40), 'JPEG')
    for data in (b'', b'GIF', b'hello', whole[: len(whole) // 2]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            prepare(image_bytes=tf.constant([whole, data]))
    assert prepare(image_bytes=tf.constant([], tf.string))['images'].shape == (0, SIDE, SIDE, 3)


def test_a_description_reads_back():
    made = Preparation(28, 1, 'whole', 'nearest', 105, 'dark', 'false')
    content = made.as_json()
    assert Preparation.of(content) == made
    assert 'squeezed' in content['in_words'] and 'nearest' in content['in_words']
    with pytest.raises(ArgumentError, match='filter'):
        Preparation(28, filter='sharp')
