"""Mini-batches from the examples of a task, as Reptile draws them (Nichol et al. 2018)."""

import tensorflow as tf

from maml_tf.episodes.random_bits import choose, keyed_bits
from maml_tf.errors import ArgumentError

_STREAM = 0x706F6F6C  # Any number that others are unlikely to take.


def minibatches(
    key: tf.Tensor | None, examples: int | tf.Tensor, size: int, steps: int
) -> tf.Tensor:
    """Draws which of a task's examples each gradient step sees.

    The pool of examples is shuffled, gone through without replacement, and shuffled anew when it
    is exhausted; a mini-batch may straddle two passes, and then hold an example twice. That is
    `_mini_batches` of the authors' code (openai/supervised-reptile). More steps begin with the
    mini-batches of fewer.

    Args:
      key: uint32 [tasks, 2], see task.Task; None: a fixed one, for tasks that were made by hand.
      examples: in the pool of each task.
      size: examples of a mini-batch.
      steps: mini-batches.
    Returns: int32 [tasks, steps, size], numbers from 0 to examples - 1; without a key [1, ...], the
      same for all tasks.
    Raises: ArgumentError where a number is not positive.
    """
    for argument, value in (('examples', examples), ('size', size), ('steps', steps)):
        if isinstance(value, int) and value < 1:
            raise ArgumentError(argument, value, 'at least 1')
    passes = -(-size * steps // examples)
    bits = tf.reshape(keyed_bits(key, passes * examples, _STREAM), [-1, passes, examples])
    order = tf.reshape(choose(bits, examples), [-1, passes * examples])
    return tf.reshape(order[:, : size * steps], [-1, steps, size])
