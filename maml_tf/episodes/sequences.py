"""Sequences of labelled images, as memory-augmented networks learn them (Santoro et al. 2016)."""

from typing import NamedTuple

import tensorflow as tf

from maml_tf.episodes.class_images import ClassImages, pixels
from maml_tf.episodes.random_bits import Stream, choose
from maml_tf.episodes.sampling import Sampler
from maml_tf.episodes.streaming import FetchedDraw
from maml_tf.episodes.task import EpisodeSpec, Sequence, SequenceSpec
from maml_tf.errors import ArgumentError

_LABELS, _ORDER = 7, 8  # Streams; 0 to 5 are the Sampler's.


class Examples(NamedTuple):
    """Which examples sequences have, in their order.

    labels: int32 [tasks, length]
    turns:  int32 [tasks, length], quarter turns counterclockwise; None: nothing is turned
    keys:   uint32 [tasks, 2], see task.Task
    """

    labels: tf.Tensor
    turns: tf.Tensor | None
    keys: tf.Tensor


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

    def fetch(self, start: tf.Tensor | int, count: int) -> tuple[Examples, tf.Tensor]:
        """Returns (Examples, their images uint8 [tasks, length, height, width, channels])."""
        way, length = self.spec.way, self.spec.length
        picks = self.pick(start, count)
        # Place p of the order belongs to class p % way, of which it is example p // way.
        order = choose(self._order_bits.bits(start, count, length), length)
        # The classes come in random order, but the first ones may have an example more.
        names = choose(self._label_bits.bits(start, count, way), way)
        of_class = lambda values: tf.gather(values, order % way, batch_dims=1)
        first = tf.gather(self.classes.firsts, picks.classes)
        image = tf.gather(of_class(picks.images), order // way, batch_dims=2)
        turns = None if picks.turns is None else of_class(picks.turns)
        return (
            Examples(of_class(names), turns, picks.keys),
            self.classes.gather(of_class(first) + image),
        )

    def assemble(self, drawn: Examples, images: tf.Tensor) -> Sequence:
        y = tf.one_hot(drawn.labels, self.spec.way)
        return Sequence(pixels(images, drawn.turns), y, drawn.keys)
