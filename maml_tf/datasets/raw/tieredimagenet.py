"""The layouts in which people have tieredImageNet on disk, read alike; LAYOUTS lists them.

The pickles of Ren et al. 2018 number the classes, in an order of their own, and by the code that
reads them their `label_specific_str` are English names. Classes without WordNet ids are taken by
their number, and their count is checked, and that of their super-categories. Where there are ids
(class folders, or a `label_specific_str` that holds them), they are checked against
data/tieredimagenet/, and the classes are in the order of its lists.
"""

import functools
import io
import pathlib
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from maml_tf.datasets.raw import images as raw_images
from maml_tf.datasets.raw import pickles
from maml_tf.datasets.raw.images import SIDE, RawImage, RawSplit, read_resized
from maml_tf.datasets.raw.npz import NpzImages
from maml_tf.datasets.raw.splits import class_names
from maml_tf.errors import UserError
from maml_tf.terminal import progress
from maml_tf.terminal.text import described

LISTS = 'tieredimagenet'
WORDNET_ID = re.compile(r'n\d{8}')
# The part of a PNG's header that tells that it can stay as it is: size, 8 bits, RGB.
HEADER = slice(16, 26)
AS_IT_IS = struct.pack('>IIBB', SIDE, SIDE, 8, 2)


def find(manual_dir: str | pathlib.Path) -> dict[str, Callable[[], RawSplit]]:
    """Returns the layout in the folder `manual_dir`, as {split: () -> RawSplit}.

    Raises: ArgumentError where there is none.
    """
    return raw_images.find(
        manual_dir,
        LAYOUTS,
        'tieredImageNet',
        'train_images_png.pkl and train_labels.pkl, or train_images.npz and '
        'train_labels.pkl (and val_… and test_… alike), or the folders train, val and test',
    )


def super_categories(split: str) -> dict[str, str]:
    """Returns {class: super-category} of a split, WordNet ids in the order of its list."""
    return dict(line.split(',') for line in class_names(LISTS)[split])


class _Labels(NamedTuple):
    """Holds what a pickle of labels says.

    numbers: [images], number of the class
    names:   of the classes, or None
    general: [images], number of the super-category, or None
    """

    numbers: np.ndarray
    names: list[str] | None
    general: np.ndarray | None


def _class_folders(split, folder):
    return _by_id(split, folder, raw_images.images_in_folders(folder))


def _png_pickle(split, images, labels):
    positions = progress.bar(
        pickles.png_positions(images),
        f'looking through {images.name}',
        unit=' images',
        delay=3,
        leave=False,
    )
    reads = [functools.partial(_read_png, images, position) for position in positions]
    return _labelled(split, images, labels, reads)


def _read_png(path, position):
    data = pickles.png_at(path, position)
    pixels = read_resized(io.BytesIO(data), f'{path}, the image at byte {position}')
    # To encode it anew would take three times as long as all the rest.
    return data if data[HEADER] == AS_IT_IS else pixels


def _npz(split, images, labels):
    array = NpzImages(images)
    reads = [functools.partial(array.read, number) for number in range(array.count)]
    return _labelled(split, images, labels, reads)


LAYOUTS = (  # Some unpack the pickles into folders beside them, so folders come last.
    (['{}_images_png.pkl', '{}_labels.pkl'], _png_pickle),  # a list of PNGs, each an array of bytes
    (['{}_images.npz', '{}_labels.pkl'], _npz),  # images: [n, 84, 84, 3] in blue, green, red
    (['{}'], _class_folders),  # train/<class>/*.jpg
)


def _labelled(split, images_path, path, reads):
    """Returns the RawSplit of images that `reads` read, with the labels of the pickle `path`."""
    numbers, names, general = _labels(path)
    if len(numbers) != len(reads):
        raise UserError(f'{images_path}: {len(reads)} images, but {path} has {len(numbers)} labels')
    published = super_categories(split)
    if names is None:
        names = [str(number) for number in range(len(published))]
    if len(set(names)) != len(published):
        raise UserError(
            f'{path}: names {len(set(names))} different classes; the {split} split has '
            f'{len(published)}'
        )
    if (bad := numbers[(numbers < 0) | (numbers >= len(names))]).size:
        raise UserError(
            f'{path}: label {bad[0]} is out of range; the {len(names)} classes of the {split} '
            f'split are numbered from 0 to {len(names) - 1}'
        )
    images = [
        RawImage(f'{i:09d}', names[number], read)
        for i, (number, read) in enumerate(zip(numbers, reads))
    ]
    if any(WORDNET_ID.fullmatch(name) for name in names):
        return _by_id(split, path, images)
    raw_images.check_classes(path, images, names, f'{split} classes')
    groups = None if general is None else _groups(split, path, numbers, general)
    return RawSplit(images, names, groups)


def _labels(path) -> _Labels:
    """Reads a pickle of labels.

    What has only `labels` numbers the classes of all splits in one row; here each split's begin at
    0.
    """
    content = pickles.load_arrays(path)
    try:
        content = {_text(key): value for key, value in content.items()}
        if 'label_specific' not in content:
            numbers = _whole_numbers(content['labels'])
            return _Labels(numbers - numbers.min(), None, None)
        names = content.get('label_specific_str')
        general = content.get('label_general')
        return _Labels(
            _whole_numbers(content['label_specific']),
            None if names is None else [_text(name) for name in names],
            None if general is None else _whole_numbers(general),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'{path}: expected a dict of label_specific, or labels, which numbers the class of '
            f'each image ({described(error)})'
        ) from error


def _text(value):
    return value.decode('latin1') if isinstance(value, bytes) else str(value)


def _whole_numbers(values):
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in 'iu':
        raise TypeError(f'{values.dtype} {values.shape} instead of a list of whole numbers')
    return values.astype(int)


def _by_id(split, path, images):
    """Returns the RawSplit of images whose labels are WordNet ids."""
    groups = super_categories(split)
    whose = f'{split} classes of Ren et al. (data/{LISTS}/{split}.txt)'
    raw_images.check_classes(path, images, groups, whose)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups.values()))}
    return RawSplit(images, list(groups), [numbers[group] for group in groups.values()])


def _groups(split, path, numbers, general):
    """Returns the super-category of each class, given those of its images."""
    groups = [group for _, group in sorted(set(zip(numbers.tolist(), general.tolist())))]
    classes = super_categories(split)
    count = len(set(classes.values()))
    if (len(general), len(groups), len(set(groups))) != (len(numbers), len(classes), count):
        raise UserError(
            f'{path}: label_general does not put the {len(classes)} classes of the {split} split '
            f'into {count} super-categories, each class into one'
        )
    return groups
