"""The inner loop against closed forms and finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.task import Task
from maml_tf.inner_loop import (
    InnerProblem,
    adapt_in_graph,
    inner_loop,
    read_out_every_step,
    stack_over_tasks,
)
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.reference import NORMS
from maml_tf.objectives.classification import Classification
from maml_tf.objectives.regression import Regression
from maml_tf.update_rules import (
    AdamWithoutMomentum,
    GradientDescent,
    LearntRate,
    LearntRates,
    RatesByStep,
)

ALPHA, TASKS, SIZE = 0.1, 3, 4
STEP = tf.constant(0, tf.int64)


@pytest.fixture(scope='module')
def quadratics():
    """Support losses (w - c)'H(w - c) / 2 and query losses |w - q|^2 / 2, one pair a task."""
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(TASKS, SIZE, SIZE))
    return dict(
        hessians=roots @ roots.transpose(0, 2, 1),
        centres=rng.normal(size=(TASKS, SIZE)),
        goals=rng.normal(size=(TASKS, SIZE)),
        start=rng.normal(size=SIZE),
    )


def quadratic_problem(quadratics, start, rule=GradientDescent(ALPHA), **kwargs):
    def loss(weights, step, others):
        del step, others
        offset = weights['w'] - quadratics['centres']
        return tf.einsum('ti,tij,tj->t', offset, quadratics['hessians'], offset) / 2, offset

    weights = stack_over_tasks({'w': tf.convert_to_tensor(start)}, TASKS)
    return InnerProblem(loss, weights, rule, parameters=rule.parameters(), **kwargs)


@pytest.mark.parametrize('stop_grad', [False, True])
@pytest.mark.parametrize('steps', [1, 3])
def test_meta_gradient_on_quadratics(quadratics, steps, stop_grad):
    """Second order: prod(I - alpha H) times the query gradient; first order: the query gradient
    itself."""
    hessians, centres, goals, start = (
        quadratics[k] for k in ('hessians', 'centres', 'goals', 'start')
    )
    theta = tf.Variable(start)
    with tf.GradientTape() as tape:
        adapted = inner_loop(quadratic_problem(quadratics, theta), steps, stop_grad)
        query_loss = tf.reduce_sum(tf.square(adapted.fast_weights[-1]['w'] - goals)) / 2 / TASKS
    expected, expected_weights = np.zeros(SIZE), []
    for hessian, centre, goal in zip(hessians, centres, goals):
        jacobian = np.linalg.matrix_power(np.eye(SIZE) - ALPHA * hessian, steps)
        weights = centre + jacobian @ (start - centre)
        expected_weights.append(weights)
        expected += (np.eye(SIZE) if stop_grad else jacobian) @ (weights - goal) / TASKS
    np.testing.assert_allclose(adapted.fast_weights[-1]['w'], expected_weights, rtol=1e-12)
    np.testing.assert_allclose(tape.gradient(query_loss, theta), expected, rtol=1e-10)


RULES = {
    'gradient descent': lambda: GradientDescent(ALPHA),
    'learnt rates': lambda: LearntRates({'w': tf.Variable(np.linspace(0.02, 0.2, SIZE))}),
    'rates by step': lambda: RatesByStep({'w': tf.Variable([0.02, 0.1, 0.05], dtype='float64')}),
    'one learnt rate': lambda: LearntRate(tf.Variable(0.07, dtype='float64')),
    'Adam': lambda: AdamWithoutMomentum(ALPHA, moments={'w': tf.Variable(np.full(SIZE, 0.3))}),
}


