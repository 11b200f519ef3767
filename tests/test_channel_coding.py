"""Few-shot channel coding: the code, the channels, the decoder that knows the code, the program."""

import itertools
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from command import run_here
from test_bad_input import refused_here

from maml_tf.algorithms.baselines.viterbi import Viterbi
from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import problem_of
from maml_tf.datasets.functions.channel_coding import FAMILIES, RANGES, ChannelCoding
from maml_tf.datasets.sources import SOURCES
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError
from maml_tf.objectives.bits import Bits
from maml_tf.ops.codes import convolutional

SPEC = EpisodeSpec(1, 3, 4)
HERE = ('--datasource=channel_coding', '--update_batch_size=3')


def words_of(source, split='train', tasks=2000, spec=SPEC, seed=0):
    """(bits [tasks, words, 10], received minus sent [tasks, words, 10, 2]) of the first tasks."""
    task = source.tasks(split, spec, seed)(0, tasks)
    bits = np.concatenate([task.support_y, task.query_y], 1)
    received = np.concatenate([task.support_x, task.query_x], 1)
    sent = 2 * encoded(bits.astype(int)) - 1
    return bits, received.reshape(sent.shape) - sent, sent


def encoded(bits):
    """The generators 7 and 5 as products of polynomials, modulo 2."""
    flat = bits.reshape(-1, bits.shape[-1])
    words = [
        [
            np.convolve(message, generator)[: len(message)] % 2
            for generator in ([1, 1, 1], [1, 0, 1])
        ]
        for message in flat
    ]
    return np.moveaxis(np.array(words), 1, 2).reshape(*bits.shape, 2)


# The code


def test_encoder_by_hand():
    """1 0 1 1: the delays are 00, 10, 01, 10."""
    words = convolutional.encode(tf.constant([[1, 0, 1, 1]]))
    np.testing.assert_array_equal(words, [[[1, 1], [1, 0], [0, 0], [0, 1]]])
    bits = np.random.default_rng(0).integers(0, 2, (3, 5, 10))
    np.testing.assert_array_equal(convolutional.encode(tf.constant(bits)), encoded(bits))
    assert convolutional.modulate(words).numpy().tolist()[0][1] == [1, -1]


def test_decoder_is_the_nearest_of_all_words():
    """And the differences of distances are those of all 256 words of 8 bits."""
    messages = np.array([*itertools.product((0, 1), repeat=8)])
    words = 2.0 * encoded(messages) - 1
    received = np.random.default_rng(1).normal(0, 1, (6, 7, 8, 2))
    gain = np.random.default_rng(2).normal(0, 1, (6, 1, 2))
    distances = np.square(received[:, :, None] - gain[:, :, None, None] * words).sum((-2, -1))
    expected = np.stack(
        [
            distances[..., messages[:, t] == 0].min(-1)
            - distances[..., messages[:, t] == 1].min(-1)
            for t in range(8)
        ],
        -1,
    )
    decoded = convolutional.decode(tf.constant(received, tf.float32), tf.constant(gain, tf.float32))
    np.testing.assert_allclose(decoded, expected, atol=1e-4)
    np.testing.assert_array_equal(decoded > 0, messages[distances.argmin(-1)] == 1)


def test_decoder_of_words_without_noise():
    messages = np.array([*itertools.product((0, 1), repeat=10)])
    sent = convolutional.modulate(convolutional.encode(tf.constant(messages)))
    np.testing.assert_array_equal(convolutional.decode(sent) > 0, messages == 1)


# The channels


def test_messages_are_fair_bits_of_their_own():
    bits, _, _ = words_of(ChannelCoding())
    assert set(np.unique(bits)) == {0, 1} and abs(bits.mean() - 0.5) < 0.01
    assert abs(np.corrcoef(bits.reshape(2000, -1).T) - np.eye(70)).max() < 0.12


