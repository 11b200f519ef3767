"""Tasks and batches of tiles with label images."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from maml_tf.episodes.labelled_images import Examples, ImageBatches
from maml_tf.episodes.segmentation.label_images import LabelImages, unpacked
from maml_tf.episodes.segmentation.sampling import RegionSampler, TilePicks
from maml_tf.episodes.streaming import FetchedDraw
from maml_tf.episodes.task import Batch, BatchSpec, EpisodeSpec, Task


class RegionTasks(FetchedDraw):
    """draw(start, count) -> Task of one region each.

    A task's labels are label images [tasks, examples, height, width, way], one-hot; the pixels of
    other classes than the task's have no label, they are all zero.

    Args:
      images: the LabelImages of a split.
      bands: of a tile.
      stream: (seed, split), see random_bits.Stream.
    Raises: ArgumentError where no region gives such tasks.
    """

    def __init__(self, images: LabelImages, bands: int, spec: EpisodeSpec, stream: tuple[int, str]):
        self.images, self.spec, self.streams = images, spec, images.streams
        self.pick = RegionSampler(images, spec, stream)
        self._bands = bands

    def fetch(self, start: tf.Tensor | int, count: int) -> tuple[TilePicks, tf.Tensor]:
        """Returns (TilePicks, their packed tiles uint8 [tasks, way, examples, height, ...])."""
        picks = self.pick(start, count)
        return picks, self.images.tiles.gather(picks.tiles)

    def assemble(self, drawn: TilePicks, images: tf.Tensor) -> Task:
        x, labels = unpacked(images, self._bands)
        classes = tf.cast(drawn.classes, tf.uint8)[:, None, None, None, None]
        y = tf.cast(tf.equal(labels[..., None], classes), tf.float32)
        support, query = slice(None, self.spec.shot), slice(self.spec.shot, None)
        parts = (
            _class_by_class(values[:, :, part]) for part in (support, query) for values in (x, y)
        )
        return Task(*parts, key=drawn.keys)

    def named(self, count: int) -> Iterator[dict[str, Any]]:
        """Yields the first `count` tasks by the names of region, classes and tiles."""
        picks, shot = self.pick(0, count), self.spec.shot
        tiles, names = self.images.tiles, self.images.class_names
        for region, classes, numbers in zip(*(part.numpy() for part in picks[:3])):
            drawn = [[tiles.image_names[number] for number in row] for row in numbers]
            yield {
                'region': tiles.class_names[region],
                'classes': [names[c] for c in classes],
                'support': [row[:shot] for row in drawn],
                'query': [row[shot:] for row in drawn],
            }


class TileBatches(ImageBatches):
    """draw(start, count) -> Batch of tiles and label images [examples, height, width, classes].

    All classes there are have a place in a label; see ImageBatches for the passes.
    """

    def __init__(self, images: LabelImages, bands: int, spec: BatchSpec, stream: tuple[int, str]):
        super().__init__(images.tiles, spec, stream)
        self.classes_in_all, self._bands = len(images.class_names), bands

    def assemble(self, drawn: Examples, images: tf.Tensor) -> Batch:
        del drawn  # Its labels are regions.
        x, labels = unpacked(images, self._bands)
        return Batch(x, tf.one_hot(tf.cast(labels, tf.int32), self.classes_in_all))


def _class_by_class(x):
    """[tasks, way, examples, ...] -> [tasks, way*examples, ...]"""
    return tf.reshape(x, [x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:]])
