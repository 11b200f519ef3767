"""Checks of what an exported model is given, as operations in its graph.

They raise tf.errors.InvalidArgumentError. A program that compiles the model by XLA loses them: XLA
has no assertions.
"""

from collections.abc import Sequence

import tensorflow as tf


def finite(name: str, values: tf.Tensor) -> list[tf.Operation]:
    """Returns the check that no entry is NaN or infinite."""
    fine = tf.reduce_all(tf.math.is_finite(values))
    return [tf.debugging.Assert(fine, [f'{name}: holds NaN or infinity'])]


def classes(name: str, labels: tf.Tensor) -> list[tf.Operation]:
    """Returns the checks of labels [tasks, examples, way].

    Rows are one-hot, or all zeros for an example that does not count; every task has one that does.
    """
    bits = tf.reduce_all((labels == 0) | (labels == 1))
    at_most_one = tf.reduce_all(tf.reduce_sum(labels, axis=-1) <= 1)
    some = tf.reduce_all(tf.reduce_any(labels > 0, axis=(1, 2)))
    rows = f'{name}: every row is one-hot, or all zeros where the example does not count'
    return [
        tf.debugging.Assert(bits & at_most_one, [rows]),
        tf.debugging.Assert(some, [f'{name}: no example of a task has a class']),
    ]


def after(checks: Sequence[tf.Operation], *tensors: tf.Tensor) -> list[tf.Tensor]:
    """Returns the tensors, which nothing computes with before the checks have passed."""
    with tf.control_dependencies(checks):
        return [tf.identity(tensor) for tensor in tensors]
