"""MR-MAML against closed forms, NumPy and finite differences, all with the same draws."""

import json

import numpy as np
import pytest
import tensorflow as tf
from command import run_maml
from test_bad_input import refused_here

from maml_tf.algorithms.optimisation.anil import ANIL
from maml_tf.algorithms.optimisation.mr_maml import KINDS, MRMAML, QUERY, SUPPORT, divergence
from maml_tf.episodes.random_bits import Stream
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError
from maml_tf.networks.encoded import NOISE, EncodedNetwork
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.regression import Regression

FEATURES, TASKS, SHOT = 3, 2, 4
ALPHA, BETA = 0.05, 0.3


def step(number):
    return tf.constant(number, tf.int64)


def tasks(seed=0, shape=(FEATURES,)):
    """A meta-batch in float64, with keys."""
    rng = np.random.default_rng(seed)
    sizes = [TASKS, SHOT, *shape], [TASKS, SHOT, 1]
    parts = [tf.constant(rng.normal(size=size)) for size in (*sizes, *sizes)]
    return Task(*parts, key=Stream(3, 'train', 5).bits(0, TASKS, 2))


def learner(on='weights', network=None, raw_scale=-1.0, **arguments):
    """A learner in float64, with biases that are not zero."""
    if network is None:
        network = FullyConnected((FEATURES,), 1, (5,), start='torch')
    if on == 'activations':
        network = encoded(bottleneck=True)
    arguments = {'inner_lr': ALPHA, 'beta': BETA, 'dtype': 'float64'} | arguments
    return MRMAML(network, Regression(), on=on, raw_scale=raw_scale, **arguments)


def encoded(conv=False, shape=(FEATURES,), **arguments):
    return EncodedNetwork(
        shape, 1, filters=3, norm='None', conv=conv, code=4, start='torch', **arguments
    )


def anil(network, **arguments):
    return ANIL(network, Regression(), inner_lr=ALPHA, dtype='float64', **arguments)


def gradients(learner, task, at):
    update = learner.meta_gradients(task, step(at))
    return {v.name: np.array(g) for v, g in zip(learner.trainable_variables, update.gradients)}


# What it costs.


@pytest.mark.parametrize('mean, deviation', [(0, 1), (0.7, 0.4), (-2, 1.5), (0.1, 1e-3)])
def test_the_divergence_is_its_integral(mean, deviation):
    z = mean + deviation * np.linspace(-12, 12, 200_001)
    log_q = -0.5 * ((z - mean) / deviation) ** 2 - np.log(deviation) - 0.5 * np.log(2 * np.pi)
    log_p = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    expected = np.trapezoid(np.exp(log_q) * (log_q - log_p), z)
    ours = divergence(tf.constant(mean, tf.float64), tf.constant(deviation, tf.float64))
    np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-10)


def test_every_kernel_of_the_encoder_costs_and_nothing_else():
    ours = learner(network=encoded())
    assert set(ours.raw_scales) == {'encoder_w1', 'encoder_w2'}
    sigma = np.log1p(np.exp(-1.0))
    of_entries = lambda w: np.sum((sigma**2 + w**2 - 1) / 2 - np.log(sigma))
    expected = sum(of_entries(np.array(ours.meta_weights[name])) for name in ours.raw_scales)
    np.testing.assert_allclose(ours.divergence(tasks()), expected, rtol=1e-12)
    # A deviation is never 0, however small rho is.
    smallest = learner(network=encoded(), raw_scale=-200.0)
    assert np.isfinite(smallest.divergence(tasks()))
    with_convolutions = learner(network=encoded(conv=True, shape=(8, 8, 1)))
    kernels = {f'encoder_{name}' for name in ('conv1', 'conv2', 'conv3', 'w1')}
    assert set(with_convolutions.raw_scales) == kernels


def test_codes_cost_the_mean_over_queries_and_numbers():
    ours, task = learner('activations'), tasks()
    weights = {name: np.array(w) for name, w in ours.meta_weights.items()}
    hidden = np.maximum(task.query_x @ weights['encoder_w1'] + weights['encoder_b1'], 0)
    both = hidden @ weights['encoder_w2'] + weights['encoder_b2']
    mean, sigma = both[..., :4], np.log1p(np.exp(both[..., 4:]))
    expected = np.mean((sigma**2 + mean**2 - 1) / 2 - np.log(sigma))
    np.testing.assert_allclose(ours.divergence(task), expected, rtol=1e-12)
    masked = task._replace(query_mask=tf.constant([[1, 1, 0, 0], [1, 0, 0, 0]], tf.float64))
    of_each = np.mean((sigma**2 + mean**2 - 1) / 2 - np.log(sigma), -1)
    expected = (of_each[0, :2].mean() + of_each[1, 0]) / 2
    np.testing.assert_allclose(ours.divergence(masked), expected, rtol=1e-12)


