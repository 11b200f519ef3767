"""Ridge regression, logistic regression and the SVM, and the learners whose heads they are: against
NumPy, optimality conditions and finite differences."""

import functools

import heads_oracle as oracle
import keras
import metric_oracle
import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

from maml_tf.algorithms.closed_form.crammer_singer import crammer_singer
from maml_tf.algorithms.closed_form.logistic import logistic_regression
from maml_tf.algorithms.closed_form.lrd2 import LRD2
from maml_tf.algorithms.closed_form.metaoptnet import MetaOptNet
from maml_tf.algorithms.closed_form.r2d2 import R2D2
from maml_tf.algorithms.closed_form.ridge import ridge_regression
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError
from maml_tf.objectives.classification import MeanClassification

STEP = tf.constant(0, tf.int64)


def shuffled_labels(rng, way, shot):
    """One-hot rows, `shot` of each class in any order."""
    return np.eye(way)[rng.permutation(np.repeat(np.arange(way), shot))]


def problem(seed, way, shot, features, scale=1.0, tasks=3):
    """Features whose classes have different means, and labels: [tasks, n, ...]."""
    rng = np.random.default_rng(seed)
    y = np.stack([shuffled_labels(rng, way, shot) for _ in range(tasks)])
    x = rng.normal(size=(tasks, way * shot, features))
    return scale * (x + y @ rng.normal(size=(tasks, way, features))), y


def each_task(solve, *arrays):
    return np.stack([solve(*parts) for parts in zip(*arrays, strict=True)])


