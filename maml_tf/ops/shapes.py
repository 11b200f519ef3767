"""Sizes of tensors."""

import tensorflow as tf


def sizes(x):
    """Static sizes where they are known (XLA wants those), dynamic ones elsewhere (exported
    signatures)."""
    dynamic = tf.shape(x)
    return [dynamic[i] if size is None else size for i, size in enumerate(x.shape)]
