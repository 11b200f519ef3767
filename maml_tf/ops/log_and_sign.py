"""What a network that learns from gradients is shown of them."""

import math

import tensorflow as tf


def log_and_sign(x: tf.Tensor, p: float, axis: int = 0) -> tf.Tensor:
    """Returns (log|x| / p, sign x) where |x| >= e^-p, else (-1, e^p x), along a new axis of two.

    So numbers of all sizes are about as large as one, and it is continuous (Andrychowicz et al.
    2016, appendix A).

    axis: the new one, 0 or -1.
    """
    least = math.exp(-p)
    size = tf.abs(x)
    logarithm = tf.math.log(tf.maximum(size, least)) / p
    return tf.stack([logarithm, tf.where(size >= least, tf.sign(x), x / least)], axis)