def check_gradient(solve, solve_in_numpy, x, y, step=1e-5, rtol=1e-5):
    """The gradient of sum(G * solution) in every task's x, G random, by central differences."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        solution = solve(x, y)
        weights = np.random.default_rng(0).normal(size=solution.shape)
        loss = tf.reduce_sum(weights * solution)
    gradients = tape.gradient(loss, x).numpy()
    for gradient, features, labels, weight in zip(gradients, x.numpy(), y, weights, strict=True):
        expected = metric_oracle.finite_difference_gradient(
            lambda value: np.sum(weight * solve_in_numpy(value, labels)), features, step
        )
        largest = np.abs(expected).max()
        assert largest > 1e-3
        np.testing.assert_allclose(gradient, expected, rtol=rtol, atol=rtol * largest)


# (way, shot, features): fewer and more examples than features, one of each class and many.
SIZES = [(2, 1, 5), (5, 1, 16), (3, 4, 4), (5, 5, 7), (4, 2, 8)]


# The oracle itself.


def test_projection_by_hand():
    bounds = np.array([[0.1, 0, 0], [0.1, 0, 0], [0.1, 0, 0], [0, 0, 0]])
    values = np.array([[5.0, 0, 0], [0.05, -0.04, -0.01], [-1, 0, 3], [1, 2, 3]])
    expected = [[0.1, -0.05, -0.05], [0.05, -0.04, -0.01], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(oracle.project(values, bounds), expected, atol=1e-15)


@pytest.mark.parametrize('kernel', [0.5, 3.0, 20.0])
def test_the_svm_of_two_examples_by_hand(kernel):
    """Two classes and K = kernel I: alpha is +-min(C, 1 / (2 (kernel + ridge)))."""
    a = min(0.1, 1 / (2 * (kernel + 1)))
    expected = [[a, -a], [-a, a]]
    np.testing.assert_allclose(
        oracle.crammer_singer(kernel * np.eye(2), np.eye(2)), expected, atol=1e-10
    )
    alpha = crammer_singer(kernel * tf.eye(2, dtype=tf.float64)[None], np.eye(2)[None])
    np.testing.assert_allclose(alpha[0], expected, atol=1e-7)


# Ridge regression.


@pytest.mark.parametrize('weight', [0.01, 1.0, 50.0])
@pytest.mark.parametrize('way, shot, features', SIZES)
def test_ridge_regression(way, shot, features, weight):
    x, y = problem(1, way, shot, features)
    expected = each_task(functools.partial(oracle.ridge_regression, weight=weight), x, y)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(ridge_regression(x, y, weight), expected, rtol=1e-7, atol=1e-9)
    single = ridge_regression(tf.constant(x, tf.float32), tf.constant(y, tf.float32), weight)
    assert single.dtype == tf.float32
    np.testing.assert_allclose(single, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())


def test_ridge_regression_of_targets_that_are_no_labels():
    x, _ = problem(2, 3, 2, 4)
    y = np.random.default_rng(2).normal(size=(3, 6, 2))
    expected = each_task(functools.partial(oracle.ridge_regression, weight=0.3), x, y)
    np.testing.assert_allclose(ridge_regression(x, y, 0.3), expected, rtol=1e-7)


@pytest.mark.parametrize('features', [4, 20])
def test_dividing_both_sides_by_the_root_of_n_multiplies_the_weight_by_n(features):
    x, y = problem(3, 3, 4, features)
    root = np.sqrt(12)
    np.testing.assert_allclose(
        ridge_regression(x / root, y / root, 0.7), ridge_regression(x, y, 12 * 0.7), rtol=1e-9
    )


@pytest.mark.parametrize('features', [4, 20])
def test_ridge_regression_in_the_limits(features):
    """Without a penalty it is the pseudo-inverse, with a large one X'Y / weight."""
    x, y = problem(4, 3, 3, features)
    np.testing.assert_allclose(
        ridge_regression(x, y, 1e-9), each_task(lambda x, y: np.linalg.pinv(x) @ y, x, y), atol=1e-6
    )
    np.testing.assert_allclose(
        1e9 * ridge_regression(x, y, 1e9), np.swapaxes(x, 1, 2) @ y, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize('way, shot, features', [(3, 1, 5), (2, 3, 3)])
def test_gradient_of_ridge_regression(way, shot, features):
    x, y = problem(5, way, shot, features, tasks=2)
    check_gradient(
        lambda x, y: ridge_regression(x, y, 0.5),
        lambda x, y: oracle.ridge_regression(x, y, 0.5),
        x,
        y,
    )


# Logistic regression.


@pytest.mark.parametrize('weight, steps', [(1.0, 1), (50.0, 5), (0.1, 5), (1.0, 10)])
@pytest.mark.parametrize('way, shot, features', SIZES)
def test_logistic_regression(way, shot, features, weight, steps):
    x, y = problem(6, way, shot, features)
    solve = functools.partial(oracle.logistic_regression, weight=weight, steps=steps)
    expected = each_task(solve, x, y)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(
        logistic_regression(x, y, weight, steps), expected, rtol=1e-6, atol=1e-8
    )
    single = logistic_regression(
        tf.constant(x, tf.float32), tf.constant(y, tf.float32), weight, steps
    )
    assert single.dtype == tf.float32
    np.testing.assert_allclose(single, expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())


def test_no_step_of_logistic_regression_leaves_zeros():
    x, y = problem(7, 3, 2, 4)
    np.testing.assert_array_equal(logistic_regression(x, y, 1.0, 0), np.zeros((3, 4, 3)))


@pytest.mark.parametrize('features', [3, 12])
def test_logistic_regression_ends_where_the_likelihood_is_largest(features):
    x, y = problem(8, 3, 3, features)
    few, many = (logistic_regression(x, y, 0.5, steps).numpy() for steps in (2, 15))
    slopes = [
        each_task(lambda x, y, w: oracle.logistic_slope(x, y, 0.5, w), x, y, w) for w in (few, many)
    ]
    assert np.abs(slopes[0]).max() > 1e-3
    np.testing.assert_allclose(slopes[1], np.zeros_like(many), atol=1e-9)


@pytest.mark.parametrize('features', [3, 12])
def test_rows_of_zeros_change_no_logistic_regression(features):
    """Whatever their labels are."""
    x, y = problem(9, 3, 2, features)
    places = [0, 2, 2, 6]
    filled = np.insert(x, places, 0.0, axis=1)
    for label in (0.0, 1.0):
        labels = np.insert(y, places, label, axis=1)
        np.testing.assert_allclose(
            logistic_regression(filled, labels, 0.5, 5),
            logistic_regression(x, y, 0.5, 5),
            rtol=1e-8,
            atol=1e-10,
        )


def test_certain_logistic_regression_in_float32():
    """In float32 a probability of 1 - 1e-9 is 1, and its curvature would be 0."""
    x, y = problem(10, 3, 2, 12)
    steps, weight = 40, 1e-8
    w = each_task(functools.partial(oracle.logistic_regression, weight=weight, steps=steps), x, y)
    assert (np.abs(x @ w) > 17).all()
    with tf.GradientTape() as tape:
        single = tf.constant(x, tf.float32)
        tape.watch(single)
        w = logistic_regression(single, tf.constant(y, tf.float32), weight, steps)
    assert np.isfinite(w).all() and np.isfinite(tape.gradient(w, single)).all()
    np.testing.assert_array_equal(x @ w.numpy() > 5, y > 0)
    np.testing.assert_array_equal(x @ w.numpy() < -5, y == 0)


@pytest.mark.parametrize('way, shot, features', [(3, 1, 5), (2, 3, 3)])
@pytest.mark.parametrize('steps', [1, 5])
def test_gradient_of_logistic_regression(way, shot, features, steps):
    x, y = problem(11, way, shot, features, tasks=2)
    check_gradient(
        lambda x, y: logistic_regression(x, y, 0.5, steps),
        lambda x, y: oracle.logistic_regression(x, y, 0.5, steps),
        x,
        y,
    )


# The SVM.

SCALES = (0.03, 0.3, 1.0, 3.0, 10.0)  # Of the features: kernels from 1e-3 to 1e3.
# (penalty, ridge): mostly the paper's; the last penalty is above what any example needs.
PENALTIES = ((0.1, 1.0), (0.1, 1.0), (0.5, 0.3), (2.0, 1.0))


@functools.cache
def svm_problems(way):
    """Ten problems of 1 to 5 shots in pairs of one size: (kernels, labels, penalty, ridge,
    alphas)."""
    problems = []
    for shot in range(1, 6):
        n, kernels, labels = way * shot, [], []
        for i, features in enumerate((max(2, n // 2), n + 3)):  # Singular, and not.
            scale = SCALES[(way + shot + 2 * i) % len(SCALES)]
            x, y = problem(100 * way + 10 * shot + i, way, shot, features, scale, tasks=1)
            kernels.append(x[0] @ x[0].T)
            labels.append(y[0])
        settings = PENALTIES[(2 * way + shot) % len(PENALTIES)]
        alphas = [oracle.crammer_singer(k, y, *settings) for k, y in zip(kernels, labels)]
        problems.append((np.stack(kernels), np.stack(labels), *settings, np.stack(alphas)))
    return problems


WAYS = [2, 3, 4, 5, 6]


@pytest.mark.parametrize('way', WAYS)
def test_svm_against_projected_gradients(way):
    for kernels, labels, penalty, ridge, expected in svm_problems(way):
        alpha = crammer_singer(kernels, labels, penalty, ridge)
        np.testing.assert_allclose(alpha, expected, atol=1e-5)
        np.testing.assert_allclose(kernels @ alpha, kernels @ expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('way', WAYS)
def test_svm_is_optimal(way):
    """By the conditions themselves, whatever another solver says."""
    for kernels, labels, penalty, ridge, _ in svm_problems(way):
        alpha = crammer_singer(kernels, labels, penalty, ridge).numpy()
        for task in zip(kernels, labels, alpha, strict=True):
            feasibility, complementarity, _ = oracle.kkt(*task, penalty, ridge)
            assert feasibility < 1e-7
            assert complementarity < 1e-5


def test_the_problems_reach_all_kinds_of_bounds():
    """And the oracle solves each of them."""
    kinds = dict.fromkeys(('example at its penalty', 'example within', 'example unused'), 0)
    kinds |= dict.fromkeys(('task without bounds', 'task with some', 'task at its penalty'), 0)
    count = 0
    for way in WAYS:
        for kernels, labels, penalty, ridge, alphas in svm_problems(way):
            for kernel, y, alpha in zip(kernels, labels, alphas, strict=True):
                assert max(oracle.kkt(kernel, y, alpha, penalty, ridge)[:2]) <= 1e-10
                own = alpha[y > 0] / penalty
                kinds['example at its penalty'] += np.sum(own > 1 - 1e-9)
                kinds['example unused'] += np.sum(own < 1e-9)
                kinds['example within'] += np.sum((own > 1e-9) & (own < 1 - 1e-9))
                active = np.abs(alpha - penalty * y) < 1e-9
                kinds['task without bounds'] += not active.any()
                kinds['task with some'] += active.any() and not active[y > 0].all()
                kinds['task at its penalty'] += active[y > 0].all()
                count += 1
    assert count == 50
    assert all(number >= 3 for number in kinds.values()), kinds


@pytest.mark.parametrize('way', WAYS)
def test_svm_in_float32(way):
    for kernels, labels, penalty, ridge, expected in svm_problems(way):
        alpha = crammer_singer(
            tf.constant(kernels, tf.float32), tf.constant(labels, tf.float32), penalty, ridge
        )
        assert alpha.dtype == tf.float32
        np.testing.assert_allclose(alpha, expected, atol=1e-4)


def test_svm_of_an_encoders_size_in_float32():
    """5-way 5-shot with 1600 features after a ReLU: large, alike, and correlated kernels."""
    x, y = problem(12, 5, 5, 1600, tasks=2)
    x = np.maximum(x + 0.5, 0)
    expected = each_task(lambda x, y: oracle.crammer_singer(x @ x.T, y), x, y)
    gradients = []
    for dtype in ('float32', 'float64'):
        features, labels = tf.constant(x, dtype), tf.constant(y, dtype)
        with tf.GradientTape() as tape:
            tape.watch(features)
            alpha = crammer_singer(tf.matmul(features, features, transpose_b=True), labels)
            scores = tf.matmul(features[:, ::-1], features, transpose_b=True) @ alpha
            loss = tf.reduce_sum(scores * tf.cast(tf.sin(tf.range(5.0)), dtype))
        np.testing.assert_allclose(alpha, expected, atol=1e-4)
        gradients.append(tape.gradient(loss, features).numpy())
    largest = np.abs(gradients[1]).max()
    assert largest > 1e-4
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-2 * largest)


def test_svm_against_scipy():
    for seed, (way, shot, features, scale) in enumerate(
        [(2, 2, 3, 1.0), (3, 1, 2, 3.0), (3, 2, 8, 0.3), (4, 2, 4, 2.0)]
    ):
        x, y = problem(20 + seed, way, shot, features, scale, tasks=1)
        kernel, labels = x[0] @ x[0].T, y[0]
        curvature = kernel + np.eye(len(kernel))

        def value(alpha):
            alpha = alpha.reshape(labels.shape)
            return np.sum(alpha * (curvature @ alpha)) / 2 - np.sum(alpha * labels)

        result = optimize.minimize(
            value,
            np.zeros(labels.size),
            jac=lambda alpha: (curvature @ alpha.reshape(labels.shape) - labels).ravel(),
            method='SLSQP',
            bounds=[(None, 0.1 * label) for label in labels.ravel()],
            constraints={
                'type': 'eq',
                'fun': lambda alpha: alpha.reshape(labels.shape).sum(1),
                'jac': lambda alpha: np.kron(np.eye(len(labels)), np.ones(way)),
            },
            options={'ftol': 1e-14, 'maxiter': 1000},
        )
        alpha = crammer_singer(kernel[None], labels[None])[0].numpy()
        np.testing.assert_allclose(alpha, result.x.reshape(labels.shape), atol=1e-5)
        assert value(alpha.ravel()) <= result.fun + 1e-6


@pytest.mark.parametrize('scale', [0.2, 1.0, 4.0])
@pytest.mark.parametrize('way, shot, features', [(2, 2, 3), (3, 1, 5), (3, 2, 4)])
def test_gradient_of_the_svm(way, shot, features, scale):
    """By the features, away from the kinks where a bound begins or ends to matter."""
    x, y = problem(13, way, shot, features, scale, tasks=2)

    def solve(x, y):
        return oracle.crammer_singer(x @ x.T, y, 0.1, 1.0, tolerance=1e-13)

    for features, labels in zip(x, y, strict=True):
        assert oracle.kkt(features @ features.T, labels, solve(features, labels)).margin > 1e-3
    # Where every bound is reached, alpha does not depend on the features: their scores do.
    check_gradient(
        lambda x, y: scores(x, crammer_singer(tf.matmul(x, x, transpose_b=True), y)),
        lambda x, y: x @ x.T @ solve(x, y),
        x,
        y,
        rtol=1e-4,
    )


def scores(x, alpha):
    """Of the examples themselves."""
    return tf.matmul(x, tf.matmul(x, alpha, transpose_a=True))


def test_filling_changes_no_svm():
    """Rows of zeros with a label of their own, or with none."""
    x, y = problem(14, 3, 2, 5)
    kernel = lambda x: x @ np.swapaxes(x, 1, 2)
    expected = np.swapaxes(x, 1, 2) @ crammer_singer(kernel(x), y)
    places = [0, 3, 3, 6]
    filled = np.insert(x, places, 0.0, axis=1)
    for label in ([0.0, 1.0, 0.0], [0.0, 0.0, 0.0]):
        labels = np.insert(y, places, label, axis=1)
        alpha = crammer_singer(kernel(filled), labels).numpy()
        np.testing.assert_allclose(np.swapaxes(filled, 1, 2) @ alpha, expected, atol=1e-6)
        counting = np.insert(np.ones(6, bool), places, False)
        np.testing.assert_allclose(alpha[:, counting], crammer_singer(kernel(x), y), atol=1e-6)
        if not any(label):
            np.testing.assert_allclose(alpha[:, ~counting], 0, atol=1e-6)


# The learners.

PIXELS = (2, 3, 1)
# name: (class, the constructor's arguments, the oracle's function and arguments)
HEADS = {
    'r2d2': (R2D2, {}, oracle.r2d2, {}),
    'r2d2, little ridge': (R2D2, {'ridge': 0.2, 'scale': 3.0}, oracle.r2d2, {'ridge': 0.2}),
    'lrd2': (LRD2, {}, oracle.lrd2, {}),
    'lrd2, little ridge': (
        LRD2,
        {'ridge': 0.5, 'steps': 3},
        oracle.lrd2,
        {'ridge': 0.5, 'steps': 3},
    ),
    'svm': (MetaOptNet, {}, oracle.svm, {'tolerance': 1e-12}),
    'svm, large penalty': (
        MetaOptNet,
        {'head': 'svm', 'penalty': 0.4, 'ridge': 0.5},
        oracle.svm,
        {'penalty': 0.4, 'ridge': 0.5, 'tolerance': 1e-12},
    ),
    'ridge': (MetaOptNet, {'head': 'ridge'}, oracle.kernel_ridge, {}),
    'ridge, little ridge': (
        MetaOptNet,
        {'head': 'ridge', 'ridge': 0.5},
        oracle.kernel_ridge,
        {'ridge': 0.5},
    ),
    'prototypes': (MetaOptNet, {'head': 'prototypes'}, oracle.prototypes, {}),
}


class Case:
    """A learner with an encoder tanh(x W + b) in float64, and its oracle.

    Its scale and offset are moved away from where they start.
    """

    def __init__(self, head, features):
        rng = np.random.default_rng(15)
        kind, options, self.head, self.options = HEADS[head]
        self.encoder = keras.Sequential(
            [
                keras.Input(PIXELS, dtype='float64'),
                keras.layers.Flatten(dtype='float64'),
                keras.layers.Dense(features, 'tanh', dtype='float64'),
            ],
        )
        values = rng.normal(size=(6, features)), rng.normal(size=features)
        self.encoder.set_weights(values)
        self.learner = kind(self.encoder, MeanClassification(), dtype='float64', **options)
        self.variables = dict(zip(('kernel', 'bias'), self.encoder.trainable_variables))
        self.start = {}
        for name, value in (('scale', 2.5), ('offset', -0.7)):
            if kind is R2D2 or (kind is MetaOptNet and name == 'scale'):
                self.variables[name] = getattr(self.learner, name)
                self.start[name] = float(np.array(self.variables[name]))
                self.variables[name].assign(value)

    def values(self):
        return {name: np.array(variable) for name, variable in self.variables.items()}

    def expected(self, task, i, values):
        """The oracle's outputs of task i of NumPy arrays."""
        embed = lambda x: np.tanh(x.reshape(len(x), -1) @ values['kernel'] + values['bias'])
        learnt = {name: float(values[name]) for name in ('scale', 'offset') if name in values}
        support, query = (embed(np.array(x[i])) for x in (task.support_x, task.query_x))
        return self.head(support, np.array(task.support_y[i]), query, **learnt, **self.options)

    def expected_loss(self, task, values):
        losses = [
            metric_oracle.nll(self.expected(task, i, values), np.array(task.query_y[i]))
            for i in range(len(task.support_x))
        ]
        return np.mean(losses)


def image_task(seed, way, shot, query=3, tasks=2):
    """Images whose classes have different means."""
    rng = np.random.default_rng(seed)
    means = 0.5 * rng.normal(size=(tasks, way, *PIXELS))
    parts = []
    for n in (shot, query):
        labels = np.stack([shuffled_labels(rng, way, n) for _ in range(tasks)])
        images = np.einsum('tnk,tk...->tn...', labels, means)
        parts += [images + 0.5 * rng.normal(size=images.shape), labels]
    return Task(*map(tf.constant, parts))


@pytest.mark.parametrize('way, shot, features', [(3, 1, 7), (2, 4, 3), (5, 2, 6)])
@pytest.mark.parametrize('head', HEADS)
def test_outputs_and_loss_of_a_learner(head, way, shot, features):
    case, task = Case(head, features), image_task(16, way, shot)
    outputs = case.learner.query_outputs(task)
    assert outputs.shape == (1, 2, 3 * way, way)
    for i in range(2):
        expected = case.expected(task, i, case.values())
        assert np.ptp(expected, axis=1).max() > 1e-3
        np.testing.assert_allclose(outputs[0, i], expected, rtol=1e-5, atol=1e-6)
    loss = case.learner.meta_loss(task, STEP).value
    np.testing.assert_allclose(loss, case.expected_loss(task, case.values()), rtol=1e-6)


@pytest.mark.parametrize(
    'head, start',
    [
        ('r2d2', {'scale': 10.0, 'offset': 0.0}),
        ('r2d2, little ridge', {'scale': 3.0, 'offset': 0.0}),
        ('lrd2', {}),
        ('svm', {'scale': 1.0}),
        ('ridge', {'scale': 1.0}),
        ('prototypes', {'scale': 1.0}),
    ],
)
def test_what_a_learner_learns(head, start):
    case = Case(head, 4)
    assert case.start == start
    assert {id(v) for v in case.learner.trainable_variables} == {
        id(v) for v in case.variables.values()
    }


@pytest.mark.parametrize('way, shot, features', [(3, 1, 6), (2, 4, 3)])
@pytest.mark.parametrize('head', HEADS)
def test_meta_gradient_of_a_learner(head, way, shot, features):
    """Of everything learnt, by finite differences of the oracle's loss; two tasks."""
    case, task = Case(head, features), image_task(24, way, shot)
    values, learner = case.values(), case.learner
    if case.head is oracle.svm:
        check_margin(case, task)
    gradients = learner.meta_gradients(task, STEP).gradients
    assert len(gradients) == len(case.variables)
    by_variable = {id(v): g for v, g in zip(learner.trainable_variables, gradients, strict=True)}
    for name, variable in case.variables.items():
        expected = metric_oracle.finite_difference_gradient(
            lambda value: case.expected_loss(task, {**values, name: value}), values[name]
        )
        largest = np.abs(expected).max()
        # The offset is added to the logits of all classes, which softmax does not see.
        assert largest > 1e-4 if name != 'offset' else largest < 1e-9
        np.testing.assert_allclose(
            by_variable[id(variable)], expected, rtol=1e-4, atol=1e-4 * largest + 1e-9
        )


def check_margin(case, task):
    """No bound of the SVM begins or ends to matter where the differences are taken."""
    weights = {name: value for name, value in case.options.items() if name != 'tolerance'}
    for images, labels in zip(task.support_x.numpy(), task.support_y.numpy(), strict=True):
        features = np.array(case.encoder(images))
        kernel = features @ features.T
        alpha = oracle.crammer_singer(kernel, labels, **weights)
        assert oracle.kkt(kernel, labels, alpha, **weights).margin > 1e-3


def filled_up(seed, tasks, support, query):
    """Stacks tasks of one each, filled up to so many examples in random places and with arbitrary
    pixels."""
    rng, parts = np.random.default_rng(seed), []
    for task in tasks:
        filled = []
        for x, y, n in (
            (task.support_x[0], task.support_y[0], support),
            (task.query_x[0], task.query_y[0], query),
        ):
            places = np.sort(rng.permutation(n)[: len(x)])
            images, labels, mask = (
                3 * rng.normal(size=(n, *PIXELS)),
                np.zeros((n, y.shape[1])),
                np.zeros(n),
            )
            images[places], labels[places], mask[places] = x, y, 1
            filled.append((images, labels, mask))
        (sx, sy, sm), (qx, qy, qm) = filled
        parts.append((sx, sy, qx, qy, sm, qm))
    return Task(*(tf.constant(np.stack(part)) for part in zip(*parts)))


@pytest.mark.parametrize('features', [4, 12])
@pytest.mark.parametrize('head', HEADS)
def test_filling_changes_nothing(head, features):
    """Outputs, loss and gradients of tasks of one, two and three shots that are filled up."""
    case = Case(head, features)
    learner = case.learner
    alone = [
        image_task(18 + shot, 3, shot, query, tasks=1) for shot, query in ((1, 3), (3, 1), (2, 2))
    ]
    task = filled_up(19, alone, 10, 9)
    outputs = learner.query_outputs(task)[0]
    for i, one in enumerate(alone):
        counting = outputs[i].numpy()[task.query_mask[i].numpy() > 0]
        np.testing.assert_allclose(counting, learner.query_outputs(one)[0, 0], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(
            counting, case.expected(one, 0, case.values()), rtol=1e-5, atol=1e-6
        )
    losses = [learner.meta_loss(one, STEP).value for one in alone]
    np.testing.assert_allclose(learner.meta_loss(task, STEP).value, np.mean(losses), rtol=1e-6)
    gradients = [learner.meta_gradients(one, STEP).gradients for one in alone]
    for together, *each in zip(learner.meta_gradients(task, STEP).gradients, *gradients):
        np.testing.assert_allclose(together, np.mean(each, axis=0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize('head', HEADS)
def test_labels_alone_tell_the_filling(head):
    """A label of zeros is filling without a mask, too, as in a call and in an exported learner."""
    case, alone = Case(head, 4), image_task(20, 3, 2, tasks=1)
    task = filled_up(21, [alone], 10, 9)
    inputs = ('support_x', 'support_y', 'query_x')
    outputs = case.learner({name: getattr(task, name) for name in inputs})
    np.testing.assert_allclose(outputs, case.learner.query_outputs(alone)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('head', HEADS)
def test_a_class_without_support_gets_probability_zero(head, masked):
    """And the others get what they get in a task without it, in the gradient, too."""
    case = Case(head, 5)
    learner, narrow = case.learner, image_task(22, 3, 2, tasks=2)
    labels = lambda y: tf.constant(np.insert(y.numpy(), 1, 0.0, axis=-1))
    task = narrow._replace(support_y=labels(narrow.support_y), query_y=labels(narrow.query_y))
    if masked:
        task = filled_up(23, [task.map(lambda x: x[i : i + 1]) for i in range(2)], 8, 9)
    outputs = learner.query_outputs(task)[0].numpy()
    probabilities = learner.objective.probabilities(outputs).numpy()
    np.testing.assert_array_equal(probabilities[..., 1], 0)
    expected = learner.query_outputs(narrow)[0]
    np.testing.assert_allclose(outputs[..., [0, 2, 3]], expected, rtol=1e-5, atol=1e-6)
    for i in range(2):
        oracles = case.expected(task, i, case.values())[..., [0, 2, 3]]
        np.testing.assert_allclose(outputs[i][..., [0, 2, 3]], oracles, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        learner.meta_loss(task, STEP).value, learner.meta_loss(narrow, STEP).value, rtol=1e-6
    )
    gradients = (learner.meta_gradients(one, STEP).gradients for one in (task, narrow))
    for wide, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(wide, expected, rtol=1e-4, atol=1e-7)


def test_an_unknown_head_is_refused():
    with pytest.raises(ArgumentError, match='^head='):
        MetaOptNet(Case('svm', 4).encoder, MeanClassification(), head='forest')
