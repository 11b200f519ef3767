"""Convolution blocks that all tasks share, as functions of images stacked over tasks."""

import keras
import tensorflow as tf

from maml_tf.ops import layers
from maml_tf.ops.shapes import sizes
from maml_tf.serialisation.configuration import Configured


class SharedBlocks(Configured, keras.layers.Layer):
    """Blocks of 3x3 convolution without bias, batch norm, ReLU and 2x2 max-pooling.

    An odd last row or column is pooled by itself. XLA compiles them well. The layer never assigns
    its running averages: they are values that come and go, which a learner assigns by its Update.

    Args:
      channels: of the images.
      filters: of each block.
      momentum: what is kept of a running average.
      epsilon: added to the variance.
      kwargs: keras.layers.Layer's (name, dtype).
    """

    def __init__(
        self,
        channels: int,
        filters: tuple[int, ...],
        momentum: float = 0.9,
        epsilon: float = 2e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.momentum, self.epsilon = momentum, epsilon
        self.kernels, self.norms, self.averages = [], [], []
        for number, size in enumerate(filters, start=1):
            self.kernels.append(
                self.add_weight(
                    name=f'conv{number}', shape=(3, 3, channels, size), initializer='lecun_normal'
                )
            )
            self.norms.append(
                [
                    self.add_weight(name=f'norm{number}_{kind}', shape=(size,), initializer=start)
                    for kind, start in (('gamma', 'ones'), ('beta', 'zeros'))
                ]
            )
            self.averages += [
                self.add_weight(
                    name=f'norm{number}_{kind}',
                    shape=(size,),
                    initializer=start,
                    trainable=False,
                    aggregation='only_first_replica',
                )
                for kind, start in (('mean', 'zeros'), ('variance', 'ones'))
            ]
            channels = size
        self.built = True

    def call(
        self, x: tf.Tensor, averages: list[tf.Tensor] | None = None
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns (features, the running averages that this leaves behind).

        Args:
          x: [tasks, n, height, width, channels].
          averages: as they are by now, in training, where batch norm takes the statistics of each
            task's n images; they are moved by the mean of the tasks', of the unbiased variance.
            None: normalise by the layer's own; nothing is left behind.
        """
        moved = []
        for block, (kernel, (gamma, beta)) in enumerate(zip(self.kernels, self.norms)):
            x = layers.conv3x3(x, kernel.value, stride=1)
            if averages is None:
                mean, variance = (v.value for v in self.averages[2 * block : 2 * block + 2])
                x = (x - mean) * tf.math.rsqrt(variance + self.epsilon)
            else:
                for old, new in zip(averages[2 * block : 2 * block + 2], _moments(x)):
                    moved.append(self.momentum * old + (1 - self.momentum) * new)
                x = layers.normalise(x, (1, 2, 3), self.epsilon)
            x = layers.max_pool2x2(tf.nn.relu(gamma.value * x + beta.value), 'same')
        return x, moved


def _moments(x):
    """The mean over the tasks of each one's mean and unbiased variance, both [channels]."""
    _, *pixels, _ = sizes(x)
    count = tf.cast(tf.reduce_prod(tf.stack(pixels)), x.dtype)
    mean = tf.reduce_mean(x, (1, 2, 3), keepdims=True)
    variance = tf.reduce_mean(tf.square(x - mean), (1, 2, 3)) * count / (count - 1)
    return [tf.stop_gradient(tf.reduce_mean(value, 0)) for value in (mean[:, 0, 0, 0], variance)]
