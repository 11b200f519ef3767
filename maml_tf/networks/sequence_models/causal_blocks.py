"""Causal blocks of SNAIL (Mishra et al., ICLR 2018, arXiv 1707.03141, section 3): dense blocks, TC
blocks of them, and soft attention over the past.

A block reads a whole sequence, and notes what a position after it needs of its past. With that,
each of many positions that could come next is computed by itself, without the sequence.
"""

import math

import keras
import tensorflow as tf

from maml_tf.networks.encoders import torch_default
from maml_tf.ops.masking import NEVER
from maml_tf.ops.shapes import sizes
from maml_tf.serialisation.configuration import Configured

Past = dict[str, tf.Tensor]


def gated_convolution(
    x: tf.Tensor, before: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor
) -> tf.Tensor:
    """Computes tanh(f) * sigmoid(g), where [f, g] = before kernel_0 + x kernel_1 + bias.

    Args:
      x: [sequences, n, in], some positions.
      before: what stands so many positions before them as the dilation says, [sequences, n, in]; or
        [sequences, 1, in], if that is the same for all.
      kernel, bias: [2, in, 2 * filters], [2 * filters], as of keras.layers.Conv1D.
    Returns: [sequences, n, filters].
    """
    of_before, of_x = tf.unstack(kernel)
    f, g = tf.split(times(x, of_x) + (times(before, of_before) + bias), 2, axis=-1)
    return tf.tanh(f) * tf.sigmoid(g)


def causal_attention(query: tf.Tensor, keys: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Reads, at each position, values of this and of all earlier positions.

    read_t = sum_{s <= t} softmax_s(query_t . keys_s / sqrt(size)) values_s

    query, keys: [sequences, length, size]; values: [sequences, length, width].
    Returns: [sequences, length, width].
    """
    length = sizes(query)[1]
    logits = tf.matmul(query, keys, transpose_b=True) / math.sqrt(query.shape[-1])
    seen = tf.linalg.band_part(tf.ones([length, length], logits.dtype), -1, 0)
    return tf.matmul(tf.nn.softmax(logits + NEVER * (1 - seen)), values)


def attention_of_the_next(
    query: tf.Tensor,
    key: tf.Tensor,
    value: tf.Tensor,
    keys: tf.Tensor,
    values: tf.Tensor,
    there: tf.Tensor,
) -> tf.Tensor:
    """Computes what `causal_attention` reads at a position that follows a sequence.

    Args:
      query, key, value: [sequences, n, ...], of n positions of which each could come next.
      keys, values: [sequences, length, ...], of the sequence.
      there: [sequences, length], 1 where a position of the sequence counts, 0 where it is filling.
    Returns: [sequences, n, width].
    """
    past = tf.matmul(query, keys, transpose_b=True)
    own = tf.reduce_sum(query * key, axis=-1, keepdims=True)
    hidden = tf.pad(NEVER * (1 - there), [[0, 0], [0, 1]])[:, tf.newaxis]
    weights = tf.nn.softmax(tf.concat([past, own], -1) / math.sqrt(query.shape[-1]) + hidden)
    return tf.matmul(weights[..., :-1], values) + weights[..., -1:] * value


def times(x: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Multiplies [..., in] by [in, out], as one product."""
    rows = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), matrix)
    return tf.reshape(rows, [*sizes(x)[:-1], matrix.shape[-1]])


class CausalBlock(Configured, keras.layers.Layer):
    """A layer of sequences, whose output at a position depends on this and on earlier positions.

    The output is the input with something appended: [sequences, length, in] -> [..., in + more].
    Subclasses write `read` and `step`.

    name: the layer's, with which the names of what it notes begin.
    """

    def __init__(self, name: str, **kwargs):
        super().__init__(name=name, **kwargs)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.read(x, tf.ones(sizes(x)[:2], x.dtype))[0]

    def read(self, x: tf.Tensor, there: tf.Tensor) -> tuple[tf.Tensor, Past]:
        """Returns (the outputs, what a position after the sequence needs of it).

        x: [sequences, length, in]; there: [sequences, length], 1 where a position counts. Filling
          stands at the end.
        """
        raise NotImplementedError

    def step(self, x: tf.Tensor, past: Past) -> tf.Tensor:
        """Returns the output at positions of which each could come next, [sequences, n, in + more].

        x: [sequences, n, in]; past: what `read` noted, and its `there` by this name.
        """
        raise NotImplementedError


