"""What a robot is to do: move in a direction, or at a speed."""

from typing import Any

import numpy as np


class Direction:
    """Forward (task 1) or backward (task -1), each in half of the tasks."""

    @staticmethod
    def task(unit: Any) -> Any:
        """Returns the tasks of numbers uniform in [0, 1): a float, an array or a tensor."""
        return 2.0 * (2.0 * unit // 1.0) - 1.0

    def gain(self, velocity: np.ndarray, task: np.ndarray) -> np.ndarray:
        """Returns the velocity along the direction, [simulations]; task: [simulations, 1]."""
        return task[:, 0] * velocity

    @staticmethod
    def describe(task: float) -> str:
        return 'forward' if task > 0 else 'backward'


class Speed:
    """A speed forward, drawn from U(speeds).

    Attributes:
      speeds: the lowest and the highest.
      content: what the right speed gains.
    """

    speeds: tuple[float, float]
    content = 0.0

    @classmethod
    def task(cls, unit: Any) -> Any:
        """Returns the tasks of numbers uniform in [0, 1): a float, an array or a tensor."""
        low, high = cls.speeds
        return low + (high - low) * unit

    def gain(self, velocity: np.ndarray, task: np.ndarray) -> np.ndarray:
        """Returns `content` less the gap to the speed, [simulations]; task: [simulations, 1]."""
        return self.content - np.abs(velocity - task[:, 0])

    @staticmethod
    def describe(task: float) -> str:
        return f'speed {task:.2f}'
