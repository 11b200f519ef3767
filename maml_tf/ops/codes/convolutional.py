"""A convolutional code of rate 1/2 and memory 2, with generators 7 and 5 (octal).

Bit t of a message becomes two bits, b_t + b_(t-1) + b_(t-2) and b_t + b_(t-2), modulo 2. The
encoder starts at zeros, and is not driven back to them at the end. That is the code of Li et al.
2021 (MetaCC), as their program makes it.
"""

import itertools

import tensorflow as tf

from maml_tf.ops.masking import NEVER

MEMORY, RATE = 2, 2  # delays of the encoder; symbols for each bit
# State of the encoder: (the last bit, the one before it).
STATES = tuple(itertools.product((0, 1), repeat=MEMORY))


def encode(bits: tf.Tensor) -> tf.Tensor:
    """Returns the words of messages: int32 [..., length] -> int32 [..., length, 2], all 0 or 1."""
    length = bits.shape[-1]
    before = tf.concat([tf.zeros_like(bits[..., :MEMORY]), bits], -1)
    last, earlier = before[..., 1 : length + 1], before[..., :length]
    first = tf.math.floormod(bits + last + earlier, 2)
    return tf.stack([first, tf.math.floormod(bits + earlier, 2)], -1)


def modulate(words: tf.Tensor) -> tf.Tensor:
    """Returns what is sent for each bit of words, float32: -1 for 0 and 1 for 1."""
    return 2.0 * tf.cast(words, tf.float32) - 1.0


def decode(received: tf.Tensor, gain: tf.Tensor | None = None) -> tf.Tensor:
    """Returns how much nearer the received symbols are to a word with each bit 1 than with it 0.

    The algorithm of Viterbi (1967), run forwards and backwards: of all words whose bit t is 1, and
    of all whose bit t is 0, it finds the nearest. So the signs are the message whose word is
    nearest of all, which is the likeliest where the noise is white and Gaussian. The size, over
    twice the variance of that noise, is the max-log approximation of the bit's log-odds (Robertson
    et al. 1995).

    Args:
      received: [..., length, 2], by `modulate` and a channel.
      gain: [..., 2], what the channel multiplies the symbols by; None: 1.
    Returns: [..., length], differences of squared distances.
    """
    gain = tf.ones_like(received[..., 0, :]) if gain is None else gain
    symbols = [(symbol, gain) for symbol in tf.unstack(received, axis=-2)]
    zeros = tf.zeros_like(received[..., 0, 0])
    far = tf.fill(tf.shape(zeros), tf.cast(NEVER, zeros.dtype))  # The encoder does not start there.
    forward = [[zeros, *[far] * (len(STATES) - 1)]]
    for symbol in symbols[:-1]:
        forward.append(_over_last(forward[-1], symbol))
    backward = [[zeros] * len(STATES)]
    for symbol in symbols[:0:-1]:
        backward.append(_over_next(backward[-1], symbol))
    odds = []
    for before, symbol, after in zip(forward, symbols, reversed(backward)):
        best = [[], []]
        for bit, state, following, score in _branches(symbol):
            best[bit].append(before[state] + score + after[following])
        odds.append(_largest(best[1]) - _largest(best[0]))
    return tf.stack(odds, -1)


def _branches(symbol):
    """Yields (bit, state, next state, minus the squared distance) of each step of the encoder."""
    received, gain = symbol
    for number, (last, earlier) in enumerate(STATES):
        for bit in (0, 1):
            sent = (bit + last + earlier) % 2, (bit + earlier) % 2
            distances = (
                tf.square(received[..., i] - (2.0 * b - 1.0) * gain[..., i])
                for i, b in enumerate(sent)
            )
            yield bit, number, STATES.index((bit, last)), -sum(distances)


def _over_last(scores, symbol):
    """The best way to each state after a symbol, of the best ways to the states before it."""
    ways = [[] for _ in STATES]
    for _, state, following, score in _branches(symbol):
        ways[following].append(scores[state] + score)
    return [_largest(way) for way in ways]


def _over_next(scores, symbol):
    """The best way from each state before a symbol, of those from the states after it."""
    ways = [[] for _ in STATES]
    for _, state, following, score in _branches(symbol):
        ways[state].append(score + scores[following])
    return [_largest(way) for way in ways]


def _largest(values):
    return tf.reduce_max(tf.stack(values, -1), -1)
