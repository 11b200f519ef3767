"""Meta-SGD against a NumPy program of its equations, closed forms and MAML."""

import numpy as np
import optimisation_oracle as oracle
import pytest
import tensorflow as tf
from reference_maml import reference_maml

from maml_tf.algorithms.optimisation.meta_sgd import MetaSGD
from maml_tf.episodes.task import Task
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import Classification
from maml_tf.objectives.regression import Regression

TASKS, FEATURES, WAY, SHOTS = 3, 4, 3, 2
NORMS = ['None', 'batch_norm', 'layer_norm']


def random_tasks(rng, regression=False, tasks=TASKS):
    """Some tasks as the oracle takes them: (support_x, support_y, query_x, query_y), arrays."""
    labels = lambda shots: np.repeat(np.eye(WAY), shots, axis=0)
    if regression:
        labels = lambda shots: rng.normal(size=(WAY * shots, WAY))
    points = lambda shots: rng.normal(size=(WAY * shots, FEATURES))
    draw = lambda shots: (points(shots), labels(shots))
    return [(*draw(SHOTS), *draw(SHOTS + 1)) for _ in range(tasks)]


def stacked(tasks):
    return Task(*(tf.constant(np.stack(arrays)) for arrays in zip(*tasks)))


def random_learner(norm='None', hidden=(4, 3), regression=False, seed=0, **kwargs):
    """A learner whose weights and rates, of either sign, are all far from where they start."""
    rng = np.random.default_rng(seed)
    learner = MetaSGD(
        FullyConnected((FEATURES,), WAY, hidden, norm),
        Regression() if regression else Classification(),
        dtype='float64',
        **kwargs,
    )
    for variables, scale in ((learner.meta_weights, 0.5), (learner.rates, 0.2)):
        for variable in variables.values():
            variable.assign(scale * rng.normal(size=variable.shape))
    return learner


def values(variables):
    return {name: np.array(variable) for name, variable in variables.items()}


def meta_gradients(learner, task):
    """(of the weights, of the rates), each {name: array}."""
    gradients = learner.meta_gradients(task, tf.constant(0, tf.int64)).gradients
    assert len(gradients) == len(learner.trainable_variables)
    of = {id(v): np.array(g) for v, g in zip(learner.trainable_variables, gradients)}
    by_name = lambda variables: {name: of.pop(id(v)) for name, v in variables.items()}
    result = by_name(learner.meta_weights), by_name(learner.rates)
    assert not of
    return result


def assert_alike(ours, theirs, rtol=1e-9, atol=1e-12):
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            # Zeros would agree too easily; only biases before a batch norm have no gradient.
            assert np.abs(other[name]).max() > 1e-6 or name.startswith('b'), name
            np.testing.assert_allclose(value, other[name], rtol, atol, err_msg=name)


# The oracle itself


@pytest.mark.parametrize('regression', [False, True])
@pytest.mark.parametrize('norm', NORMS)
def test_gradients_of_the_oracle(norm, regression):
    """The gradient by hand and the complex step, both against central differences."""
    learner = random_learner(norm, regression=regression)
    tasks, shots = random_tasks(np.random.default_rng(1), regression), None if regression else SHOTS
    weights, rates = values(learner.meta_weights), values(learner.rates)
    loss = lambda w: oracle.loss(w, *tasks[0][:2], shots)
    by_hand = oracle.gradient(weights, *tasks[0][:2], shots)
    assert_alike([by_hand], [oracle.complex_step_gradient(loss, weights)])
    assert_alike([by_hand], [oracle.finite_differences(loss, weights)], 1e-6, 1e-8)
    of_weights, of_rates = oracle.meta_sgd_gradients(weights, rates, tasks, 2, shots)
    differences = (
        oracle.finite_differences(
            lambda w: oracle.meta_sgd_loss(w, rates, tasks, 2, shots), weights
        ),
        oracle.finite_differences(
            lambda a: oracle.meta_sgd_loss(weights, a, tasks, 2, shots), rates
        ),
    )
    assert_alike((of_weights, of_rates), differences, 1e-5, 1e-7)


# The gradients


