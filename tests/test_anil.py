"""ANIL against a NumPy program of its equations and closed forms."""

import context_oracle as oracle
import numpy as np
import optimisation_oracle
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.anil import ANIL
from maml_tf.episodes.task import Task
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.regression import Regression

FEATURES, WAY, RATE = 4, 3, 0.3
HIDDEN, HEAD = (4, 3), ('w3', 'b3')
NORMS = ['None', 'batch_norm', 'layer_norm']
STEP = tf.constant(0, tf.int64)


def stacked(tasks):
    return Task(*(tf.constant(np.stack(arrays)) for arrays in zip(*tasks)))


def random_learner(norm='None', regression=False, network=None, **kwargs):
    """A learner whose weights are all far from where they start."""
    network = network or FullyConnected((FEATURES,), WAY, HIDDEN, norm)
    objective = Regression() if regression else MeanClassification()
    learner = ANIL(network, objective, **{'inner_lr': RATE, **kwargs}, dtype='float64')
    oracle.randomise(np.random.default_rng(0), learner.meta_weights)
    return learner


def random_tasks(seed, regression=False, **kwargs):
    return oracle.random_tasks(np.random.default_rng(seed), regression=regression, **kwargs)


def meta_gradients(learner, tasks):
    gradients = learner.meta_gradients(stacked(tasks), STEP).gradients
    return oracle.by_name(learner, gradients, learner.meta_weights)[0]


# The oracle itself


@pytest.mark.parametrize('regression', [False, True])
@pytest.mark.parametrize('norm, scale', [*((norm, False) for norm in NORMS), ('batch_norm', True)])
def test_gradients_of_the_oracle(norm, scale, regression):
    """The gradient by hand and the complex step, both against central differences."""
    options = {'epsilon': 1e-5, 'negative_slope': 0.1}
    weights = FullyConnected((FEATURES,), WAY, HIDDEN, norm, scale=scale).construct_weights(0)
    weights = oracle.random_weights(np.random.default_rng(1), weights)
    assert ('norm1_gamma' in weights) == (scale or norm == 'layer_norm')
    network = oracle.FullyConnected(norm, regression, **options)
    task, null = random_tasks(2, regression)[0], oracle.null_biases(norm, weights)
    loss = lambda w: network.loss(w, *task[:2])
    by_hand = network.gradient(weights, *task[:2], weights)
    oracle.assert_alike(by_hand, optimisation_oracle.complex_step_gradient(loss, weights), null)
    differences = optimisation_oracle.finite_differences(loss, weights)
    oracle.assert_alike(by_hand, differences, null, rtol=1e-5, atol=1e-8)
    arguments = oracle.constant_rates(RATE, HEAD), [task], 2
    gradients, _ = oracle.meta_gradients(network, weights, *arguments)
    differences = optimisation_oracle.finite_differences(
        lambda w: oracle.meta_loss(network, w, *arguments), weights
    )
    oracle.assert_alike(gradients, differences, null, rtol=1e-5, atol=1e-8)


# The gradients


@pytest.mark.parametrize('rematerialise', [False, True])
@pytest.mark.parametrize('stop_grad', [False, True])
@pytest.mark.parametrize('regression', [False, True])
@pytest.mark.parametrize('norm', NORMS)
def test_meta_gradients(norm, regression, stop_grad, rematerialise):
    """Of the body and of the head, after two steps."""
    learner = random_learner(
        norm, regression, inner_steps=2, stop_grad=stop_grad, rematerialise=rematerialise
    )
    weights, tasks = oracle.values(learner.meta_weights), random_tasks(3, regression)
    program = oracle.FullyConnected(norm, regression), weights, oracle.constant_rates(RATE, HEAD)
    expected, _ = oracle.meta_gradients(*program, tasks, 2, stop_grad=stop_grad)
    null = oracle.null_biases(norm, weights)
    oracle.assert_alike(meta_gradients(learner, tasks), expected, null)
    loss = learner.meta_loss(stacked(tasks), STEP).value
    np.testing.assert_allclose(loss, oracle.meta_loss(*program, tasks, 2), rtol=1e-12)
    if not stop_grad:  # The path through the steps matters, for the body, too.
        first_order, _ = oracle.meta_gradients(*program, tasks, 2, stop_grad=True)
        for name in {*weights} - null:
            assert np.abs(expected[name] - first_order[name]).max() > 1e-4, name


