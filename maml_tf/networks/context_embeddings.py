"""Full context embeddings of Matching Networks (Vinyals et al. 2016, arXiv 1606.04080, appendix
A)."""

import keras
import tensorflow as tf

from maml_tf.algorithms.metric.metric_learner import NEVER
from maml_tf.networks.encoders import torch_default
from maml_tf.ops.shapes import sizes


class FullContext(keras.layers.Layer):
    """Embeddings that know the support set: g by a bidirectional LSTM, f by an LSTM with attention.

    Of support (A.2), in the order given:   g(x_i, S) = forward h_i + backward h_i + g'(x_i)
    Of a query (A.1), for k = 1 ... steps:  r_{k-1} = sum_i softmax_i(h_{k-1} . g(x_i)) g(x_i)
                                            h^_k, c_k = LSTM(f'(x), [h_{k-1}, r_{k-1}], c_{k-1})
                                            h_k = h^_k + f'(x);  f(x, S) = h_steps
    with h_0 = c_0 = 0, so that r_0 is the mean of g. Weights are laid out as Keras', the gates in
    the order i, f, candidate, o, and start as PyTorch's.

    Args:
      size: of f' and g', and so of all states.
      steps: reads of the support set.
    """

    def __init__(self, size, steps, name='context'):
        super().__init__(name=name)
        self.size, self.steps = size, steps
        self.build(None)

    def build(self, input_shape):
        self.forward, self.backward, self.reading = (
            self._lstm_weights(name, recurrent)
            for name, recurrent in [
                ('forward', self.size),
                ('backward', self.size),
                ('reading', 2 * self.size),
            ]
        )

    def _lstm_weights(self, name, recurrent):
        """(kernel, recurrent kernel, bias)"""
        shapes = {'kernel': (self.size,), 'recurrent_kernel': (recurrent,), 'bias': ()}
        return [
            self.add_weight(
                name=f'{name}_{kind}',
                shape=(*rows, 4 * self.size),
                initializer=torch_default(self.size),
            )
            for kind, rows in shapes.items()
        ]

    def of_support(self, embedded, counts):
        """g' [tasks, support, size], counts [tasks, support] (0: filling, which is passed over) ->
        g alike."""
        return (
            embedded
            + self._outputs(embedded, counts, self.forward)
            + self._outputs(embedded, counts, self.backward, reverse=True)
        )

    def _outputs(self, embedded, counts, weights, reverse=False):
        """An LSTM's output after each support example, [tasks, support, size]."""
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

    def of_queries(self, embedded, support, counts):
        """f' [tasks, queries, size], g [tasks, support, size], counts [tasks, support] -> f [tasks,
        queries, size]."""
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
    """One step: the gates before their nonlinearities [..., 4 * size], the cell -> (output,
    cell)."""
    i, f, candidate, o = tf.split(gates, 4, axis=-1)
    c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(candidate)
    return tf.sigmoid(o) * tf.tanh(c), c


def pseudo_random_order(support_x, support_y):
    """An order of each task's support set: [tasks, n, ...], [tasks, n, way] -> int32 [tasks, n],
    the filling last.

    Every order is as likely as another, but a set of images always has the same one, whatever order
    it comes in and
    whatever is beside it: so it is compiled and resumed exactly, and a prediction is a function of
      the set.
    """
    pixels = tf.cast(tf.round(255 * tf.reshape(support_x, [*sizes(support_x)[:2], -1])), tf.int32)
    factors = tf.random.stateless_uniform(
        [tf.shape(pixels)[-1]], (0, 0), None, None, tf.int32, alg='philox'
    )
    counts = tf.reduce_max(support_y, axis=-1)
    # Products and sums of integers wrap around, so that a sum does not depend on its order.
    hashes = tf.reduce_sum(pixels * factors, axis=-1) * tf.cast(counts, tf.int32)
    of_the_set = tf.reduce_sum(hashes, axis=-1, keepdims=True) * 1640531527
    priorities = tf.bitwise.bitwise_xor(hashes, of_the_set) * 1540483477
    return tf.argsort(tf.where(counts > 0, priorities, tf.int32.max), stable=True)
