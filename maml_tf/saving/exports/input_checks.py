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
    """Returns the checks of labels [tasks, examples, (height, width,) way].

    Rows are one-hot, or all zeros for an example (a pixel) that does not count; every task has one
    that does.
    """
    bits = tf.reduce_all((labels == 0) | (labels == 1))
    at_most_one = tf.reduce_all(tf.reduce_sum(labels, axis=-1) <= 1)
    some = tf.reduce_all(tf.reduce_any(labels > 0, axis=range(1, labels.shape.rank)))
    rows = f'{name}: every row is one-hot, or all zeros where the example does not count'
    return [
        tf.debugging.Assert(bits & at_most_one, [rows]),
        tf.debugging.Assert(some, [f'{name}: no example of a task has a class']),
    ]


def alike(axes: Sequence[str], **tensors: tf.Tensor) -> list[tf.Operation]:
    """Returns the checks that the tensors have the same size along each of the first axes.

    Otherwise they would be broadcast where one has the size 1, without a word.

    Args:
      axes: what the first axes count, such as 'tasks'.
    """
    (first, reference), *others = tensors.items()
    checks = []
    for name, tensor in others:
        for axis, counted in enumerate(axes):
            here, there = tf.shape(tensor)[axis], tf.shape(reference)[axis]
            words = f'{name}: has not as many {counted} as {first},'
            checks.append(tf.debugging.Assert(here == there, [words, here, 'and', there]))
    return checks


def fixed(**tensors: tf.Tensor) -> list[tf.Operation]:
    """Returns the checks of [tasks, examples, *sizes] that the sizes are those of the graph.

    TensorFlow lets a signature be called with others, which may be broadcast. It would also take
    what it believes of a shape for granted, but not a number of entries.
    """
    checks = []
    for name, tensor in tensors.items():
        sizes = tensor.shape[2:]
        if sizes.is_fully_defined():
            entries = tf.reduce_prod(tf.shape(tensor)[:2]) * sizes.num_elements()
            words = f'{name}: is not [tasks, examples, {", ".join(map(str, sizes))}]'
            checks.append(tf.debugging.Assert(tf.size(tensor) == entries, [words]))
    return checks


def some_tasks(name: str, values: tf.Tensor) -> list[tf.Operation]:
    """Returns the check that there is a task."""
    return [tf.debugging.Assert(tf.shape(values)[0] > 0, [f'{name}: holds no task'])]


def after(checks: Sequence[tf.Operation], *tensors: tf.Tensor) -> list[tf.Tensor]:
    """Returns the tensors, which nothing computes with before the checks have passed."""
    with tf.control_dependencies(checks):
        return [tf.identity(tensor) for tensor in tensors]