@pytest.mark.parametrize('norm', NORMS)
def test_first_order_gradients_are_those_at_the_adapted_head(norm):
    learner, tasks = random_learner(norm, inner_steps=2, stop_grad=True), random_tasks(4)
    weights, network = oracle.values(learner.meta_weights), oracle.FullyConnected(norm)
    expected = []
    for task in tasks:
        adapted = dict(weights)
        for _ in range(2):
            slopes = network.gradient(adapted, *task[:2], HEAD)
            adapted |= {name: adapted[name] - RATE * slopes[name] for name in HEAD}
        expected.append(network.gradient(adapted, *task[2:], weights))
    null = oracle.null_biases(norm, weights)
    oracle.assert_alike(meta_gradients(learner, tasks), optimisation_oracle.mean(expected), null)


@pytest.mark.parametrize('rematerialise', [False, True])
def test_linear_regression_on_the_features_in_closed_form(rematerialise):
    """With W = (w; b) on F = (features, 1): H = 2 F'F / n and W' = W - alpha (H W - 2 F'Y / n).

    The head's gradient is (1 - alpha H)^2 times the query loss' at W'', after two steps.
    """
    learner = random_learner(regression=True, inner_steps=2, rematerialise=rematerialise)
    tasks, weights = random_tasks(5, regression=True), oracle.values(learner.meta_weights)
    joined = lambda variables: np.vstack([variables['w3'], variables['b3']])

    def features(x):
        for number in (1, 2):
            x = np.maximum(x @ weights[f'w{number}'] + weights[f'b{number}'], 0)
        return np.hstack([x, np.ones((len(x), 1))])

    expected = np.zeros_like(joined(weights))
    for support_x, support_y, query_x, query_y in tasks:
        f, q, w = features(support_x), features(query_x), joined(weights)
        hessian = 2 * f.T @ f / support_y.size
        for _ in range(2):
            w = w - RATE * (hessian @ w - 2 * f.T @ support_y / support_y.size)
        shrink = np.eye(len(hessian)) - RATE * hessian
        slope = 2 * q.T @ (q @ w - query_y) / query_y.size
        expected += shrink @ shrink @ slope / len(tasks)
    ours = meta_gradients(learner, tasks)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(joined(ours), expected, rtol=1e-9)


@pytest.mark.parametrize('norm', ['batch_norm', 'layer_norm'])
def test_a_convolutional_network(norm):
    """An entry of every weight, by central differences of a program with einsum."""
    network = ConvNet((8, 8, 2), WAY, 3, norm)
    learner = random_learner(network=network, inner_steps=2)
    tasks = random_tasks(6, shape=(8, 8, 2), tasks=2)
    weights, rates = oracle.values(learner.meta_weights), oracle.constant_rates(RATE, ['w5', 'b5'])
    differences = oracle.few_differences(
        lambda w: oracle.meta_loss(oracle.ConvNet(norm), w, rates, tasks, 2),
        weights,
        np.random.default_rng(7),
        entries=1,
    )
    null = oracle.null_biases(norm, weights)
    oracle.assert_few_alike(meta_gradients(learner, tasks), differences, null)


# Adaptation


@pytest.mark.parametrize('norm', NORMS)
def test_only_the_head_adapts(norm):
    learner, tasks = random_learner(norm, inner_steps=2), random_tasks(8)
    task, weights = stacked(tasks), oracle.values(learner.meta_weights)
    state = learner.adapt(task.support_x, task.support_y)
    assert state.keys() == set(HEAD)
    for i, one in enumerate(tasks):
        rates = oracle.constant_rates(RATE, HEAD)
        path = oracle.trajectory(oracle.FullyConnected(norm), weights, rates, one, 2)
        for name in HEAD:
            assert np.abs(state[name][i] - weights[name]).max() > 0.01
            np.testing.assert_allclose(state[name][i], path[-1][name], rtol=1e-10)
    oracle.assert_alike(oracle.values(learner.meta_weights), weights, rtol=0, atol=0)


@pytest.mark.parametrize('evaluation_lr', [None, 0.7])
@pytest.mark.parametrize('norm', NORMS)
def test_query_outputs_after_every_step(norm, evaluation_lr):
    learner, tasks = random_learner(norm, evaluation_lr=evaluation_lr), random_tasks(9)
    ours = learner.query_outputs(stacked(tasks), 3)
    weights, rates = oracle.values(learner.meta_weights), evaluation_lr or RATE
    for i, task in enumerate(tasks):
        expected = oracle.query_outputs(
            oracle.FullyConnected(norm), weights, oracle.constant_rates(rates, HEAD), task, 3
        )
        assert np.abs(expected[3] - expected[2]).max() > 1e-3
        np.testing.assert_allclose(ours[:, i], expected, rtol=1e-9, atol=1e-11)
