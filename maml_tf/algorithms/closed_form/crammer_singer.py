"""The support vector machine of many classes (Crammer and Singer 2001), solved for many tasks."""

from typing import NamedTuple

import tensorflow as tf

# How far a step goes towards the border of what is allowed.
TO_THE_BORDER = 0.99
# Slacks and multipliers stay above this: their quotients weigh the linear systems.
LEAST = 1e-12


def crammer_singer(
    kernel: tf.Tensor,
    labels: tf.Tensor,
    penalty: float = 0.1,
    ridge: float | tf.Tensor = 1.0,
    steps: int = 15,
) -> tf.Tensor:
    """Returns the dual variables alpha of the machine's classes.

        minimise    1/2 sum_k alpha_k' K alpha_k + ridge / 2 |alpha|^2 - sum_i alpha_{i, y_i}
        subject to  alpha_{i, k} <= penalty [k = y_i],  sum_k alpha_{i, k} = 0

    (Lee et al. 2019, eq. 8; `ridge` is the 1.0 that their code adds to the diagonal.) By a
    primal-dual interior point with Mehrotra's predictor and corrector, in float64; the gradient is
    that of the conditions of optimality (Amos and Kolter 2017, eqs. 7 and 8), and not of the steps.

    Args:
      kernel: [tasks, n, n], symmetric, positive semidefinite.
      labels: one-hot [tasks, n, way].
      penalty: C, above 0.
      ridge: a number, or [tasks, 1, way]; above 0.
      steps: of the interior point.
    Returns: [tasks, n, way], in the kernel's dtype. Second derivatives are not there.
    """

    @tf.custom_gradient
    def solve(kernel):
        kernel_64 = tf.cast(kernel, tf.float64)
        labels_64, ridge_64 = tf.cast(labels, tf.float64), tf.cast(ridge, tf.float64)
        point = _interior_point(kernel_64, labels_64, penalty, ridge_64, steps)

        def gradient(upstream):
            newton = _Newton(kernel_64, ridge_64 + point.dual / point.slack)
            upstream = tf.cast(upstream, tf.float64)
            step, _ = newton.solve(-upstream, tf.zeros_like(upstream[..., 0]))
            outer = tf.matmul(step, point.alpha, transpose_b=True)  # Every class has this kernel.
            return tf.cast((outer + tf.linalg.matrix_transpose(outer)) / 2, kernel.dtype)

        return tf.cast(point.alpha, kernel.dtype), gradient

    return solve(kernel)


class _Point(NamedTuple):
    """Where the interior point is.

    alpha, slack (of the bounds), dual (their multipliers): [tasks, n, way]; equal (multipliers of
    the sums): [tasks, n].
    """

    alpha: tf.Tensor
    slack: tf.Tensor
    dual: tf.Tensor
    equal: tf.Tensor


def _interior_point(kernel, labels, penalty, ridge, steps):
    """Takes `steps` steps of Mehrotra's method (Nocedal and Wright 2006, algorithm 16.4)."""
    bounds, count = penalty * labels, tf.cast(tf.size(labels[0]), labels.dtype)
    point = _start(kernel, labels, bounds, ridge)
    for _ in range(steps):
        alpha, slack, dual, equal = point
        newton = _Newton(kernel, ridge + dual / slack)
        of_alpha = tf.matmul(kernel, alpha) + ridge * alpha - labels + dual + equal[..., None]
        of_bounds = alpha + slack - bounds
        of_sums = tf.reduce_sum(alpha, -1)

        def step(of_products):
            """Newton's step towards products of slack and dual that are less by `of_products`."""
            right = -of_alpha + (of_products - dual * of_bounds) / slack
            d_alpha, d_equal = newton.solve(right, -of_sums)
            d_slack = -of_bounds - d_alpha
            return _Point(d_alpha, d_slack, -(of_products + dual * d_slack) / slack, d_equal)

        mean = lambda products: tf.reduce_sum(products, (1, 2), keepdims=True) / count
        affine = step(slack * dual)
        size = _largest(point, affine)
        before = mean(slack * dual)
        after = mean((slack + size * affine.slack) * (dual + size * affine.dual))
        centre = (after / before) ** 3 * before
        direction = step(slack * dual + affine.slack * affine.dual - centre)
        size = TO_THE_BORDER * _largest(point, direction)
        point = _Point(
            alpha + size * direction.alpha,
            tf.maximum(slack + size * direction.slack, LEAST),
            tf.maximum(dual + size * direction.dual, LEAST),
            equal + size[..., 0] * direction.equal,
        )
    return point


def _start(kernel, labels, bounds, ridge):
    """Starts where slacks and multipliers would be opposite, moved into the positive."""
    alpha, equal = _Newton(kernel, ridge + tf.ones_like(labels)).solve(
        labels + bounds, tf.zeros_like(labels[..., 0])
    )
    slack = bounds - alpha
    positive = lambda x: x + tf.maximum(1 - tf.reduce_min(x, (1, 2), keepdims=True), 0)
    return _Point(alpha, positive(slack), positive(-slack), equal)


def _largest(point, direction):
    """Returns the longest step of each task, at most 1, that leaves nothing negative."""
    sizes = [
        tf.reduce_min(tf.where(change < 0, -value / change, tf.ones_like(value)), (1, 2))
        for value, change in ((point.slack, direction.slack), (point.dual, direction.dual))
    ]
    return tf.minimum(tf.minimum(*sizes), 1)[:, None, None]


class _Newton:
    """Solves (K + diag(weights_k)) a_k + e = r_k for all classes k, where sum_k a_k = b.

    One factor [n, n] for each class, and one for e, in place of a system of n * way equations.

    Args:
      kernel: K [tasks, n, n].
      weights: [tasks, n, way].
    """

    def __init__(self, kernel, weights):
        by_class = kernel[:, None] + tf.linalg.diag(tf.linalg.matrix_transpose(weights))
        eye = tf.eye(tf.shape(kernel)[-1], dtype=kernel.dtype)
        # Inverses, for two products with them are quicker than many small systems.
        self._inverses = tf.linalg.cholesky_solve(
            tf.linalg.cholesky(by_class), tf.broadcast_to(eye, tf.shape(by_class))
        )
        self._of_sums = tf.linalg.cholesky(tf.reduce_sum(self._inverses, 1))

    def solve(self, right, sums):
        """Returns (a [tasks, n, way], e [tasks, n]) of r [tasks, n, way] and b [tasks, n]."""
        free = tf.einsum('tkij,tjk->tik', self._inverses, right)
        equal = tf.linalg.cholesky_solve(
            self._of_sums, (tf.reduce_sum(free, -1) - sums)[..., None]
        )[..., 0]
        return free - tf.einsum('tkij,tj->tik', self._inverses, equal), equal
