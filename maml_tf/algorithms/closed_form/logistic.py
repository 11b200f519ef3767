"""Logistic regression by iteratively reweighted least squares, solved for many tasks at once."""

import tensorflow as tf

from maml_tf.algorithms.closed_form.positive_definite import add_to_diagonal, solve

_SURE = 40.0  # Half a logit beyond which exponentials would leave float32.


def logistic_regression(x: tf.Tensor, y: tf.Tensor, weight: float, steps: int) -> tf.Tensor:
    """Returns the weights of a classifier "this class or another" for each class.

    Newton's method from zero on -sum log p + weight / 2 |w|^2, each step a ridge regression with
    weights for the examples: w = X' (X X' + weight S^-1)^-1 z, S = diag(mu (1 - mu)),
    z = X w + S^-1 (y - mu) (Bertinetto et al. 2019, section 3.3). Rows of x that are zero change
    nothing.

    It is computed as X' R (R X X' R + weight I)^-1 R z with R the root of S: nothing is divided by
    variances, which vanish where the classifier is sure.

    Args:
      x: [tasks, n, features].
      y: one-hot [tasks, n, way].
      weight: of the penalty, above 0.
      steps: of Newton's method.
    Returns: [tasks, features, way].
    """
    gram = tf.matmul(x, x, transpose_b=True)[:, tf.newaxis]
    y = tf.linalg.matrix_transpose(y)  # [tasks, way, n]: a system for each class.
    alpha = eta = tf.zeros_like(y)
    for _ in range(steps):
        half = tf.clip_by_value(eta / 2, -_SURE, _SURE)
        up, down = tf.exp(half), tf.exp(-half)
        root = 1 / (up + down)
        # The root of S times z: (y - mu) / root is down of the class, -up of the others.
        right = root * eta + y * down - (1 - y) * up
        weighted = root[..., tf.newaxis] * gram * root[..., tf.newaxis, :]
        alpha = root * solve(add_to_diagonal(weighted, weight), right[..., tf.newaxis])[..., 0]
        eta = tf.matmul(gram, alpha[..., tf.newaxis])[..., 0]
    return tf.matmul(x, alpha, transpose_a=True, transpose_b=True)
