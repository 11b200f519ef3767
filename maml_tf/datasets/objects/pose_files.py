"""The layouts in which pictures of turned objects lie on disk.

    train_data_ins.pkl, val_data_ins.pkl (or train_data.pkl, val_data.pkl)
        as the released code of Yin et al. 2020 writes and reads them (google-research,
        meta_learning_without_memorization/pose_data/data_gen.py): each a pair of pictures,
        [objects, n, 128, 128] or flat, uint8, and labels [objects, n, 1 to 3], the last of which is
        the angle, a full turn being 1
    train/<object>/<angle>.png, test/<object>/<angle>.png, and perhaps val/
        the same in folders, ours; angles in degrees

No code of a pickle runs, see raw/pickles.py.
"""

import math
import pathlib
from typing import NamedTuple

import numpy as np

from maml_tf.datasets.raw.image_files import each, read_image
from maml_tf.datasets.raw.listing import list_folder
from maml_tf.datasets.raw.pickles import load_arrays
from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal.text import described, shown

PICKLES = ('train_data_ins.pkl', 'val_data_ins.pkl'), ('train_data.pkl', 'val_data.pkl')
EXPECTED = (
    'train_data.pkl and val_data.pkl, or folders train and test of a folder for each object with '
    'pictures named by their angles'
)


class Poses(NamedTuple):
    """Pictures of objects, object after object.

    images: uint8 [all, side, side, 1]; turns: float32 [all], angles as parts of a full turn, from 0
    to 1; sizes: int [objects], pictures of each.
    """

    images: np.ndarray
    turns: np.ndarray
    sizes: np.ndarray

    def part(self, first: int, last: int) -> 'Poses':
        """Returns objects first ... last - 1."""
        ends = np.concatenate([[0], np.cumsum(self.sizes)])
        here = slice(ends[first], ends[last])
        return Poses(self.images[here], self.turns[here], self.sizes[first:last])


def read(folder: pathlib.Path, side: int) -> dict[str, Poses]:
    """Reads a folder in one of the layouts -> {'train', 'test' and perhaps 'val': Poses}.

    side: of the pictures in pixels; pictures in folders are resized, those of pickles have it.
    Raises: ArgumentError where there is no layout, UserError where a file is bad.
    """
    for names in PICKLES:
        files = [folder / name for name in names]
        if all(file.is_file() for file in files):
            # What they call validation objects are those that the paper tests on.
            return {split: of_pickle(file, side) for split, file in zip(('train', 'test'), files)}
    if (folder / 'train').is_dir() and (folder / 'test').is_dir():
        there = [split for split in ('train', 'val', 'test') if (folder / split).is_dir()]
        return {split: of_folder(folder / split, side) for split in there}
    raise ArgumentError('data_dir', shown(folder), f'needs {EXPECTED}')


def of_pickle(path: pathlib.Path, side: int) -> Poses:
    """Reads a pickle. Raises UserError where it holds something else."""
    content = load_arrays(path)
    try:
        images, labels = content
        images = [np.stack([np.asarray(one) for one in of_object]) for of_object in images]
        labels = [np.asarray(of_object, np.float64) for of_object in labels]
        labels = [one.reshape(len(one), -1) for one in labels]
    except (TypeError, ValueError) as error:
        raise UserError(
            f'{path}: expected a pair, pictures and labels of each object ({described(error)})'
        ) from error
    if len(images) != len(labels) or not images:
        raise UserError(f'{path}: pictures of {len(images)} objects, labels of {len(labels)}')
    for number, (of_object, label) in enumerate(zip(images, labels)):
        where = f'{path}: object {number}'
        if of_object.dtype != np.uint8 or of_object[0].size != side * side:
            shape = of_object.shape[1:]
            reason = f'pictures are {of_object.dtype} {shape}, not uint8 of {side}x{side} pixels'
            raise UserError(f'{where}: {reason}')
        if len(label) != len(of_object) or not 1 <= label.shape[1] <= 3:
            reason = f'labels are {label.shape}, not ({len(of_object)}, 1) to ({len(of_object)}, 3)'
            raise UserError(f'{where}: {reason}')
        if not np.all((label[:, -1] >= 0) & (label[:, -1] <= 1)):
            raise UserError(f'{where}: the last label is the angle, a full turn being 1')
    return Poses(
        np.concatenate([one.reshape(-1, side, side, 1) for one in images]),
        np.concatenate([label[:, -1] for label in labels]).astype(np.float32),
        np.array([len(one) for one in images]),
    )


def of_folder(folder: pathlib.Path, side: int) -> Poses:
    """Reads a folder of objects. Raises UserError for a name that is no angle."""
    objects = list_folder(folder).classes
    if lost := [name for name, paths in objects.items() if not paths]:
        raise UserError(f'{shown(folder / lost[0])}: no pictures in it; remove it')
    paths = [path for paths in objects.values() for path in paths]
    degrees = np.array([_degrees(path) for path in paths])
    pixels = list(each(lambda path: read_image(path, side, 1), paths))
    sizes = np.array([len(paths) for paths in objects.values()])
    return Poses(np.stack(pixels), (degrees % 360 / 360).astype(np.float32), sizes)


def _degrees(path):
    try:
        degrees = float(path.stem)
    except ValueError:
        degrees = math.nan
    if not math.isfinite(degrees):
        raise UserError(f'{shown(path)}: the name of a picture is its angle in degrees, as 120.png')
    return degrees
