"""The layouts in which people have miniImageNet on disk, read alike; LAYOUTS lists them."""
import csv
import functools
import pathlib
import pickle
from typing import Callable, NamedTuple

import numpy as np
from PIL import Image

from maml_tf.errors import UserError

SPLITS = ('train', 'val', 'test')
SIDE = 84
IMAGE_ENDINGS = {'.jpg', '.jpeg', '.png'}


class RawImage(NamedTuple):
    """An image that is known, but not read yet. Its name is unique in its split and orders the images of a class."""
    name: str
    label: str
    read: Callable[[], np.ndarray]  # uint8 [84, 84, 3]


def find(folder):
    """The layout in `folder`, as {split: (path, list_images)} where list_images(path) -> [RawImage].

    Raises UserError where there is none.
    """
    for pattern, list_images in LAYOUTS:
        paths = {split: pathlib.Path(folder, pattern.format(split)) for split in SPLITS}
        if all(path.exists() for path in paths.values()):
            return {split: (path, list_images) for split, path in paths.items()}
    raise UserError(
        f'--manual_dir={folder}: no miniImageNet, looked for the folders train, val and test, for train.csv, val.csv '
        'and test.csv beside images/, and for mini-imagenet-cache-train.pkl, -val.pkl and -test.pkl. '
        'It cannot be downloaded by itself: data/README.md says how to obtain it')


def read_image(path):
    """An image file as uint8 [84, 84, 3], resized with Lanczos as the reference does; grey becomes RGB.

    Raises UserError that names a corrupt or truncated file.
    """
    try:
        with Image.open(path) as image:
            image = image.convert('RGB')
    except Exception as error:  # Pillow's plug-ins raise many types on damaged files.
        raise UserError(f'{path}: not a whole image ({_one_line(error)}); replace it or remove it') from error
    return np.asarray(image if image.size == (SIDE, SIDE) else image.resize((SIDE, SIDE), Image.LANCZOS))


def _one_line(error):
    return ' '.join(f'{type(error).__name__}: {error}'.split())


def _class_folders(folder):
    return [RawImage(f'{path.parent.name}/{path.name}', path.parent.name, functools.partial(read_image, path))
            for path in folder.glob('*/*')
            if path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith('.')
            and not path.parent.name.startswith('.')]


def _csv(table):
    folder = table.parent / 'images'
    try:
        with open(table, newline='', encoding='utf-8-sig') as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f'{table}: not a csv file in UTF-8 ({_one_line(error)})') from error
    if bad := [row for row in rows if not (row.get('filename') and row.get('label'))]:
        raise UserError(f'{table}: every row needs the columns filename and label, found {dict(bad[0])}')
    if lost := [row['filename'] for row in rows if not (folder / row['filename']).is_file()]:
        raise UserError(f'{table}: {folder} does not hold {lost[0]}; {len(lost)} of the {len(rows)} files are missing')
    return [RawImage(row['filename'], row['label'], functools.partial(read_image, folder / row['filename']))
            for row in rows]


def _cache(path):
    content = load_arrays(path)
    try:
        images, classes = content['image_data'], dict(content['class_dict'])
        if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE, 3):
            raise UserError(f'{path}: image_data is {images.dtype} {images.shape}, not uint8 (n, {SIDE}, {SIDE}, 3)')
        return [RawImage(f'{int(number):06d}', str(label), functools.partial(images.__getitem__, int(number)))
                for label, numbers in classes.items() for number in np.arange(len(images))[numbers]]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{path}: expected a dict of image_data, an array, and class_dict, which lists the images of '
                        f'each class ({_one_line(error)})') from error


LAYOUTS = (
    ('{}', _class_folders),  # train/<class>/*.jpg
    ('{}.csv', _csv),  # columns filename and label; images/<filename>
    ('mini-imagenet-cache-{}.pkl', _cache))  # {'image_data': [n, 84, 84, 3], 'class_dict': {class: [numbers]}}


class _ArraysOnly(pickle.Unpickler):
    """A pickle can name any function for the loader to call; all are refused but the few that build arrays."""
    ALLOWED = {('numpy', 'ndarray'), ('numpy', 'dtype'), ('_codecs', 'encode'), ('collections', 'OrderedDict')} | {
        (f'numpy.{core}.{module}', name) for core in ('core', '_core')
        for module, name in (('multiarray', '_reconstruct'), ('multiarray', 'scalar'), ('numeric', '_frombuffer'))}

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise UserError(f'refused, since loading it would use {module}.{name}, and images need no such thing')
        return super().find_class(module.replace('numpy.core', 'numpy._core'), name)


def load_arrays(path):
    """Unpickles plain containers and NumPy arrays (also as Python 2 wrote them); executes nothing else.

    Raises UserError where the file holds anything else or is cut short.
    """
    with open(path, 'rb') as file:
        try:
            return _ArraysOnly(file, encoding='latin1').load()
        except UserError as error:
            raise UserError(f'{path}: {error}') from None
        except Exception as error:  # A damaged pickle can raise anything.
            raise UserError(f'{path}: not a whole pickle of arrays ({_one_line(error)})') from error
