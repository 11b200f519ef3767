"""iMAML against closed forms, a NumPy program of its equations and its own derivative."""

import numpy as np
import optimisation_oracle as oracle
import pytest
import relatives_oracle
import tensorflow as tf

from maml_tf.algorithms.optimisation.imaml import IMAML
from maml_tf.episodes.task import Task
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import Classification, MeanClassification
from maml_tf.objectives.regression import Regression

TASKS, FEATURES, WAY, SHOTS = 3, 4, 3, 2
NORMS = ['None', 'batch_norm', 'layer_norm']
STEP = tf.constant(0, tf.int64)


def random_tasks(rng, regression=False, way=WAY, scales=(1.0,) * TASKS):
    """Tasks as the oracle takes them; `scales` are of their inputs, so of their curvatures."""
    labels = lambda shots: np.repeat(np.eye(way), shots, axis=0)
    if regression:
        labels = lambda shots: rng.normal(size=(way * shots, way))
    draw = lambda shots, scale: (
        scale * rng.normal(size=(way * shots, FEATURES)),
        labels(shots),
    )
    return [(*draw(SHOTS, scale), *draw(SHOTS + 1, scale)) for scale in scales]


def stacked(tasks):
    return Task(*(tf.constant(np.stack(arrays)) for arrays in zip(*tasks)))


def random_learner(norm='None', hidden=(4, 3), objective=None, way=WAY, dtype='float64', **kwargs):
    """A learner whose weights are all far from where they start."""
    rng = np.random.default_rng(0)
    network = FullyConnected((FEATURES,), way, hidden, norm)
    learner = IMAML(network, objective or Classification(), dtype=dtype, **kwargs)
    for variable in learner.meta_weights.values():
        variable.assign(0.5 * rng.normal(size=variable.shape))
    return learner


def values(learner):
    return {name: np.array(variable) for name, variable in learner.meta_weights.items()}


def by_name(learner, gradients):
    """{name: array}; every trainable variable is a weight."""
    assert len(gradients) == len(learner.trainable_variables)
    of = {id(v): np.array(g) for v, g in zip(learner.trainable_variables, gradients)}
    result = {name: of.pop(id(v)) for name, v in learner.meta_weights.items()}
    assert not of
    return result


def meta_gradient(learner, tasks):
    return by_name(learner, learner.meta_gradients(stacked(tasks), STEP).gradients)


def assert_alike(ours, theirs, rtol=1e-8, atol=1e-11):
    assert ours.keys() == theirs.keys()
    # Zeros would agree too easily.
    assert max(np.abs(value).max() for value in theirs.values()) > 1e-2
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol, atol, err_msg=name)


def largest_difference(one, other):
    return max(np.abs(one[name] - other[name]).max() for name in one)


# Linear regression: W = (w; b), X = (x, 1), g = 2 X'(XW - Y) / n, H = 2 X'X / n, n targets


def with_ones(x):
    return np.hstack([x, np.ones((len(x), 1))])


def joined(weights):
    return np.vstack([weights['w1'], weights['b1']])


def hessian(task):
    x = with_ones(task[0])
    return 2 * x.T @ x / task[1].size


def proximal_solution(start, task, regularisation):
    """argmin L_support(W) + lambda / 2 |W - start|^2: (H + lambda) W = 2 X'Y / n + lambda start."""
    right = 2 * with_ones(task[0]).T @ task[1] / task[1].size + regularisation * start
    return np.linalg.solve(hessian(task) + regularisation * np.eye(len(start)), right)


def query_loss(weights, task):
    return ((with_ones(task[2]) @ weights - task[3]) ** 2).mean()


def query_gradient(weights, task):
    x = with_ones(task[2])
    return 2 * x.T @ (x @ weights - task[3]) / task[3].size


def closed_form(start, tasks, regularisation):
    """(mean meta-gradient, mean query loss) at the minimisers."""
    gradients, losses = [], []
    for task in tasks:
        solution = proximal_solution(start, task, regularisation)
        matrix = np.eye(len(start)) + hessian(task) / regularisation
        gradients.append(np.linalg.solve(matrix, query_gradient(solution, task)))
        losses.append(query_loss(solution, task))
    return np.mean(gradients, 0), np.mean(losses)


