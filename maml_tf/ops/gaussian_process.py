"""Gaussian processes: a kernel, and what is known of further values once some are observed."""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Kernel:
    """k(x, x') = amplitude**2 exp(-|x - x'|**2 / (2 length**2)); observations have noise besides.

    noise: the standard deviation of what is added to each observation by itself.
    """

    length: float
    amplitude: float
    noise: float

    def __call__(self, x: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
        """[..., n, d], [..., m, d] -> [..., n, m], without the noise."""
        differences = (x[..., :, tf.newaxis, :] - other[..., tf.newaxis, :, :]) / self.length
        return self.amplitude**2 * tf.exp(-0.5 * tf.reduce_sum(tf.square(differences), axis=-1))

    def of_observed(self, x: tf.Tensor) -> tf.Tensor:
        """[..., n, d] -> the covariance of observations at x, [..., n, n]."""
        return self(x, x) + self.noise**2 * tf.eye(tf.shape(x)[-2], dtype=x.dtype)


def posterior(
    kernel: Kernel,
    support_x: tf.Tensor,
    support_y: tf.Tensor,
    query_x: tf.Tensor,
    mask: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mean and deviation of new observations at the queries, in float64.

    mean = k' K^-1 y, variance = k(x*, x*) + noise**2 - k' K^-1 k (Rasmussen and Williams 2006,
    equations 2.23 and 2.24), with K = L L' by Cholesky.

    Args:
      support_x, support_y: [tasks, support, d], [tasks, support, out]; every output is a process of
        its own.
      query_x: [tasks, query, d].
      mask: [tasks, support], 1 where a point counts; None: all do.
    Returns: mean [tasks, query, out], deviation [tasks, query, 1].
    """
    support_x, support_y, query_x = (
        tf.cast(x, tf.float64) for x in (support_x, support_y, query_x)
    )
    covariance, to_query = kernel.of_observed(support_x), kernel(support_x, query_x)
    if mask is not None:
        # What does not count is independent of all else, and was observed to be nothing unusual.
        counts = tf.cast(mask, tf.float64)[..., tf.newaxis]
        both = counts * tf.linalg.matrix_transpose(counts)
        covariance = both * covariance + (1 - both) * tf.eye(tf.shape(mask)[-1], dtype=tf.float64)
        support_y, to_query = counts * support_y, counts * to_query
    factor = tf.linalg.cholesky(covariance)
    whitened = tf.linalg.triangular_solve(factor, to_query)
    mean = tf.matmul(whitened, tf.linalg.triangular_solve(factor, support_y), transpose_a=True)
    known = tf.reduce_sum(tf.square(whitened), axis=-2)[..., tf.newaxis]
    variance = kernel.amplitude**2 + kernel.noise**2 - known
    # Rounding may take away more than there is; the noise stays.
    return mean, tf.sqrt(tf.maximum(variance, kernel.noise**2))
