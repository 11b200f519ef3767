"""CAVIA and bias transformation against a NumPy program of their equations and closed forms."""

import context_oracle as oracle
import numpy as np
import optimisation_oracle
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.bias_transformation import BiasTransformation
from maml_tf.algorithms.optimisation.cavia import CAVIA
from maml_tf.episodes.task import Task
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.regression import Regression

FEATURES, WAY, CONTEXT = 4, 3, 2
HIDDEN, IMAGE = (5, 4), (10, 10, 2)
NORMS = ['None', 'batch_norm', 'layer_norm']
STEP = tf.constant(0, tf.int64)


def stacked(tasks):
    return Task(*(tf.constant(np.stack(arrays)) for arrays in zip(*tasks)))


def fully_connected(norm='None', hidden=HIDDEN):
    return FullyConnected((FEATURES,), WAY, hidden, norm, joined=CONTEXT)


def conv_net(norm, max_pool=False, head='mean', context='film'):
    return ConvNet(IMAGE, WAY, 3, norm, max_pool, head, pool_padding='same', **{context: CONTEXT})


def random_learner(method, network, regression=False, seed=0, **kwargs):
    """A learner whose weights are all far from where they start, but for CAVIA's context."""
    objective = Regression() if regression else MeanClassification()
    learner = method(network, objective, dtype='float64', **kwargs)
    trained = {name: v for name, v in learner.meta_weights.items() if v.trainable}
    oracle.randomise(np.random.default_rng(seed), trained)
    return learner


def random_tasks(seed, regression=False, **kwargs):
    return oracle.random_tasks(np.random.default_rng(seed), regression=regression, **kwargs)


def meta_gradients(learner, tasks):
    gradients = learner.meta_gradients(stacked(tasks), STEP).gradients
    return oracle.by_name(learner, gradients, learner.meta_weights)[0]


def without_context(gradients):
    return {name: gradient for name, gradient in gradients.items() if name != 'context'}


def adapted_names(method, learner):
    """By the papers: the context; all weights but the normalisations'."""
    if method is CAVIA:
        return ['context']
    return [name for name in learner.meta_weights if not name.startswith('norm')]


# The networks and the oracle


@pytest.mark.parametrize('of_each_task', [False, True])
@pytest.mark.parametrize('context', ['film', 'joined'])
@pytest.mark.parametrize('head', ['mean', 'flatten'])
@pytest.mark.parametrize('max_pool', [False, True])
@pytest.mark.parametrize('norm', NORMS)
def test_images_in_a_context(norm, max_pool, head, context, of_each_task):
    """The forward pass, by einsum. of_each_task: all weights, not the context alone."""
    network, rng = conv_net(norm, max_pool, head, context), np.random.default_rng(0)
    x, shapes = rng.normal(size=(2, 5, *IMAGE)), network.construct_weights(0)
    tasks = [oracle.random_weights(rng, shapes) for _ in range(2)]
    weights = {
        name: np.stack([w[name] for w in tasks]) if of_each_task or name == 'context' else value
        for name, value in tasks[0].items()
    }
    ours = network.forward(tf.constant(x), {k: tf.constant(w) for k, w in weights.items()})
    program = oracle.ConvNet(norm, max_pool, head)
    for i in range(2):
        of_task = {k: w[i] if of_each_task or k == 'context' else w for k, w in weights.items()}
        expected = program.outputs(of_task, x[i])
        np.testing.assert_allclose(ours[i], expected, rtol=1e-9, atol=1e-12)
        moved = program.outputs({**of_task, 'context': np.zeros(CONTEXT)}, x[i])
        assert np.abs(moved - expected).max() > 1e-3


