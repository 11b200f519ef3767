"""2-D navigation (Finn et al. 2017, section 5.3): a point that is to find the goal of its task."""

import keras
import tensorflow as tf

from maml_tf.episodes.random_bits import keyed_bits, uniform
from maml_tf.rl.environments.environment import TASK, Act, Environment, Trajectories, noise

GOALS = (-0.5, 0.5)
LARGEST_STEP = 0.1
ARRIVED = 0.01


class Navigation2D(Environment):
    """A point starts at the origin and moves by its action; it sees where it is, not the goal.

    Each coordinate of the goal is drawn from U[-0.5, 0.5]. The reward is minus the distance to the
    goal after the step, and a rollout ends where both coordinates are within 0.01 of the goal's, or
    after 100 steps. As in the authors' code an action is in units of the largest step, 0.1 in each
    coordinate, and is clipped there. The paper's text has the squared distance, the authors' code
    the distance itself.

    squared: the paper's reward.
    """

    name = 'navigation2d'
    observation_size = action_size = task_size = 2
    horizon = 100
    compiled = True

    def __init__(self, squared: bool = False):
        self.squared = squared

    def draw_tasks(self, tasks: int, key: tf.Tensor) -> tf.Tensor:
        """Returns the goals, [tasks, 2]."""
        return tf.cast(uniform(keyed_bits(key, 2, TASK), *GOALS), keras.config.floatx())

    def rollouts(self, act: Act, task: tf.Tensor, rollouts: int, key: tf.Tensor) -> Trajectories:
        drawn = noise(key, self.horizon, rollouts, self.action_size)
        goal = task[:, tf.newaxis]

        def step(t, position, there, seen):
            action = act(position, drawn[t])
            moved = position + LARGEST_STEP * tf.clip_by_value(action, -1.0, 1.0)
            finite = tf.reduce_all(tf.math.is_finite(action), -1)
            counts = there * tf.cast(finite, there.dtype)
            taken = counts[..., tf.newaxis] > 0
            moved = tf.where(taken, moved, position)
            action = tf.where(taken, action, tf.zeros_like(action))
            gap = moved - goal
            square = tf.reduce_sum(tf.square(gap), -1)
            reward = -counts * (square if self.squared else tf.sqrt(square))
            away = tf.reduce_any(tf.abs(gap) >= ARRIVED, -1)
            values = position, action, reward, counts, moved
            seen = [array.write(t, value) for array, value in zip(seen, values)]
            return t + 1, moved, counts * tf.cast(away, counts.dtype), seen

        start = tf.zeros_like(drawn[0])  # [tasks, rollouts, 2]
        arrays = [
            tf.TensorArray(start.dtype, self.horizon, element_shape=shape)
            for shape in 2 * [start.shape] + 2 * [start.shape[:2]] + [start.shape]
        ]
        *_, seen = tf.while_loop(
            lambda t, *_: t < self.horizon,
            step,
            (tf.constant(0), start, tf.ones_like(start[..., 0]), arrays),
            maximum_iterations=self.horizon,
            parallel_iterations=1,
        )
        positions, actions, rewards, counts, after = (
            tf.transpose(x, [1, 2, 0, *range(3, x.shape.rank)])
            for x in (array.stack() for array in seen)
        )
        path = tf.concat([positions, after[:, :, -1:]], 2)
        return Trajectories(positions, actions, rewards, counts, path)

    def describe(self, task: tf.Tensor) -> str:
        return f'goal ({float(task[0]):.2f}, {float(task[1]):.2f})'
