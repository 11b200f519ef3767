"""A function of fresh tasks, compiled whether the tasks are drawn in the graph or read from a
file."""

import tensorflow as tf


def on_fresh_tasks(function, draw, count, xla=True):
    """Makes start -> function(draw(start, count)), a tf.function.

    With `xla` all of it is compiled, but for the reading of images from a file (`draw.streams`),
    which cannot be.

    Args:
      function: Task -> a structure of tensors.
      draw: (start, count) -> Task, as a source's `tasks` returns it.
    """
    if not streams(draw):
        return tf.function(
            lambda start: function(draw(start, count)), jit_compile=xla, autograph=False
        )

    @tf.function(jit_compile=xla, autograph=False)
    def after_reading(picks, images):
        return function(draw.assemble(picks, images))

    return tf.function(lambda start: after_reading(*draw.fetch(start, count)), autograph=False)


def streams(draw):
    """Whether drawing reads files."""
    return getattr(draw, 'streams', False)
