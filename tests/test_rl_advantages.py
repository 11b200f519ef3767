"""The baseline and the advantages against programs in NumPy that take step after step."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.rl.advantages import samples
from maml_tf.rl.baseline import fitted
from maml_tf.rl.environments.environment import Trajectories

TASKS, ROLLOUTS, HORIZON, SIZE = 2, 3, 12, 2
LENGTHS = np.array([[12, 5, 1], [12, 12, 7]])


def trajectories(seed=0):
    rng = np.random.default_rng(seed)
    shape = TASKS, ROLLOUTS, HORIZON
    counts = (np.arange(HORIZON) < LENGTHS[..., None]).astype(float)
    return Trajectories(
        tf.constant(rng.normal(0, 8, (*shape, SIZE))),  # Some are beyond the bound.
        tf.constant(rng.normal(size=(*shape, SIZE))),
        tf.constant(rng.normal(size=shape) * counts),
        tf.constant(counts),
        tf.zeros((TASKS, ROLLOUTS, HORIZON + 1, 2)),
    )


def by_loops(given, discount, gae_lambda):
    """Advantages as the authors' code computes them, path after path."""
    advantages = np.zeros((TASKS, ROLLOUTS, HORIZON))
    for task in range(TASKS):
        paths = []
        for rollout, length in enumerate(LENGTHS[task]):
            rewards = given.rewards.numpy()[task, rollout, :length]
            o = np.clip(given.observations.numpy()[task, rollout, :length], -10, 10)
            t = np.arange(length)[:, None] / 100
            features = np.concatenate([o, o**2, t, t**2, t**3, np.ones_like(t)], 1)
            returns, total = np.zeros(length), 0.0
            for step in reversed(range(length)):
                total = rewards[step] + discount * total
                returns[step] = total
            paths.append((rewards, features, returns))
        x = np.concatenate([path[1] for path in paths])
        y = np.concatenate([path[2] for path in paths])
        weights = np.linalg.solve(x.T @ x + 1e-5 * np.eye(x.shape[1]), x.T @ y)
        for rollout, (rewards, features, _) in enumerate(paths):
            values, total = np.append(features @ weights, 0), 0.0
            for step in reversed(range(len(rewards))):
                surprise = rewards[step] + discount * values[step + 1] - values[step]
                total = surprise + discount * gae_lambda * total
                advantages[task, rollout, step] = total
        there = np.arange(HORIZON) < LENGTHS[task][:, None]
        taken = advantages[task][there]
        advantages[task][there] = (taken - taken.mean()) / (taken.std() + 1e-8)
    return advantages


@pytest.mark.parametrize(('discount', 'gae_lambda'), [(0.99, 1.0), (0.9, 0.7), (1.0, 0.0)])
def test_advantages(discount, gae_lambda):
    given = trajectories()
    taken = samples(given, discount, gae_lambda)
    expected = by_loops(given, discount, gae_lambda).reshape(TASKS, -1)
    np.testing.assert_allclose(taken.advantages, expected, atol=1e-8)
    np.testing.assert_array_equal(taken.counts, tf.reshape(given.counts, [TASKS, -1]))
    np.testing.assert_array_equal(taken.actions[1, 14], given.actions[1, 1, 2])
    np.testing.assert_array_equal(taken.observations[1, 14], given.observations[1, 1, 2])


def test_what_follows_the_end_plays_no_part():
    given = trajectories()
    there = given.counts[..., None] > 0
    other = tf.where(there, given.observations, 3.0)
    taken = samples(given._replace(observations=other), 0.99, 0.9)
    np.testing.assert_allclose(
        taken.advantages, samples(given, 0.99, 0.9).advantages, rtol=1e-12, atol=1e-12
    )
    # The mean of what counts, and nothing of NaN where nothing does.
    values = tf.where(taken.counts > 0, 2.0, np.nan)
    np.testing.assert_allclose(taken.mean(tf.cast(values, tf.float64)), [2, 2])


def test_the_baseline_in_float32_is_that_of_float64():
    rng = np.random.default_rng(0)
    observations = rng.uniform(-1, 1, (1, 20, 100, 2)).cumsum(2) / 30
    returns, counts = rng.normal(-20, 5, (1, 20, 100)), np.ones((1, 20, 100))
    exact = fitted(tf.constant(observations), tf.constant(returns), tf.constant(counts))
    single = fitted(*(tf.constant(x, tf.float32) for x in (observations, returns, counts)))
    assert single.dtype == tf.float32
    np.testing.assert_allclose(single, exact, atol=1e-3)
