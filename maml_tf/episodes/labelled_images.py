"""Labelled images without support and query: batches, alone or beside tasks, and sequences."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.episodes.class_images import ClassImages, pixels
from maml_tf.episodes.random_bits import PERMUTATION_WORDS, Stream, choose, permuted
from maml_tf.episodes.sampling import Sampler
from maml_tf.episodes.streaming import FetchedDraw
from maml_tf.episodes.task import (
    Batch,
    BatchSpec,
    EpisodeSpec,
    Sequence,
    SequenceSpec,
    TaskAndBatch,
)
from maml_tf.errors import ArgumentError

_PASSES, _LABELS, _ORDER = 6, 7, 8  # Streams; 0 to 5 are the Sampler's.


class Examples(NamedTuple):
    """Labels and turns of images that are drawn.

    labels: int32 [examples] or [tasks, length]
    turns:  alike, quarter turns counterclockwise; None: nothing is turned
    keys:   uint32 [tasks, 2], see task.Task; None: there are no tasks
    """

    labels: tf.Tensor
    turns: tf.Tensor | None
    keys: tf.Tensor | None = None


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
        labels = classes.batch_labels
        self.classes_in_all = len(np.unique(labels)) * self._turns
        self._class_of = np.repeat(labels, classes.sizes)
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
        orders = self._pass_bits.bits(this_pass[0], passes, PERMUTATION_WORDS)
        order = tf.gather(orders, this_pass - this_pass[0])
        return permuted(tf.cast(place % self.examples, tf.int32), self.examples, order)

    def assemble(self, drawn: Examples, images: tf.Tensor) -> Batch:
        return Batch(pixels(images, drawn.turns), tf.one_hot(drawn.labels, self.classes_in_all))


class ImagesBesideTasks(FetchedDraw):
    """draw(start, count) -> TaskAndBatch, each task with the next examples of the passes.

    Args:
      tasks: draws the Tasks.
      batches: draws what is beside one of them.
      groups: [classes of `batches`] number of each class' group, which labels then tell; None: they
        tell the class.
    """

    def __init__(self, tasks: FetchedDraw, batches: ImageBatches, groups: np.ndarray | None = None):
        self.tasks, self.batches = tasks, batches
        self.streams = tasks.streams or batches.streams
        self._group_of = None
        if groups is not None:
            self._group_of = np.unique(groups, return_inverse=True)[1].astype(np.int32)

    def fetch(self, start: tf.Tensor | int, count: int) -> tuple[tuple, tf.Tensor]:
        """Returns (what is drawn, and the images of the batches; the images of the tasks)."""
        drawn, images = self.tasks.fetch(start, count)
        return (drawn, *self.batches.fetch(start, count)), images

    def assemble(self, drawn: tuple, images: tf.Tensor) -> TaskAndBatch:
        of_tasks, of_batches, others = drawn
        task = self.tasks.assemble(of_tasks, images)
        batch = self.batches.assemble(of_batches, others)
        labels, classes = of_batches.labels, self.batches.classes_in_all
        if self._group_of is not None:
            turns = classes // len(self._group_of)
            labels, classes = tf.gather(self._group_of, labels // turns), max(self._group_of) + 1
        by_task = lambda x: tf.reshape(x, [images.shape[0], self.batches.spec.size, *x.shape[1:]])
        return TaskAndBatch(task, Batch(by_task(batch.x), by_task(tf.one_hot(labels, classes))))


class ImageSequences(FetchedDraw):
    """draw(start, count) -> Sequence: random classes under random labels, examples in random order.

    Every class has as many examples, all different; where `length` is no multiple of `way` some
    classes, drawn for each sequence, have one more. (Santoro et al. 2016, section 4.1: 50 examples
    of 5 classes.)

    Args:
      stream: (seed, split), see random_bits.Stream.
      rotations: one of sampling.ROTATIONS.
    Raises: ArgumentError where the classes cannot give such sequences.
    """

    def __init__(
        self,
        classes: ClassImages,
        spec: SequenceSpec,
        stream: tuple[int, str],
        rotations: str = 'none',
    ):
        if spec.length < spec.way:
            raise ArgumentError(
                'length', spec.length, f'at least one example of {spec.way} classes'
            )
        each = -(-spec.length // spec.way)
        if each > min(classes.sizes):
            raise ArgumentError(
                'length',
                spec.length,
                f'{each} images per class are more than the {min(classes.sizes)} of the smallest '
                f'class of the {stream[1]} split',
            )
        self.classes, self.spec, self.streams = classes, spec, classes.streams
        self.pick = Sampler(classes.sizes, EpisodeSpec(spec.way, each, 0), stream, rotations)
        self._label_bits, self._order_bits = Stream(*stream, _LABELS), Stream(*stream, _ORDER)

    def order(self, start: tf.Tensor | int, count: int) -> tuple[Examples, tf.Tensor, tf.Tensor]:
        """Returns (Examples, their classes, their images), each int32 [tasks, length].

        An image is its number within its class.
        """
        way, length = self.spec.way, self.spec.length
        picks = self.pick(start, count)
        # Place p of the order belongs to class p % way, of which it is example p // way.
        order = choose(self._order_bits.bits(start, count, length), length)
        # The classes come in random order, but the first ones may have an example more.
        names = choose(self._label_bits.bits(start, count, way), way)
        of_class = lambda values: tf.gather(values, order % way, batch_dims=1)
        image = tf.gather(of_class(picks.images), order // way, batch_dims=2)
        turns = None if picks.turns is None else of_class(picks.turns)
        return Examples(of_class(names), turns, picks.keys), of_class(picks.classes), image

    def fetch(self, start: tf.Tensor | int, count: int) -> tuple[Examples, tf.Tensor]:
        """Returns (Examples, their images uint8 [tasks, length, height, width, channels])."""
        drawn, classes, images = self.order(start, count)
        first = tf.gather(self.classes.firsts, classes)
        return drawn, self.classes.gather(first + images)

    def assemble(self, drawn: Examples, images: tf.Tensor) -> Sequence:
        y = tf.one_hot(drawn.labels, self.spec.way)
        return Sequence(pixels(images, drawn.turns), y, drawn.keys)