def test_so_many_messages_in_turns():
    source, spec = ChannelCoding(messages=2), EpisodeSpec(1, 5, 3)
    bits, _, _ = words_of(source, tasks=200, spec=spec)
    support, query = bits[:, :5], bits[:, 5:]
    np.testing.assert_array_equal(support[:, [0, 1, 0]], support[:, 2:])
    np.testing.assert_array_equal(query[:, 0], query[:, 2])
    assert (support[:, 0] != support[:, 1]).any() and (query[:, 0] != support[:, 0]).any()


def test_white_noise_has_the_variance_of_its_ratio():
    source = ChannelCoding('awgn', 'wide')
    _, noise, sent = words_of(source)
    deviation = source.channels('train', 0, 0, 2000).deviation.numpy()
    decibels = -20 * np.log10(deviation)
    assert -5 <= decibels.min() < -4.9 and 4.9 < decibels.max() < 5
    assert abs(decibels.mean()) < 0.3 and abs(decibels.std() - 10 / math.sqrt(12)) < 0.15
    squares = np.square(noise).mean((1, 2, 3)) / deviation**2
    # A mean of 140 squares of normals has the deviation sqrt(2 / 140).
    assert abs(squares.mean() - 1) < 0.02 and abs(squares.std() - math.sqrt(2 / 140)) < 0.01
    assert abs((noise * sent).mean()) < 0.01


def test_bursts_hit_three_symbols_of_ten():
    source = ChannelCoding('bursty', 'narrow')
    _, noise, _ = words_of(source)
    channel = source.channels('train', 0, 0, 2000)
    bursts = 10 ** (-channel.parameter.numpy() / 20)
    assert np.all((bursts >= 10 ** (13 / 20)) & (bursts <= 10 ** (15 / 20)))
    expected = channel.deviation.numpy() ** 2 + 0.3 * bursts**2
    np.testing.assert_allclose((np.square(noise).mean((1, 2, 3)) / expected).mean(), 1, atol=0.03)
    # Within four deviations of the quiet noise, of about 0.5, lie nearly all that were not hit.
    loud = np.abs(noise) > 4 * channel.deviation.numpy()[:, None, None, None]
    missed = 0.3 * math.erf(2.0 / 5.0 / math.sqrt(2))  # of a burst of about 5
    np.testing.assert_allclose(loud.mean(), 0.3 - missed, atol=0.02)


def test_noise_with_memory_decays_as_alpha():
    source = ChannelCoding('memory', 'wide')
    _, noise, _ = words_of(source)
    channel = source.channels('train', 0, 0, 2000)
    noise = noise / channel.deviation.numpy()[:, None, None, None]
    alpha = channel.parameter.numpy()
    np.testing.assert_allclose(np.square(noise).mean((0, 1, 3)), 1, atol=0.05)
    for lag in (1, 3):
        products = (noise[:, :, lag:] * noise[:, :, :-lag]).mean((1, 2, 3))
        np.testing.assert_allclose(products.mean(), (alpha**lag).mean(), atol=0.03)
    apart = (noise[..., 0] * noise[..., 1]).mean()
    assert abs(apart) < 0.02, 'two transmissions'


def test_an_echo_comes_late_and_weighs_as_it_says():
    source = ChannelCoding('multipath', 'wide')
    _, noise, sent = words_of(source)
    weight = source.channels('train', 0, 0, 2000).parameter.numpy()
    for lag in range(1, 10):
        late = (noise[:, :, lag:] * sent[:, :, :-lag]).mean((1, 2, 3))
        np.testing.assert_allclose(late.mean(), weight.mean() / 9, atol=0.03, err_msg=str(lag))
    assert abs((noise * sent).mean()) < 0.02
    # Before the echo there is the white noise alone: the mean of 10**(-snr / 10) over -5 ... 5.
    power = (10**0.5 - 10**-0.5) / math.log(10)
    np.testing.assert_allclose((noise[:, :, 0] ** 2).mean(), power, atol=0.1)


