"""The inner loop against closed forms and finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.task import Task
from maml_tf.inner_loop import inner_loop, read_out_every_step, stack_over_tasks
from maml_tf.networks.reference import NORMS, ConvNet, FullyConnected
from maml_tf.objectives import Classification, Regression
from maml_tf.update_rules import gradient_descent

ALPHA, TASKS, SIZE = 0.1, 3, 4


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


def quadratic_loss(hessians, centres):
    def loss(weights, step):
        del step
        offset = weights['w'] - centres
        return tf.einsum('ti,tij,tj->t', offset, hessians, offset) / 2, offset

    return loss


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
        stacked = stack_over_tasks({'w': tf.convert_to_tensor(theta)}, TASKS)
        adapted = inner_loop(
            quadratic_loss(hessians, centres), stacked, gradient_descent(ALPHA), steps, stop_grad
        )
        query_loss = tf.reduce_sum(tf.square(adapted.fast_weights[-1]['w'] - goals)) / 2 / TASKS
    expected, expected_weights = np.zeros(SIZE), []
    for hessian, centre, goal in zip(hessians, centres, goals):
        jacobian = np.linalg.matrix_power(np.eye(SIZE) - ALPHA * hessian, steps)
        weights = centre + jacobian @ (start - centre)
        expected_weights.append(weights)
        expected += (np.eye(SIZE) if stop_grad else jacobian) @ (weights - goal) / TASKS
    np.testing.assert_allclose(adapted.fast_weights[-1]['w'], expected_weights, rtol=1e-12)
    np.testing.assert_allclose(tape.gradient(query_loss, theta), expected, rtol=1e-10)


def test_graph_loop_takes_the_same_steps(quadratics):
    problem = (
        quadratic_loss(quadratics['hessians'], quadratics['centres']),
        stack_over_tasks({'w': tf.constant(quadratics['start'])}, TASKS),
        gradient_descent(ALPHA),
    )
    unrolled = tf.stack([weights['w'] for weights in inner_loop(*problem, 4).fast_weights])
    looped = tf.function(read_out_every_step, jit_compile=True)(
        *problem, 4, lambda weights: weights['w']
    )
    np.testing.assert_allclose(looped, unrolled, rtol=1e-12)


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
    'objective', [Classification(), Regression()], ids=['classification', 'regression']
)
@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('network', NETWORKS)
def test_meta_gradient_agrees_with_finite_differences(network, norm, objective):
    rng = np.random.default_rng(1)
    network = NETWORKS[network](norm)
    learner = MAML(network, objective, inner_lr=0.05, inner_steps=2, dtype='float64')
    for variable in learner.trainable_variables:  # Zero biases would sit on ReLU's kink.
        variable.assign(variable + rng.normal(size=variable.shape) * 0.3)
    task = random_task(network.input_shape, 3, objective, rng)
    gradients = tf.function(learner.meta_gradients, autograph=False)(task)[0]
    loss = tf.function(lambda: learner.meta_loss(task)[0], autograph=False)
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
    gradients, _ = learner.meta_gradients(
        random_task(network.input_shape, 3, Classification(), rng)
    )
    by_name = {v.name: np.abs(g).max() for v, g in zip(learner.trainable_variables, gradients)}
    assert max(by_name[f'b{i}'] for i in (1, 2, 3, 4)) < 1e-12 * by_name['conv1']