# What is drawn.


def test_draws_of_weights():
    """One for the support sets and one for the queries, of this iteration and this seed."""
    ours, task = learner(network=FullyConnected((50,), 1, (80,))), tasks(shape=(50,))
    draw = lambda at, which, own=ours: np.array(own.drawn(task, step(at), which)['w1'])
    first = draw(7, SUPPORT)
    np.testing.assert_array_equal(first, draw(7, SUPPORT))
    others = (
        draw(8, SUPPORT),
        draw(7, QUERY),
        draw(7, SUPPORT, learner(network=ours.network, seed=1)),
    )
    for other in others:
        standard = [
            (drawn - np.array(own.meta_weights['w1'])) / np.log1p(np.exp(-1.0))
            for drawn, own in ((first, ours), (other, ours))
        ]
        if other is not others[2]:  # Of another seed the means are others, too.
            assert abs(np.corrcoef(*map(np.ravel, standard))[0, 1]) < 0.08
        assert np.all(first != other)
    assert abs(standard[0].mean()) < 0.06 and abs(standard[0].std() - 1) < 0.05


def test_draws_of_codes():
    """Of every task and input its own; the first inputs have the same where there are more."""
    ours, task = learner('activations'), tasks()
    draw = lambda at, which, task=task: np.array(ours.drawn(task, step(at), which)[NOISE])
    first = draw(7, SUPPORT)
    assert first.shape == (TASKS, SHOT, 4)
    assert len(
        {*np.round(np.concatenate([first, draw(8, SUPPORT), draw(7, QUERY)]).ravel(), 9)}
    ) == (3 * first.size)
    longer = task._replace(support_x=tf.concat([task.support_x, task.support_x], 1))
    np.testing.assert_array_equal(draw(7, SUPPORT, longer)[:, :SHOT], first)
    one = Task(*(part[1:] if part is not None else None for part in task))
    np.testing.assert_array_equal(draw(7, SUPPORT, one), first[1:])


# The meta-loss and its gradient.


def test_the_loss_in_numpy():
    """One step of the last layer on features that the support's draw makes, then the queries'."""
    ours, task = learner(), tasks()
    drawn = (ours.drawn(task, step(5), which)['w1'] for which in (SUPPORT, QUERY))
    support_w, query_w = map(np.array, drawn)
    support_x, support_y, query_x, query_y = map(np.array, task[:4])
    bias, w, b = (np.array(ours.meta_weights[name]) for name in ('b1', 'w2', 'b2'))
    losses = []
    for i in range(TASKS):
        x = np.maximum(support_x[i] @ support_w + bias, 0)
        error = 2 * (x @ w + b - support_y[i]) / SHOT
        adapted_w, adapted_b = w - ALPHA * x.T @ error, b - ALPHA * error.sum(0)
        x = np.maximum(query_x[i] @ query_w + bias, 0)
        losses.append(np.mean((x @ adapted_w + adapted_b - query_y[i]) ** 2))
    loss = ours.meta_loss(task, step(5))
    np.testing.assert_allclose(loss.log['post_loss'], np.mean(losses), rtol=1e-9)
    expected = np.mean(losses) + BETA * ours.divergence(task)
    np.testing.assert_allclose(loss.value, expected, rtol=1e-9)
    np.testing.assert_allclose(loss.log['kl'], ours.divergence(task))


@pytest.mark.parametrize('rematerialise', [False, True])
@pytest.mark.parametrize('on', KINDS)
def test_meta_gradients_are_finite_differences(on, rematerialise):
    ours = learner(on, inner_steps=2, rematerialise=rematerialise)
    task = tasks(1)
    found = gradients(ours, task, 9)
    assert len(found) == len(ours.meta_weights) + len(ours.raw_scales)
    rng = np.random.default_rng(2)
    for variable in ours.trainable_variables:
        along = rng.normal(size=variable.shape)
        start, ends = np.array(variable), []
        for sign in (1, -1):
            variable.assign(start + sign * 1e-6 * along)
            ends.append(float(ours.meta_loss(task, step(9)).value))
        variable.assign(start)
        expected = np.sum(found[variable.name] * along)
        np.testing.assert_allclose(
            (ends[0] - ends[1]) / 2e-6, expected, rtol=1e-5, atol=1e-7, err_msg=variable.name
        )
    assert on != 'weights' or np.abs(found['scale_w1']).max() > 1e-3


@pytest.mark.parametrize('arguments', [{'on': 'none'}, {'beta': 0.0, 'raw_scale': -60.0}])
def test_without_a_price_or_a_draw_it_is_maml_of_the_head(arguments):
    ours, task = learner(inner_steps=2, **arguments), tasks(2)
    theirs = anil(ours.network, inner_steps=2)
    expected, found = gradients(theirs, task, 3), gradients(ours, task, 3)
    for name, gradient in expected.items():
        assert np.abs(gradient).max() > 1e-6
        np.testing.assert_allclose(found[name], gradient, rtol=1e-9, err_msg=name)


