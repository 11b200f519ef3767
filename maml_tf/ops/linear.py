"""Matrix products with a matrix for every task."""

import tensorflow as tf

from maml_tf.ops.bilinear import Bilinear

# Of so few examples, XLA's CPU library takes longer to look at each task's matrices than to
# multiply them.
FEW = 16


class Linear(Bilinear):
    """Multiplies [tasks, n, in] by [tasks, in, out] -> [tasks, n, out]."""

    def _product(self, x, w):
        return tf.matmul(x, w)

    def _to_input(self, dy, w):
        return tf.matmul(dy, w, transpose_b=True)

    def _to_weight(self, x, dy):
        if x.shape[1] is None or x.shape[1] > FEW:
            return tf.matmul(x, dy, transpose_a=True)
        return tf.add_n([x[:, i, :, tf.newaxis] * dy[:, i, tf.newaxis] for i in range(x.shape[1])])