@pytest.mark.parametrize('norm', NORMS)
def test_points_in_a_context(norm):
    network, rng = fully_connected(norm), np.random.default_rng(1)
    tasks = [oracle.random_weights(rng, network.construct_weights(0)) for _ in range(2)]
    assert tasks[0]['w1'].shape == (FEATURES + CONTEXT, HIDDEN[0])
    weights = {name: np.stack([w[name] for w in tasks]) for name in tasks[0]}
    x = rng.normal(size=(2, 5, FEATURES))
    ours = network.forward(tf.constant(x), {k: tf.constant(w) for k, w in weights.items()})
    for i in range(2):
        expected = oracle.FullyConnected(norm).outputs(tasks[i], x[i])
        np.testing.assert_allclose(ours[i], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('regression', [False, True])
@pytest.mark.parametrize('norm', NORMS)
def test_gradients_of_the_oracle(norm, regression):
    """The gradient by hand and the complex step, both against central differences."""
    rng, network = np.random.default_rng(2), oracle.FullyConnected(norm, regression)
    weights = oracle.random_weights(rng, fully_connected(norm).construct_weights(0))
    (task,) = random_tasks(3, regression, tasks=1)
    loss = lambda w: network.loss(w, *task[:2])
    by_hand = network.gradient(weights, *task[:2], weights)
    null = null_names(norm, weights)
    oracle.assert_alike(by_hand, optimisation_oracle.complex_step_gradient(loss, weights), null)
    differences = optimisation_oracle.finite_differences(loss, weights)
    oracle.assert_alike(by_hand, differences, null, rtol=1e-5, atol=1e-8)
    arguments = oracle.constant_rates(0.8, ['context']), [task], 2
    gradients, _ = oracle.meta_gradients(network, weights, *arguments)
    differences = optimisation_oracle.finite_differences(
        lambda w: oracle.meta_loss(network, w, *arguments), weights
    )
    oracle.assert_alike(gradients, differences, null, rtol=1e-5, atol=1e-8)


def null_names(norm, weights):
    """A batch norm takes away what is the same for all examples, the context among it."""
    return oracle.null_biases(norm, weights) | ({'context'} if norm == 'batch_norm' else set())


# CAVIA


@pytest.mark.parametrize('stop_grad', [False, True])
@pytest.mark.parametrize('steps', [1, 3])
@pytest.mark.parametrize('regression', [False, True])
@pytest.mark.parametrize('norm', NORMS)
def test_meta_gradients_of_cavia(norm, regression, steps, stop_grad):
    """Of all weights, with the context adapted from zero."""
    tasks = random_tasks(4, regression)
    for rematerialise in (False, True):
        learner = random_learner(
            CAVIA,
            fully_connected(norm),
            regression,
            inner_lr=0.8,
            inner_steps=steps,
            stop_grad=stop_grad,
            rematerialise=rematerialise,
        )
        weights = oracle.values(learner.meta_weights)
        rates = oracle.constant_rates(0.8, ['context'])
        program = oracle.FullyConnected(norm, regression), weights, rates, tasks, steps
        expected, _ = oracle.meta_gradients(*program, stop_grad=stop_grad)
        oracle.assert_alike(
            meta_gradients(learner, tasks),
            without_context(expected),
            oracle.null_biases(norm, weights),
        )
        loss = learner.meta_loss(stacked(tasks), STEP).value
        np.testing.assert_allclose(loss, oracle.meta_loss(*program), rtol=1e-12)
    if norm != 'batch_norm' and not stop_grad:
        first_order, _ = oracle.meta_gradients(*program, stop_grad=True)
        assert np.abs(expected['w1'] - first_order['w1']).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('context', ['film', 'joined'])
@pytest.mark.parametrize('max_pool', [False, True])
@pytest.mark.parametrize('norm', NORMS)
def test_meta_gradients_of_cavia_on_images(norm, max_pool, context):
    """Two entries of every weight after two steps, by central differences."""
    check_on_images(CAVIA, conv_net(norm, max_pool, context=context), 0.6, tasks=2, entries=2)


def check_on_images(method, network, rate, tasks, entries, names=None):
    """names: of the weights to look at; None: all that are trained."""
    learner = random_learner(method, network, seed=5, inner_lr=rate, inner_steps=2)
    weights, tasks = oracle.values(learner.meta_weights), random_tasks(5, shape=IMAGE, tasks=tasks)
    names = names or [name for name, v in learner.meta_weights.items() if v.trainable]
    program = oracle.ConvNet(network.norm, network.max_pool)
    rates = oracle.constant_rates(rate, adapted_names(method, learner))
    differences = oracle.few_differences(
        lambda w: oracle.meta_loss(program, {**weights, **w}, rates, tasks, 2),
        {name: weights[name] for name in names},
        np.random.default_rng(6),
        entries,
    )
    gradients = {name: g for name, g in meta_gradients(learner, tasks).items() if name in names}
    null = oracle.null_biases(network.norm, weights)
    oracle.assert_few_alike(gradients, differences, null)


@pytest.mark.parametrize('network', [fully_connected('layer_norm'), conv_net('batch_norm')])
def test_the_context_starts_from_zero_and_is_not_trained(network):
    learner = CAVIA(network, MeanClassification())
    context = learner.meta_weights['context']
    np.testing.assert_array_equal(context, np.zeros(CONTEXT))
    assert not context.trainable
    assert len(learner.trainable_variables) == len(learner.meta_weights) - 1
    assert not any(v is context for v in learner.trainable_variables)
    shape = network.input_shape
    task = stacked([tuple(a.astype('float32') for a in t) for t in random_tasks(7, shape=shape)])
    state = learner.adapt(task.support_x, task.support_y)
    assert {name: v.shape for name, v in state.items()} == {'context': (3, CONTEXT)}


def test_the_adapted_context_of_a_linear_network_in_closed_form():
    """Outputs A x + C z + b: z' = -alpha C' g, where g sums the loss' slopes at the outputs."""
    network = fully_connected(hidden=())
    learner = random_learner(CAVIA, network, regression=True, inner_lr=1.0, inner_steps=2)
    weights, tasks = oracle.values(learner.meta_weights), random_tasks(8, regression=True)
    of_x, of_z = weights['w1'][:FEATURES], weights['w1'][FEATURES:]
    for steps in (1, 2):
        task = stacked(tasks)
        state = learner.adapt(task.support_x, task.support_y, steps)
        for i, (x, y, *_) in enumerate(tasks):
            z = np.zeros(CONTEXT)
            for _ in range(steps):
                errors = x @ of_x + z @ of_z + weights['b1'] - y
                z = z - of_z @ (2 * errors / y.size).sum(0)
            assert np.abs(z).max() > 0.01
            np.testing.assert_allclose(state['context'][i], z, rtol=1e-10)


@pytest.mark.parametrize('method', [CAVIA, BiasTransformation])
@pytest.mark.parametrize('norm', NORMS)
def test_query_outputs_after_every_step(norm, method):
    """Also after more steps than in training."""
    rate = 0.9 if method is CAVIA else 0.2
    learner = random_learner(method, fully_connected(norm), inner_lr=rate, inner_steps=1)
    tasks = random_tasks(9)
    ours = learner.query_outputs(stacked(tasks), 3)
    weights = oracle.values(learner.meta_weights)
    rates = oracle.constant_rates(rate, adapted_names(method, learner))
    for i, task in enumerate(tasks):
        program = oracle.FullyConnected(norm)
        expected = oracle.query_outputs(program, weights, rates, task, 3)
        if (method, norm) != (CAVIA, 'batch_norm'):
            assert np.abs(expected[3] - expected[2]).max() > 1e-3
        np.testing.assert_allclose(ours[:, i], expected, rtol=1e-9, atol=1e-11)
    outputs = learner.call(stacked(tasks)._asdict())
    np.testing.assert_allclose(outputs, ours[1], rtol=1e-9, atol=1e-11)


# Bias transformation


@pytest.mark.parametrize('stop_grad', [False, True])
@pytest.mark.parametrize('regression', [False, True])
@pytest.mark.parametrize('norm', NORMS)
def test_meta_gradients_of_bias_transformation(norm, regression, stop_grad):
    """Of the weights and of the vector, after two steps."""
    tasks = random_tasks(10, regression)
    for rematerialise in (False, True):
        learner = random_learner(
            BiasTransformation,
            fully_connected(norm),
            regression,
            inner_lr=0.2,
            inner_steps=2,
            stop_grad=stop_grad,
            rematerialise=rematerialise,
        )
        weights = oracle.values(learner.meta_weights)
        assert np.abs(weights['context']).min() > 0.01
        rates = oracle.constant_rates(0.2, adapted_names(BiasTransformation, learner))
        program = oracle.FullyConnected(norm, regression), weights, rates, tasks, 2
        expected, _ = oracle.meta_gradients(*program, stop_grad=stop_grad)
        null = null_names(norm, weights)
        oracle.assert_alike(meta_gradients(learner, tasks), expected, null)
        loss = learner.meta_loss(stacked(tasks), STEP).value
        np.testing.assert_allclose(loss, oracle.meta_loss(*program), rtol=1e-12)


@pytest.mark.slow
def test_meta_gradients_of_bias_transformation_on_images():
    """An entry of some weights after two steps, by central differences: the program is slow."""
    network = conv_net('batch_norm', context='joined')
    names = ['context', 'conv2', 'w5', 'norm1_beta']
    check_on_images(BiasTransformation, network, 0.05, tasks=1, entries=1, names=names)


@pytest.mark.parametrize('hidden', [(), HIDDEN])
def test_one_step_moves_the_bias_as_in_the_paper(hidden):
    """W2 z + b changes by -alpha [(1 + |z|^2) g + W2 W2' g] + O(alpha^2), g the bias' gradient.

    What remains is alpha^2 (z' W2' g) g, the change of W2 times that of z.
    """
    tasks, remainders = random_tasks(11), []
    rates = [0.4, 0.2, 0.1]
    for rate in rates:
        network = fully_connected(hidden=hidden)
        learner = random_learner(BiasTransformation, network, inner_lr=rate)
        weights, task = oracle.values(learner.meta_weights), stacked(tasks)
        adapted = oracle.values(learner.adapt(task.support_x, task.support_y, 1))
        bias = lambda w: w['w1'][FEATURES:].T @ w['context'] + w['b1']
        w2, z = weights['w1'][FEATURES:].T, weights['context']
        remainders.append([])
        for i, one in enumerate(tasks):
            g = oracle.FullyConnected().gradient(weights, *one[:2], ['b1'])['b1']
            moved = bias({name: w[i] for name, w in adapted.items()}) - bias(weights)
            first_order = -rate * ((1 + z @ z) * g + w2 @ w2.T @ g)
            assert np.abs(first_order).max() > 1e-3
            remainders[-1].append(moved - first_order)
            expected = rate**2 * (z @ w2.T @ g) * g
            np.testing.assert_allclose(moved - first_order, expected, rtol=1e-7, atol=1e-14)
    assert np.abs(remainders[-1]).max() > 1e-6
    for rate, remainder in zip(rates, remainders):
        scaled = np.array(remainder) / rate**2
        first = np.array(remainders[0]) / rates[0] ** 2
        np.testing.assert_allclose(scaled, first, rtol=1e-7, atol=1e-12)


def test_the_vector_is_trained_and_adapted_from_zero():
    """At zero its own gradient is W2' g, and so the first step moves it."""
    learner = BiasTransformation(fully_connected(), MeanClassification(), dtype='float64')
    context = learner.meta_weights['context']
    np.testing.assert_array_equal(context, np.zeros(CONTEXT))
    assert any(v is context for v in learner.trainable_variables)
    rest = {name: v for name, v in learner.meta_weights.items() if name != 'context'}
    oracle.randomise(np.random.default_rng(12), rest)
    task = stacked(random_tasks(13))
    state = learner.adapt(task.support_x, task.support_y, 1)
    assert state.keys() == learner.meta_weights.keys()
    assert state['context'].shape == (3, CONTEXT)
    assert np.abs(state['context']).max(1).min() > 1e-5
