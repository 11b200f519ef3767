"""What people have on disk of a set that cannot be downloaded: images that are known but not read
yet, and pickles.

Imports no TensorFlow.
"""

import functools
import pathlib
import pickle
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from maml_tf.datasets.raw.image_files import class_folders, name_in
from maml_tf.errors import UserError

SPLITS = ('train', 'val', 'test')
SIDE = 84


class RawImage(NamedTuple):
    """An image that is known, but not read yet. Its name is unique in its split and orders the
    images of a class."""

    name: str
    label: str  # the name of its class
    read: Callable[[], np.ndarray | bytes]  # uint8 [84, 84, 3], or a PNG of that, encoded


class RawSplit(NamedTuple):
    """What a split consists of.

    images:      [RawImage], in the order in which they are read fastest
    class_names: in the order in which classes are numbered
    groups:      number of the super-category of each class, or None
    """

    images: list
    class_names: list
    groups: list | None = None


def find(folder, layouts, title, looked_for):
    """The first of the layouts that `folder` has, as {split: () -> RawSplit}; nothing is read yet.

    Args:
      layouts: [(file names, read)], with {} in place of the split; read(split, *paths) -> RawSplit.
      title, looked_for: the set and its layouts in words.
    Raises UserError where there is none.
    """
    for patterns, read in layouts:
        paths = {
            split: [pathlib.Path(folder, pattern.format(split)) for pattern in patterns]
            for split in SPLITS
        }
        if all(path.exists() for files in paths.values() for path in files):
            return {split: functools.partial(read, split, *files) for split, files in paths.items()}
    raise UserError(
        f'--manual_dir={folder}: no {title}, looked for {looked_for}. It cannot be downloaded by '
        'itself: '
        'data/README.md says how to obtain it'
    )


def check_classes(path, images, class_names, whose):
    """Raises UserError unless the images are of these classes, all of them, and each is there once.

    path, whose: what the message names: the file, and the classes in words.
    """
    counts, names = dict.fromkeys(class_names, 0), set()
    for image in images:
        if image.label not in counts:
            raise UserError(
                f'{path}: {image.name} is of class {image.label}, which is not among the '
                f'{len(counts)} '
                f'{whose}'
            )
        if image.name in names:
            raise UserError(f'{path}: {image.name} is there twice')
        counts[image.label] += 1
        names.add(image.name)
    if missing := [label for label, count in counts.items() if not count]:
        raise UserError(
            f'{path}: no image of class {missing[0]}; {len(missing)} of the {len(counts)} {whose} '
            'are '
            'missing'
        )


def images_in_folders(folder):
    """The images of class folders, as [RawImage]; see image_files.class_folders."""
    return [
        RawImage(name_in(path, folder), label, functools.partial(read_image, path))
        for label, paths in class_folders(folder).items()
        for path in paths
    ]


def read_image(file, name=None):
    """An image file as uint8 [84, 84, 3], resized with Lanczos as the reference does; grey becomes
    RGB.

    Raises UserError that names a corrupt or truncated file, by `name` where it has no path.
    """
    try:
        with Image.open(file) as image:
            image = image.convert('RGB')
    except Exception as error:  # Pillow's plug-ins raise many types on damaged files.
        raise UserError(
            f'{name or file}: not a whole image ({one_line(error)}); replace it or remove it'
        ) from error
    return np.asarray(
        image if image.size == (SIDE, SIDE) else image.resize((SIDE, SIDE), Image.LANCZOS)
    )


def one_line(error):
    """An exception in words."""
    return ' '.join(f'{type(error).__name__}: {error}'.split())


class _ArraysOnly(pickle.Unpickler):
    """A pickle can name any function for the loader to call; all are refused but the few that build
    arrays."""

    ALLOWED = {
        ('numpy', 'ndarray'),
        ('numpy', 'dtype'),
        ('_codecs', 'encode'),
        ('collections', 'OrderedDict'),
    } | {
        (f'numpy.{core}.{module}', name)
        for core in ('core', '_core')
        for module, name in (
            ('multiarray', '_reconstruct'),
            ('multiarray', 'scalar'),
            ('numeric', '_frombuffer'),
        )
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise UserError(
                f'refused, since loading it would use {module}.{name}, and images need no such '
                'thing'
            )
        return super().find_class(module.replace('numpy.core', 'numpy._core'), name)


def load_arrays(path):
    """Unpickles plain containers and NumPy arrays (also as Python 2 wrote them); executes nothing
    else.

    Raises UserError where the file holds anything else or is cut short.
    """
    with open(path, 'rb') as file:
        try:
            return _ArraysOnly(file, encoding='latin1').load()
        except UserError as error:
            raise UserError(f'{path}: {error}') from None
        except Exception as error:  # A damaged pickle can raise anything.
            raise UserError(f'{path}: not a whole pickle of arrays ({one_line(error)})') from error
