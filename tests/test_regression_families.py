"""Regression families: the values are what their parameters say, and as random as they claim."""

import math

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.datasets.functions import gaussian_process
from maml_tf.datasets.functions.function_families import (
    DecisionTree,
    Linear,
    SparseLinear,
    TwoLayerNetwork,
)
from maml_tf.datasets.functions.gaussian_process import GaussianProcess
from maml_tf.datasets.functions.sinusoid import Sinusoid
from maml_tf.episodes.random_bits import Stream, normal
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import UserError
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import metatrain_op
from maml_tf.training.outer_optimizers import adam

SOURCES = {
    'frequency': Sinusoid(frequency=(0.8, 1.2)),
    'told frequency': Sinusoid(oracle=True, frequency=(0.8, 1.2)),
    'process': GaussianProcess(),
    'linear': Linear(),
    'sparse': SparseLinear(),
    'tree': DecisionTree(),
    'network': TwoLayerNetwork(),
}
PLAIN, SEED = EpisodeSpec(1, 4, 3), 5
CNP = (
    GaussianProcess(query_contains_support=True),
    EpisodeSpec(1, 9, 9, least_shot=3, least_query=2),
)


def points(source, spec=PLAIN, start=0, count=2000):
    """(x, y) of the support and then the query, [tasks, points, ...]."""
    task = source.tasks('train', spec, SEED)(start, count)
    return tuple(
        np.concatenate(parts, 1)
        for parts in ((task.support_x, task.query_x), (task.support_y, task.query_y))
    )


def assert_mean(values, expected):
    """values: independent along the first axis."""
    values = values.reshape(len(values), -1).mean(1)
    error = values.std() / math.sqrt(len(values))
    assert error < 0.05 * abs(expected) + 0.05
    assert abs(values.mean() - expected) < 5 * error


