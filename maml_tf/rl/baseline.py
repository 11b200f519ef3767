"""The linear feature baseline (Duan et al. 2016): what return a state promises, task by task."""

import tensorflow as tf

RIDGE = 1e-5
BOUND = 10.0  # of observations


def features(observations: tf.Tensor) -> tf.Tensor:
    """Returns [o, o^2, t/100, (t/100)^2, (t/100)^3, 1] with o clipped to +-10.

    Args:
      observations: [tasks, rollouts, horizon, size].
    Returns: [tasks, rollouts, horizon, 2 * size + 4].
    """
    o = tf.clip_by_value(observations, -BOUND, BOUND)
    t = tf.range(observations.shape[2], dtype=o.dtype) / 100
    time = tf.stack([t, t**2, t**3, tf.ones_like(t)], -1)
    shape = tf.concat([tf.shape(o)[:2], tf.shape(time)], 0)
    return tf.concat([o, tf.square(o), tf.broadcast_to(time, shape)], -1)


def fitted(observations: tf.Tensor, returns: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Fits the returns of each task by ridge regression on `features`, and predicts them.

    As in the authors' code it predicts the very batch that it is fitted to. In float64: the powers
    of t are nearly dependent.

    Args:
      observations: [tasks, rollouts, horizon, size].
      returns: [tasks, rollouts, horizon], the discounted sum of rewards from each step on.
      counts: [tasks, rollouts, horizon], 1 where a step counts.
    Returns: [tasks, rollouts, horizon].
    """
    x = tf.cast(features(observations), tf.float64)
    tasks, width = tf.shape(x)[0], x.shape[-1]
    flat = tf.reshape(x, [tasks, -1, width])
    counted = flat * tf.cast(tf.reshape(counts, [tasks, -1, 1]), x.dtype)
    y = tf.cast(tf.reshape(returns, [tasks, -1, 1]), x.dtype)
    gram = tf.matmul(counted, flat, transpose_a=True) + RIDGE * tf.eye(width, dtype=x.dtype)
    weights = tf.linalg.cholesky_solve(
        tf.linalg.cholesky(gram), tf.matmul(counted, y, transpose_a=True)
    )
    return tf.cast(tf.reshape(tf.matmul(flat, weights), tf.shape(returns)), returns.dtype)
