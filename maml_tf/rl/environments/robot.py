"""A robot in MuJoCo and what its policy sees and gains, in NumPy for any number of simulations.

No TensorFlow is needed up to here: one that is loaded beside Mesa's OpenGL ends the process.
"""

import abc
import types

import numpy as np

TORSO = 1  # The first body after the world, and the root of all others.
# Of a start (rllab's MujocoEnv.reset_mujoco).
POSITION_NOISE, VELOCITY_NOISE = 0.01, 0.1


class Robot(abc.ABC):
    """A robot with a family of tasks; a task is one number, and a rollout ends after 200 steps.

    As in the authors' code each number of an action goes from -1 to 1 and is clipped there; costs
    are of the clipped one.

    Raises: UserError where mujoco or gymnasium is missing.

    Attributes:
      name: the --datasource.
      observation_size, action_size: numbers that a policy sees, and answers with.
      model: mujoco.MjModel.
      start: generalised positions that a rollout starts near, [nq].
      fields: the arrays of mujoco.MjData that observations and rewards are made of.
      forces: whether contact forces are among them; they cost another solution of the dynamics.
      seen_positions: how many numbers of qpos tell where the robot is.
    """

    name: str
    observation_size: int
    horizon = 200
    fields: tuple[str, ...] = ('qpos', 'qvel', 'subtree_com', 'subtree_linvel')
    forces = False
    seen_positions = 1

    def __init__(self):
        self.model, self.start = self.build()
        self.action_size = self.model.nu

    @abc.abstractmethod
    def build(self) -> tuple[object, np.ndarray]:
        """Returns the model, mujoco.MjModel, and the start, [nq]."""

    @abc.abstractmethod
    def observation(self, body: types.SimpleNamespace) -> np.ndarray:
        """Returns what the policy sees, [simulations, observation_size].

        body: the `fields`, each [simulations, ...].
        """

    @abc.abstractmethod
    def pose(self, observation: np.ndarray, position: np.ndarray) -> np.ndarray:
        """Returns the generalised positions [nq] of an observation and a position, for pictures."""

    @abc.abstractmethod
    def gain(self, velocity: np.ndarray, task: np.ndarray) -> np.ndarray:
        """Returns what a velocity along x, [simulations], is worth in a task, [simulations, 1]."""

    @abc.abstractmethod
    def costs(self, body: types.SimpleNamespace, action: np.ndarray) -> np.ndarray:
        """Returns what a step costs in every task, [simulations]."""

    def reward(
        self, body: types.SimpleNamespace, action: np.ndarray, task: np.ndarray
    ) -> np.ndarray:
        """Returns the reward of a step, [simulations].

        Args:
          body: after the step.
          action: clipped, [simulations, action_size].
          task: [simulations, 1].
        """
        # Of the centre of mass of the torso and all that hangs on it, as in the authors' code.
        velocity = body.subtree_linvel[:, TORSO, 0]
        return self.gain(velocity, task) - self.costs(body, action)

    def fell(self, body: types.SimpleNamespace) -> np.ndarray:
        """Returns which rollouts end after this step, [simulations]."""
        return np.zeros(len(body.qpos), bool)

    def begin(self, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns positions [..., nq] and velocities [..., nv] that a rollout begins with.

        normal: standard normal, [..., nq + nv].
        """
        position, velocity = np.split(normal, [self.model.nq], -1)
        return self.start + POSITION_NOISE * position, VELOCITY_NOISE * velocity
