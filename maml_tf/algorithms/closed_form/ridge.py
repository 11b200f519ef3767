"""Ridge regression, solved for many tasks at once."""

import tensorflow as tf

from maml_tf.algorithms.closed_form.positive_definite import add_to_diagonal, solve


def ridge_regression(x: tf.Tensor, y: tf.Tensor, weight: float) -> tf.Tensor:
    """Returns the weights W that minimise |x W - y|^2 + weight |W|^2.

    By the smaller of two systems: W = X' (X X' + weight I)^-1 Y of as many equations as there are
    examples (Bertinetto et al. 2019, eq. 6: Woodbury's identity), or W = (X' X + weight I)^-1 X' Y
    of as many as there are features (eq. 4). Rows of x that are zero change nothing.

    Args:
      x: [tasks, n, features].
      y: [tasks, n, out].
      weight: of the penalty, above 0.
    Returns: [tasks, features, out].
    """
    examples, features = x.shape[-2:]
    if examples is None or examples <= features:  # An exported learner knows the features alone.
        gram = add_to_diagonal(tf.matmul(x, x, transpose_b=True), weight)
        return tf.matmul(x, solve(gram, y), transpose_a=True)
    gram = add_to_diagonal(tf.matmul(x, x, transpose_a=True), weight)
    return solve(gram, tf.matmul(x, y, transpose_a=True))
