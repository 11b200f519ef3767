"""Prompts x_1, y_1, ..., x_k, y_k, x and what a decoder says of the y that follows."""

import keras
import tensorflow as tf

from maml_tf.networks.encoders import torch_default
from maml_tf.networks.sequence_models.decoder import Decoder, Memory
from maml_tf.ops.shapes import sizes
from maml_tf.serialisation.configuration import Configured


class Prompt(Configured, keras.layers.Layer):
    """Reads pairs as a sequence of tokens (Garg et al. 2022, section 2).

    x and y are tokens of their own, padded with zeros to the same length and read in by one linear
    layer. Another reads out y, at the token of x. Both start as PyTorch's.

    Where `joint`, a pair is one token, x beside y, and a query is x beside zeros, as SNAIL has it
    (Mishra et al. 2018). Then only `read` and `predict` have a meaning: a token sees its own y.

    Args:
      decoder: a Decoder of at least as many tokens as the prompt has.
      input_dim, output_dim: of x and of y.
      joint: a pair is one token.
      name, kwargs: keras.layers.Layer's (dtype).
    """

    def __init__(
        self,
        decoder: Decoder,
        input_dim: int,
        output_dim: int,
        joint: bool = False,
        name: str = 'prompt',
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.decoder, self.input_dim, self.output_dim = decoder, input_dim, output_dim
        self.joint = joint
        self.token = input_dim + output_dim if joint else max(input_dim, output_dim)
        self.of_a_pair = 1 if joint else 2
        self.build(None)

    def build(self, input_shape: tuple[int | None, ...] | None) -> None:
        sizes_of = {'read_in': (self.token, self.decoder.width)}
        sizes_of['read_out'] = (self.decoder.width, self.output_dim)
        for name, (size, units) in sizes_of.items():
            start = torch_default(size)
            layer = keras.layers.Dense(
                units,
                kernel_initializer=start,
                bias_initializer=torch_default(size),
                name=name,
                dtype=self.dtype_policy,
            )
            layer.build((None, None, size))
            setattr(self, name, layer)

    def predict_all(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Returns what is said of each y from the pairs before it and its x.

        x, y: [tasks, points, input_dim], [tasks, points, output_dim]. Returns: as y.
        """
        tokens = self._pairs(x, y)[:, :-1]  # Nothing is said after the last y.
        return self.read_out(self.decoder.read(tokens)[0][:, ::2])

    def read(self, x: tf.Tensor, y: tf.Tensor) -> Memory:
        """Returns what pairs leave behind for the queries that follow them, see Decoder.read."""
        return self.decoder.read(self._pairs(x, y))[1]

    def predict(self, memory: Memory, x: tf.Tensor, points: tf.Tensor | None = None) -> tf.Tensor:
        """Returns what is said of queries, each by itself.

        Args:
          memory: of the pairs.
          x: [tasks, queries, input_dim].
          points: int32 [lengths], after how many of the pairs; None: after all.
        Returns: [tasks, lengths, queries, output_dim], with one length where `points` is None.
        """
        if points is None:
            points = tf.reshape(sizes(memory['keys'])[2] // self.of_a_pair, [1])
        tokens = self.read_in(self._padded(x))[:, tf.newaxis]
        tasks, _, queries, width = sizes(tokens)
        tokens = tf.broadcast_to(tokens, [tasks, sizes(points)[0], queries, width])
        return self.read_out(self.decoder.beside(memory, tokens, self.of_a_pair * points))

    def _pairs(self, x, y):
        """Returns the tokens [tasks, points (twice, unless joint), width]."""
        if self.joint:
            return self.read_in(tf.concat([x, y], -1))
        tasks, points, _ = sizes(x)
        pairs = tf.stack([self._padded(x), self._padded(y)], 2)
        return self.read_in(tf.reshape(pairs, [tasks, 2 * points, self.token]))

    def _padded(self, values):
        return tf.pad(values, [[0, 0], [0, 0], [0, self.token - values.shape[-1]]])
