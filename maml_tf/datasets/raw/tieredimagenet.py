"""The layouts in which people have tieredImageNet on disk, read alike; LAYOUTS lists them.

The pickles of Ren et al. 2018 number the classes, in an order of their own, and by the code that
reads them their `label_specific_str` are English names. Classes without WordNet ids are taken by
their number, and their count is checked, and that of their super-categories. Where there are ids
(class folders, or a `label_specific_str` that holds them), they are checked against
data/tieredimagenet/, and the classes are in the order of its lists.
"""

import functools
import io
import pickletools
import re
import struct
import zipfile

import numpy as np

from maml_tf.datasets.raw import images as raw_images
from maml_tf.datasets.raw.images import SIDE, RawImage, RawSplit, one_line, read_image
from maml_tf.datasets.splits import class_names
from maml_tf.errors import UserError
from maml_tf.terminal import progress

LISTS = 'tieredimagenet'
# What a PNG starts with, as bytes and as Python 2 text, and the header of one that can stay as it
# is: 8-bit RGB.
SIGNATURES = (b'\x89PNG\r\n\x1a\n', '\x89PNG\r\n\x1a\n')
AS_IT_IS = struct.pack('>IIBB', SIDE, SIDE, 8, 2)


def find(folder):
    """The layout in `folder`, as {split: () -> RawSplit}. Raises UserError where there is none."""
    return raw_images.find(
        folder,
        LAYOUTS,
        'tieredImageNet',
        'train_images_png.pkl and train_labels.pkl, or train_images.npz and '
        'train_labels.pkl (and val_… and test_… alike), or the folders train, val and test',
    )


def super_categories(split):
    """{class: super-category} of 'train', 'val' or 'test', WordNet ids in the order of the
    published list."""
    return dict(line.split(',') for line in class_names(LISTS)[split])


def _class_folders(split, folder):
    return _by_id(split, folder, raw_images.images_in_folders(folder))


def _png_pickle(split, images, labels):
    positions = progress.bar(
        _png_positions(images),
        f'looking through {images.name}',
        unit=' images',
        delay=3,
        leave=False,
    )
    return _labelled(
        split,
        images,
        labels,
        [functools.partial(_read_png, images, position) for position in positions],
    )


def _png_positions(path):
    """Yields where each encoded image lies in a pickle, which is looked through without loading it.

    As Python 2 wrote it, loading the published training images takes more than twice the 7 GB of
    the file. Nothing is
    executed: to look through a pickle is not to follow it.
    """
    with open(path, 'rb') as file:
        try:
            for _, value, position in pickletools.genops(file):
                if isinstance(value, (bytes, bytearray, str)) and value[:8] in SIGNATURES:
                    yield position
        except Exception as error:  # A damaged pickle can raise anything.
            raise UserError(f'{path}: not a whole pickle of images ({one_line(error)})') from error


def _read_png(path, position):
    with open(path, 'rb') as file:
        file.seek(position)
        _, value, _ = next(pickletools.genops(file))
    data = value.encode('latin1') if isinstance(value, str) else bytes(value)
    pixels = read_image(io.BytesIO(data), f'{path}, the image at byte {position}')
    # To encode it anew would take three times as long as all the rest.
    return data if data[16:26] == AS_IT_IS else pixels


def _npz(split, images, labels):
    array = _ImagesOfNpz(images)
    return _labelled(
        split,
        images,
        labels,
        [functools.partial(array.read, number) for number in range(array.count)],
    )


class _ImagesOfNpz:
    """The array `images` of an .npz file, read image by image, which is fast in ascending order."""

    def __init__(self, path):
        self._path = path
        try:
            self._file = zipfile.ZipFile(path).open('images.npy')
            np.lib.format.read_magic(self._file)
            shape, in_fortran_order, dtype = np.lib.format.read_array_header_1_0(self._file)
        except Exception as error:  # A damaged file can raise anything.
            raise UserError(
                f'{path}: not a whole .npz file with the array images ({one_line(error)})'
            ) from error
        if dtype != np.uint8 or shape[1:] != (SIDE, SIDE, 3) or in_fortran_order:
            raise UserError(f'{path}: images is {dtype} {shape}, not uint8 (n, {SIDE}, {SIDE}, 3)')
        self.count, self._start = shape[0], self._file.tell()

    def read(self, number):
        """uint8 [84, 84, 3]"""
        size = SIDE * SIDE * 3
        try:
            self._file.seek(self._start + number * size)
            pixels = np.frombuffer(self._file.read(size), np.uint8).reshape(SIDE, SIDE, 3)
        except Exception as error:  # A damaged file can raise anything.
            raise UserError(
                f'{self._path}: image {number} cannot be read ({one_line(error)})'
            ) from error
        # The published script fills the array with OpenCV, whose channels are blue, green, red.
        return pixels[..., ::-1]


