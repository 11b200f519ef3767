"""Depthwise convolution, in which each channel has a kernel of its own, for every task."""

import tensorflow as tf

from maml_tf.ops.bilinear import Bilinear
from maml_tf.ops.convolution import window
from maml_tf.ops.shapes import sizes


def depthwise(x: tf.Tensor, kernel: tf.Tensor, dtype: tf.DType | None = None) -> tf.Tensor:
    """Convolves each channel with its own kernel, stride 1, SAME padding.

    Args:
      x: [tasks, n, height, width, c].
      kernel: [(tasks,) size, size, c], size odd.
      dtype: in which to multiply, see Bilinear.
    Returns: as x.
    """
    if kernel.shape.rank == 4:
        return Depthwise.of(kernel.shape[1], dtype).product(x, kernel)
    tasks, n, *image = sizes(x)
    of_one = Depthwise.of(kernel.shape[0], dtype)
    y = of_one.product(tf.reshape(x, [1, tasks * n, *image]), kernel[tf.newaxis])
    return tf.reshape(y, [tasks, n, *image])


class Depthwise(Bilinear):
    """Multiplies images [tasks, n, height, width, c] by kernels [tasks, size, size, c].

    It is a sum of shifted images, each times a number per channel, which XLA computes in one pass.

    Args:
      size: of the kernel, odd.
      dtype: see Bilinear.
    """

    def __init__(self, size: int, dtype: tf.DType | None = None):
        super().__init__(dtype)
        self.taps = [(i, j) for i in range(size) for j in range(size)]
        self.reach = size // 2

    def _shifted(self, x, tap):
        start = tap[0] - self.reach, tap[1] - self.reach
        return window(x, start, x.shape[2:4])

    def _product(self, x, kernel):
        wide = kernel[:, tf.newaxis, tf.newaxis, tf.newaxis]
        return tf.add_n([self._shifted(x, tap) * wide[..., *tap, :] for tap in self.taps])

    def _to_input(self, dy, kernel):
        return self._product(dy, kernel[:, ::-1, ::-1])  # The kernel turned half around.

    def _to_weight(self, x, dy):
        tasks, n, height, width, channels = sizes(x)
        # Sums over pixels as matrix products, see batch_norm.py.
        ones = tf.ones([tasks, n, 1, height * width], x.dtype)
        shape = [tasks, n, height * width, channels]
        sums = [
            tf.reduce_sum(tf.matmul(ones, tf.reshape(self._shifted(x, tap) * dy, shape)), (1, 2))
            for tap in self.taps
        ]
        size = 2 * self.reach + 1
        return tf.reshape(tf.stack(sums, 1), [tasks, size, size, channels])
