"""Task-stacked layers as pure functions: x is [tasks, examples, ...], and so may be every weight.

A weight without a task axis is shared by all tasks. Second derivatives are right everywhere: no
`tf.nn.moments` (and so no Keras BatchNormalization), whose variance holds the mean constant.
"""

import tensorflow as tf

from maml_tf.ops.batch_norm import MaxPool, standardise
from maml_tf.ops.convolution import convolve
from maml_tf.ops.linear import Linear
from maml_tf.ops.shapes import sizes


def per_example(weight, x):
    """Shapes [tasks, c] or [c] so that it broadcasts against x: [tasks, examples, ..., c]."""
    if weight.shape.rank == 1:
        return weight
    return tf.reshape(weight, [-1] + [1] * (x.shape.rank - 2) + [weight.shape[-1]])


def linear(x, weight, bias, dtype=None):
    """[tasks, n, in] by [(tasks,) in, out], plus [(tasks,) out] -> [tasks, n, out].

    dtype: in which to multiply; None: as they come.
    """
    if weight.shape.rank == 3:
        x = Linear.of(dtype).product(x, weight)
    else:
        x = tf.cast(tf.matmul(*_cast(dtype, x, weight)), weight.dtype)
    return x + per_example(bias, x)


def _cast(dtype, *tensors):
    return tensors if dtype is None else [tf.cast(x, dtype) for x in tensors]


def conv3x3(x, kernel, stride, dtype=None):
    """SAME convolution, [tasks, n, height, width, in] by [(tasks,) 3, 3, in, out] -> [tasks, n, h,
    w, out].

    dtype: as in `linear`.
    """
    if kernel.shape.rank == 5:
        return convolve(x, kernel, stride, dtype)
    tasks, n, *image = sizes(x)
    x = tf.nn.conv2d(*_cast(dtype, tf.reshape(x, [tasks * n, *image]), kernel), stride, 'SAME')
    x = tf.cast(x, kernel.dtype)
    return tf.reshape(x, [tasks, n, *x.shape[1:]])


def max_pool2x2(x):
    """2x2 VALID max-pooling of [tasks, n, height, width, c]; the first of equal maxima takes the
    gradient."""
    return MaxPool(x).take(x)


def batch_norm(x, beta, epsilon=1e-3, pool=False):
    """Normalises by the statistics of each task's batch, always; an offset and no scale, as the
    reference.

    x: [tasks, n, ..., c], normalised over all axes between the first and the last; beta: [(tasks,)
      c].
    pool: followed by 2x2 max-pooling.
    """
    return standardise(x, epsilon, pool) + per_example(beta, x)


def layer_norm(x, gamma, beta, epsilon=1e-12):
    """Normalises each example over all its features (images: height, width and channels); scale and
    offset."""
    return normalise(x, range(2, x.shape.rank), epsilon) * per_example(gamma, x) + per_example(
        beta, x
    )


def normalise(x, axes, epsilon):
    """x minus its mean over `axes`, over its standard deviation; the variance is written out."""
    centred = x - tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axes, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon)
