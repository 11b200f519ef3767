"""Plain labelled batches of the images of all classes of a split."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.episodes.class_images import ClassImages, pixels
from maml_tf.episodes.permutation import ROUNDS, permuted
from maml_tf.episodes.random_bits import Stream
from maml_tf.episodes.streaming import FetchedDraw
from maml_tf.episodes.task import Batch, BatchSpec
from maml_tf.errors import ArgumentError

_PASSES = 6  # The stream of the passes' orders.


class Examples(NamedTuple):
    """Which examples a batch has.

    classes: int32 [examples], their labels
    turns:   int32 [examples], quarter turns counterclockwise; None: nothing is turned
    """

    classes: tf.Tensor
    turns: tf.Tensor | None


class ImageBatches(FetchedDraw):
    """draw(start, count) -> Batch, from passes over all images, each pass in an order of its own.

    Every image comes once in a pass, whose order is a pure function of (seed, split, pass). A batch
    may straddle two passes. With the rotations 'classes' the four turns of an image are images of
    four classes, as in sampling.Sampler; other rotations are made for tasks, and play no part here.

    Args:
      stream: (seed, split), see random_bits.Stream.
      rotations: one of sampling.ROTATIONS.
    Attributes:
      examples: in a pass. classes_in_all: how many a label tells apart.
    Raises: ArgumentError where a batch would have no examples.
    """

    def __init__(
        self,
        classes: ClassImages,
        spec: BatchSpec,
        stream: tuple[int, str],
        rotations: str = 'none',
    ):
        if spec.size < 1:
            raise ArgumentError('size', spec.size, 'at least 1')
        self.classes, self.spec, self.streams = classes, spec, classes.streams
        self._turns = 4 if rotations == 'classes' else 1
        self.examples = len(classes.images) * self._turns
        self.classes_in_all = len(classes.sizes) * self._turns
        self._class_of = np.repeat(np.arange(len(classes.sizes), dtype=np.int32), classes.sizes)
        self._pass_bits = Stream(*stream, _PASSES)

    def fetch(self, start: tf.Tensor | int, count: int) -> tuple[Examples, tf.Tensor]:
        """Returns (Examples, their images uint8 [examples, height, width, channels])."""
        size = count * self.spec.size
        place = tf.cast(start, tf.int64) * self.spec.size + tf.range(size, dtype=tf.int64)
        number = self._number(place, size)
        image, turn = number // self._turns, number % self._turns
        label = tf.gather(self._class_of, image) * self._turns + turn
        return Examples(label, turn if self._turns > 1 else None), self.classes.gather(image)

    def _number(self, place, size):
        """Returns which example, int32 [size], comes at consecutive places of the passes."""
        this_pass = place // self.examples
        # So many passes touch `size` consecutive places, whatever the first.
        passes = 1 + (size + self.examples - 2) // self.examples
        orders = self._pass_bits.bits(this_pass[0], passes, ROUNDS)
        order = tf.gather(orders, this_pass - this_pass[0])
        return permuted(tf.cast(place % self.examples, tf.int32), self.examples, order)

    def assemble(self, drawn: Examples, images: tf.Tensor) -> Batch:
        return Batch(pixels(images, drawn.turns), tf.one_hot(drawn.classes, self.classes_in_all))