@pytest.mark.parametrize('rematerialise', [False, True])
@pytest.mark.parametrize('stop_grad', [False, True])
@pytest.mark.parametrize('norm', NORMS)
def test_meta_gradients(norm, stop_grad, rematerialise):
    """Of the weights and of the rates, after two steps."""
    learner = random_learner(norm, inner_steps=2, stop_grad=stop_grad, rematerialise=rematerialise)
    tasks = random_tasks(np.random.default_rng(2))
    settings = values(learner.meta_weights), values(learner.rates), tasks, 2, SHOTS, stop_grad
    assert_alike(meta_gradients(learner, stacked(tasks)), oracle.meta_sgd_gradients(*settings))
    loss = learner.meta_loss(stacked(tasks), tf.constant(0, tf.int64)).value
    np.testing.assert_allclose(loss, oracle.meta_sgd_loss(*settings), rtol=1e-12)


@pytest.mark.parametrize('rematerialise', [False, True])
@pytest.mark.parametrize('steps', [1, 3])
def test_linear_regression_in_closed_form(steps, rematerialise):
    """With W = (w; b), X = (x, 1): g = 2 X'(XW - Y) / n and H = 2 X'X / n, n the targets' number.

    Of one step, the rates' gradient is -g * g_query(W'), the weights' (1 - H alpha) g_query(W').
    """
    learner = random_learner(
        hidden=(), regression=True, inner_steps=steps, rematerialise=rematerialise
    )
    tasks = random_tasks(np.random.default_rng(3), regression=True)
    joined = lambda variables: np.vstack([variables['w1'], variables['b1']])
    start, alpha = joined(learner.meta_weights), joined(learner.rates)
    of_weights, of_rates = np.zeros_like(start), np.zeros_like(alpha)
    for support_x, support_y, query_x, query_y in tasks:
        x, z = (np.hstack([v, np.ones((len(v), 1))]) for v in (support_x, query_x))
        hessian, weights, slopes = 2 * x.T @ x / support_y.size, start, []
        for _ in range(steps):
            slopes.append(2 * x.T @ (x @ weights - support_y) / support_y.size)
            weights = weights - alpha * slopes[-1]
        back = 2 * z.T @ (z @ weights - query_y) / query_y.size
        for slope in reversed(slopes):
            of_rates -= slope * back / TASKS
            back = back - hessian @ (alpha * back)
        of_weights += back / TASKS
    ours = meta_gradients(learner, stacked(tasks))
    np.testing.assert_allclose(joined(ours[0]), of_weights, rtol=1e-9)
    np.testing.assert_allclose(joined(ours[1]), of_rates, rtol=1e-9)


@pytest.mark.parametrize('stop_grad', [False, True])
@pytest.mark.parametrize('norm', NORMS)
def test_equal_rates_are_maml(norm, stop_grad):
    """The weights' gradient is MAML's, and the rates' add up to the derivative by its one rate."""
    learner = random_learner(norm, inner_steps=2, stop_grad=stop_grad)
    for rate in learner.rates.values():
        rate.assign(np.full(rate.shape, 0.1))
    tasks = random_tasks(np.random.default_rng(4))

    def maml(rate):
        flags = {
            'datasource': 'omniglot',
            'conv': False,
            'norm': norm,
            'update_batch_size': SHOTS,
            'update_lr': rate,
            'num_updates': 2,
            'test_num_updates': 2,
            'stop_grad': stop_grad,
        }
        weights = {name.replace('_', '/'): v for name, v in learner.meta_weights.items()}
        return reference_maml(flags, weights, *(np.stack(arrays) for arrays in zip(*tasks)))

    of_weights, of_rates = meta_gradients(learner, stacked(tasks))
    theirs = maml(0.1)
    expected = {name: theirs[f'meta_grad/{name.replace("_", "/")}'] for name in of_weights}
    assert_alike([of_weights], [expected])
    if not stop_grad:
        ends = [maml(rate)['total_losses2'][-1] for rate in (0.1 + 1e-5, 0.1 - 1e-5)]
        np.testing.assert_allclose(
            sum(gradient.sum() for gradient in of_rates.values()),
            (ends[0] - ends[1]) / 2e-5,
            rtol=1e-6,
        )


def test_tasks_are_averaged_and_order_does_not_matter():
    learner = random_learner('batch_norm', hidden=(4,), inner_steps=2)
    tasks = random_tasks(np.random.default_rng(5))
    whole = meta_gradients(learner, stacked(tasks))
    single = [meta_gradients(learner, stacked([task])) for task in tasks]
    assert_alike(whole, [oracle.mean(kind) for kind in zip(*single)])
    assert np.abs(single[0][1]['w1'] - single[1][1]['w1']).max() > 1e-3
    order = [4, 1, 5, 0, 2, 3]
    other = [(x[order], y[order], *query) for x, y, *query in reversed(tasks)]
    assert_alike(whole, meta_gradients(learner, stacked(other)))


