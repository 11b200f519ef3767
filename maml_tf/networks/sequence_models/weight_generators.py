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


class _Generator(Configured, keras.layers.Layer):
    """What both share: the linear layer at the end.

    Args:
      name: the layer's.
      scale: of the weights of the last layer as they start, of LeCun's normal distribution.
      kwargs: keras.layers.Layer's (dtype).
    """

    def __init__(self, name: str, scale: float = 1.0, **kwargs):
        super().__init__(name=name, **kwargs)
        start = keras.initializers.VarianceScaling(scale**2)
        self.last = keras.layers.Dense(1, kernel_initializer=start, name='last', dtype=self.dtype)
        self.last.build((None, HIDDEN))
        self.build(None)


class RecurrentGenerator(_Generator):
    """An LSTM, 2 -> 20, that reads gradients one after the other, and a linear layer 20 -> 1."""

    def build(self, input_shape: tuple[int | None, ...] | None) -> None:
        self.cell = keras.layers.LSTMCell(
            HIDDEN,
            kernel_initializer=START,
            recurrent_initializer=START,
            name='lstm',
            dtype=self.dtype,
        )
        self.cell.build((None, SEEN))
        self.built = True

    def call(self, gradients: tf.Tensor, there: tf.Tensor | None = None) -> tf.Tensor:
        """Returns what it makes of them after the last, [...].

        Args:
          gradients: [steps, ...]; steps is static.
          there: bool [steps], whether there is such a step; the others it passes over. None: all.
        """
        steps, *shape = sizes(gradients)
        seen = log_and_sign(tf.reshape(gradients, [steps, -1]), P, axis=-1)
        state = [tf.zeros([tf.shape(seen)[1], HIDDEN], seen.dtype)] * 2
        for step in range(steps):
            _, after = self.cell(seen[step], state)
            if there is not None:
                after = [tf.where(there[step], new, old) for new, old in zip(after, state)]
            state = after
        return tf.reshape(self.last(state[0]), shape)


class PointwiseGenerator(_Generator):
    """Two layers of 20 with ReLUs and a linear one, 2 -> 20 -> 20 -> 1."""

    def build(self, input_shape: tuple[int | None, ...] | None) -> None:
        self.hidden = [
            keras.layers.Dense(
                HIDDEN,
                activation='relu',
                kernel_initializer=START,
                name=f'hidden{number}',
                dtype=self.dtype,
            )
            for number in (1, 2)
        ]
        for layer, size in zip(self.hidden, (SEEN, HIDDEN)):
            layer.build((None, size))
        self.built = True

    def call(self, gradients: tf.Tensor) -> tf.Tensor:
        """Returns what it makes of each entry of gradients [...], of the same shape."""
        x = log_and_sign(tf.reshape(gradients, [-1]), P, axis=-1)
        for layer in self.hidden:
            x = layer(x)
        return tf.reshape(self.last(x), tf.shape(gradients))