def linear_learner(way, steps=140, lr=0.1, regularisation=2.0, cg_steps=None, **kwargs):
    return random_learner(
        hidden=(),
        objective=Regression(),
        way=way,
        inner_lr=lr,
        inner_steps=steps,
        regularisation=regularisation,
        cg_steps=cg_steps or (FEATURES + 1) * way,
        **kwargs,
    )


@pytest.mark.parametrize('regularisation', [2.0, 5.0])
@pytest.mark.parametrize('way', [1, 3])
def test_closed_form(way, regularisation):
    """As many conjugate gradient steps as weights; with several outputs fewer would do.

    So the steps after the exact solution, whose residual is of rounding errors, change nothing.
    """
    learner = linear_learner(way, regularisation=regularisation)
    tasks = random_tasks(np.random.default_rng(1), regression=True, way=way)
    gradient, loss = closed_form(joined(values(learner)), tasks, regularisation)
    update = learner.meta_gradients(stacked(tasks), STEP)
    assert np.abs(gradient).max() > 0.1
    ours = joined(by_name(learner, update.gradients))
    np.testing.assert_allclose(ours, gradient, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(update.log['post_loss'], loss, rtol=1e-10)


def test_the_inner_loop_ends_at_the_minimiser():
    learner, tasks = linear_learner(2), random_tasks(np.random.default_rng(2), True, way=2)
    task = stacked(tasks)
    state = learner.adapt(task.support_x, task.support_y)
    start = joined(values(learner))
    for i, one in enumerate(tasks):
        ours = np.vstack([state['w1'][i], np.atleast_2d(state['b1'][i])])
        solution = proximal_solution(start, one, 2.0)
        assert np.abs(solution - start).max() > 0.1
        np.testing.assert_allclose(ours, solution, rtol=1e-10, atol=1e-12)


def test_it_is_the_derivative_of_the_minimiser_s_query_loss():
    """Against central differences of the exact proximal solution with respect to theta."""
    learner, tasks = linear_learner(2), random_tasks(np.random.default_rng(3), True, way=2)

    def mean_loss(weights):
        start = joined(weights)
        return np.mean([query_loss(proximal_solution(start, t, 2.0), t) for t in tasks])

    differences = oracle.finite_differences(mean_loss, values(learner))
    assert_alike(meta_gradient(learner, tasks), differences, 1e-7, 1e-9)


@pytest.mark.parametrize('norm', ['None', 'layer_norm'])
def test_it_is_the_derivative_of_a_network_s_query_loss(norm):
    """Where the loop has converged: against the complex step through all of its steps in NumPy.

    The weights of the normalisation adapt, too.
    """
    # Of tasks whose loss has its minimum at no kink of ReLU.
    steps, lr, regularisation = 60, 0.1, 5.0
    learner = random_learner(
        norm,
        hidden=(3,),
        objective=Regression(),
        inner_lr=lr,
        inner_steps=steps,
        regularisation=regularisation,
        cg_steps=40,
    )
    tasks, weights = random_tasks(np.random.default_rng(7), regression=True), values(learner)

    def mean_loss(weights):
        settings = lr, steps, regularisation
        ends = [relatives_oracle.imaml_end(weights, task, *settings) for task in tasks]
        return sum(oracle.loss(end, *task[2:]) for end, task in zip(ends, tasks)) / TASKS

    for task in tasks:
        *_, before, end = relatives_oracle.imaml_trajectory(
            weights, task, lr, steps, regularisation
        )
        assert largest_difference(before, end) < 1e-12 and largest_difference(weights, end) > 0.1
    expected = oracle.complex_step_gradient(mean_loss, weights)
    assert_alike(meta_gradient(learner, tasks), expected, 1e-7, 1e-9)


# Few steps


LR, STEPS, REGULARISATION = 0.1, 2, 1.5
OBJECTIVES = {
    'classification': Classification,
    'mean classification': MeanClassification,
    'regression': Regression,
}


def short_learner(norm='None', cg_steps=3, **kwargs):
    """Far from any solution."""
    settings = {'inner_lr': LR, 'inner_steps': STEPS, 'regularisation': REGULARISATION, **kwargs}
    return random_learner(norm, cg_steps=cg_steps, **settings)


def of_the_oracle(learner, tasks, cg_steps=3, shots=SHOTS, released=False):
    settings = LR, STEPS, REGULARISATION, cg_steps, shots, released
    return relatives_oracle.imaml_gradients(values(learner), tasks, *settings)


@pytest.mark.parametrize('norm', NORMS)
def test_products_with_the_hessian_of_the_oracle(norm):
    """The complex step against central differences of the gradient."""
    learner, task = short_learner(norm), random_tasks(np.random.default_rng(5))[0]
    rng, weights = np.random.default_rng(6), values(learner)
    vector = {name: rng.normal(size=value.shape) for name, value in weights.items()}
    ours = relatives_oracle.hessian_product(weights, vector, *task[:2], SHOTS)
    ends = [
        oracle.gradient(relatives_oracle.plus(weights, h, vector), *task[:2], SHOTS)
        for h in (1e-6, -1e-6)
    ]
    assert_alike(ours, {k: (ends[0][k] - ends[1][k]) / 2e-6 for k in vector}, 1e-5, 1e-7)


@pytest.mark.parametrize('released', [False, True])
@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('kind', OBJECTIVES)
def test_meta_gradient(kind, norm, released):
    """After two inner steps and three of the conjugate gradients."""
    learner = short_learner(norm, objective=OBJECTIVES[kind](), released=released)
    tasks = random_tasks(np.random.default_rng(7), kind == 'regression')
    support, query = len(tasks[0][0]), len(tasks[0][2])
    shots = {'classification': SHOTS, 'mean classification': support, 'regression': None}[kind]
    # The oracle divides both losses by `shots`, a mean each by the number of its examples; what
    # the conjugate gradients give is linear in the query gradient.
    factor = support / query if kind == 'mean classification' else 1.0
    both = [of_the_oracle(learner, tasks, 3, shots, r) for r in (released, not released)]
    expected, other = ({k: factor * v for k, v in gradient.items()} for gradient in both)
    ours = meta_gradient(learner, tasks)
    assert_alike(ours, expected)
    assert largest_difference(ours, other) > 1e-3


@pytest.mark.parametrize('released', [False, True])
def test_the_log(released):
    """The support loss before adaptation, the query loss where the gradient is taken."""
    learner, tasks = short_learner(released=released), random_tasks(np.random.default_rng(8))
    log, weights = learner.meta_gradients(stacked(tasks), STEP).log, values(learner)
    settings = LR, STEPS, REGULARISATION, SHOTS, released
    ends = [relatives_oracle.imaml_end(weights, task, *settings) for task in tasks]
    after = [oracle.loss(end, *task[2:], SHOTS) for end, task in zip(ends, tasks)]
    np.testing.assert_allclose(log['post_loss'], np.mean(after), rtol=1e-10)
    if 'pre_loss' in log:
        before = [oracle.loss(weights, *task[:2], SHOTS) for task in tasks]
        np.testing.assert_allclose(log['pre_loss'], np.mean(before), rtol=1e-10)


@pytest.mark.parametrize('released', [False, True])
@pytest.mark.parametrize('cg_steps', [2, 6])
def test_every_task_has_a_system_of_its_own(cg_steps, released):
    """Of very different curvatures: together they take no other steps than alone."""
    settings = {'objective': Regression(), 'inner_lr': LR / 5, 'released': released}
    learner = short_learner('None', cg_steps, **settings)
    tasks = random_tasks(np.random.default_rng(9), True, scales=(0.1, 1.0, 6.0))
    single = [meta_gradient(learner, [task]) for task in tasks]
    assert_alike(meta_gradient(learner, tasks), oracle.mean(single))
    theirs = relatives_oracle.imaml_gradients(
        values(learner), tasks, LR / 5, STEPS, REGULARISATION, cg_steps, None, released
    )
    assert_alike(meta_gradient(learner, tasks), theirs, 1e-7, 1e-9)
    assert_alike(meta_gradient(learner, tasks[::-1]), theirs, 1e-7, 1e-9)
    # The curvature of the last task matters, that of the first hardly.
    products = []
    for task in tasks:
        weights, norm = values(learner), lambda v: np.sqrt(relatives_oracle.dot(v, v))
        slope = oracle.gradient(weights, *task[2:])
        image = relatives_oracle.hessian_product(weights, slope, *task[:2])
        products.append(norm(image) / norm(slope))
    assert products[2] > 30 * products[0]


@pytest.mark.parametrize('cg_steps', [1, 2, 5])
def test_steps_of_the_conjugate_gradients(cg_steps):
    learner, tasks = short_learner(cg_steps=cg_steps), random_tasks(np.random.default_rng(10))
    ours = meta_gradient(learner, tasks)
    assert_alike(ours, of_the_oracle(learner, tasks, cg_steps))
    assert largest_difference(ours, of_the_oracle(learner, tasks, cg_steps + 1)) > 1e-5


@pytest.mark.parametrize('cg_steps', [0, 1])
def test_the_released_code_solves_nothing_in_so_few_steps(cg_steps):
    """It takes the query gradient itself, where one step would scale it."""
    learner = short_learner(cg_steps=cg_steps, released=True)
    tasks, weights = random_tasks(np.random.default_rng(11)), values(learner)
    settings = LR, STEPS, REGULARISATION, SHOTS, True
    ends = [relatives_oracle.imaml_end(weights, task, *settings) for task in tasks]
    slopes = [oracle.gradient(end, *task[2:], SHOTS) for end, task in zip(ends, tasks)]
    assert_alike(meta_gradient(learner, tasks), oracle.mean(slopes))


def test_without_conjugate_gradients_it_is_of_first_order():
    """The query gradient at the end of the proximal steps."""
    learner = short_learner(cg_steps=0)
    tasks, weights = random_tasks(np.random.default_rng(11)), values(learner)
    settings = LR, STEPS, REGULARISATION, SHOTS
    ends = [relatives_oracle.imaml_end(weights, task, *settings) for task in tasks]
    slopes = [oracle.gradient(end, *task[2:], SHOTS) for end, task in zip(ends, tasks)]
    assert_alike(meta_gradient(learner, tasks), oracle.mean(slopes))


def test_meta_gradients_change_no_variable():
    learner, tasks = short_learner(), random_tasks(np.random.default_rng(13))
    before = [np.array(v) for v in learner.variables]
    update = learner.meta_gradients(stacked(tasks), STEP)
    assert not update.state
    for value, variable in zip(before, learner.variables, strict=True):
        np.testing.assert_array_equal(value, variable)


# Systems that are solved early


@pytest.mark.parametrize('released', [False, True])
def test_without_a_gradient_there_is_none(released):
    """From zero, targets of zero leave the weights where they are, and no query loss."""
    learner = linear_learner(1, steps=3, cg_steps=4, released=released)
    for variable in learner.meta_weights.values():
        variable.assign(tf.zeros_like(variable))
    learnt, solved = random_tasks(np.random.default_rng(14), True, way=1, scales=(1.0, 1.0))
    solved = solved[0], 0 * solved[1], solved[2], 0 * solved[3]
    for name, gradient in meta_gradient(learner, [solved]).items():
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient), err_msg=name)
    alone = meta_gradient(learner, [learnt])
    together = meta_gradient(learner, [learnt, solved])
    assert_alike(together, {name: gradient / 2 for name, gradient in alone.items()})