def test_fading_multiplies_each_transmission():
    source = ChannelCoding('fading', 'wide')
    _, noise, sent = words_of(source)
    channel = source.channels('train', 0, 0, 2000)
    signs, size = channel.signs.numpy(), channel.parameter.numpy()
    assert set(np.unique(signs)) == {-1, 1} and 0.5 <= size.min() < 0.51 and 1.49 < size.max() < 1.5
    np.testing.assert_allclose([(signs == 1).mean(), signs.prod(1).mean()], [0.5, 0], atol=0.05)
    gains = ((noise + sent) * sent).mean((1, 2))
    apart = (gains - signs * size[:, None]) / channel.deviation.numpy()[:, None]
    # A mean of 70 normals.
    np.testing.assert_allclose(apart.std(), 1 / math.sqrt(70), atol=0.01)


def test_families_are_mixed_in_equal_shares_and_evaluated_otherwise():
    source = ChannelCoding('mixed', 'wide', 'awgn', 'full')
    train = source.channels('train', 0, 0, 4000).family.numpy()
    np.testing.assert_allclose(np.bincount(train) / 4000, 0.25, atol=0.03)
    test = source.channels('test', 0, 0, 2000)
    assert not test.family.numpy().any()
    decibels = -20 * np.log10(test.deviation.numpy())
    assert decibels.min() < -9.8 and decibels.max() > 9.8
    assert {len(rows) for rows in RANGES.values()} == {len(FAMILIES)} and train.max() == 3


def test_a_task_is_a_function_of_its_number_compiled_or_not():
    draw = ChannelCoding().tasks('train', EpisodeSpec(1, 3, 4, least_shot=1), 5)
    whole = draw(0, 6)
    compiled = tf.function(lambda start: draw(start, 2), jit_compile=True)(tf.constant(3, tf.int64))
    for field, one, other in zip(whole._fields, whole, compiled):
        np.testing.assert_allclose(one[3:5], other, atol=1e-5, err_msg=field)
    np.testing.assert_array_equal(whole.query_y[3:5], compiled.query_y)
    assert set(whole.support_mask.numpy().sum(1)) <= {1, 2, 3}


@pytest.mark.parametrize(
    'arguments, words',
    [
        ({'channel': 'optical'}, 'channel.*optical'),
        ({'channel_range': 'far'}, 'channel_range.*far'),
        ({'test_channel': 'x'}, 'test_channel.*x'),
        ({'messages': 0}, 'messages.*at least 1'),
    ],
)
def test_what_there_is_not(arguments, words):
    with pytest.raises(UserError, match=words):
        ChannelCoding(**arguments)


# The objective, and the decoder as a learner


