"""2-D navigation against steps worked out by hand, and what holds for every environment."""

import numpy as np
import tensorflow as tf

from maml_tf.episodes.random_bits import Stream
from maml_tf.rl.environments.environment import noise
from maml_tf.rl.environments.navigation2d import Navigation2D
from maml_tf.rl.environments.told import Told

KEY = Stream(0, 'train', 5).bits(0, 2, 2)
GOALS = tf.constant([[0.2, 0.0], [-0.3, 0.4]])


def always(*action):
    """A policy that does the same whatever it sees."""
    return lambda observations, noise: tf.zeros_like(noise) + tf.constant(action)


def test_steps_by_hand():
    seen = Navigation2D().rollouts(always(0.5, 3.0), GOALS, 1, KEY)
    # Half the largest step to the right, and, clipped, the largest step upwards.
    steps = np.arange(1, 101)[:, None] * [0.05, 0.1]
    np.testing.assert_allclose(seen.positions[1, 0, 1:], steps, rtol=1e-4)
    np.testing.assert_allclose(seen.observations[1, 0, 1:], steps[:-1], rtol=1e-4)
    np.testing.assert_array_equal(seen.observations[1, 0, 0], [0, 0])
    np.testing.assert_array_equal(seen.actions[1, 0, 7], [0.5, 3])
    distances = np.linalg.norm(steps - [-0.3, 0.4], axis=-1)
    np.testing.assert_allclose(seen.rewards[1, 0], -distances, rtol=1e-4)
    np.testing.assert_allclose(seen.returns[1, 0], -distances.sum(), rtol=1e-4)
    assert seen.counts[1, 0].numpy().all()
    squared = Navigation2D(squared=True).rollouts(always(0.5, 3.0), GOALS, 1, KEY)
    np.testing.assert_allclose(squared.rewards[1, 0], -(distances**2), rtol=1e-4)


def test_ends_at_the_goal():
    # Steps of 0.02: the tenth arrives at (0.2, 0) and is the last that counts.
    seen = Navigation2D().rollouts(always(0.2, 0.0), GOALS, 1, KEY)
    np.testing.assert_array_equal(seen.counts[0, 0], [1] * 10 + [0] * 90)
    np.testing.assert_allclose(seen.rewards[0, 0, :9], -0.02 * np.arange(9, 0, -1), atol=1e-6)
    np.testing.assert_array_equal(seen.rewards[0, 0, 10:], np.zeros(90))
    np.testing.assert_allclose(seen.positions[0, 0, 10:, 0], np.full(91, 0.2), atol=1e-6)
    assert seen.counts[1, 0].numpy().all()  # The other task goes on.
    # One coordinate alone does not end it.
    assert Navigation2D().rollouts(always(0.2, 0.5), GOALS, 1, KEY).counts[0].numpy().all()


def test_a_rollout_that_is_not_finite_ends_before_that_step():
    def act(observations, noise):
        far = observations[..., :1] > 0.045
        return tf.where(far, np.nan, tf.constant([0.1, 0.0]) + tf.zeros_like(noise))

    seen = Navigation2D().rollouts(act, GOALS, 1, KEY)
    np.testing.assert_array_equal(tf.reduce_sum(seen.counts, -1), [[5], [5]])
    assert all(np.isfinite(x).all() for x in seen)
    np.testing.assert_array_equal(seen.rewards[:, :, 5:], np.zeros((2, 1, 95)))
    np.testing.assert_allclose(seen.returns, tf.reduce_sum(seen.rewards, -1))
    # A policy that is broken from the first step on has no return; it would be the best of all.
    broken = Navigation2D().rollouts(lambda observations, noise: np.nan * noise, GOALS, 1, KEY)
    assert np.isnan(broken.returns).all() and all(np.isfinite(x).all() for x in broken)


def test_a_task_is_what_it_is_alone_and_compiled():
    environment = Navigation2D()
    task = environment.draw_tasks(2, KEY)
    assert np.abs(task).max() <= 0.5 and np.unique(task).size == 4
    act = lambda observations, noise: 0.3 * noise - observations
    roll = lambda task, key: environment.rollouts(act, task, 3, key)
    together = roll(task, KEY)
    for one, other in zip(together, roll(task[1:], KEY[1:])):
        np.testing.assert_array_equal(one[1:], other)
    for one, other in zip(together, tf.function(roll, jit_compile=True)(task, KEY)):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.unique(noise(KEY, 100, 3, 2)).size > 1150
    np.testing.assert_array_equal(environment.draw_tasks(1, KEY[1:])[0], task[1])
    assert environment.describe(GOALS[1]) == 'goal (-0.30, 0.40)'


def test_an_oracle_sees_the_task():
    environment = Told(Navigation2D())
    assert environment.observation_size == 4 and environment.action_size == 2
    act = lambda observations, noise: 2 * (observations[..., 2:] - observations[..., :2])
    seen = environment.rollouts(act, GOALS, 2, KEY)
    np.testing.assert_array_equal(seen.observations[1, 1, 40, 2:], GOALS[1])
    assert (tf.reduce_sum(seen.counts, -1) < 30).numpy().all()
