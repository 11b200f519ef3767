"""Few-shot channel coding: each task is a channel, of which a decoder hears a few known words.

By the benchmark MetaCC (Li et al. 2021, "A Channel Coding Benchmark for Meta-Learning", NeurIPS
datasets and benchmarks) and its program (ruihuili/MetaCC): the code, the four channels, their
ranges of parameters, and messages of 10 bits. Ours are:

- tasks that are drawn endlessly, where they draw from 200 channels made beforehand;
- the families of `mixed` in equal shares, in evaluation too;
- unless `messages` says otherwise, words that all carry messages of their own;
- the channel `fading`, whose signs a support set tells: from one word alone a decoder has about
  twice as many bits wrong (`narrow`). The others can be decoded nearly as well without one.
"""

import dataclasses
import math

import tensorflow as tf

from maml_tf.datasets.functions.prompt_shifts import normals
from maml_tf.episodes.points import Division, Functions
from maml_tf.episodes.random_bits import Stream, uniform
from maml_tf.episodes.task import Draw, EpisodeSpec
from maml_tf.errors import ArgumentError, check_one_of
from maml_tf.objectives.bits import Bits
from maml_tf.ops.codes import convolutional

LENGTH = 10  # bits of a message
BURSTS = 0.3  # the share of symbols that a burst hits
FAMILIES = ('awgn', 'bursty', 'memory', 'multipath', 'fading')
MIXED = 4  # of these, from the first on, `mixed` draws
CHANNELS = (*FAMILIES, 'mixed')
# By family: (least, most) of the signal-to-noise ratio in decibels, and of the parameter. The first
# two are what the authors train on (mix_hard_narrow.json, mix_hard_wide.json), `full` is from the
# least to the most that they evaluate on. The last row, of `fading`, is ours.
RANGES = {
    'narrow': (
        ((-0.5, 0.5), (0.0, 0.0)),
        ((5.5, 6.5), (-15.0, -13.0)),
        ((-0.5, 0.5), (0.45, 0.55)),
        ((-0.5, 0.5), (0.45, 0.55)),
        ((-0.5, 0.5), (0.9, 1.1)),
    ),
    'wide': (
        ((-5.0, 5.0), (0.0, 0.0)),
        ((1.0, 11.0), (-19.0, -9.0)),
        ((-5.0, 5.0), (0.1, 0.9)),
        ((-5.0, 5.0), (0.1, 0.9)),
        ((-5.0, 5.0), (0.5, 1.5)),
    ),
    'full': (
        ((-10.0, 10.0), (0.0, 0.0)),
        ((6.0, 6.0), (-22.0, -2.0)),
        ((0.0, 0.0), (0.1, 0.9)),
        ((0.0, 0.0), (0.1, 0.9)),
        ((-10.0, 10.0), (0.5, 1.5)),
    ),
}
FLAGS = ('channel', 'channel_range', 'test_channel', 'test_channel_range', 'channel_messages')


@dataclasses.dataclass(frozen=True)
class Channel:
    """Holds the channel of each task, [tasks].

    family: int32, the number in FAMILIES. deviation: of the white noise. parameter: of `bursty` the
    signal-to-noise ratio of the bursts in decibels, of `memory` alpha, of `multipath` the weight of
    the echo, of `fading` the size of the gain. signs: [tasks, 2], -1 or 1, of the gains of the two
    transmissions.
    """

    family: tf.Tensor
    deviation: tf.Tensor
    parameter: tf.Tensor
    signs: tf.Tensor


