"""The layouts in which people have miniImageNet on disk, read alike; LAYOUTS lists them."""

import csv
import functools
import os
import pathlib
from collections.abc import Callable

import numpy as np

from maml_tf.datasets.raw import images as raw_images
from maml_tf.datasets.raw.images import SIDE, RawImage, RawSplit, read_resized
from maml_tf.datasets.raw.pickles import load_arrays
from maml_tf.datasets.raw.splits import class_names
from maml_tf.errors import UserError
from maml_tf.serialisation.files import check_is_file
from maml_tf.terminal.text import described, shortened

LISTS = 'miniimagenet_ravi'


def find(manual_dir: str | pathlib.Path) -> dict[str, Callable[[], RawSplit]]:
    """Returns the layout in the folder `manual_dir`, as {split: () -> RawSplit}.

    Raises: ArgumentError where there is none.
    """
    return raw_images.find(
        manual_dir,
        LAYOUTS,
        'miniImageNet',
        'the folders train, val and test, for train.csv, val.csv and test.csv beside '
        'images/, and for mini-imagenet-cache-train.pkl, -val.pkl and -test.pkl',
    )


def _checked(list_images):
    """Makes (split, path) -> RawSplit of path -> [RawImage]."""

    def read(split, path):
        names = class_names(LISTS)[split]
        images = list_images(path)
        whose = f'{split} classes of Ravi and Larochelle (data/{LISTS}/{split}.txt)'
        raw_images.check_classes(path, images, names, whose)
        return RawSplit(images, names)

    return read


def _csv(table):
    folder = table.parent / 'images'
    try:
        check_is_file(table)
        with open(table, newline='', encoding='utf-8-sig') as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise UserError(f'{table}: not a csv file in UTF-8 ({described(error)})') from error
    if bad := [row for row in rows if not (row.get('filename') and row.get('label'))]:
        raise UserError(
            f'{table}: every row needs the columns filename and label, found '
            f'{shortened(dict(bad[0]))}'
        )
    if lost := [row['filename'] for row in rows if not os.path.isfile(folder / row['filename'])]:
        raise UserError(
            f'{table}: {folder} does not hold {shortened(lost[0])}; {len(lost)} of the '
            f'{len(rows)} files are missing'
        )
    return [
        RawImage(
            row['filename'], row['label'], functools.partial(read_resized, folder / row['filename'])
        )
        for row in rows
    ]


def _cache(path):
    content = load_arrays(path)
    try:
        images, classes = content['image_data'], dict(content['class_dict'])
        if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE, 3):
            raise UserError(
                f'{path}: image_data is {images.dtype} {images.shape}, not uint8 (n, {SIDE}, '
                f'{SIDE}, 3)'
            )
        return [
            RawImage(
                f'{int(number):06d}', str(label), functools.partial(images.__getitem__, int(number))
            )
            for label, numbers in classes.items()
            for number in np.arange(len(images))[numbers]
        ]
    except UserError:
        raise
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise UserError(
            f'{path}: expected a dict of image_data, an array, and class_dict, which lists the '
            f'images of each class ({described(error)})'
        ) from error


LAYOUTS = (
    (['{}'], _checked(raw_images.images_in_folders)),  # train/<class>/*.jpg
    (['{}.csv'], _checked(_csv)),  # columns filename and label; images/<filename>
    # {'image_data': [n, 84, 84, 3], 'class_dict': {class: [numbers]}}
    (['mini-imagenet-cache-{}.pkl'], _checked(_cache)),
)
