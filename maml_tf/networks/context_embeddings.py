"""Full context embeddings of Matching Networks (Vinyals et al. 2016, arXiv 1606.04080)."""

import keras
import tensorflow as tf

from maml_tf.networks.encoders import torch_default
from maml_tf.ops.masking import NEVER
from maml_tf.serialisation.configuration import Configured


class FullContext(Configured, keras.layers.Layer):
    """Embeds images anew in the light of their support set (appendix A of the paper).

    Support images by a bidirectional LSTM, g, and queries by an LSTM with attention, f:

    Of support (A.2), in the order given:   g(x_i, S) = forward h_i + backward h_i + g'(x_i)
    Of a query (A.1), for k = 1 ... steps:  r_{k-1} = sum_i softmax_i(h_{k-1} . g(x_i)) g(x_i)
                                            h^_k, c_k = LSTM(f'(x), [h_{k-1}, r_{k-1}], c_{k-1})
                                            h_k = h^_k + f'(x);  f(x, S) = h_steps

    with h_0 = c_0 = 0, so that r_0 is the mean of g. Weights are laid out as Keras', the gates in
    the order i, f, candidate, o, and start as PyTorch's.

    Args:
      size: length of f' and g', and so of all states.
      steps: how often a query's LSTM reads the support set.
      name: the layer's.
      kwargs: keras.layers.Layer's (dtype).
    """

    def __init__(self, size: int, steps: int, name: str = 'context', **kwargs):
        super().__init__(name=name, **kwargs)
        self.size, self.steps = size, steps
        self.build(None)

    def build(self, input_shape: tuple[int | None, ...] | None) -> None:
        self.forward, self.backward, self.reading = (
            self._lstm_weights(name, recurrent)
            for name, recurrent in [
                ('forward', self.size),
                ('backward', self.size),
                ('reading', 2 * self.size),
            ]
        )

    def _lstm_weights(self, name, recurrent):
        """Makes (kernel, recurrent kernel, bias)."""
        shapes = {'kernel': (self.size,), 'recurrent_kernel': (recurrent,), 'bias': ()}
        return [
            self.add_weight(
                name=f'{name}_{kind}',
                shape=(*rows, 4 * self.size),
                initializer=torch_default(self.size),
            )
            for kind, rows in shapes.items()
        ]

    def of_support(self, embedded: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """Embeds the support set, in the order in which it is given.

        Args:
          embedded: g' [tasks, support, size].
          counts: [tasks, support], 1 where an example counts, 0 where it is filling, which the
            LSTMs pass over.
        Returns: g [tasks, support, size].
        """
        return (
            embedded
            + self._outputs(embedded, counts, self.forward)
            + self._outputs(embedded, counts, self.backward, reverse=True)
        )

    def _outputs(self, embedded, counts, weights, reverse=False):
        """Returns an LSTM's output after each support example, [tasks, support, size]."""
        kernel, recurrent_kernel, bias = weights
        example_first = lambda x: tf.transpose(x, [1, 0, 2])

        def read(state, example):
            from_input, there = example
            h, c = state
            after = _lstm(from_input + tf.matmul(h, recurrent_kernel), c)
            return tuple(tf.where(there > 0, new, old) for new, old in zip(after, state))

        start = tf.zeros_like(embedded[:, 0])
        examples = (
            example_first(tf.matmul(embedded, kernel) + bias),
            example_first(counts[..., tf.newaxis]),
        )
        return example_first(tf.scan(read, examples, (start, start), reverse=reverse)[0])

    def of_queries(self, embedded: tf.Tensor, support: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
        """Embeds the queries, each by itself.

        Args:
          embedded: f' [tasks, queries, size].
          support: g [tasks, support, size].
          counts: [tasks, support], as of `of_support`.
        Returns: f [tasks, queries, size].
        """
        kernel, recurrent_kernel, bias = self.reading
        filling = NEVER * (1 - counts)[:, tf.newaxis]
        from_input = tf.matmul(embedded, kernel) + bias
        h = c = tf.zeros_like(embedded)
        for _ in range(self.steps):
            attention = tf.nn.softmax(tf.matmul(h, support, transpose_b=True) + filling)
            recurrent = tf.concat([h, tf.matmul(attention, support)], axis=-1)
            h, c = _lstm(from_input + tf.matmul(recurrent, recurrent_kernel), c)
            h += embedded
        return h


def _lstm(gates, c):
    """Takes one step: gates before their nonlinearities [..., 4 * size], cell -> (output, cell)."""
    i, f, candidate, o = tf.split(gates, 4, axis=-1)
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(candidate)
    return tf.sigmoid(o) * tf.tanh(c), c
