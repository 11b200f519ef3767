"""What a robot is to do: move in a direction, or at a speed."""

import keras
import numpy as np
import tensorflow as tf

from maml_tf.episodes.random_bits import keyed_bits, uniform
from maml_tf.rl.environments.environment import TASK


class Direction:
    """Forward (task 1) or backward (task -1), each in half of the tasks."""

    task_size = 1

    def draw_tasks(self, tasks: int, key: tf.Tensor) -> tf.Tensor:
        half = tf.bitwise.right_shift(keyed_bits(key, 1, TASK), 31)
        return 2.0 * tf.cast(half, keras.config.floatx()) - 1.0

    def gain(self, velocity: np.ndarray, task: np.ndarray) -> np.ndarray:
        """Returns the velocity along the direction, [simulations]; task: [simulations, 1]."""
        return task[:, 0] * velocity

    def describe(self, task: tf.Tensor) -> str:
        return 'forward' if float(task[0]) > 0 else 'backward'


class Speed:
    """A speed forward, drawn from U(speeds).

    Attributes:
      speeds: the lowest and the highest.
      content: what the right speed gains.
    """

    task_size = 1
    speeds: tuple[float, float]
    content = 0.0

    def draw_tasks(self, tasks: int, key: tf.Tensor) -> tf.Tensor:
        return tf.cast(uniform(keyed_bits(key, 1, TASK), *self.speeds), keras.config.floatx())

    def gain(self, velocity: np.ndarray, task: np.ndarray) -> np.ndarray:
        """Returns `content` less the gap to the speed, [simulations]; task: [simulations, 1]."""
        return self.content - np.abs(velocity - task[:, 0])

    def describe(self, task: tf.Tensor) -> str:
        return f'speed {float(task[0]):.2f}'