@pytest.mark.parametrize('rule', RULES)
def test_graph_loops_take_the_same_steps(quadratics, rule):
    problem = quadratic_problem(quadratics, quadratics['start'], RULES[rule]())
    unrolled = inner_loop(problem, 4)
    trajectory = tf.stack([weights['w'] for weights in unrolled.fast_weights])
    assert np.abs(trajectory[4] - trajectory[3]).max() > 1e-3

    @tf.function(jit_compile=True, autograph=False)
    def looped():
        # The rule and the read-out know the step; the loss too, by the same counter.
        read_out = lambda weights, step: weights['w'] + 1000 * tf.cast(step, tf.float64)
        return read_out_every_step(problem, 4, read_out), adapt_in_graph(problem, 4)

    read, (weights, slots) = looped()
    steps = np.arange(5)[:, None, None]
    np.testing.assert_allclose(read - 1000 * steps, trajectory, rtol=1e-10)
    np.testing.assert_allclose(weights['w'], trajectory[-1], rtol=1e-12)
    assert slots.keys() == unrolled.slots.keys()
    for name, slot in slots.items():
        np.testing.assert_allclose(slot, unrolled.slots[name], rtol=1e-12)


def test_the_loss_knows_the_step_and_slots_go_on(quadratics):
    """Two loops of two steps, the second with the slots of the first, are one loop of four."""
    rule = AdamWithoutMomentum(ALPHA)
    problem = quadratic_problem(quadratics, quadratics['start'], rule)
    quadratic_loss = problem.loss

    def loss(weights, step, others):
        losses, outputs = quadratic_loss(weights, step, others)
        return losses * (tf.cast(step, tf.float64) + 1), outputs

    problem = problem._replace(loss=loss)
    whole = inner_loop(problem, 4)
    ratios = [
        losses / quadratic_loss(weights, step, {})[0]
        for step, (losses, weights) in enumerate(zip(whole.support_losses, whole.fast_weights))
    ]
    np.testing.assert_allclose(ratios, np.tile(np.arange(1.0, 5)[:, None], (1, TASKS)))
    first = inner_loop(problem, 2)

    def later(weights, step, others):
        return loss(weights, step + 2, others)

    rule = AdamWithoutMomentum(ALPHA, steps_before=2.0)
    second = problem._replace(
        loss=later, rule=rule, weights=first.fast_weights[-1], slots=first.slots
    )
    for end in (inner_loop(second, 2).fast_weights[-1], adapt_in_graph(second, 2)[0]):
        np.testing.assert_allclose(end['w'], whole.fast_weights[-1]['w'], rtol=1e-12)


@pytest.mark.parametrize('seen', [0, 7])
def test_adam_without_momentum_is_adam_with_beta_1_of_zero(quadratics, seen):
    """Kingma and Ba 2015, algorithm 1, in NumPy; the moments of earlier steps count as theirs."""
    rng = np.random.default_rng(seen)
    # So small an epsilon is the same before and after the bias correction.
    lr, beta_2, epsilon, steps = 0.05, 0.9, 1e-14, 5
    before = rng.random(SIZE) * (seen > 0)
    rule = AdamWithoutMomentum(lr, beta_2, epsilon, {'w': tf.Variable(before)}, float(seen))
    problem = quadratic_problem(quadratics, quadratics['start'], rule)
    ours = inner_loop(problem, steps)
    weights, moments = np.tile(quadratics['start'], (TASKS, 1)), np.tile(before, (TASKS, 1))
    for t in range(1, steps + 1):
        gradients = np.einsum('tij,tj->ti', quadratics['hessians'], weights - quadratics['centres'])
        moments = beta_2 * moments + (1 - beta_2) * gradients**2
        corrected = moments / (1 - beta_2 ** (seen + t))
        weights = weights - lr * gradients / (np.sqrt(corrected) + epsilon)
        np.testing.assert_allclose(ours.fast_weights[t]['w'], weights, rtol=1e-10)
    np.testing.assert_allclose(ours.slots['w'], moments, rtol=1e-12)


def test_adam_without_momentum_is_tensorflow_s_adam_to_the_last_digits(quadratics):
    """The bias correction is of the rate, so that epsilon counts as in TF1's and Keras' Adam."""
    lr, beta_2, epsilon, steps = 0.05, 0.99, 0.1, 4
    rule = AdamWithoutMomentum(lr, beta_2, epsilon)
    ours = inner_loop(quadratic_problem(quadratics, quadratics['start'], rule), steps)
    weights, moments = np.tile(quadratics['start'], (TASKS, 1)), np.zeros((TASKS, SIZE))
    for t in range(1, steps + 1):
        gradients = np.einsum('tij,tj->ti', quadratics['hessians'], weights - quadratics['centres'])
        moments = beta_2 * moments + (1 - beta_2) * gradients**2
        rate = lr * np.sqrt(1 - beta_2**t)
        weights = weights - rate * gradients / (np.sqrt(moments) + epsilon)
        np.testing.assert_allclose(ours.fast_weights[t]['w'], weights, rtol=1e-12)


