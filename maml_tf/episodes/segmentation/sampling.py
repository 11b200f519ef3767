"""Which region, classes and tiles a task takes, drawn by its index."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.episodes.random_bits import KEYS, Stream, choose, uniform
from maml_tf.episodes.segmentation.label_images import LabelImages
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError

# A tile is one of a class where the class has this share of its pixels: with a pixel or two it
# could not teach the class.
LEAST_SHARE = 0.05


class TilePicks(NamedTuple):
    """Tasks of tiles by the numbers of what they hold.

    regions: int32 [tasks], numbers of regions in their split
    classes: int32 [tasks, way], numbers of classes
    tiles:   int32 [tasks, way, examples], numbers of tiles in their split; the support comes first
    keys:    uint32 [tasks, 2], each task's own random bits
    """

    regions: tf.Tensor
    classes: tf.Tensor
    tiles: tf.Tensor
    keys: tf.Tensor


class RegionSampler:
    """Draws a region, some of its classes, and tiles: sampler(start, count) -> TilePicks.

    Of each class a task has shot + query tiles in which the class has a share of LEAST_SHARE or
    more; no tile comes twice in a task, and a tile has mostly several of the task's classes in it.
    The class with the fewest tiles in the region draws first. So a class can always be served if
    the i-th rarest one (from 1) has i * (shot + query) tiles: a region's classes that have not are
    left out, and a region of fewer classes than the way.

    Args:
      images: the LabelImages of a split.
      stream: (seed, split), see random_bits.Stream.
    Attributes:
      regions: numbers of the regions that give tasks. classes: the classes of each of them.
    Raises: ArgumentError where no region gives a task.
    """

    def __init__(self, images: LabelImages, spec: EpisodeSpec, stream: tuple[int, str]):
        if spec.varies or spec.within_groups:
            reason = 'tasks of label images have all one size, and are of one region each'
            raise ArgumentError('spec', None, reason)
        self.spec, self.examples = spec, spec.shot + spec.query
        if not len(images.tiles.sizes):
            raise ArgumentError('split_file', None, f'the {stream[1]} split has no region')
        sizes, firsts = images.tiles.sizes, images.tiles.firsts
        height, width = images.tiles.images.shape[1:3]
        shows = images.counts >= max(1, LEAST_SHARE * height * width)
        tiles_of = np.stack(
            [shows[first : first + size].sum(0) for first, size in zip(firsts, sizes)]
        )
        served = [self._served(counts) for counts in tiles_of]
        self.regions = [r for r, classes in enumerate(served) if len(classes) >= spec.way]
        if not self.regions:
            best = max(map(len, served))
            reason = (
                f'no region of the {stream[1]} split has so many classes with tiles enough for '
                f'{spec.shot} support + {spec.query} query tiles of each; the best has {best}'
            )
            raise ArgumentError('way', spec.way, reason)
        self.classes = [served[r] for r in self.regions]
        self._most_tiles = int(max(sizes[r] for r in self.regions))
        most = max(map(len, self.classes))
        self._members = np.stack([np.pad(c, (0, most - len(c))) for c in self.classes])
        self._numbers = np.array([len(c) for c in self.classes], np.int32)
        self._sizes = sizes[self.regions].astype(np.int32)
        self._firsts = firsts[self.regions]
        self._tiles_of = tiles_of[self.regions].astype(np.float32)
        self._shows = shows
        seed, split = stream
        # What each stream is for never changes: published results name tasks by their index.
        self._class_bits, self._tile_bits, self._region_bits = (
            Stream(seed, split, i) for i in (0, 2, 4)
        )
        self._key_bits = Stream(seed, split, KEYS)

    def _served(self, counts):
        """Returns the numbers of a region's classes that any task can have, int32, ascending."""
        kept = []
        for c in np.argsort(counts, kind='stable'):
            if counts[c] >= min(len(kept) + 1, self.spec.way) * self.examples:
                kept.append(c)
        return np.sort(np.array(kept, np.int32))

    def __call__(self, start: tf.Tensor | int, count: int) -> TilePicks:
        """Returns the picks of tasks start ... start + count - 1."""
        way, most = self.spec.way, self._most_tiles
        bits = self._region_bits.bits(start, count, 1)[:, 0]
        region = tf.cast(uniform(bits, 0.0, float(len(self.regions))), tf.int32)
        place = choose(
            self._class_bits.bits(start, count, self._members.shape[1]),
            way,
            below=tf.gather(self._numbers, region),
        )
        classes = tf.gather(tf.gather(self._members, region), place, batch_dims=1)
        tiles_of = tf.gather(tf.gather(self._tiles_of, region), classes, batch_dims=1)
        order = tf.math.top_k(-tiles_of, way).indices  # the rarest class first
        first, size = tf.gather(self._firsts, region), tf.gather(self._sizes, region)
        inside = tf.range(most) < size[:, None]
        number = tf.where(inside, first[:, None] + tf.range(most), 0)
        shows = tf.gather(self._shows, number) & inside[..., None]  # [tasks, most, all classes]
        bits = tf.reshape(self._tile_bits.bits(start, count, way * most), [count, way, most])
        priorities = tf.cast(tf.bitwise.right_shift(bits, 8), tf.float32)
        free, tiles = (
            tf.ones([count, most], tf.bool),
            tf.zeros([count, way, self.examples], 'int32'),
        )
        for rank in range(way):
            label = order[:, rank]
            of_class = tf.gather(
                shows, tf.gather(classes, label, batch_dims=1), axis=2, batch_dims=1
            )
            own = tf.where(of_class & free, tf.gather(priorities, label, batch_dims=1), -1.0)
            drawn = tf.math.top_k(own, self.examples).indices
            free &= ~tf.reduce_any(tf.one_hot(drawn, most, True, False, dtype=tf.bool), 1)
            tiles += tf.one_hot(label, way, dtype=tf.int32)[..., None] * drawn[:, None]
        keys = self._key_bits.bits(start, count, 2)
        regions = tf.gather(np.array(self.regions, np.int32), region)
        return TilePicks(regions, classes, first[:, None, None] + tiles, keys)
