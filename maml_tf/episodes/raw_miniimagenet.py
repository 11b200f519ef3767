"""The layouts in which people have miniImageNet on disk, read into one stream of images.

(a) class folders   {train,val,test}/<class>/*.jpg
(b) one folder      images/*.jpg with train.csv, val.csv, test.csv (columns filename, label)
(c) cache pickles   mini-imagenet-cache-{train,val,test}.pkl
"""
import csv
import io
import pathlib
import pickle

import numpy as np
from PIL import Image, UnidentifiedImageError

from maml_tf.errors import UserError

SPLITS = ('train', 'val', 'test')
SIDE = 84
IMAGE_ENDINGS = {'.jpg', '.jpeg', '.png'}


def reader(folder):
    """Returns examples(split), which yields (name, class name, uint8 [84, 84, 3]).

    Raises UserError where `folder` has none of the layouts.
    """
    folder = pathlib.Path(folder)
    if all((folder / split).is_dir() for split in SPLITS):
        return lambda split: _class_folders(folder / split)
    if (folder / 'images').is_dir() and all((folder / f'{split}.csv').is_file() for split in SPLITS):
        return lambda split: _csv(folder, split)
    if all(_cache(folder, split).is_file() for split in SPLITS):
        return lambda split: _pickle(_cache(folder, split))
    raise UserError(f'--manual_dir={folder}: no miniImageNet, looked for train/ val/ test/ with class folders, for '
                    f'images/ with train.csv val.csv test.csv, and for {_cache(folder, "train").name} and its like. '
                    'See data/README.md for how to obtain it')


def read_image(path):
    """An image file as uint8 [84, 84, 3], resized with Lanczos as the reference does; grey becomes RGB.

    Raises UserError that names a corrupt or truncated file.
    """
    try:
        with Image.open(path) as image:
            image = image.convert('RGB')
            return np.asarray(image if image.size == (SIDE, SIDE) else image.resize((SIDE, SIDE), Image.LANCZOS))
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise UserError(f'{path}: not a whole image ({error}); replace the file, or remove it') from error


def _visible(paths):
    return sorted(path for path in paths if not path.name.startswith('.'))


def _class_folders(folder):
    for class_folder in _visible(path for path in folder.iterdir() if path.is_dir()):
        for path in _visible(class_folder.iterdir()):
            if path.suffix.lower() in IMAGE_ENDINGS:
                yield f'{class_folder.name}/{path.name}', class_folder.name, read_image(path)


def _csv(folder, split):
    with open(folder / f'{split}.csv', newline='', encoding='utf-8') as file:
        for row in csv.DictReader(file):
            if not row.get('filename') or not row.get('label'):
                raise UserError(f'{folder / f"{split}.csv"}: the columns filename and label are expected, found {row}')
            path = folder / 'images' / row['filename']
            if not path.is_file():
                raise UserError(f'{folder / f"{split}.csv"} lists {row["filename"]}, which images/ does not hold')
            yield row['filename'], row['label'], read_image(path)


def _cache(folder, split):
    return folder / f'mini-imagenet-cache-{split}.pkl'


def _pickle(path):
    with open(path, 'rb') as file:
        content = load_arrays(file, path)
    try:
        images, classes = content['image_data'], content['class_dict']
        for name, numbers in classes.items():
            for number in numbers:
                image = images[number]
                if image.shape != (SIDE, SIDE, 3) or image.dtype != np.uint8:
                    raise UserError(f'{path}: image_data is {image.dtype} {image.shape}, not uint8 (84, 84, 3)')
                yield f'{name}/{int(number)}', str(name), image
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f'{path}: image_data and class_dict are expected in it ({error!r})') from error


class _ArraysOnly(pickle.Unpickler):
    """Reads what such caches hold: dicts, lists, strings, numbers and NumPy arrays. A pickle can name any function
    to be called while it loads; every name but these few is refused."""
    ALLOWED = {(f'numpy.{core}.multiarray', name) for core in ('core', '_core') for name in ('_reconstruct', 'scalar')}
    ALLOWED |= {('numpy', 'ndarray'), ('numpy', 'dtype'), ('_codecs', 'encode'), ('collections', 'OrderedDict')}
    ALLOWED |= {(f'numpy.{core}.numeric', '_frombuffer') for core in ('core', '_core')}

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise UserError(f'refused: it names {module}.{name}, which is no array, list, dict or text')
        return super().find_class(module.replace('numpy.core', 'numpy._core'), name)


def load_arrays(file, name):
    """Unpickles plain containers and NumPy arrays (also as Python 2 wrote them); executes nothing.

    Raises UserError where the file holds anything else or is cut short.
    """
    try:
        return _ArraysOnly(io.BufferedReader(file) if not isinstance(file, io.BufferedReader) else file,
                           encoding='latin1').load()
    except UserError as error:
        raise UserError(f'{name}: {error}') from None
    except (pickle.UnpicklingError, EOFError, ValueError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise UserError(f'{name}: not a whole pickle of arrays ({error!r})') from error