class ChannelCoding(Functions):
    """Words of the convolutional code (7, 5), as a channel leaves them, and their messages.

    A message of 10 random bits becomes 20 symbols s of -1 or 1. What is received is r, with
    z ~ N(0, 1) for each symbol and sigma = 10**(-snr / 20):

      awgn: r = s + sigma z.
      bursty: r = s + sigma z + 10**(-snrb / 20) z', the last term at 3 of 10 symbols.
      memory: r = s + sigma n, n_0 = z_0, n_t = alpha n_(t-1) + sqrt(1 - alpha**2) z_t.
      multipath: r = s + weight s_(t-d) + sigma z, the delay d of 1 to 9 drawn for each word.
      fading: r = g s + sigma z, the gains g of the two transmissions of one size, which is the
        parameter, and of random signs.

    Of the two symbols of a bit, the first ones of a word and the second ones are two transmissions:
    each has its own n and its own d. x is [tasks, words, 20], the two symbols of each bit side by
    side; y is [tasks, words, 10], the bits.

    Args:
      channel: one of CHANNELS; mixed: each task is of one of the first four, by chance.
      channel_range: one of RANGES, from which snr and the parameter are drawn uniformly.
      test_channel, test_channel_range: of val and test; None: as in training.
      messages: so many different messages are in the support set, in turns, and so many others in
        the query set; the benchmark has 5 in its support of 25 words. None: each word has its own.
    Raises: ArgumentError for what is none of these.
    """

    objective = Bits()
    output_dim = LENGTH
    input_shape = (LENGTH * convolutional.RATE,)

    def __init__(
        self,
        channel: str = 'mixed',
        channel_range: str = 'wide',
        test_channel: str | None = None,
        test_channel_range: str | None = None,
        messages: int | None = None,
    ):
        self._train = channel, channel_range
        self._test = test_channel or channel, test_channel_range or channel_range
        for prefix, (one, of_range) in (('', self._train), ('test_', self._test)):
            check_one_of(f'{prefix}channel', one, CHANNELS)
            check_one_of(f'{prefix}channel_range', of_range, tuple(RANGES))
        if messages is not None and messages < 1:
            raise ArgumentError('messages', messages, 'at least 1')
        self.messages = messages

    def tasks(self, split: str, spec: EpisodeSpec, seed: int) -> Draw:
        """Returns draw(start, count), which gives tasks of spec.shot support and spec.query query
        words."""
        division = Division(spec, (seed, split))

        def draw(start, count):
            bits = self._bits(split, seed, start, count, spec)
            sent = convolutional.modulate(convolutional.encode(bits))
            x = self._received(sent, self.channels(split, seed, start, count), split, seed, start)
            x = tf.reshape(x, [count, division.points, *self.input_shape])
            return division(x, tf.cast(bits, tf.float32), division.drawn(start, count))

        return draw

    def channels(self, split: str, seed: int, start: tf.Tensor | int, count: int) -> Channel:
        """Draws the channels of tasks start ... start + count - 1."""
        family, of_range = self._train if split.startswith('train') else self._test
        bits = Stream(seed, split, 0).bits(start, count, 5)
        if family == 'mixed':
            number = tf.cast(uniform(bits[:, 0], 0.0, float(MIXED)), tf.int32)
        else:
            number = tf.fill([count], FAMILIES.index(family))
        ends = tf.gather(tf.constant(RANGES[of_range]), number)  # [count, 2, 2]
        snr, parameter = (uniform(bits[:, i + 1], ends[:, i, 0], ends[:, i, 1]) for i in range(2))
        signs = tf.where(uniform(bits[:, 3:], -1.0, 1.0) < 0, -1.0, 1.0)
        return Channel(number, _deviation(snr), parameter, signs)

    def _bits(self, split, seed, start, count, spec):
        """Draws the messages of all words, int32 [count, shot + query, LENGTH]."""
        most = self.messages or max(spec.shot, spec.query)
        sizes = min(most, spec.shot), min(most, spec.query)
        words = Stream(seed, split, 1).bits(start, count, sum(sizes) * LENGTH)
        bits = tf.cast(tf.bitwise.right_shift(words, 31), tf.int32)
        bits = tf.reshape(bits, [count, sum(sizes), LENGTH])
        # In turns, so that the first words of a set hold as many messages as they can.
        support = tf.range(spec.shot) % sizes[0]
        query = sizes[0] + tf.range(spec.query) % sizes[1]
        return tf.gather(bits, tf.concat([support, query], 0), axis=1)

    def _received(self, sent, channel, split, seed, start):
        """Returns what the channels make of symbols [count, words, LENGTH, 2]."""
        count, words = sent.shape[:2]
        noise = normals((seed, split, 2), start, count, 2, words, *sent.shape[2:])
        chance = Stream(seed, split, 4).bits(
            start, count, words * (sent[0, 0].shape.num_elements() + 2)
        )
        hit, delay = tf.split(chance, [words * LENGTH * 2, words * 2], 1)
        hit = tf.cast(uniform(tf.reshape(hit, sent.shape), 0.0, 1.0) < BURSTS, tf.float32)
        delay = 1 + tf.cast(
            uniform(tf.reshape(delay, [count, words, 2]), 0.0, LENGTH - 1.0), tf.int32
        )
        of_family = [
            tf.cast(tf.equal(channel.family, i), tf.float32)[:, None, None, None]
            for i in range(len(FAMILIES))
        ]
        parameter = channel.parameter[:, None, None, None]
        white = channel.deviation[:, None, None, None] * noise[:, 0]
        bursts = of_family[1] * _deviation(parameter) * hit * noise[:, 1]
        alpha = of_family[2] * parameter  # 0 elsewhere, where the noise stays as it is.
        echo = of_family[3] * parameter * _delayed(sent, delay)
        gain = tf.where(of_family[4] > 0, parameter * channel.signs[:, None, None], 1.0)
        return gain * sent + echo + _remembering(white, alpha) + bursts


def _deviation(decibels):
    """The standard deviation of noise at a signal-to-noise ratio, of a signal of power 1."""
    return tf.exp(-math.log(10) / 20 * decibels)


def _remembering(white, alpha):
    """Mixes each noise [tasks, words, LENGTH, 2] with what was before it; the variance stays."""
    first, *others = tf.unstack(white, axis=2)
    mixed, alpha = [first], alpha[:, :, 0]
    for fresh in others:
        mixed.append(alpha * mixed[-1] + tf.sqrt(1 - alpha**2) * fresh)
    return tf.stack(mixed, 2)


def _delayed(sent, delay):
    """Moves symbols [tasks, words, LENGTH, 2] to later places, by int32 [tasks, words, 2]."""
    place = tf.range(LENGTH)[:, None] - delay[:, :, None]
    moved = tf.gather(
        tf.transpose(sent, [0, 1, 3, 2]),
        tf.transpose(tf.maximum(place, 0), [0, 1, 3, 2]),
        axis=3,
        batch_dims=3,
    )
    return tf.transpose(moved, [0, 1, 3, 2]) * tf.cast(place >= 0, sent.dtype)


def from_flags(flags) -> ChannelCoding:
    """Returns the source that the command line describes."""
    return ChannelCoding(*(flags[name].value for name in FLAGS))


def define_flags(flags) -> None:
    """Defines the flags of the channels."""
    flags.DEFINE_enum('channel', 'mixed', CHANNELS, 'channel_coding: the noise of its tasks')
    flags.DEFINE_enum(
        'channel_range', 'wide', list(RANGES), 'channel_coding: how much the channels differ'
    )
    flags.DEFINE_enum(
        'test_channel', None, CHANNELS, '--channel of validation and test, where training differs'
    )
    flags.DEFINE_enum(
        'test_channel_range',
        None,
        list(RANGES),
        '--channel_range of validation and test, where training differs',
    )
    flags.DEFINE_integer(
        'channel_messages',
        None,
        'channel_coding: how many different messages the support words have, and the queries '
        '(default: each word its own)',
        lower_bound=1,
    )
