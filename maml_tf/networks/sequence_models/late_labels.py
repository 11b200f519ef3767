"""What learners do with a sequence: labels one step late, and numbers by instance."""

import tensorflow as tf


def late(labels: tf.Tensor) -> tf.Tensor:
    """Returns labels [tasks, length, n] one step late, zero at the first (Santoro et al. 2016)."""
    return tf.concat([tf.zeros_like(labels[:, :1]), labels[:, :-1]], axis=1)


def instances(labels: tf.Tensor) -> tf.Tensor:
    """Returns for which time the class of a step comes, from 1 on.

    labels: one-hot [tasks, length, way]. Returns their dtype, [tasks, length].
    """
    return tf.reduce_sum(tf.cumsum(labels, axis=1) * labels, axis=-1)


def mean_by_instance(values: tf.Tensor, labels: tf.Tensor, most: int) -> tf.Tensor:
    """Returns the mean over classes of what belongs to the k-th example of a class, [most, tasks].

    Args:
      values: of each step, [tasks, length].
      labels: one-hot [tasks, length, way]; every class has at least one example, and none counts
        beyond the `most`-th.
    """
    numbers = tf.range(1, most + 1, dtype=labels.dtype)[:, tf.newaxis, tf.newaxis]
    there = tf.cast(tf.equal(instances(labels), numbers), values.dtype)
    return tf.reduce_sum(values * there, axis=-1) / tf.reduce_sum(there, axis=-1)