@pytest.mark.parametrize('released', [False, True])
def test_a_system_that_one_step_solves(released):
    """Inputs of zero leave the bias alone: H = 2 in it; the steps after the first do nothing.

    The numbers are powers of two, so that the residual is an exact zero.
    """
    regularisation = 6.0 if released else 2.0
    learner = linear_learner(1, 1, 0.25, regularisation, cg_steps=6, released=released)
    for variable in learner.meta_weights.values():
        variable.assign(tf.zeros_like(variable))
    points = np.zeros((2, FEATURES))
    task = points, np.ones((2, 1)), points, -np.ones((2, 1))
    ours = meta_gradient(learner, [task])
    # One step of 0.25 on (b - 1)^2 is to 0.5; the released code then goes back by 0.25 * 6 * 0.5.
    bias = 0.5 - 0.75 if released else 0.5
    eigenvalue = 2 + 2 / 16 if released else 1 + 2 / 2
    np.testing.assert_allclose(ours['b1'], [2 * (bias + 1) / eigenvalue], rtol=1e-12)
    np.testing.assert_array_equal(ours['w1'], np.zeros((FEATURES, 1)))


@pytest.mark.parametrize('cg_steps', [6, 100])
@pytest.mark.parametrize('scale', [1.0, 1e-12])
def test_steps_after_the_solution_in_single_precision(scale, cg_steps):
    """The residual falls until its square underflows; the solution stays, of small ones too."""
    learner = linear_learner(1, cg_steps=cg_steps, dtype='float32')
    for variable in learner.meta_weights.values():
        variable.assign(scale * variable)
    tasks = random_tasks(np.random.default_rng(17), regression=True, way=1)
    tasks = [(x, scale * y, z, scale * t) for x, y, z, t in tasks]
    gradient, _ = closed_form(joined(values(learner)), tasks, 2.0)
    update = learner.meta_gradients(stacked(tasks).cast('float32'), STEP)
    ours = joined(by_name(learner, update.gradients))
    np.testing.assert_allclose(ours / scale, gradient / scale, rtol=1e-4, atol=1e-4)


