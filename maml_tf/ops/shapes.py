"""Sizes of tensors."""

import tensorflow as tf


def sizes(x: tf.Tensor) -> list[int | tf.Tensor]:
    """Returns the sizes of a tensor's axes.

    Static where they are known, since XLA wants those; scalar tensors elsewhere, as in the
    signatures of an exported model.
    """
    dynamic = tf.shape(x)
    return [dynamic[i] if size is None else size for i, size in enumerate(x.shape)]
