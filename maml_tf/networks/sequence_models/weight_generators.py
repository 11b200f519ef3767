"""Networks that make fast weights of gradients, entry by entry (Munkhdalai and Yu, ICML 2017).

Every entry of a weight is an example of its own: a generator has a few hundred weights, which all
entries share. What it reads of a gradient is its logarithm and its sign, see ops/log_and_sign.py.
"""

import keras
import tensorflow as tf

from maml_tf.ops.log_and_sign import log_and_sign
from maml_tf.ops.shapes import sizes
from maml_tf.serialisation.configuration import Configured

HIDDEN = 20
SEEN = 2  # the logarithm and the sign
P = 7.0  # of the preprocessing
START = 'lecun_normal'  # Chainer's


class RecurrentGenerator(Configured, keras.layers.Layer):
    """An LSTM, 2 -> 20, that reads gradients one after the other, and a linear layer 20 -> 1.

    Its weights and what it computes are those of Keras' LSTMCell. But here the entries come last,
    so that gates are whole rows, which is 1.7 times as fast.

    Args:
      name: the layer's.
      scale: of the last weights as they start, times LeCun's normal distribution.
      kwargs: keras.layers.Layer's (dtype).
    """

    def __init__(self, name: str, scale: float = 1.0, **kwargs):
        super().__init__(name=name, **kwargs)
        self.scale = scale
        self.build(None)

    def build(self, input_shape: tuple[int | None, ...] | None) -> None:
        gates = 4 * HIDDEN
        self.kernel = self.add_weight(name='kernel', shape=(SEEN, gates), initializer=START)
        self.recurrent_kernel = self.add_weight(
            name='recurrent_kernel', shape=(HIDDEN, gates), initializer=START
        )
        self.bias = self.add_weight(
            name='bias', shape=(gates,), initializer=lambda shape, dtype: _forget_nothing(dtype)
        )
        self.last_kernel = self.add_weight(
            name='last_kernel', shape=(HIDDEN, 1), initializer=_scaled(self.scale)
        )
        self.last_bias = self.add_weight(name='last_bias', shape=(1,), initializer='zeros')

    def call(self, gradients: tf.Tensor, there: tf.Tensor | None = None) -> tf.Tensor:
        """Returns what it makes of them after the last, [...].

        Args:
          gradients: [steps, ...]; steps is static.
          there: bool [steps], whether there is such a step; the others it passes over. None: all.
        """
        steps, *shape = sizes(gradients)
        seen = log_and_sign(tf.reshape(gradients, [steps, -1]), P, axis=1)
        kernel = tf.transpose(tf.concat([self.kernel.value, self.recurrent_kernel.value], 0))
        bias = self.bias.value[:, tf.newaxis]
        cell = output = tf.zeros([HIDDEN, tf.shape(seen)[-1]], seen.dtype)
        for step in range(steps):
            gates = tf.matmul(kernel, tf.concat([seen[step], output], 0)) + bias
            enter, keep, candidate, leave = tf.split(gates, 4)
            now = tf.sigmoid(keep) * cell + tf.sigmoid(enter) * tf.tanh(candidate)
            after = now, tf.sigmoid(leave) * tf.tanh(now)
            if there is not None:
                after = (tf.where(there[step], x, y) for x, y in zip(after, (cell, output)))
            cell, output = after
        last = tf.matmul(self.last_kernel.value, output, transpose_a=True) + self.last_bias.value
        return tf.reshape(last, shape)


class PointwiseGenerator(Configured, keras.layers.Layer):
    """Two layers of 20 with ReLUs and a linear one, 2 -> 20 -> 20 -> 1.

    Args: as of RecurrentGenerator.
    """

    def __init__(self, name: str, scale: float = 1.0, **kwargs):
        super().__init__(name=name, **kwargs)
        self.scale = scale
        self.build(None)

    def build(self, input_shape: tuple[int | None, ...] | None) -> None:
        layer = lambda name, units, **kwargs: keras.layers.Dense(
            units, name=name, dtype=self.dtype, **kwargs
        )
        hidden = {'activation': 'relu', 'kernel_initializer': START}
        self.first, self.second = (layer(name, HIDDEN, **hidden) for name in ('first', 'second'))
        self.last = layer('last', 1, kernel_initializer=_scaled(self.scale))
        for part, size in ((self.first, SEEN), (self.second, HIDDEN), (self.last, HIDDEN)):
            part.build((None, size))

    def call(self, gradients: tf.Tensor) -> tf.Tensor:
        """Returns what it makes of each entry of gradients [...], of the same shape."""
        seen = log_and_sign(tf.reshape(gradients, [-1]), P, axis=-1)
        return tf.reshape(self.last(self.second(self.first(seen))), tf.shape(gradients))


def _scaled(scale):
    return keras.initializers.VarianceScaling(scale**2)


def _forget_nothing(dtype):
    """Keras' and Chainer's start: the forget gate's bias is 1."""
    zeros = tf.zeros([HIDDEN], dtype)
    return tf.concat([zeros, tf.ones([HIDDEN], dtype), zeros, zeros], 0)