# Evaluation


@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('released', [False, True])
def test_query_outputs_after_every_step(released, norm):
    """The paper's steps are proximal in evaluation too; the released code's are plain."""
    learner = short_learner(norm, released=released)
    tasks, steps = random_tasks(np.random.default_rng(15)), 4
    ours = learner.query_outputs(stacked(tasks), steps)
    assert len(ours) == steps + 1
    for i, task in enumerate(tasks):
        trajectories = [
            relatives_oracle.imaml_trajectory(values(learner), task, LR, steps, r, SHOTS)
            for r in (0.0, REGULARISATION)
        ]
        plain, proximal = (
            np.array([oracle.outputs(phi, task[2]) for phi in trajectory])
            for trajectory in trajectories
        )
        expected = plain if released else proximal
        np.testing.assert_allclose(ours[:, i], expected, rtol=1e-9, atol=1e-10)
        assert np.abs(plain - proximal)[2:].max() > 1e-2  # The first step is the same.


@pytest.mark.parametrize('released', [False, True])
def test_adapted_weights(released):
    learner = short_learner('layer_norm', released=released)
    tasks = random_tasks(np.random.default_rng(16))
    task, regularisation = stacked(tasks), 0.0 if released else REGULARISATION
    for steps in (0, 1, 5, None):
        state = learner.adapt(task.support_x, task.support_y, steps)
        assert state.keys() == learner.meta_weights.keys()
        outputs = learner.predict_query(state, task.query_x)
        taken = STEPS if steps is None else steps  # None: as many as in training.
        for i, one in enumerate(tasks):
            phi = relatives_oracle.imaml_trajectory(
                values(learner), one, LR, taken, regularisation, SHOTS
            )[-1]
            for name, value in state.items():
                np.testing.assert_allclose(
                    np.reshape(value[i], phi[name].shape), phi[name], rtol=1e-9, atol=1e-11
                )
            np.testing.assert_allclose(
                outputs[i], oracle.outputs(phi, one[2]), rtol=1e-9, atol=1e-10
            )


def test_all_weights_are_trained_and_adapted():
    learner = IMAML(FullyConnected((FEATURES,), WAY, (4,), 'batch_norm'), Classification())
    assert {id(v) for v in learner.trainable_variables} == {
        id(v) for v in learner.meta_weights.values()
    }
    assert all(learner.adapts(name) for name in learner.meta_weights)
    assert 'norm0_beta' in learner.meta_weights