LAYOUTS = (  # Some unpack the pickles into folders beside them, so folders come last.
    (['{}_images_png.pkl', '{}_labels.pkl'], _png_pickle),  # a list of PNGs, each an array of bytes
    (['{}_images.npz', '{}_labels.pkl'], _npz),  # images: [n, 84, 84, 3] in blue, green, red
    (['{}'], _class_folders),
)  # train/<class>/*.jpg


def _labelled(split, images_path, path, reads):
    """The RawSplit of images that `reads` read, with the labels of the pickle `path`."""
    numbers, names, general = _labels(path)
    if len(numbers) != len(reads):
        raise UserError(f'{images_path}: {len(reads)} images, but {path} has {len(numbers)} labels')
    listed = super_categories(split)
    if names is None:
        names = [str(number) for number in range(len(listed))]
    if len(set(names)) != len(listed):
        raise UserError(
            f'{path}: names {len(set(names))} different classes; the {split} split has '
            f'{len(listed)}'
        )
    if (bad := numbers[(numbers < 0) | (numbers >= len(names))]).size:
        raise UserError(
            f'{path}: label {bad[0]} is out of range; the {len(names)} classes of the {split} '
            'split are '
            f'numbered from 0 to {len(names) - 1}'
        )
    images = [
        RawImage(f'{i:09d}', names[number], read)
        for i, (number, read) in enumerate(zip(numbers, reads))
    ]
    if any(re.fullmatch(r'n\d{8}', name) for name in names):
        return _by_id(split, path, images)
    raw_images.check_classes(path, images, names, f'{split} classes')
    return RawSplit(
        images, names, None if general is None else _groups(split, path, numbers, general)
    )


def _labels(path):
    """(number of each image's class, names of the classes, number of each image's super-category)
    of a labels pickle.

    Names and super-categories are None where they are not given. What has only `labels` numbers the
    classes of all splits in one row; here each split's begin at 0.
    """
    content = raw_images.load_arrays(path)
    try:
        content = {_text(key): value for key, value in content.items()}
        if 'label_specific' not in content:
            numbers = _whole_numbers(content['labels'])
            return numbers - numbers.min(), None, None
        names, general = content.get('label_specific_str'), content.get('label_general')
        return (
            _whole_numbers(content['label_specific']),
            None if names is None else [_text(name) for name in names],
            None if general is None else _whole_numbers(general),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f'{path}: expected a dict of label_specific, or labels, which numbers the class of '
            'each image '
            f'({one_line(error)})'
        ) from error


def _text(value):
    return value.decode('latin1') if isinstance(value, bytes) else str(value)


def _whole_numbers(values):
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in 'iu':
        raise TypeError(f'{values.dtype} {values.shape} instead of a list of whole numbers')
    return values.astype(int)


def _by_id(split, path, images):
    """The RawSplit of images whose labels are WordNet ids."""
    groups = super_categories(split)
    raw_images.check_classes(
        path, images, groups, f'{split} classes of Ren et al. (data/{LISTS}/{split}.txt)'
    )
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups.values()))}
    return RawSplit(images, list(groups), [numbers[group] for group in groups.values()])


def _groups(split, path, numbers, general):
    """The super-category of each class, given those of its images."""
    groups = [group for _, group in sorted(set(zip(numbers.tolist(), general.tolist())))]
    classes = super_categories(split)
    count = len(set(classes.values()))
    if (len(general), len(groups), len(set(groups))) != (len(numbers), len(classes), count):
        raise UserError(
            f'{path}: label_general does not put the {len(classes)} classes of the {split} split '
            'into '
            f'{count} super-categories, each class into one'
        )
    return groups
