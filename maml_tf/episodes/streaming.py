"""Functions of fresh tasks, compiled even where the tasks are read from a file."""

import abc
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from maml_tf.episodes.task import Batch, Draw, Sequence, Task, TaskAndBatch


class FetchedDraw(abc.ABC):
    """Draws in two parts: fetches uint8 images, and then makes tasks of them.

    Attributes:
      streams: whether the images are read from a file, which XLA cannot compile.
    """

    streams: bool

    @abc.abstractmethod
    def fetch(self, start: tf.Tensor | int, count: int) -> tuple[Any, tf.Tensor]:
        """Returns (what was drawn, its images) of tasks start ... start + count - 1."""

    @abc.abstractmethod
    def assemble(self, drawn: Any, images: tf.Tensor) -> Task | Batch | TaskAndBatch | Sequence:
        """Makes the tasks of what `fetch` returns; XLA can compile it."""

    def __call__(
        self, start: tf.Tensor | int, count: int
    ) -> Task | Batch | TaskAndBatch | Sequence:
        """Returns tasks start ... start + count - 1."""
        return self.assemble(*self.fetch(start, count))


def streams(draw: Draw) -> bool:
    """Says whether drawing reads files, and so cannot be compiled as a whole."""
    return isinstance(draw, FetchedDraw) and draw.streams


class TwoParts(NamedTuple):
    """A function of fresh tasks in two parts that do not depend on each other's results.

    fetch: start, an int64 scalar -> tensors that tasks start, start + 1 ... are made of; it reads a
      file.
    compute: (these tensors, step) -> function(tasks, step), a tf.function.
    """

    fetch: Callable[[tf.Tensor], list[tf.Tensor]]
    compute: tf.types.experimental.PolymorphicFunction


def in_two_parts(
    function: Callable[[Any, tf.Tensor], Any], draw: FetchedDraw, count: int, xla: bool = True
) -> TwoParts:
    """Splits function(draw(start, count), step) into what reads and what computes.

    A loop that carries the tensors of `fetch` reads the next meta-batch while it computes this one:

        parts = in_two_parts(op, draw, count)

        def body(i, fetched, total):
            following = parts.fetch((i + 1) * count)
            return i + 1, following, total + parts.compute(fetched, i)

        tf.while_loop(condition, body, (first, parts.fetch(first * count), 0.0))

    TensorFlow runs both at a time, for neither waits for the other.

    Args: as of `on_fresh_tasks`; with `xla` the computation is compiled.
    """
    read = tf.function(lambda start: draw.fetch(start, count), autograph=False)
    structure = read.get_concrete_function(tf.TensorSpec([], tf.int64)).structured_outputs
    # What is None, such as the turns of images that are not turned, cannot be carried by a loop.
    is_there = [spec is not None for spec in tf.nest.flatten(structure)]

    def fetch(start):
        return list(itertools.compress(tf.nest.flatten(read(start)), is_there))

    @tf.function(jit_compile=xla, autograph=False)
    def compute(fetched, step):
        values = iter(fetched)
        whole = [next(values) if there else None for there in is_there]
        return function(draw.assemble(*tf.nest.pack_sequence_as(structure, whole)), step)

    return TwoParts(fetch, compute)


def on_fresh_tasks(
    function: Callable[[Any, tf.Tensor], Any], draw: Draw, count: int, xla: bool = True
) -> tf.types.experimental.PolymorphicFunction:
    """Makes (start, step) -> function(draw(start, count), step), a tf.function.

    With `xla` all of it is compiled, but for the reading of images from a file (`streams`).

    Args:
      function: (Task, step) -> a structure of tensors.
    """
    if not streams(draw):
        return tf.function(
            lambda start, step: function(draw(start, count), step),
            jit_compile=xla,
            autograph=False,
        )
    parts = in_two_parts(function, draw, count, xla)
    return tf.function(lambda start, step: parts.compute(parts.fetch(start), step), autograph=False)
