"""What every family of control tasks offers: tasks by number, and rollouts of a policy in them."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from maml_tf.episodes.random_bits import keyed_bits, normal

# Streams of a key. Those from 2 on are each environment's own.
NOISE, TASK = 0, 1
# (observations [tasks, rollouts, observation_size], noise [tasks, rollouts, action_size], standard
# normal) -> actions [tasks, rollouts, action_size]
Act = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class Trajectories(NamedTuple):
    """Rollouts of a policy, stacked over tasks.

    A rollout that has ended is filled up to the horizon by steps that do not count. Their numbers
    are finite, and mean nothing.

    observations: [tasks, rollouts, horizon, observation_size], each before its step.
    actions: [tasks, rollouts, horizon, action_size], as the policy drew them, before any clipping.
    rewards: [tasks, rollouts, horizon], 0 where a step does not count.
    counts: [tasks, rollouts, horizon], 1 for a step that was taken, 0 after the end.
    positions: [tasks, rollouts, horizon + 1, 1 or 2], where the body is before each step and after
      the last, for pictures.
    """

    observations: tf.Tensor
    actions: tf.Tensor
    rewards: tf.Tensor
    counts: tf.Tensor
    positions: tf.Tensor

    @property
    def returns(self) -> tf.Tensor:
        """Returns the undiscounted sum of rewards of each rollout, [tasks, rollouts].

        NaN where not a single step counts: the policy itself is broken, and has not earned 0.
        """
        total = tf.reduce_sum(self.rewards, axis=-1)
        return tf.where(self.counts[..., 0] > 0, total, float('nan') * tf.ones_like(total))


class Environment(abc.ABC):
    """A family of control tasks.

    Floats are of keras.config.floatx().

    Attributes:
      name: the --datasource.
      observation_size, action_size: numbers that a policy sees, and answers with.
      horizon: steps after which a rollout ends at the latest.
      task_size: how many numbers tell a task from the others.
      compiled: whether `rollouts` is made of TensorFlow's operations alone, so that it can stand in
        a tf.function that XLA compiles.
    """

    name: str
    observation_size: int
    action_size: int
    horizon: int
    task_size: int
    compiled: bool = False

    @abc.abstractmethod
    def draw_tasks(self, tasks: int, key: tf.Tensor) -> tf.Tensor:
        """Returns what tells each task from the others, [tasks, task_size].

        key: uint32 [tasks, 2], each task's random bits; what is drawn is of the stream TASK.
        """

    @abc.abstractmethod
    def rollouts(self, act: Act, task: tf.Tensor, rollouts: int, key: tf.Tensor) -> Trajectories:
        """Lets a policy act in every task, `rollouts` times.

        A rollout whose state or reward is no longer finite ends before that step.

        Args:
          act: the policy.
          task: [tasks, task_size], of `draw_tasks`.
          key: uint32 [tasks, 2]; the policy's noise is `noise` of it. What the environment draws
            itself is of streams from 2 on.
        """

    @abc.abstractmethod
    def describe(self, task: tf.Tensor) -> str:
        """Returns a task [task_size] in a few words, for the title of a picture."""


def noise(key: tf.Tensor, horizon: int, rollouts: int, size: int) -> tf.Tensor:
    """Returns a policy's standard normal noise, [horizon, tasks, rollouts, size].

    It depends on a task's key alone, by integer bits: it is the same compiled and uncompiled, up to
    rounding.
    """
    # One pair of words for each number.
    bits = keyed_bits(key, 2 * horizon * rollouts * size, NOISE)
    numbers = normal(tf.reshape(bits, [-1, horizon, rollouts, 2 * size]))
    return tf.cast(tf.transpose(numbers, [1, 0, 2, 3]), keras.config.floatx())