def test_normal():
    bits = Stream(0, 'train', 0).bits(0, 1000, 400)
    values = normal(bits).numpy()
    assert values.shape == (1000, 200)
    middles = (bits.numpy().astype(float) // 512 + 0.5) / 2**23
    polar = np.sqrt(-2 * np.log(middles[:, :200])) * np.cos(2 * np.pi * middles[:, 200:])
    np.testing.assert_allclose(values, polar, atol=5e-6)
    np.testing.assert_allclose(tf.function(normal, jit_compile=True)(bits), values, atol=2e-6)
    # Kolmogorov and Smirnov: beyond 1.95 / sqrt(n) in one of 1000 seeds.
    ordered = np.sort(values, axis=None)
    expected = np.array([(1 + math.erf(x / math.sqrt(2))) / 2 for x in ordered[::100]])
    assert np.abs(
        expected - np.arange(0, ordered.size, 100) / ordered.size
    ).max() < 1.95 / math.sqrt(ordered.size)


@pytest.mark.parametrize('words', [0, 2**32 - 1])
def test_normal_of_extreme_bits(words):
    assert np.isfinite(normal(tf.fill([2], tf.constant(words, tf.uint32)))).all()


def test_plain_sinusoids_stay_the_same_in_every_version():
    x, y = points(Sinusoid(oracle=True), start=7, count=1)
    np.testing.assert_allclose(x[0, 0], [0.8403325, 3.6528473, 0.6829267], rtol=1e-6)
    plain_x, plain_y = points(Sinusoid(), start=7, count=1)
    np.testing.assert_array_equal(plain_x[..., 0], x[..., 0])
    np.testing.assert_array_equal(plain_y, y)


def test_sinusoid_of_drawn_frequency():
    source = SOURCES['told frequency']
    x, y = points(source)
    amplitude, phase, frequency = (
        wave.numpy()[..., 0] for wave in source.waves('train', SEED, 0, 2000)
    )
    np.testing.assert_allclose(
        y[..., 0], amplitude * np.sin(frequency * x[..., 0] - phase), atol=2e-5
    )
    np.testing.assert_array_equal(x[:, 0, 1:], np.concatenate([amplitude, phase, frequency], 1))
    assert frequency.min() >= 0.8 and frequency.max() < 1.2
    assert_mean(frequency, 1.0)
    assert_mean((frequency - 1) ** 2, 0.4**2 / 12)
    plain_amplitude, plain_phase = Sinusoid().waves('train', SEED, 0, 2000)
    np.testing.assert_array_equal(amplitude, plain_amplitude[..., 0])
    np.testing.assert_array_equal(phase, plain_phase[..., 0])
    np.testing.assert_array_equal(points(SOURCES['frequency'])[0], x[..., :1])
    assert SOURCES['frequency'].input_shape == (1,) and source.input_shape == (4,)


@pytest.mark.parametrize(
    'case', ['told frequency', 'process', 'linear', 'sparse', 'tree', 'network', 'cnp']
)
def test_a_task_is_a_function_of_its_index(case):
    source, spec = CNP if case == 'cnp' else (SOURCES[case], PLAIN)
    draw = source.tasks('val', spec, 3)
    batch, part = draw(0, 9), draw(4, 3)
    compiled = tf.function(draw, jit_compile=True)(tf.constant(4, tf.int64), 3)
    for whole, few, xla in zip(batch, part, compiled):
        if whole is not None:
            np.testing.assert_allclose(whole[4:7], few, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(few, xla, rtol=1e-5, atol=1e-5)
    assert batch.support_x.shape[2:] == source.input_shape and batch.query_y.shape[2:] == (
        source.output_dim,
    )
    others = [source.tasks(split, spec, seed)(0, 9) for split, seed in (('train', 3), ('val', 4))]
    assert all(np.abs(batch.support_y - other.support_y).min() > 0 for other in others)


def kernel(x, other):
    return np.exp(-((x - other) ** 2) / (2 * 0.4**2))


def test_gaussian_process_by_hand():
    source = GaussianProcess()
    x, y = points(source, EpisodeSpec(1, 9, 9), 10, 5)
    _, normals = source.draws('train', SEED, 10, 5, 18)
    for inputs, values, drawn in zip(x.astype(float), y, normals.numpy().astype(float)):
        covariance = kernel(inputs, inputs.T) + 0.02**2 * np.eye(18)
        np.testing.assert_allclose(values, np.linalg.cholesky(covariance) @ drawn, atol=1e-5)


def test_gaussian_process_has_the_covariance_of_its_kernel():
    x, y = points(GaussianProcess(), EpisodeSpec(1, 9, 9), count=8000)
    assert x.min() >= -2 and x.max() < 2
    assert_mean(x, 0.0)
    assert_mean(x**2, 4**2 / 12)
    assert_mean(y, 0.0)
    assert_mean(y**2, 1.0004)
    first, second, products = x[:, :9], x[:, 9:], y[:, :9] * y[:, 9:]
    for low, high in [(0, 0.1), (0.1, 0.4), (0.4, 0.8), (0.8, 4)]:
        among = (low <= np.abs(first - second)) & (np.abs(first - second) < high)
        assert_mean((products - kernel(first, second)) * among, 0.0)


def test_gaussian_process_of_fixed_inputs():
    x = np.array([-1.9, -0.3, -0.2, 0.5, 1.8])[:, None]
    normals = normal(Stream(1, 'test', 0).bits(0, 40000, 10))[..., None]
    y = gaussian_process.values(tf.constant(np.tile(x, (40000, 1, 1))), normals).numpy()[..., 0]
    np.testing.assert_allclose(
        y.T @ y / len(y), kernel(x, x.T) + 0.0004 * np.eye(5), atol=5 * np.sqrt(2 / 40000)
    )


@pytest.mark.parametrize(
    'source, least_shot', [(SOURCES['process'], None), (SOURCES['frequency'], None), (CNP[0], 2)]
)
def test_curves_show_the_tasks_that_are_scored(source, least_shot):
    spec = EpisodeSpec(1, 5, 5, least_shot=least_shot)
    curves, task = source.curves('test', spec, 1, 40, 400), source.tasks('test', spec, 1)(0, 40)
    np.testing.assert_array_equal(curves.support_x, task.support_x)
    np.testing.assert_allclose(curves.support_y, task.support_y, atol=1e-5)
    nearest = np.argmin(np.abs(curves.query_x - np.moveaxis(task.support_x, 1, 2)), axis=1)
    assert (
        np.abs(
            np.take_along_axis(curves.query_y.numpy()[..., 0], nearest, 1) - task.support_y[..., 0]
        ).max()
        < 0.2
    )
    if least_shot:
        np.testing.assert_array_equal(curves.support_mask, task.support_mask)
        assert curves.query_mask.shape == (40, 400) and np.all(curves.query_mask == 1)
    else:
        assert curves.support_mask is None and curves.query_mask is None


def counts(mask):
    """How many count in each task; what counts comes first."""
    mask = mask.numpy()
    assert set(np.unique(mask)) <= {0.0, 1.0} and (np.diff(mask) <= 0).all()
    return mask.sum(1).astype(int)


def assert_uniform(numbers, low, high):
    assert numbers.min() == low and numbers.max() == high
    expected = len(numbers) / (high - low + 1)
    assert np.abs(np.bincount(numbers)[low:] - expected).max() < 5 * math.sqrt(expected)


def test_sizes_of_conditional_neural_processes():
    source, spec = CNP
    task = source.tasks('train', spec, SEED)(0, 7000)
    contexts, targets = counts(task.support_mask), counts(task.query_mask)
    assert_uniform(contexts, 3, 9)
    assert_uniform(targets - contexts, 2, 9)
    assert abs(np.corrcoef(contexts, targets - contexts)[0, 1]) < 5 / math.sqrt(7000)
    for context, target in ((task.support_x, task.query_x), (task.support_y, task.query_y)):
        np.testing.assert_array_equal(context, target[:, :9])
    assert task.query_x.shape == (7000, 18, 1)
    everything = GaussianProcess().tasks('train', EpisodeSpec(1, 9, 9), SEED)(0, 7000)
    np.testing.assert_array_equal(everything.query_y, task.query_y[:, 9:])


@pytest.mark.parametrize('source', [Sinusoid(), Linear(), GaussianProcess()])
def test_drawn_shots(source):
    task = source.tasks('train', EpisodeSpec(1, 4, 3, least_shot=2), SEED)(0, 1000)
    assert_uniform(counts(task.support_mask), 2, 4)
    assert task.query_mask.shape == (1000, 3) and np.all(task.query_mask == 1)
    plain = source.tasks('train', PLAIN, SEED)(0, 1000)
    for drawn, fixed in zip(task[:4], plain[:4]):
        np.testing.assert_array_equal(drawn, fixed)
    assert plain.support_mask is None and plain.query_mask is None


@pytest.mark.parametrize(
    'spec, words',
    [
        (EpisodeSpec(1, 4, 3, least_shot=5), '^least_shot=5: .*at most 4'),
        (EpisodeSpec(1, 4, 3, least_query=4), '^least_query=4: .*at most 3'),
        (
            EpisodeSpec(1, 4, 3, least_shot=2, leave_to_query=True),
            '^leave_to_query=True: not for regression',
        ),
    ],
)
def test_bad_sizes(spec, words):
    with pytest.raises(UserError, match=words):
        GaussianProcess().tasks('train', spec, 0)


def linear(x, weights):
    return sum(x[i] * weights[i, 0] for i in range(len(x)))


def tree(x, coordinates, leaves):
    """By recursion over (coordinate, left, right), the levels of the array read one after the
    other."""
    levels = [coordinates[2**depth - 1 : 2 ** (depth + 1) - 1] for depth in range(4)]

    def descend(depth, place):
        if depth == 4:
            return leaves[place]
        return descend(depth + 1, 2 * place + (1 if x[levels[depth][place]] > 0 else 0))

    return descend(0, 0)


def network(x, first, second):
    hidden = [max(0.0, float(np.dot(x, column))) for column in first.T]
    return math.sqrt(2 / 100) * sum(h * v for h, v in zip(hidden, second[:, 0]))


@pytest.mark.parametrize('dimension', [20, 6])
@pytest.mark.parametrize(
    'family, by_hand, variance',
    [
        (Linear, linear, lambda d: d),
        (SparseLinear, linear, lambda d: 3),
        (DecisionTree, tree, lambda d: 1),
        (TwoLayerNetwork, network, lambda d: d),
    ],
)
def test_function_family(family, by_hand, variance, dimension):
    source = family(dimension)
    x, y = points(source, start=3)
    parameters = [p.numpy() for p in source.parameters('train', SEED, 3, 2000)]
    for task in range(20):
        expected = [by_hand(inputs, *(p[task] for p in parameters)) for inputs in x[task]]
        np.testing.assert_allclose(y[task, :, 0], expected, rtol=1e-4, atol=1e-4)
    assert_mean(x, 0.0)
    assert_mean(x**2, 1.0)
    assert_mean(x**4, 3.0)
    assert_mean(x[..., 0] * x[..., 1], 0.0)
    y /= math.sqrt(variance(dimension))
    assert_mean(y, 0.0)
    assert_mean(y**2, 1.0)


def test_sparse_weights():
    (weights,) = SparseLinear().parameters('train', SEED, 0, 3000)
    there = weights.numpy()[..., 0] != 0
    assert (there.sum(1) == 3).all()
    expected = 3000 * 3 / 20
    assert np.abs(there.sum(0) - expected).max() < 5 * math.sqrt(expected)
    assert_mean(weights.numpy()[there].reshape(3000, 3) ** 2, 1.0)


def test_trees():
    coordinates, leaves = (p.numpy() for p in DecisionTree().parameters('train', SEED, 0, 3000))
    assert coordinates.shape == (3000, 15) and leaves.shape == (3000, 16)
    for node in (0, 14):
        assert_uniform(coordinates[:, node] + 1, 1, 20)
    assert_mean(leaves**2, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    'source, mean_square',
    [
        (SOURCES['frequency'], 4.25),
        (GaussianProcess(), 1),
        (Linear(2), 2),
        (SparseLinear(4), 3),
        (DecisionTree(2), 1),
        (TwoLayerNetwork(2), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_maml_learns(source, mean_square):
    """Soon better than the prediction 0. Few dimensions: a step on 10 points says little about
    20."""
    learner = MAML(FullyConnected(source.input_shape, 1, (20,)), source.objective, inner_lr=0.05)
    draw = source.tasks('train', EpisodeSpec(1, 10, 10), 0)
    run = iterate(metatrain_op(learner, adam(0.02)), draw, 16)
    run(0, 200)
    assert float(run(200, 100)['post_loss']) < 0.9 * mean_square
