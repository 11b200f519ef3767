"""A trained learner, adapted to a region by a few labelled tiles, that labels whole images."""

import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from maml_tf.commands.folders.trained import Trained
from maml_tf.datasets.landcover import bands as scales
from maml_tf.datasets.landcover import folder
from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal import progress
from maml_tf.terminal.text import listed, shown

CHUNK = 16  # tiles in one call


class Mapper:
    """Labels images by the state that adaptation left behind.

    Attributes:
      side: of a tile. bands: which a tile has, one of bands.BANDS.
      values, class_names: of the classes, by their number.
      tiles: how many it was adapted to. shares: {class: its share of their labelled pixels}.
    """

    def __init__(
        self,
        learner: Trained,
        state: Mapping[str, tf.Tensor],
        names: Mapping[int, str],
        tiles: int,
        shares: Mapping[str, float],
    ):
        self._learner, self._state = learner, dict(state)
        self.side, self.bands = learner.input_shape[0], bands_of(learner)
        self.values, self.class_names = list(names), list(names.values())
        self.tiles, self.shares = tiles, dict(shares)
        self._predict = tf.function(self._labels_of, jit_compile=learner.xla, autograph=False)

    def _labels_of(self, tiles):
        outputs = self._learner.predict_query(self._state, tiles[tf.newaxis])['outputs'][0]
        # Outputs beyond the classes at hand were taught nothing.
        return tf.argmax(outputs[..., : len(self.values)], -1)

    @staticmethod
    def scaled(values: np.ndarray) -> np.ndarray:
        """Returns float32 from 0 to 1 of bands as of bands.py."""
        return values.astype(np.float32) / scales.TOP

    def map(self, values: np.ndarray) -> np.ndarray:
        """Returns numbers of classes [height, width] of bands uint16 [height, width, bands].

        The image is cut into tiles; the last row and column of tiles ends where the image does.
        """
        height, width = values.shape[:2]
        places = corners(height, width, self.side)
        found = np.zeros([height, width], np.uint8)
        starts = range(0, len(places), CHUNK)
        for start in progress.bar(starts, 'labelling', unit=' calls', delay=3, leave=False):
            # The last call is filled up with tiles that are labelled already: a graph has one size.
            chunk = [places[i % len(places)] for i in range(start, start + CHUNK)]
            tiles = np.stack([self.scaled(values[box(place, self.side)]) for place in chunk])
            new = places[start : start + CHUNK]
            for place, labels in zip(new, self._predict(tf.constant(tiles)).numpy()):
                found[box(place, self.side)] = labels
        return found


def adapt(
    learner: Trained, labelled: Mapping[pathlib.Path, pathlib.Path], names: Mapping[int, str]
) -> Mapper:
    """Adapts a learner to tiles of a region.

    A learner with more outputs than there are classes leaves the others unused.

    Args:
      labelled: {label image: image}. names: {value in label images: name of the class}.
    Raises:
      ArgumentError: there are more classes than outputs, or no labelled pixel of one of them.
      UserError: a file does not fit.
    """
    way, side = learner.way or len(names), learner.input_shape[0]
    if len(names) > way:
        reason = (
            f'{len(names)} classes, but the learner was trained {way}-way and has as many outputs. '
            f'Set classes to 0, or train with --num_classes={len(names)}'
        )
        raise ArgumentError('support', None, reason)
    table = np.full(256, -1)
    table[list(names)] = np.arange(len(names))
    tiles, labels = [], []
    for label, image in labelled.items():
        values, numbers = folder.read_pair(label, image, bands_of(learner))
        folder.check_known(label, numbers, names)
        height, width = numbers.shape
        if min(height, width) < side:
            reason = f'{height}x{width}, and the learner takes tiles of {side} pixels and more'
            raise UserError(f'{shown(label)}: {reason}')
        for place in corners(height, width, side):
            tiles.append(Mapper.scaled(values[box(place, side)]))
            labels.append(table[numbers[box(place, side)]])
    numbers = np.stack(labels)
    counts = np.bincount(numbers[numbers >= 0], minlength=len(names))
    if not counts.any():
        raise ArgumentError('support', None, 'no pixel of its label images has a class, all are 0')
    if absent := [name for name, count in zip(names.values(), counts) if not count]:
        # Nothing would hold such an output back, and it could take the whole map.
        reason = f'no pixel of {listed(absent)} in its label images'
        reason += f'; leave it out of {folder.CLASSES}'
        raise ArgumentError('support', None, reason)
    support_x, support_y = tf.stack(tiles)[tf.newaxis], tf.one_hot(numbers, way)[tf.newaxis]
    state = learner.adapt(support_x, support_y)
    shares = dict(zip(names.values(), counts / counts.sum(), strict=True))
    return Mapper(learner, state, names, len(tiles), shares)


def bands_of(learner: Trained) -> str:
    """Returns which bands a learner takes, one of bands.BANDS. Raises: ArgumentError."""
    channels = learner.input_shape[-1]
    for name, count in scales.BANDS.items():
        if count == channels:
            return name
    counts = ', '.join(map(str, scales.BANDS.values()))
    raise ArgumentError('init_from', None, f'a learner of {channels} bands, not one of {counts}')


def corners(height: int, width: int, side: int) -> list[tuple[int, int]]:
    """Returns (top, left) of the tiles that cover an image, row by row."""
    starts = lambda length: [*range(0, length - side, side), length - side]
    return [(top, left) for top in starts(height) for left in starts(width)]


def box(place: tuple[int, int], side: int) -> tuple[slice, slice]:
    """Returns the rows and columns of the tile at (top, left)."""
    return slice(place[0], place[0] + side), slice(place[1], place[1] + side)
