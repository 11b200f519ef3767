"""Labels of five letters, which any number of classes can have (Santoro et al. 2016, section 4)."""

import tensorflow as tf

from maml_tf.episodes.random_bits import PERMUTATION_WORDS, keyed_bits, permuted

LETTERS, LENGTH = 5, 5  # Letters of the alphabet {a ... e}, and of a string.
STRINGS = LETTERS**LENGTH
# The stream of a task's random bits that decides the strings.
_STREAM = 0x73747267


def label_strings(
    tasks: int | tf.Tensor, way: int | tf.Tensor, key: tf.Tensor | None, dtype: tf.DType
) -> tf.Tensor:
    """Draws a string for each class, distinct within a task.

    Args:
      way: at most STRINGS classes.
      key: see task.Task; None: the same strings for all tasks.
    Returns: five one-hots one behind the other, [tasks, way, LENGTH * LETTERS].
    """
    words = keyed_bits(key, PERMUTATION_WORDS, _STREAM)
    words = tf.broadcast_to(words, [tasks, PERMUTATION_WORDS])[:, tf.newaxis]
    places = tf.broadcast_to(tf.range(way), [tasks, way])
    number = permuted(places, STRINGS, words)[..., tf.newaxis]
    letters = number // LETTERS ** tf.range(LENGTH - 1, -1, -1) % LETTERS
    return tf.reshape(tf.one_hot(letters, LETTERS, dtype=dtype), [tasks, way, LENGTH * LETTERS])