def test_bits_by_hand():
    labels = np.array([[[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    logits = np.array([[[2.0, -1.0], [-3.0, 0.5], [9.0, 9.0]]])
    mask = np.array([[1.0, 1.0, 0.0]])
    right = 1 / (1 + np.exp(-logits * (2 * labels - 1)))
    objective = Bits()
    loss = objective.loss(labels, tf.constant(logits)[None], 1, mask)
    np.testing.assert_allclose(loss, [[-np.log(right)[0, :2].mean()]])
    np.testing.assert_allclose(objective.score(labels, tf.constant(logits), 1, mask), [0.25])
    np.testing.assert_allclose(objective.score(labels, tf.constant(logits), 1), [2 / 6])
    said = objective.predictions(tf.constant([0.0]))
    assert float(said['probabilities'][0]) == 0.5
    assert objective.metric.show(0.125) == '12.50%' and not objective.metric.higher_is_better


def test_bits_have_finite_gradients_of_second_order():
    """Where a logit is 0 or large, too."""
    x = tf.constant([[[0.0, 60.0, -60.0]]], tf.float64)
    labels = tf.constant([[[1.0, 1.0, 1.0]]], tf.float64)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            loss = Bits().loss(labels, x, 1)
        first = inner.gradient(loss, x)
    p = 1 / (1 + np.exp(-x.numpy()))
    np.testing.assert_allclose(first, (p - 1) / 3, atol=1e-12)
    np.testing.assert_allclose(outer.gradient(first, x), p * (1 - p) / 3, atol=1e-12)


def test_viterbi_says_how_sure_it_is():
    """On white noise its logits' loss is lower than that of a wrong deviation, and its bit error
    rate at a ratio of 0 dB is far below that of deciding symbol by symbol."""
    spec = EpisodeSpec(1, 20, 100)
    task = ChannelCoding('awgn', 'narrow').tasks('test', spec, 1)(0, 50)
    learner = Viterbi()
    state = learner.adapt(task.support_x, task.support_y)
    np.testing.assert_allclose(state['deviation'], 1, atol=0.2)
    (loss,), (rate,) = (np.mean(value, -1) for value in learner.query_scores(task))
    for factor in (0.3, 3.0):
        unsure = state | {'deviation': factor * state['deviation']}
        outputs = learner.predict_query(unsure, task.query_x)
        assert np.mean(Bits().loss(task.query_y, outputs, 1)) > loss
    # A symbol alone is wrong with the probability Q(1) = 0.159.
    assert 0.05 < rate < 0.1587
    masked = learner.adapt(task.support_x, task.support_y, mask=tf.ones([50, 20]))
    np.testing.assert_allclose(masked['deviation'], state['deviation'])


def test_pilots_tell_the_gains():
    source, spec = ChannelCoding('fading', 'narrow'), EpisodeSpec(1, 20, 100, least_shot=10)
    task = source.tasks('test', spec, 1)(0, 50)
    learner = Viterbi(pilots=True)
    state = learner.adapt(task.support_x, task.support_y, mask=task.support_mask)
    x = np.reshape(task.support_x, [50, 20, 10, 2])
    sent = 2 * encoded(task.support_y.numpy().astype(int)) - 1
    for i, words in enumerate(task.support_mask.numpy().sum(1).astype(int)):
        pair = x[i, :words].reshape(-1, 2), sent[i, :words].reshape(-1, 2)
        for j in range(2):
            (gain,), _, _, _ = np.linalg.lstsq(pair[1][:, j : j + 1], pair[0][:, j], rcond=None)
            np.testing.assert_allclose(state['gain'][i, j], gain, rtol=1e-4)
        errors = pair[0] - state['gain'][i].numpy() * pair[1]
        np.testing.assert_allclose(state['deviation'][i], errors.std(), rtol=0.05)
    rate, blind = (np.mean(one.query_scores(task)[1]) for one in (learner, Viterbi()))
    assert rate < 0.12 and blind > 0.35


# The command line


def test_what_the_flags_make():
    flags = parsed(*HERE, '--channel=memory', '--test_channel_range=full', '--channel_messages=5')
    source, problem = SOURCES['channel_coding'].load(flags), problem_of(flags)
    assert source.messages == 5 and problem.output_dim == 10 and problem.input_shape == (20,)
    assert set(source.channels('test', 0, 0, 9).deviation.numpy()) == {1.0}
    network = problem.network()
    assert network.hidden == (128, 128) and network.start == 'glorot'


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--datasource=sinusoid', '--channel=awgn'], ['--channel=awgn', 'only to channel_coding']),
        (['--algorithm=viterbi', '--datasource=sinusoid'], ['--datasource=sinusoid', 'the code']),
        (['--algorithm=prototypical'], ['channel_coding', 'Prototypical']),
    ],
    ids=lambda value: value[-1],
)
def test_flags_that_are_refused(tmp_path, arguments, words):
    refused_here(tmp_path, [*HERE, *arguments], *words)


@pytest.mark.slow
def test_maml_and_the_decoder_on_the_same_tasks(tmp_path):
    rates = {}
    for name in ('maml', 'viterbi'):
        run_here(
            *HERE,
            f'--algorithm={name}',
            *(['--norm=None', '--update_lr=0.1', '--num_updates=1'] if name == 'maml' else []),
            '--metatrain_iterations=2000',
            '--channel=awgn',
            '--test_query=20',
            '--test_tasks=100',
            '--test_set',
            f'--logdir={tmp_path / name}',
            cwd=tmp_path,
        )
        (results,) = (tmp_path / name).glob('*/results.json')
        content = json.loads(results.read_text())
        assert content['metric'] == 'bit_error_rate'
        rates[name] = content['mean'][-1]
    assert 0 < rates['viterbi'] < rates['maml'] < 0.35