@pytest.mark.parametrize('rematerialise', [False, True])
def test_compiled_it_is_the_same(rematerialise):
    settings = {'hidden': (4,), 'inner_steps': 2, 'rematerialise': rematerialise}
    learner = random_learner('batch_norm', **settings)
    task = stacked(random_tasks(np.random.default_rng(6)))
    plain = learner.meta_gradients(task, tf.constant(0, tf.int64)).gradients
    compiled = tf.function(learner.meta_gradients, autograph=False, jit_compile=True)
    for one, other in zip(compiled(task, tf.constant(0, tf.int64)).gradients, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-11)


def test_a_clip_bounds_every_entry_of_both():
    learner = random_learner(clip=0.01)
    gradients = learner.meta_gradients(
        stacked(random_tasks(np.random.default_rng(7))), tf.constant(0, tf.int64)
    ).gradients
    assert max(np.abs(g).max() for g in gradients) > 0.02
    for clipped, gradient in zip(learner.clip_gradients(gradients), gradients, strict=True):
        np.testing.assert_allclose(clipped, np.clip(gradient, -0.01, 0.01))


# The rates


@pytest.mark.parametrize('norm', NORMS)
def test_rates_start_uniformly(norm):
    network = FullyConnected((FEATURES,), WAY, (40, 40), norm)
    learner = MetaSGD(network, Classification(), rates=(0.02, 0.06))
    adapted = {name: v for name, v in learner.meta_weights.items() if network.adapted(name)}
    assert {k: tuple(v.shape) for k, v in learner.rates.items()} == {
        k: tuple(v.shape) for k, v in adapted.items()
    }
    entries = np.concatenate([np.ravel(rate) for rate in learner.rates.values()])
    assert 0.02 <= entries.min() < 0.0205 and 0.0595 < entries.max() <= 0.06
    quarters = np.quantile(entries, [0.25, 0.5, 0.75])
    np.testing.assert_allclose(quarters, [0.03, 0.04, 0.05], atol=0.0015)
    assert len(np.unique(entries)) > 0.99 * len(entries)
    for name, rate in learner.rates.items():
        assert any(rate is v for v in learner.trainable_variables), name


def test_rates_are_a_function_of_the_seed():
    network = FullyConnected((FEATURES,), WAY)
    first, again, other = (
        values(MetaSGD(network, Classification(), seed=seed).rates) for seed in (1, 1, 2)
    )
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
        assert (first[name] != other[name]).any()
    entries = np.concatenate([rate.ravel() for rate in first.values()])
    assert 0.005 <= entries.min() < 0.01 and 0.095 < entries.max() <= 0.1
    a, b = first['w1'].ravel(), first['w2'].ravel()
    assert (a != b[: a.size]).any()  # Each weight draws its own.


# Evaluation


@pytest.mark.parametrize('norm', NORMS)
def test_query_outputs_after_every_step(norm):
    learner = random_learner(norm, inner_steps=1)
    tasks, steps = random_tasks(np.random.default_rng(8)), 3
    ours = learner.query_outputs(stacked(tasks), steps)
    weights, rates = values(learner.meta_weights), values(learner.rates)
    for i, task in enumerate(tasks):
        trajectory = oracle.meta_sgd_trajectory(weights, rates, task, steps, SHOTS)
        expected = [oracle.outputs(adapted, task[2]) for adapted in trajectory]
        np.testing.assert_allclose(ours[:, i], expected, rtol=1e-9, atol=1e-11)


def test_adapted_weights():
    learner = random_learner('batch_norm', inner_steps=2)
    tasks = random_tasks(np.random.default_rng(9))
    task = stacked(tasks)
    outputs = {
        steps: learner.predict_query(
            learner.adapt(task.support_x, task.support_y, steps), task.query_x
        )
        for steps in (None, 1, 2)
    }
    np.testing.assert_allclose(outputs[None], outputs[2])  # As many steps as in training.
    weights, rates = values(learner.meta_weights), values(learner.rates)
    for i, task in enumerate(tasks):
        for steps in (1, 2):
            adapted = oracle.meta_sgd_trajectory(weights, rates, task, steps, SHOTS)[-1]
            np.testing.assert_allclose(
                outputs[steps][i], oracle.outputs(adapted, task[2]), rtol=1e-9, atol=1e-11
            )