def test_a_draw_in_shares_is_the_same():
    """The gradient of two tasks is the mean of each alone, as shares and replicas compute it."""
    for on in KINDS:
        ours, task = learner(on), tasks(3)
        parts = [Task(*(p if p is None else p[i : i + 1] for p in task)) for i in range(TASKS)]
        whole, *alone = (gradients(ours, part, 4) for part in (task, *parts))
        for name, gradient in whole.items():
            np.testing.assert_allclose(
                gradient, (alone[0][name] + alone[1][name]) / 2, rtol=1e-9, atol=1e-12
            )


def test_evaluation_takes_the_means():
    task = tasks(4)
    for on in ('weights', 'none'):
        ours = learner(on)
        expected = anil(ours.network).query_outputs(task, 3)
        np.testing.assert_allclose(ours.query_outputs(task, 3), expected, rtol=1e-12)
    ours = learner('activations')
    again = ours.query_outputs(task._replace(key=None), 3)
    np.testing.assert_array_equal(ours.query_outputs(task, 3), again)


def test_a_high_price_makes_the_encoder_forget():
    """With nothing to learn but KL, the encoder's weights become N(0, 1)."""
    ours, task = learner(beta=1.0), tasks(5)
    zero = task._replace(query_y=tf.zeros_like(task.query_y), query_x=tf.zeros_like(task.query_x))
    zero = zero._replace(support_x=zero.query_x, support_y=zero.query_y)
    compiled = tf.function(ours.meta_gradients, autograph=False)
    for number in range(300):
        of_all = compiled(zero, step(number)).gradients
        for variable, gradient in zip(ours.trainable_variables, of_all, strict=True):
            variable.assign_sub(0.1 * gradient)
    assert float(ours.divergence(zero)) < 1e-3


# What is refused.


def test_arguments():
    network = FullyConnected((FEATURES,), 1, (5,))
    for arguments, name in (
        ({'on': 'everything'}, 'on'),
        ({'on': 'activations'}, 'on'),
        ({'beta': -1.0}, 'beta'),
        ({'beta': float('inf')}, 'beta'),
        ({'raw_scale': float('nan')}, 'raw_scale'),
    ):
        with pytest.raises(ArgumentError) as error:
            MRMAML(network, Regression(), **arguments)
        assert error.value.argument == name
    with pytest.raises(ArgumentError, match='no encoder'):
        MRMAML(FullyConnected((FEATURES,), 1, ()), Regression())


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--mr_maml_on=activations'], ['--mr_maml_on=activations', 'rendered_pose']),
        (['--mr_maml_on=none', '--mr_maml_beta=7'], ['--mr_maml_beta=7', '--mr_maml_on=none']),
        (['--pretrain_iterations=3'], ['--pretrain_iterations=3', '--algorithm=mr_maml']),
    ],
)
def test_flags_that_do_not_fit(arguments, words, tmp_path):
    sinusoid = ['--algorithm=mr_maml', '--datasource=sinusoid', '--norm=None', '--logdir=logs']
    refused_here(tmp_path, [*sinusoid, *arguments], *words)


# The command line.

SMALL = [
    *('--algorithm=mr_maml', '--datasource=rendered_pose', '--norm=None', '--conv=False'),
    *('--image_size=8', '--task_count=5', '--update_batch_size=4', '--meta_batch_size=4'),
    *('--metatrain_iterations=20', '--test_tasks=20', '--test_num_updates=2', '--logdir=logs'),
]


@pytest.mark.slow
@pytest.mark.parametrize('on', ['weights', 'activations'])
def test_trains_resumes_and_exports(on, tmp_path):
    ends = []
    for name, stops in (('whole', [20]), ('stopped', [7, 20])):
        for stop in stops:
            (folder := tmp_path / name).mkdir(exist_ok=True)
            ended = run_maml(
                *SMALL,
                f'--mr_maml_on={on}',
                f'--metatrain_iterations={stop}',
                '--test_set=True',
                f'--export_dir=model_{stop}',
                cwd=folder,
            )
        (run,) = (folder / 'logs').iterdir()
        ends.append(json.loads((run / 'results.json').read_text()))
    assert ends[0]['mean'] == ends[1]['mean'] and len(ends[0]['mean']) == 3
    assert 'on 20 rendered_pose test tasks, 4-shot' in ended.stdout
    assert '.mr_maml' in run.name and '.task_count_5' in run.name
    assert run.name.endswith('.mr_maml_on_activations') == (on == 'activations')
    described = json.loads((tmp_path / 'whole/model_20/maml_tf.json').read_text())
    assert described['input_shape'] == [8, 8, 1]
