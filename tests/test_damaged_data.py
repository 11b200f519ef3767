"""Damaged data: one clear line that names the directory or the file, and nothing waits for ever."""

import os
import shutil

import numpy as np
import pytest
from golden import SHARED
from PIL import Image

from maml_tf.datasets.directory import directory
from maml_tf.datasets.omniglot import omniglot
from maml_tf.datasets.raw.image_files import read_image
from maml_tf.datasets.raw.images import read_resized
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError

TRAIN = 'omniglot-train.tfrecord-00000-of-00001'
TEST = 'omniglot-test.tfrecord-00000-of-00001'


def cut(path):
    """Ends in the middle of a record."""
    os.truncate(path, path.stat().st_size // 2)


def cut_between_records(path):
    """Holds the first record alone, and nothing that a checksum would find."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], 'little')
    path.write_bytes(content[: 8 + 4 + length + 4])  # its length, two checksums


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


@pytest.fixture
def prepared(tmp_path):
    """A copy of the real Omniglot: (the directory to name, that of the files)."""
    original = SHARED / 'tfds/omniglot/3.0.0'
    if not original.exists():
        pytest.skip('no prepared Omniglot beside the project')
    return tmp_path, shutil.copytree(original, tmp_path / 'omniglot/3.0.0')


@pytest.mark.parametrize(
    'name, damage',
    [
        (TRAIN, cut),
        (TEST, cut_between_records),
        (TEST, flip),
        (TRAIN, lambda path: path.write_bytes(b'')),
        (TEST, lambda path: path.unlink()),
        ('dataset_info.json', lambda path: path.write_bytes(b'')),
        ('dataset_info.json', cut),
        ('dataset_info.json', lambda path: path.write_text('{}')),
        ('dataset_info.json', lambda path: path.write_bytes(b'\xff\x00')),
        ('label.labels.txt', lambda path: path.write_bytes(b'')),
        ('label.labels.txt', lambda path: path.unlink()),
        ('label.labels.txt', cut),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_a_prepared_set(prepared, name, damage):
    data_dir, files = prepared
    damage(files / name)
    with pytest.raises(UserError) as error:
        omniglot(data_dir).tasks('train', EpisodeSpec(way=2, shot=1, query=1), seed=0)
    message = str(error.value)
    assert message.startswith(f'{data_dir / "omniglot"}'), message
    assert 'the prepared Omniglot is damaged' in message and 'prepare it anew' in message
    assert '\n' not in message and '{{' not in message


def test_a_fifo_among_images(tmp_path, capsys):
    """Opening it would wait for somebody to write into it."""
    for number in range(9):
        (tmp_path / f'class{number}').mkdir()
        for image in range(2):
            pixels = np.full([8, 8, 3], 9 * number + image, np.uint8)
            Image.fromarray(pixels).save(tmp_path / f'class{number}' / f'{image}.png')
        os.mkfifo(tmp_path / f'class{number}' / 'pipe.png')
    source = directory(tmp_path, image_size=8)
    for split in ('train', 'val', 'test'):
        source.tasks(split, EpisodeSpec(way=2, shot=1, query=1), seed=0)
    assert 'pipe.png: not a whole image (OSError: not a regular file)' in capsys.readouterr().out
    for read in (lambda path: read_image(path, 8), read_resized):
        with pytest.raises(UserError, match='pipe.png: not a whole image .*not a regular file'):
            read(tmp_path / 'class0' / 'pipe.png')
