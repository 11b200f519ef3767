"""Linear systems with symmetric, positive definite matrices."""

import tensorflow as tf


def solve(matrix: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Solves matrix @ x = right by Cholesky's factors, on the way back too.

    TensorFlow differentiates through the factorisation, which takes several times as long.

    Args:
      matrix: [..., n, n], symmetric, positive definite; only its lower half is read.
      right: [..., n, columns].
    Returns: x [..., n, columns]. The gradient of the matrix is symmetric.
    """

    @tf.custom_gradient
    def solved(matrix, right):
        factor = tf.linalg.cholesky(matrix)
        x = tf.linalg.cholesky_solve(factor, right)

        def gradient(upstream):
            of_right = tf.linalg.cholesky_solve(factor, upstream)
            outer = tf.matmul(of_right, x, transpose_b=True)
            return -(outer + tf.linalg.matrix_transpose(outer)) / 2, of_right

        return x, gradient

    return solved(matrix, right)


def add_to_diagonal(matrix: tf.Tensor, values: tf.Tensor | float) -> tf.Tensor:
    """Returns matrix [..., n, n] with `values`, a number or [..., n], added to its diagonal."""
    return tf.linalg.set_diag(matrix, tf.linalg.diag_part(matrix) + values)