def test_learnt_rates_are_one_for_every_entry(quadratics):
    rates = np.linspace(-0.05, 0.2, SIZE)
    rule = LearntRates({'w': tf.Variable(rates)})
    problem = quadratic_problem(quadratics, quadratics['start'], rule)
    ours = inner_loop(problem, 1).fast_weights[1]['w']
    gradients = np.einsum(
        'tij,tj->ti', quadratics['hessians'], quadratics['start'] - quadratics['centres']
    )
    np.testing.assert_allclose(ours, quadratics['start'] - rates * gradients, rtol=1e-12)


NETWORKS = {
    'fully connected': lambda norm: FullyConnected((5,), 3, (7, 6), norm),
    'strided conv': lambda norm: ConvNet((9, 9, 2), 3, 4, norm),
    'max-pool conv': lambda norm: ConvNet((17, 17, 1), 3, 3, norm, max_pool=True, head='flatten'),
}


def random_task(shape, way, objective, rng):
    images = lambda k: tf.constant(rng.normal(size=(2, way * k, *shape)))
    if isinstance(objective, Regression):
        targets = lambda k: tf.constant(rng.normal(size=(2, way * k, way)))
    else:
        targets = lambda k: tf.constant(np.tile(np.repeat(np.eye(way), k, axis=0), (2, 1, 1)))
    return Task(images(2), targets(2), images(3), targets(3))


@pytest.mark.parametrize(
    'objective',
    [
        pytest.param(Classification(), id='classification'),
        pytest.param(Regression(), id='regression', marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize(
    'network',
    [pytest.param(name, marks=[pytest.mark.slow] * (name == 'max-pool conv')) for name in NETWORKS],
)
def test_meta_gradient_agrees_with_finite_differences(network, norm, objective):
    rng = np.random.default_rng(1)
    network = NETWORKS[network](norm)
    learner = MAML(network, objective, inner_lr=0.05, inner_steps=2, dtype='float64')
    for variable in learner.trainable_variables:  # Zero biases would sit on ReLU's kink.
        variable.assign(variable + rng.normal(size=variable.shape) * 0.3)
    task = random_task(network.input_shape, 3, objective, rng)
    update = tf.function(learner.meta_gradients, autograph=False)
    gradients = update(task, STEP).gradients
    loss = lambda: update(task, STEP).log['post_loss']
    scale = max(np.abs(g).max() for g in gradients)
    for variable, gradient in zip(learner.trainable_variables, gradients):
        direction = rng.normal(size=variable.shape)
        direction /= np.linalg.norm(direction)
        value, epsilon = variable.numpy(), 1e-6
        ends = []
        for sign in (1, -1):
            variable.assign(value + sign * epsilon * direction)
            ends.append(float(loss()))
        variable.assign(value)
        difference = (ends[0] - ends[1]) / (2 * epsilon)
        assert abs(difference - np.sum(direction * gradient)) < 1e-6 * scale, variable.name


def test_convolution_bias_before_batch_norm_has_no_meta_gradient():
    """The symptom of a variance that holds its mean constant (tf.nn.moments)."""
    rng = np.random.default_rng(2)
    network = NETWORKS['strided conv']('batch_norm')
    learner = MAML(network, Classification(), inner_lr=0.4, inner_steps=1, dtype='float64')
    task = random_task(network.input_shape, 3, Classification(), rng)
    gradients = learner.meta_gradients(task, STEP).gradients
    by_name = {v.name: np.abs(g).max() for v, g in zip(learner.trainable_variables, gradients)}
    assert max(by_name[f'b{i}'] for i in (1, 2, 3, 4)) < 1e-12 * by_name['conv1']
