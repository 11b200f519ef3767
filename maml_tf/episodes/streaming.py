"""Functions of fresh tasks, compiled even where the tasks are read from a file."""

import abc
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from maml_tf.episodes.task import Batch, Draw, Sequence, Task


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
    def assemble(self, drawn: Any, images: tf.Tensor) -> Task | Batch | Sequence:
        """Makes the tasks of what `fetch` returns; XLA can compile it."""

    def __call__(self, start: tf.Tensor | int, count: int) -> Task | Batch | Sequence:
        """Returns tasks start ... start + count - 1."""
        return self.assemble(*self.fetch(start, count))


def streams(draw: Draw) -> bool:
    """Says whether drawing reads files, and so cannot be compiled as a whole."""
    return isinstance(draw, FetchedDraw) and draw.streams


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

    @tf.function(jit_compile=xla, autograph=False)
    def after_reading(drawn, images, step):
        return function(draw.assemble(drawn, images), step)

    return tf.function(
        lambda start, step: after_reading(*draw.fetch(start, count), step), autograph=False
    )
