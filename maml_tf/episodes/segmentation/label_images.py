"""Tiles of regions with the class of every pixel, as bytes that are kept in memory or in a file."""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.segmentation.values import TOP_OF_BYTE, TOP_OF_WORD


class LabelImages(NamedTuple):
    """Tiles, region after region.

    tiles: its classes are the regions, its images the packed tiles, see `packed`.
    counts: int [tiles, classes], pixels of each class in each tile.
    class_names: of the label images' numbers 0, 1 ...
    """

    tiles: ClassImages
    counts: np.ndarray
    class_names: list[str]

    @property
    def streams(self) -> bool:
        """Whether the tiles are read from a file as they are needed."""
        return self.tiles.streams


def packed(bands: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Joins bands and labels in one array of bytes.

    Args:
      bands: [..., height, width, bands], uint8 from 0 to 255, or uint16 from 0 to TOP_OF_WORD.
      labels: uint8 [..., height, width], a number of a class or UNLABELLED.
    Returns: uint8 [..., height, width, bands or 2 * bands, and 1]: the low byte of a band first.
    """
    if bands.dtype != np.uint8:
        words = np.ascontiguousarray(np.minimum(bands, TOP_OF_WORD), '<u2')
        bands = words.view(np.uint8)
    return np.concatenate([bands, labels[..., np.newaxis].astype(np.uint8)], -1)


def depth(bands: int, wide: bool) -> int:
    """Returns the bytes of a packed pixel; wide: whether a band takes two."""
    return bands * (2 if wide else 1) + 1


def unpacked(tiles: tf.Tensor, bands: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (float32 [..., height, width, bands] from 0 to 1, uint8 labels [..., height, width]).

    tiles: as `packed` returns them. XLA can compile it.
    """
    labels = tiles[..., -1]
    if tiles.shape[-1] == depth(bands, wide=False):
        return tf.cast(tiles[..., :-1], tf.float32) * (1 / TOP_OF_BYTE), labels
    low, high = (tf.cast(tiles[..., i : 2 * bands : 2], tf.float32) for i in (0, 1))
    return (low + 256 * high) * (1 / TOP_OF_WORD), labels


def count_pixels(tiles: np.ndarray, classes: int) -> np.ndarray:
    """Counts the pixels of each class in packed tiles, int32 [tiles, classes]."""
    counts = np.zeros([len(tiles), classes], np.int32)
    for i in range(len(tiles)):  # One at a time: they may lie in a file larger than memory.
        counts[i] = np.bincount(tiles[i, ..., -1].ravel(), minlength=256)[:classes]
    return counts


def from_arrays(
    bands: np.ndarray,
    labels: np.ndarray,
    regions: Sequence[str],
    class_names: Iterable[str],
) -> LabelImages:
    """Makes LabelImages of tiles in memory.

    Args:
      bands, labels: as of `packed`, [tiles, height, width, ...].
      regions: the name of each tile's region; those of a region follow each other.
    """
    runs = [(name, len(list(run))) for name, run in itertools.groupby(regions)]
    tiles, class_names = packed(bands, labels), list(class_names)
    sizes = np.array([size for _, size in runs])
    numbers = [str(number) for size in sizes for number in range(size)]
    regional = ClassImages(tiles, sizes, [name for name, _ in runs], numbers)
    return LabelImages(regional, count_pixels(tiles, len(class_names)), class_names)


def joined(parts: Sequence[LabelImages]) -> LabelImages:
    """Returns the tiles of several splits in memory as one."""
    regional = [part.tiles for part in parts]
    names = lambda field: list(itertools.chain(*(getattr(part, field) for part in regional)))
    tiles = ClassImages(
        tf.concat([part.images for part in regional], 0),
        np.concatenate([part.sizes for part in regional]),
        names('class_names'),
        names('image_names'),
    )
    counts = np.concatenate([part.counts for part in parts])
    return LabelImages(tiles, counts, parts[0].class_names)
