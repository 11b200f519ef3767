"""Layers as pure functions: x is [tasks, examples, ...], and every weight may have a task axis too.

A weight without a task axis is shared by all tasks. All layers have exact second derivatives. That
rules out `tf.nn.moments`, and so Keras' BatchNormalization: its variance holds the mean constant.
"""

from collections.abc import Iterable

import tensorflow as tf

from maml_tf.ops.batch_norm import standardise
from maml_tf.ops.convolution import convolve
from maml_tf.ops.linear import Linear
from maml_tf.ops.pooling import CHOICES, Padding
from maml_tf.ops.shapes import sizes


def per_example(weight: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Reshapes a weight [tasks, c] or [c] so that it broadcasts against x [tasks, n, ..., c]."""
    if weight.shape.rank == 1:
        return weight
    return tf.reshape(weight, [-1] + [1] * (x.shape.rank - 2) + [weight.shape[-1]])


def linear(
    x: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor, dtype: tf.DType | None = None
) -> tf.Tensor:
    """Multiplies [tasks, n, in] by [(tasks,) in, out] and adds [(tasks,) out] -> [tasks, n, out].

    dtype: in which to multiply; None: as they come.
    """
    if weight.shape.rank == 3:
        x = Linear.of(dtype).product(x, weight)
    else:  # One product, not one for each task.
        tasks, n, width = sizes(x)
        flat = tf.reshape(x, [tasks * n, width])
        x = tf.cast(tf.matmul(*_cast(dtype, flat, weight)), weight.dtype)
        x = tf.reshape(x, [tasks, n, weight.shape[-1]])
    return x + per_example(bias, x)


def join(x: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
    """Joins a vector [(tasks,) k] to every example: x [tasks, n, c] -> [tasks, n, c + k]."""
    tasks, n, _ = sizes(x)
    return _beside(x, tf.broadcast_to(per_example(vector, x), [tasks, n, vector.shape[-1]]))


@tf.custom_gradient
def _beside(x, y):
    """Joins along the last axis. XLA differentiates this any number of times, tf.concat twice."""

    def gradient(g):
        width = g.shape[-1]
        picks = tf.split(tf.eye(width, dtype=g.dtype), [x.shape[-1], y.shape[-1]])
        return [tf.matmul(g, pick, transpose_b=True) for pick in picks]

    return tf.concat([x, y], -1), gradient


def _cast(dtype, *tensors):
    return tensors if dtype is None else [tf.cast(x, dtype) for x in tensors]


def conv3x3(
    x: tf.Tensor, kernel: tf.Tensor, stride: int, dtype: tf.DType | None = None
) -> tf.Tensor:
    """Convolves images with 3x3 kernels, SAME padding.

    Args:
      x: [tasks, n, height, width, in].
      kernel: [(tasks,) 3, 3, in, out].
      stride: 1 or 2.
      dtype: in which to multiply; None: as they come.
    Returns: [tasks, n, ceil(height / stride), ceil(width / stride), out].
    """
    return conv(x, kernel, stride, dtype)


def conv(
    x: tf.Tensor, kernel: tf.Tensor, stride: int = 1, dtype: tf.DType | None = None
) -> tf.Tensor:
    """Convolves images with kernels [(tasks,) size, size, in, out] of any odd size, SAME padding.

    stride: 1 unless the size is 3. Else as `conv3x3`.
    """
    if kernel.shape.rank == 5:
        return convolve(x, kernel, stride, dtype)
    tasks, n, *image = sizes(x)
    # As one task with many images: what XLA makes of tf.nn.conv2d is slow on a CPU.
    y = convolve(tf.reshape(x, [1, tasks * n, *image]), kernel[tf.newaxis], stride, dtype)
    return tf.reshape(y, [tasks, n, *y.shape[2:]])


def max_pool2x2(x: tf.Tensor, padding: Padding = 'valid') -> tf.Tensor:
    """Takes the largest of each 2x2 pixels of [tasks, n, height, width, c].

    The first of equal maxima takes the gradient.

    padding: 'valid' leaves an odd last row or column out, 'same' pools it by itself.
    """
    return CHOICES[padding](x).take(x)


def batch_norm(
    x: tf.Tensor,
    beta: tf.Tensor,
    epsilon: float = 1e-3,
    pool: Padding | None = None,
    gamma: tf.Tensor | None = None,
) -> tf.Tensor:
    """Normalises by the statistics of each task's batch, in training and afterwards.

    Args:
      x: [tasks, n, ..., c], normalised over all axes between the first and the last.
      beta: the offset, [(tasks,) c].
      pool: 2x2 max-pooling follows, with the padding of `max_pool2x2`; None: none.
      gamma: the scale, [(tasks,) c]; None: none, as MAML's authors have it.
    """
    if gamma is None:
        return standardise(x, epsilon, pool) + per_example(beta, x)
    gamma = per_example(gamma, x)
    if pool is not None:
        # The pooling follows the scale: of a channel with a negative scale it takes the smallest
        # pixels, that is, the largest of the channel turned around.
        sign = tf.stop_gradient(tf.where(gamma < 0, -tf.ones_like(gamma), tf.ones_like(gamma)))
        x, gamma = x * sign, gamma * sign
    return standardise(x, epsilon, pool) * gamma + per_example(beta, x)


def layer_norm(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float = 1e-12
) -> tf.Tensor:
    """Normalises each example over all its features (of images: height, width and channels).

    Args:
      x: [tasks, n, ..., c].
      gamma, beta: scale and offset, [(tasks,) c].
    """
    return normalise(x, range(2, x.shape.rank), epsilon) * per_example(gamma, x) + per_example(
        beta, x
    )


def normalise(x: tf.Tensor, axes: Iterable[int], epsilon: float) -> tf.Tensor:
    """Subtracts from x its mean over `axes` and divides by its standard deviation there.

    The variance is written out, so that a tape sees how it depends on the mean.
    """
    centred = x - tf.reduce_mean(x, axes, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axes, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon)
