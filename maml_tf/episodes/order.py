"""The order in which a method reads a support set, all of it or in mini-batches: random, and the
task's own."""

import tensorflow as tf

from maml_tf.episodes.random_bits import choose, keyed_bits
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError
from maml_tf.ops.shapes import sizes

# The streams of a task's random bits that decide the orders: any numbers that others are unlikely
# to take.
_ORDER, _POOL = 0x6F726472, 0x706F6F6C


def random_order(support_y: tf.Tensor, key: tf.Tensor | None = None) -> tf.Tensor:
    """Draws an order of each task's support set, int32 [tasks, n], the filling last.

    support_y: [tasks, n, way], all zero where an example is filling; key: see task.Task. Without a
      key it is always the same shuffle of the places.
    """
    tasks, n, _ = sizes(support_y)
    bits = tf.broadcast_to(keyed_bits(key, n, _ORDER), [tasks, n])
    priorities = tf.cast(tf.bitwise.right_shift(bits, 1), tf.int32)
    filling = tf.constant(tf.int32.max)
    return tf.argsort(tf.where(counting(support_y) > 0, priorities, filling), stable=True)


def counting(labels: tf.Tensor) -> tf.Tensor:
    """[tasks, n, way] -> [tasks, n], 1 where an example counts, 0 where it is filling."""
    return tf.reduce_max(labels, axis=-1)


def take(values: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
    """[tasks, n, ...], [tasks, n] -> each task's rows in its order."""
    return tf.gather(values, order, axis=1, batch_dims=1)


def in_random_order(task: Task) -> Task:
    """Returns the task with its support set in its random order."""
    order = random_order(task.support_y, task.key)
    mask = task.support_mask
    return task._replace(
        support_x=take(task.support_x, order),
        support_y=take(task.support_y, order),
        support_mask=None if mask is None else take(mask, order),
    )


def minibatches(
    key: tf.Tensor | None, examples: int | tf.Tensor, size: int, steps: int
) -> tf.Tensor:
    """Draws which of a task's examples each gradient step sees (Nichol et al. 2018).

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
    bits = tf.reshape(keyed_bits(key, passes * examples, _POOL), [-1, passes, examples])
    order = tf.reshape(choose(bits, examples), [-1, passes * examples])
    return tf.reshape(order[:, : size * steps], [-1, steps, size])
