"""The outer step in float64: gradients, divergences and Fisher products by finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.bias_transformation import BiasTransformation
from maml_tf.algorithms.optimisation.cavia import CAVIA
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.algorithms.optimisation.meta_sgd import MetaSGD
from maml_tf.errors import ArgumentError
from maml_tf.objectives.objective import Return
from maml_tf.rl import trpo
from maml_tf.rl.advantages import Samples
from maml_tf.rl.environments.navigation2d import Navigation2D
from maml_tf.rl.meta_policy import MetaPolicy
from maml_tf.rl.policy import Gaussian, GaussianPolicy
from maml_tf.rl.reinforce import inner_problem
from maml_tf.rl.trpo import Linearised, TrustRegion

TASKS, N, OBSERVATION, ACTION = 2, 7, 3, 2
COUNTS = np.array([[1.0] * 7, [1.0] * 4 + [0.0] * 3])


def batch(seed):
    rng = np.random.default_rng(seed)
    return Samples(
        tf.constant(rng.normal(size=(TASKS, N, OBSERVATION))),
        tf.constant(rng.normal(size=(TASKS, N, ACTION))),
        tf.constant(rng.normal(size=(TASKS, N)) * COUNTS),
        tf.constant(COUNTS),
    )


def policy(**kwargs):
    return GaussianPolicy((OBSERVATION,), ACTION, (4,), **kwargs)


def learners():
    kwargs = {'dtype': 'float64', 'seed': 3}
    return {
        'maml': MAML(policy(), Return(), 0.3, **kwargs),
        'two steps': MAML(policy(), Return(), 0.3, 2, **kwargs),
        'first order': MAML(policy(), Return(), 0.3, stop_grad=True, **kwargs),
        'no step': MAML(policy(), Return(), 0.3, **kwargs),
        'meta_sgd': MetaSGD(policy(), Return(), (0.1, 0.4), **kwargs),
        'cavia': CAVIA(policy(joined=2), Return(), 0.5, **kwargs),
        'bias': BiasTransformation(policy(joined=2), Return(), inner_lr=0.5, **kwargs),
    }


KINDS = list(learners())


def problem(kind):
    """(adapted, values, query samples) of a learner."""
    learner = learners()[kind]
    steps = 0 if kind == 'no step' else learner.inner_steps
    batches = [batch(seed) for seed in range(steps + 1)]
    meta = MetaPolicy(learner, Navigation2D())
    values = [tf.convert_to_tensor(v) for v in learner.trainable_variables]
    return lambda values: meta.adapted_policy(values, batches), values, batches[-1]


def flat(tensors):
    return np.concatenate([np.ravel(x) for x in tensors])


def shaped(vector, like):
    parts = np.split(vector, np.cumsum([np.size(x) for x in like])[:-1])
    return [tf.constant(part.reshape(x.shape)) for part, x in zip(parts, like)]


def differences(function, values, size=1e-6):
    """Central differences of a function of values, one row for each entry of these."""
    start, rows = flat(values), []
    function = tf.function(function, autograph=False)
    for i in range(len(start)):
        ends = []
        for sign in (1, -1):
            moved = start.copy()
            moved[i] += sign * size
            ends.append(np.asarray(function(shaped(moved, values))))
        rows.append((ends[0] - ends[1]) / (2 * size))
    return np.array(rows)


def test_the_distribution_against_its_formulas():
    rng = np.random.default_rng(0)
    mean, log_std = rng.normal(size=(1, 5, 2)), rng.normal(size=(1, 1, 2))
    one = Gaussian(tf.constant(mean), tf.constant(log_std))
    other = Gaussian(tf.constant(mean + 0.3), tf.constant(log_std - 0.2))
    actions = rng.normal(size=(1, 5, 2))
    std = np.exp(log_std)
    densities = np.exp(-0.5 * ((actions - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(one.log_likelihood(actions), np.log(densities).sum(-1))
    # The divergence is the mean of the logarithm of the ratio.
    noise = rng.normal(size=(5, 200_000, 2))
    drawn = Gaussian(*(tf.repeat(x, 200_000, 1) for x in (one.mean[0][:, None], one.log_std)))
    drawn = drawn._replace(log_std=one.log_std)
    draws = drawn.actions(noise)
    far = other.mean[0][:, None]
    ratio = drawn.log_likelihood(draws) - Gaussian(far, other.log_std).log_likelihood(draws)
    np.testing.assert_allclose(one.divergence(other)[0], np.mean(ratio, -1), rtol=0.02)
    np.testing.assert_allclose(one.divergence(one), np.zeros((1, 5)), atol=1e-15)


@pytest.mark.parametrize('kind', KINDS)
def test_gradient_and_fisher_product(kind):
    adapted, values, query = problem(kind)
    here = Linearised(adapted, values, query)
    surrogate = lambda values: trpo.surrogate(adapted(values), query, here.old)
    if kind != 'first order':
        numeric = differences(surrogate, values)
        np.testing.assert_allclose(flat(here.gradient()), numeric, rtol=1e-5, atol=1e-8)

    def slope(values):  # of the divergence
        with tf.GradientTape() as tape:
            tape.watch(values)
            divergence = trpo.mean_kl(adapted(values), query, here.old)
        slopes = tape.gradient(divergence, values, unconnected_gradients='zero')
        return tf.concat([tf.reshape(g, [-1]) for g in slopes], 0)

    identity = np.eye(len(flat(values)))
    fisher = tf.function(here.fisher, autograph=False)
    product = np.array([flat(fisher(shaped(row, values))) for row in identity])
    np.testing.assert_allclose(product, product.T, atol=1e-10)
    assert np.linalg.eigvalsh(product).min() > -1e-10 and product.max() > 1e-3
    np.testing.assert_allclose(slope(values), np.zeros(len(identity)), atol=1e-12)
    if kind != 'first order':
        np.testing.assert_allclose(product, differences(slope, values), rtol=1e-4, atol=1e-7)


def test_first_order_holds_the_inner_gradient():
    def gradient(kind):
        return flat(Linearised(*problem(kind)).gradient())

    first, second = gradient('first order'), gradient('maml')
    assert np.abs(first - second).max() > 1e-2
    adapted, values, query = problem('maml')
    old = adapted(values)
    learner = learners()['maml']
    inner = inner_problem(learner, [batch(0)])
    _, outputs = inner.loss(inner.weights, 0, inner.others)
    assert outputs.shape == (TASKS, N, ACTION)
    with tf.GradientTape() as tape:
        tape.watch(inner.weights)
        losses, _ = inner.loss(inner.weights, 0, inner.others)
        total = tf.reduce_sum(losses)
    moved = {
        name: w - 0.3 * g
        for (name, w), g in zip(
            inner.weights.items(), tape.gradient(total, list(inner.weights.values()))
        )
    }
    with tf.GradientTape() as tape:
        tape.watch(moved)
        policy = learner.network.distribution(query.observations, moved)
        value = trpo.surrogate(policy, query, old)
    ascents = tape.gradient(value, moved)
    np.testing.assert_allclose(first, flat(tf.reduce_sum(g, 0) for g in ascents.values()))


def test_the_inner_loss_is_the_log_probability_form():
    learner = learners()['maml']
    given = batch(0)
    inner = inner_problem(learner, [given])
    losses, _ = inner.loss(inner.weights, 0, {})
    policy = learner.network.distribution(given.observations, inner.weights)
    terms = policy.log_likelihood(given.actions) * given.advantages
    expected = [-terms[0].numpy().mean(), -terms[1].numpy()[:4].mean()]
    np.testing.assert_allclose(losses, expected)


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_a_compiled_step_is_the_same(kind):
    adapted, values, query = problem(kind)
    region = TrustRegion(iterations=3)

    def step(values):
        return trpo.step(adapted, values, query, region)

    expected, log = step(values)
    found, compiled_log = tf.function(step, jit_compile=True, autograph=False)(values)
    np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-8, atol=1e-10)
    for name, value in log.items():
        np.testing.assert_allclose(compiled_log[name], value, rtol=1e-8)


@pytest.mark.parametrize('kind', ['maml', 'meta_sgd'])
def test_a_step_improves_within_the_region(kind):
    adapted, values, query = problem(kind)
    before = adapted(values)
    for max_kl in (1e-4, 0.01):
        moved, log = trpo.step(adapted, values, query, TrustRegion(max_kl))
        after = adapted(moved)
        divergence = trpo.mean_kl(after, query, before).numpy()
        np.testing.assert_allclose(log['kl'], divergence)
        # The region's quadratic model is close, so most of it is used.
        assert 0.3 * max_kl < divergence <= max_kl
        gain = trpo.surrogate(after, query, before)
        assert gain == log['surrogate'] > trpo.surrogate(before, query, before)
        assert 0 < log['step_length'] <= 1


def test_the_direction_solves_the_damped_system():
    adapted, values, query = problem('maml')
    here = Linearised(adapted, values, query)
    size = len(flat(values))
    product = tf.function(here.fisher, autograph=False)
    fisher = np.array([flat(product(shaped(row, values))) for row in np.eye(size)])
    system = fisher + 0.1 * np.eye(size)
    direction = np.linalg.solve(system, flat(here.gradient()))
    length = np.sqrt(2 * 1e-4 / (direction @ system @ direction))
    region = TrustRegion(1e-4, iterations=60, damping=0.1)
    moved, log = trpo.step(adapted, values, query, region)
    went = (flat(moved) - flat(values)) / log['step_length']
    np.testing.assert_allclose(went, length * direction, rtol=1e-6, atol=1e-10)


def test_a_step_is_refused_where_no_length_is_good():
    adapted, values, query = problem('maml')

    # Every length but none at all takes the policies too far.
    def jumps(new):
        mean, log_std = adapted(new)
        stays = tf.reduce_all(new[0] == values[0])
        return Gaussian(mean + tf.where(stays, tf.zeros_like(mean), 10.0), log_std)

    moved, log = trpo.step(jumps, values, query, TrustRegion())
    np.testing.assert_array_equal(flat(moved), flat(values))
    assert log['kl'] == log['step_length'] == 0
    # A length is tried again and again, each 0.5 times the one before.
    moved, log = trpo.step(adapted, values, query, TrustRegion(shrink=0.5))
    first = tf.norm(moved[0] - values[0]) / log['step_length']

    def shy(new):
        mean, log_std = adapted(new)
        far = tf.norm(new[0] - values[0]) > 0.3 * first
        return Gaussian(mean + tf.where(far, 10 * tf.ones_like(mean), 0.0), log_std)

    _, log = trpo.step(shy, values, query, TrustRegion(shrink=0.5))
    assert log['step_length'] == 0.25
    for argument in ({'max_kl': 0.0}, {'shrink': 1.0}):
        with pytest.raises(ArgumentError, match=next(iter(argument))):
            TrustRegion(**argument)
