"""Random numbers as pure functions of (seed, split, stream, task index), compiled or not.

TensorFlow's stateless floats differ between compiled and uncompiled graphs, its integer bits do
not. Philox is a counter-based generator: task i owns a fixed range of counters, so a batch of tasks
is one call, and a task does not depend on the batch it is drawn in.
"""

import math

import tensorflow as tf

from maml_tf.errors import ArgumentError

SPLITS = ('train', 'val', 'test', 'trainval')
# Streams 0 to 4 belong to the sources, each to its own purposes, and those from 6 on.
KEYS = 5  # The stream of the tasks' keys, in every source.
PERMUTATION_WORDS = 16  # Rounds of `permuted`.
_PHILOX = 1
_WORDS_PER_COUNTER = 4
_FIXED_KEY = (0x9E3779B9, 0x7F4A7C15)


class Stream:
    """An endless table of random words, one row per task.

    Args:
      seed: a number from 0 to 2**40 - 1.
      split: one of SPLITS.
      stream: a small number; a source draws each kind of thing (classes, images, ...) from its own.
    Raises: ArgumentError for another seed or split.
    """

    def __init__(self, seed: int, split: str, stream: int):
        if not 0 <= seed < 2**40:
            raise ArgumentError('seed', seed, 'a number from 0 to 2**40 - 1')
        if split not in SPLITS:
            raise ArgumentError('split', split, f'one of {", ".join(SPLITS)}')
        self._key = (seed << 16) | (SPLITS.index(split) << 8) | stream

    def bits(self, start: tf.Tensor | int, tasks: int, words: int) -> tf.Tensor:
        """Returns rows start ... start + tasks - 1, uint32 [tasks, words].

        A row of another number of words is another row.
        """
        counters = -(-words // _WORDS_PER_COUNTER)
        first = tf.cast(start, tf.uint64) * tf.constant(counters, tf.uint64)
        key, counter = (
            tf.constant(self._key, tf.uint64),
            tf.stack([first, tf.constant(0, tf.uint64)]),
        )
        return _philox(key, counter, [tasks, counters * _WORDS_PER_COUNTER])[:, :words]


def keyed_bits(key: tf.Tensor | None, words: int | tf.Tensor, stream: int = 0) -> tf.Tensor:
    """Returns random words that belong to each task's key.

    Threefry-2x32 with 20 rounds (Salmon et al. 2011), a counter-based generator of additions,
    rotations and exclusive ors. A task's words depend on its key and on `stream` alone, neither on
    the other tasks of the batch nor on `words`: more words begin with those of fewer.

    Args:
      key: uint32 [tasks, 2], see task.Task; None: a fixed one, for tasks that were made by hand.
      words: how many for each task.
      stream: a number from 0 to 2**32 - 1; what a method draws for another purpose has another.
    Returns: uint32 [tasks, words]; without a key [1, words].
    """
    if key is None:
        key = tf.constant([_FIXED_KEY], tf.uint32)
    half = -(-words // 2)
    counters = tf.cast(tf.range(half), tf.uint32)
    bits = _threefry(key[:, :1], key[:, 1:], counters, tf.constant(stream, tf.uint32))
    return tf.reshape(tf.stack(bits, -1), [-1, 2 * half])[:, :words]


def many_bits(
    key: tf.Tensor | None, shape: tf.Tensor | list[int], stream: int, counter: int = 0
) -> tf.Tensor:
    """Returns random words that belong to one task's key, where millions are drawn (dropout).

    By Philox, which TensorFlow has in C++.

    Args:
      key: uint32 [2], see task.Task; None: a fixed one, for tasks that were made by hand.
      shape: of the words.
      stream, counter: numbers from 0 to 2**32 - 1; what is drawn for another purpose differs in
        one of them.
    Returns: uint32 of this shape.
    """
    if key is None:
        key = tf.constant(_FIXED_KEY, tf.uint32)
    return _philox(
        tf.bitcast(key, tf.uint64), tf.constant([counter << 32, stream], tf.uint64), shape
    )


def _philox(key, counter, shape):
    """Returns the words from a counter, uint64 [2], on; key: uint64."""
    return tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=shape, key=key[tf.newaxis], counter=counter, alg=_PHILOX, dtype=tf.uint32
    )


def _threefry(key_0, key_1, counter_0, counter_1):
    """Enciphers (counter_0, counter_1) by (key_0, key_1), all uint32 that broadcast."""
    keys = (
        key_0,
        key_1,
        tf.bitwise.bitwise_xor(
            tf.bitwise.bitwise_xor(key_0, key_1), tf.constant(0x1BD11BDA, tf.uint32)
        ),
    )
    x, y = counter_0 + keys[0], counter_1 + keys[1]
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x += y
            y = tf.bitwise.bitwise_xor(x, _rotated(y, rotation))
        x += keys[(group + 1) % 3]
        y += keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return x, y


def _rotated(word, places):
    """Rotates uint32 to the left by 1 to 31 places."""
    left = tf.bitwise.left_shift(word, tf.constant(places, tf.uint32))
    right = tf.bitwise.right_shift(word, tf.constant(32 - places, tf.uint32))
    return tf.bitwise.bitwise_or(left, right)


def uniform(bits: tf.Tensor, low: float | tf.Tensor, high: float | tf.Tensor) -> tf.Tensor:
    """Makes float32 of uint32, uniform in [low, high) on a grid of 2**24 steps."""
    return low + (high - low) * (tf.cast(tf.bitwise.right_shift(bits, 8), tf.float32) * 2.0**-24)


def normal(bits: tf.Tensor) -> tf.Tensor:
    """Makes standard normals [..., n] of uint32 [..., 2 * n] (Box and Muller 1958), within +-5.8.

    Not by the inverse of the error function, for which compiled and uncompiled code use different
    approximations.
    """
    # Middles of 2**23 steps: exact in float32, and never 0 or 1.
    middles = (tf.cast(tf.bitwise.right_shift(bits, 9), tf.float32) + 0.5) * 2.0**-23
    first, second = tf.split(middles, 2, axis=-1)
    return tf.sqrt(-2.0 * tf.math.log(first)) * tf.cos(2 * math.pi * second)


def choose(bits: tf.Tensor, count: int, below: tf.Tensor | None = None) -> tf.Tensor:
    """Draws distinct numbers in random order.

    Args:
      bits: uint32 [..., n].
      count: how many to draw.
      below: int32 [...], from `count` to n: the numbers are below it; None: below n.
    Returns: int32 [..., count].
    """
    # top_k is compiled for floats, where a sort of integers is slow; 24 bits are exact in float32,
    # and a tie (one in 2**24 a pair) goes to the lower number.
    priorities = tf.cast(tf.bitwise.right_shift(bits, 8), tf.float32)
    if below is not None:
        priorities = tf.where(tf.range(bits.shape[-1]) < below[..., None], priorities, -1.0)
    return tf.math.top_k(priorities, count).indices


def permuted(place: tf.Tensor, total: int, keys: tf.Tensor) -> tf.Tensor:
    """Returns the numbers at some places of random orders of 0 ... total - 1.

    A shuffle would have to draw and sort `total` words to know a single one. This is a Feistel
    network, which makes a permutation of all numbers of so many bits out of any mixing of half of
    them (Luby and Rackoff 1988), and is gone through again while the result is not below `total`
    (Black and Rogaway 2002, cycle walking).

    Args:
      place: int32 [...], from 0 to total - 1.
      total: at most 2**31.
      keys: uint32 [..., PERMUTATION_WORDS], random words, the same for all places of an order.
    Returns: int32 [...].
    """
    # Halves of at least two bits: an order of few numbers is one of many, too.
    bits = max((total - 1).bit_length(), 4)
    low = bits // 2
    rounds = tf.unstack(keys, axis=-1)

    def encipher(x):
        left, right = tf.bitwise.right_shift(x, _word(low)), _lowest(x, low)
        for i, key in enumerate(rounds):
            if i % 2:
                right = tf.bitwise.bitwise_xor(right, _lowest(_mixed(left, key), low))
            else:
                left = tf.bitwise.bitwise_xor(left, _lowest(_mixed(right, key), bits - low))
        return tf.bitwise.bitwise_or(tf.bitwise.left_shift(left, _word(low)), right)

    outside = lambda x: x >= _word(total)
    x = tf.while_loop(
        lambda x: tf.reduce_any(outside(x)),
        lambda x: [tf.where(outside(x), encipher(x), x)],
        [encipher(tf.cast(place, tf.uint32))],
    )[0]
    return tf.cast(x, tf.int32)


def _mixed(word, key):
    """Mixes the bits of words as MurmurHash3 does at its end (Appleby 2011)."""
    word = tf.bitwise.bitwise_xor(word, key)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        word = tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, _word(shift)))
        word *= _word(factor)
    return tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, _word(16)))


def _lowest(word, bits):
    return tf.bitwise.bitwise_and(word, _word(2**bits - 1))


def _word(number):
    return tf.constant(number, tf.uint32)
