"""A function of fresh tasks, compiled whether the tasks are drawn in the graph or read from a
file."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def on_fresh_tasks(
    function: Callable[[Any, tf.Tensor], Any],
    draw: Callable[[Any, int], Any],
    count: int,
    xla: bool = True,
) -> tf.types.experimental.PolymorphicFunction:
    """Makes (start, step) -> function(draw(start, count), step), a tf.function.

    With `xla` all of it is compiled, but for the reading of images from a file (`draw.streams`),
    which cannot be.

    Args:
      function: (Task, step) -> a structure of tensors.
      draw: (start, count) -> Task, as a source's `tasks` returns it.
    """
    if not streams(draw):
        return tf.function(
            lambda start, step: function(draw(start, count), step),
            jit_compile=xla,
            autograph=False,
        )

    @tf.function(jit_compile=xla, autograph=False)
    def after_reading(picks, images, step):
        return function(draw.assemble(picks, images), step)

    return tf.function(
        lambda start, step: after_reading(*draw.fetch(start, count), step), autograph=False
    )


def streams(draw):
    """Whether drawing reads files."""
    return getattr(draw, 'streams', False)
