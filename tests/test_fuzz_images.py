"""A damaged image file is left out in one line, whatever stands in it, and fills no memory."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from damaged import each_damaged
from PIL import EpsImagePlugin, Image, ImageFile

from maml_tf.commands.folders.look import look_at
from maml_tf.commands.folders.photos import Reader
from maml_tf.datasets.directory import directory
from maml_tf.datasets.raw.image_files import Preparation, read_image
from maml_tf.datasets.raw.images import read_resized
from maml_tf.datasets.raw.listing import SPLITS
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError

# The filter of the program is undone between tests; one of them looks at it.
pytestmark = pytest.mark.filterwarnings(r'ignore:::PIL\.')

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 30, 4), np.uint8)
EXIF = Image.Exif()
EXIF[0x0112] = 6


def saved(mode, **kwargs):
    """The bytes of an image in this mode."""
    file = io.BytesIO()
    image = Image.fromarray(PIXELS)
    if mode == 'I;16':
        image = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    image.save(file, **kwargs)
    return file.getvalue()


IMAGES = {
    'rgb.png': saved('RGB', format='PNG', exif=EXIF),
    'alpha.png': saved('RGBA', format='PNG'),
    'palette.png': saved('P', format='PNG', transparency=3),
    'bits.png': saved('1', format='PNG'),
    'deep.png': saved('I;16', format='PNG'),
    'photo.jpg': saved('RGB', format='JPEG', exif=EXIF),
    'progressive.jpg': saved('L', format='JPEG', progressive=True),
    'cmyk.jpg': saved('CMYK', format='JPEG'),
    'still.gif': saved('P', format='GIF'),
    'moving.gif': saved(
        'P', format='GIF', save_all=True, append_images=[Image.new('P', (30, 40), 7)] * 2
    ),
    'plain.bmp': saved('RGB', format='BMP'),
    'palette.bmp': saved('P', format='BMP'),
    'lzw.tif': saved('RGB', format='TIFF', compression='tiff_lzw'),
    'plain.tif': saved('RGB', format='TIFF'),
    'photo.webp': saved('RGB', format='WEBP'),
}


@pytest.fixture
def files(tmp_path):
    for name, content in IMAGES.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in IMAGES]


def test_readers(files):
    """Of a folder as a data source, of `adapt`, of `inspect_folder` and of miniImageNet's files."""
    latest = {}

    def read():
        (path,) = (path for path in files if not is_whole(path))
        latest['path'] = path
        kept, images, errors = Reader(Preparation(16))([path])
        try:
            image = read_image(path, 16)
        except UserError as error:
            assert errors == [str(error)] and look_at(path).error == str(error)
            with pytest.raises(UserError):
                read_resized(path)
            raise
        assert kept == [path] and not errors and look_at(path).error is None
        assert read_resized(path).shape == (84, 84, 3)
        np.testing.assert_array_equal(images[0] * np.float32(255), image)
        return image

    def is_whole(path):
        return path.is_file() and path.read_bytes() == IMAGES[path.name]

    def check(image):
        assert image.shape == (16, 16, 3) and image.dtype == np.uint8
        # What has checksums is as it was, or refused.
        if latest['path'].suffix == '.png' and latest['path'].read_bytes()[:4] == b'\x89PNG':
            whole = read_image(wholes / latest['path'].name, 16)
            np.testing.assert_array_equal(image, whole)

    wholes = files[0].parent / 'whole'
    wholes.mkdir()
    for name, content in IMAGES.items():
        (wholes / name).write_bytes(content)
    odd = 'directory', 'fifo', 'dangling link', 'missing'
    counts = each_damaged('images', files, read, [files[0].parent], 300, odd=odd, check=check)
    assert counts.whole > 0 and counts.refused > 0


def test_nothing_else_on_the_screen(tmp_path):
    """Damaged notes of a camera are passed over, and Pillow's warnings of them with it."""
    at = IMAGES['photo.jpg'].index(b'Exif')
    path = tmp_path / 'photo.jpg'
    path.write_bytes(IMAGES['photo.jpg'][: at + 14] + b'\xff' * 3 + IMAGES['photo.jpg'][at + 17 :])
    program = (
        'import pathlib, sys; from maml_tf.datasets.raw.image_files import read_image; '
        'read_image(pathlib.Path(sys.argv[1]), 9)'
    )
    result = subprocess.run(
        [sys.executable, '-c', program, path], capture_output=True, text=True, check=True
    )
    assert result.stdout + result.stderr == ''


def claimed_png(width, height):
    """A whole PNG but for its pixels, of which there are few."""
    chunk = lambda name, data: (
        struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
    )
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    pixels = chunk(b'IDAT', zlib.compress(b'\0' * 1000))
    return b'\x89PNG\r\n\x1a\n' + header + pixels + chunk(b'IEND', b'')


def claimed_gif(width, height):
    return b'GIF89a' + struct.pack('<HH', width, height) + IMAGES['still.gif'][10:]


def claimed_bmp(width, height):
    content = IMAGES['plain.bmp']
    return content[:18] + struct.pack('<ii', width, height) + content[26:]


@pytest.mark.parametrize('side', [9500, 50_000])
@pytest.mark.parametrize('claimed', [claimed_png, claimed_gif, claimed_bmp])
def test_a_bomb(tmp_path, monkeypatch, claimed, side):
    """Its size is looked at before a pixel is decoded, whatever Pillow itself allows."""
    path = tmp_path / 'bomb.png'
    path.write_bytes(claimed(side, side))
    monkeypatch.setattr(ImageFile.ImageFile, 'load', lambda self: pytest.fail('is decoded'))
    for most in (Image.MAX_IMAGE_PIXELS, None):
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', most)
        for read in (lambda path: read_image(path, 8), read_resized):
            with pytest.raises(UserError, match='bomb.png: not a whole image .*pixels'):
                read(path)


def test_a_photo_of_many_pixels(tmp_path):
    """Of a JPEG no more is decoded than is needed."""
    path = tmp_path / 'large.jpg'
    Image.new('L', (9500, 9500), 99).save(path)
    assert (read_image(path, 8) == 99).all()


def test_no_program_is_started(tmp_path, monkeypatch):
    """Pillow gives PostScript to Ghostscript, whatever the file is called."""
    started = []
    monkeypatch.setattr(EpsImagePlugin, 'Ghostscript', lambda *args: started.append(args))
    path = tmp_path / 'photo.png'
    path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n')
    for read in (lambda path: read_image(path, 8), read_resized):
        with pytest.raises(UserError, match='photo.png: not a whole image'):
            read(path)
    assert not started


def test_a_folder_as_a_data_source(tmp_path):
    """A task is made of the images that are left."""
    files = []
    for number in range(6):
        (tmp_path / f'class{number}').mkdir()
        for image, name in enumerate(('rgb.png', 'photo.jpg', 'still.gif', 'plain.bmp')):
            path = tmp_path / f'class{number}' / f'{image}{name}'
            path.write_bytes(IMAGES[name])
            files.append(path)

    def read():
        source = directory(tmp_path, image_size=8)
        drawn = [source.tasks(split, EpisodeSpec(2, 1, 1), 0)(0, 1) for split in SPLITS]
        return [task.support_x.shape for task in drawn]

    def check(shapes):
        assert shapes == [(1, 2, 8, 8, 3)] * 3

    odd = 'directory', 'fifo', 'missing'
    counts = each_damaged('folders', files, read, [tmp_path], 5, 0.05, odd, check)
    assert counts.refused == 0  # One file less leaves enough.
