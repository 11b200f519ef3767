"""Random orders of many numbers, of which single places can be asked for."""

import tensorflow as tf

ROUNDS = 16


def permuted(place: tf.Tensor, total: int, keys: tf.Tensor) -> tf.Tensor:
    """Returns the numbers that stand at some places of random orders of 0 ... total - 1.

    A shuffle would have to draw and sort `total` words to know a single one. This is a Feistel
    network, which makes a permutation of all numbers of so many bits out of any mixing of half of
    them (Luby and Rackoff 1988), and is gone through again while the result is not below `total`
    (Black and Rogaway 2002, cycle walking).

    Args:
      place: int32 [...], from 0 to total - 1.
      total: at most 2**31.
      keys: uint32 [..., ROUNDS], random words, the same for all places of an order.
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
