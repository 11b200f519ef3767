"""The order in which a method reads a support set: random, and the task's own."""

import tensorflow as tf

from maml_tf.episodes.random_bits import keyed_bits
from maml_tf.ops.shapes import sizes

# The stream of a task's random bits that decides the order.
_ORDER = 0x6F726472


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