class DenseBlock(CausalBlock):
    """Appends a gated causal convolution of kernel size 2 to its input.

    y_t = [x_t, tanh(f_t) * sigmoid(g_t)], where f and g are convolutions of x_{t - dilation} and
    x_t; before the beginning stand zeros. The weights of both are one kernel, f's first. They start
    as PyTorch's.

    Args:
      filters: of either convolution.
      dilation: how far it looks back.
    """

    def __init__(self, filters: int, dilation: int, name: str, **kwargs):
        super().__init__(name, **kwargs)
        self.filters, self.dilation = filters, dilation

    def build(self, shape: tuple[int | None, ...]) -> None:
        start = torch_default(2 * shape[-1])
        self.kernel = self.add_weight(
            name='kernel', shape=(2, shape[-1], 2 * self.filters), initializer=start
        )
        self.bias = self.add_weight(name='bias', shape=(2 * self.filters,), initializer=start)

    def read(self, x: tf.Tensor, there: tf.Tensor) -> tuple[tf.Tensor, Past]:
        later = tf.pad(x, [[0, 0], [self.dilation, 0], [0, 0]])
        # So later by `dilation`, what the next position looks back at stands in its own place.
        next_place = tf.cast(tf.reduce_sum(there, axis=1, keepdims=True), tf.int32)
        past = {f'{self.name}_before': tf.gather(later, next_place, batch_dims=1)}
        return self._extended(x, later[:, : sizes(x)[1]]), past

    def step(self, x: tf.Tensor, past: Past) -> tf.Tensor:
        return self._extended(x, past[f'{self.name}_before'])

    def _extended(self, x, before):
        kernel, bias = map(tf.convert_to_tensor, (self.kernel, self.bias))
        return tf.concat([x, gated_convolution(x, before, kernel, bias)], -1)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*shape[:-1], shape[-1] + self.filters)


def tc_block(length: int, filters: int, name: str, **kwargs) -> list[DenseBlock]:
    """Makes the dense blocks of TC(length, filters), to be applied one after another.

    ceil(log2 length) blocks of dilation 1, 2, 4, ...: together they look back at length - 1
    positions or more.

    kwargs: keras.layers.Layer's (dtype).
    """
    levels = (length - 1).bit_length()
    return [DenseBlock(filters, 2**level, f'{name}_{level}', **kwargs) for level in range(levels)]


class CausalAttention(CausalBlock):
    """Appends to its input what soft attention reads of this and of all earlier positions.

    Queries, keys and values are affine in the input, see `causal_attention`. Their weights start as
    PyTorch's.

    Args:
      key_size: length of queries and keys.
      value_size: of values.
    """

    def __init__(self, key_size: int, value_size: int, name: str, **kwargs):
        super().__init__(name, **kwargs)
        self.key_size, self.value_size = key_size, value_size

    def build(self, shape: tuple[int | None, ...]) -> None:
        sizes = {'query': self.key_size, 'keys': self.key_size, 'values': self.value_size}
        self.query, self.keys, self.values = (
            keras.layers.Dense(
                size,
                kernel_initializer=torch_default(shape[-1]),
                bias_initializer=torch_default(shape[-1]),
                dtype=self.dtype_policy,
                name=f'{self.name}_{kind}',
            )
            for kind, size in sizes.items()
        )
        for layer in (self.query, self.keys, self.values):
            layer.build(shape)

    def read(self, x: tf.Tensor, there: tf.Tensor) -> tuple[tf.Tensor, Past]:
        del there  # What counts stands before the filling, and so does not see it.
        keys, values = self.keys(x), self.values(x)
        past = {f'{self.name}_keys': keys, f'{self.name}_values': values}
        return tf.concat([x, causal_attention(self.query(x), keys, values)], -1), past

    def step(self, x: tf.Tensor, past: Past) -> tf.Tensor:
        keys, values = (past[f'{self.name}_{kind}'] for kind in ('keys', 'values'))
        own = self.query(x), self.keys(x), self.values(x)
        return tf.concat([x, attention_of_the_next(*own, keys, values, past['there'])], -1)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*shape[:-1], shape[-1] + self.value_size)
