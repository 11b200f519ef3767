"""Least recently used access to a memory (Santoro et al. 2016, section 3), as functions of tensors.

Everything is stacked over tasks. keys and values: [tasks, heads, width]; memory: [tasks, slots,
width]; read and write weights: [tasks, heads, slots]; usage: [tasks, slots]; gate: [tasks, heads].
Equation numbers are those of the paper's main text.
"""

import tensorflow as tf

LEAST_NORM = 1e-6


def cosine_similarity(keys: tf.Tensor, memory: tf.Tensor) -> tf.Tensor:
    """Returns K(k, M(i)) = k M(i) / (|k| |M(i)|) (eq. 2), [tasks, heads, slots].

    A norm below LEAST_NORM counts as that, so that a row of zeros has similarity 0.
    """
    squares = (tf.reduce_sum(tf.square(x), axis=-1) for x in (keys, memory))
    of_key, of_row = (tf.math.rsqrt(tf.maximum(x, LEAST_NORM**2)) for x in squares)
    # The memory is large, so it is not normalised: its products are.
    products = tf.matmul(keys, memory, transpose_b=True)
    return products * of_key[..., tf.newaxis] * of_row[:, tf.newaxis]


def read_weights(keys: tf.Tensor, memory: tf.Tensor) -> tf.Tensor:
    """Returns w^r = softmax over i of K(k, M(i)) (eq. 3), [tasks, heads, slots]."""
    return tf.nn.softmax(cosine_similarity(keys, memory))


def read(weights: tf.Tensor, memory: tf.Tensor) -> tf.Tensor:
    """Returns r = sum_i w^r(i) M(i) (eq. 4), [tasks, heads, width]."""
    return tf.matmul(weights, memory)


def usage_after(
    usage: tf.Tensor, reading: tf.Tensor, writing: tf.Tensor, decay: float
) -> tf.Tensor:
    """Returns w^u_t = decay w^u_t-1 + w^r_t + w^w_t (eq. 5), summed over the heads.

    reading, writing: the weights of step t.
    """
    return decay * usage + tf.reduce_sum(reading + writing, axis=1)


def least_used(usage: tf.Tensor, count: int) -> tf.Tensor:
    """Returns w^lu (eq. 6), [tasks, slots]: 1 at the `count` smallest usages, else 0.

    Of equal ones the first slots count as the smallest, so that there are never more than `count`.
    """
    slots = tf.math.top_k(-usage, count).indices
    return tf.reduce_sum(tf.one_hot(slots, usage.shape[-1], dtype=usage.dtype), axis=1)


def write_weights(gate: tf.Tensor, reading: tf.Tensor, least: tf.Tensor) -> tf.Tensor:
    """Returns w^w_t = gate w^r_t-1 + (1 - gate) w^lu_t-1 (eq. 7), [tasks, heads, slots].

    gate: sigmoid(alpha). reading: the read weights of step t-1. least: `least_used` of the usage
      at t-1, the same for all heads.
    """
    gate = gate[..., tf.newaxis]
    return gate * reading + (1 - gate) * least[:, tf.newaxis]


def erase_least_used(memory: tf.Tensor, usage: tf.Tensor) -> tf.Tensor:
    """Returns the memory with the single least used row set to zero; of equal ones the first."""
    kept = 1 - tf.one_hot(tf.argmin(usage, axis=-1), usage.shape[-1], dtype=memory.dtype)
    return memory * kept[..., tf.newaxis]


def write(memory: tf.Tensor, weights: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Returns M_t(i) = M_t-1(i) + sum over heads of w^w_t(i) a_t (eq. 8)."""
    return memory + tf.matmul(weights, values, transpose_a=True)
