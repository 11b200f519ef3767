"""A causal transformer that reads a sequence once, and then any number of next tokens beside it."""

import keras
import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.ops.masking import NEVER
from maml_tf.ops.shapes import sizes
from maml_tf.serialisation.configuration import Configured

# {'keys', 'values'}: [tasks, layers, tokens, heads, width / heads]
Memory = dict[str, tf.Tensor]


class Decoder(Configured, keras.layers.Layer):
    """GPT-2's decoder of vectors (Radford et al. 2019), without a vocabulary.

    Learned positions are added to the tokens. Then come blocks, h += attention(norm(h)) and
    h += dense(gelu(dense(norm(h)))), the inner one 4 times as wide, and a last layer normalisation.
    A token sees itself and those before it. Weights start as GPT-2's: N(0, 0.02^2), and over
    sqrt(2 layers) those of what is added to h; biases are 0. There is no dropout.

    `read` is the pass over a whole sequence. What it leaves behind, keys and values, is all that
    `beside` needs to compute what a token would become at a later place.

    Args:
      layers, heads, width: of the blocks; `heads` divides `width`.
      length: tokens of the longest sequence.
      name, kwargs: keras.layers.Layer's (dtype).
    Raises: ArgumentError where `heads` does not divide `width`.
    """

    def __init__(
        self, layers: int, heads: int, width: int, length: int, name: str = 'decoder', **kwargs
    ):
        super().__init__(name=name, **kwargs)
        if width % heads:
            raise ArgumentError('heads', heads, f'a divisor of the width, {width}')
        self.layers, self.heads, self.width, self.length = layers, heads, width, length
        self.build(None)

    def build(self, input_shape: tuple[int | None, ...] | None) -> None:
        self.positions = self.add_weight(
            name='positions', shape=(self.length, self.width), initializer=_start()
        )
        self.blocks = [
            _Block(self.layers, self.heads, self.width, name=f'block_{i}', dtype=self.dtype_policy)
            for i in range(self.layers)
        ]
        self.norm = _norm(self, 'norm')
        self.norm.build((None, None, self.width))

    def read(self, tokens: tf.Tensor) -> tuple[tf.Tensor, Memory]:
        """Reads sequences [tasks, tokens, width]; returns (hidden states alike, their Memory)."""
        h = tokens + self.positions[: sizes(tokens)[1]]
        keys, values = [], []
        for block in self.blocks:
            h, key, value = block.read(h)
            keys.append(key)
            values.append(value)
        return self.norm(h), {'keys': tf.stack(keys, 1), 'values': tf.stack(values, 1)}

    def beside(self, memory: Memory, tokens: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Reads single tokens, each as if it stood alone behind the first tokens of the sequence.

        Args:
          memory: of the sequence.
          tokens: [tasks, lengths, n, width], n for each of the lengths.
          lengths: int32 [lengths], how many tokens of the sequence come before.
        Returns: hidden states [tasks, lengths, n, width].
        """
        h = tokens + tf.gather(self.positions.value, lengths)[:, tf.newaxis]
        before = tf.range(sizes(memory['keys'])[2]) < lengths[:, tf.newaxis]
        hidden = tf.where(before, tf.cast(0, h.dtype), tf.cast(NEVER, h.dtype))
        for i, block in enumerate(self.blocks):
            h = block.beside(h, memory['keys'][:, i], memory['values'][:, i], hidden)
        return self.norm(h)


class _Block(keras.layers.Layer):
    """Attention, then two dense layers at each token, both on the normalised h and added to it."""

    def __init__(self, layers, heads, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.attention_norm, self.dense_norm = (
            _norm(self, 'attention_norm'),
            _norm(self, 'dense_norm'),
        )
        self.attention = keras.layers.MultiHeadAttention(
            heads,
            width // heads,
            kernel_initializer=_start(),
            name='attention',
            dtype=self.dtype_policy,
        )
        self.inner, self.outer = (
            keras.layers.Dense(
                size, kernel_initializer=_start(divisor), name=name, dtype=self.dtype_policy
            )
            for size, divisor, name in ((4 * width, 1, 'inner'), (width, 2 * layers, 'outer'))
        )
        self.build(None)
        # Keras starts all four matrices alike.
        kernel = self.attention.output_dense.kernel
        kernel.assign(_start(2 * layers)(kernel.shape, kernel.dtype))

    def build(self, input_shape):
        states = (None, None, self.width)
        self.attention_norm.build(states)
        self.dense_norm.build(states)
        self.attention.build(states, states)
        self.inner.build(states)
        self.outer.build((None, None, 4 * self.width))
        self.built = True

    def read(self, h):
        x = self.attention_norm(h)
        h = self._dense(h + self.attention(x, x, use_causal_mask=True))
        # The layer hides those that it computes; compiled, they are computed once.
        return h, self.attention.key_dense(x), self.attention.value_dense(x)

    def beside(self, h, keys, values, hidden):
        """h: [tasks, lengths, n, width]; hidden: [lengths, tokens], 0 or NEVER."""
        x = self.attention_norm(h)
        tasks, lengths, n, width = sizes(x)
        one_axis = tf.reshape(x, [tasks, lengths * n, width])
        by_length = lambda dense: _with_lengths(dense(one_axis), lengths, n)
        query, own_key, own_value = map(
            by_length,
            (self.attention.query_dense, self.attention.key_dense, self.attention.value_dense),
        )
        query *= self.attention.key_dim**-0.5
        others = tf.einsum('blnhd,bshd->blnhs', query, keys) + hidden[:, tf.newaxis, tf.newaxis]
        own = tf.reduce_sum(query * own_key, -1, keepdims=True)
        attention = tf.nn.softmax(tf.concat([others, own], -1))
        seen = tf.einsum('blnhs,bshd->blnhd', attention[..., :-1], values)
        seen += attention[..., -1:] * own_value
        seen = self.attention.output_dense(tf.reshape(seen, [tasks, lengths * n, *seen.shape[-2:]]))
        return self._dense(h + tf.reshape(seen, [tasks, lengths, n, width]))

    def _dense(self, h):
        return h + self.outer(keras.activations.gelu(self.inner(self.dense_norm(h)), True))


def _with_lengths(x, lengths, n):
    """[tasks, lengths * n, heads, d] -> [tasks, lengths, n, heads, d]."""
    return tf.reshape(x, [sizes(x)[0], lengths, n, *x.shape[-2:]])


def _norm(layer, name):
    return keras.layers.LayerNormalization(epsilon=1e-5, name=name, dtype=layer.dtype_policy)


def _start(divisor=1):
    return keras.initializers.RandomNormal(stddev=0.02 / divisor**0.5)
