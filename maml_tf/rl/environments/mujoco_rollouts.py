"""Robots in MuJoCo: every rollout of every task is stepped at once, on all cores."""

import abc
import types

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from maml_tf.episodes.random_bits import keyed_bits, normal
from maml_tf.rl.environments.environment import Act, Environment, Trajectories, noise
from maml_tf.rl.environments.mujoco_models import bad_states, optional, without_warnings
from maml_tf.terminal.text import counted

START = 2  # Stream of a rollout's key.
TORSO = 1  # The first body after the world, and the root of all others.
# Of a start (rllab's MujocoEnv.reset_mujoco).
POSITION_NOISE, VELOCITY_NOISE = 0.01, 0.1


class MuJoCoEnvironment(Environment):
    """A robot that is to move as its task says, 200 steps long.

    Numbers are computed in float64, and rounded to keras.config.floatx() for the policy. What is
    simulated depends on the key alone, not on the number of threads.

    As in the authors' code each number of an action goes from -1 to 1 and is clipped there; costs
    are of the clipped one.

    threads: of the simulation; 0: as many as there are cores.
    Raises: UserError where mujoco or gymnasium is missing.

    Attributes:
      model: the robot, mujoco.MjModel.
      start: generalised positions that a rollout starts near, [nq].
      fields: the arrays of mujoco.MjData that observations and rewards are made of.
      forces: whether contact forces are among them; they cost another solution of the dynamics.
      seen_positions: how many numbers of qpos tell where the robot is.
    """

    horizon = 200
    fields: tuple[str, ...] = ('qpos', 'qvel', 'subtree_com', 'subtree_linvel')
    forces = False
    seen_positions = 1

    def __init__(self, threads: int = 0):
        self._batches = optional('mujoco.batch')
        self.model, self.start = self.build()
        self.threads = threads
        self.action_size = self.model.nu
        self._simulations: dict[int, object] = {}

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
          task: [simulations, task_size].
        """
        # Of the centre of mass of the torso and all that hangs on it, as in the authors' code.
        velocity = body.subtree_linvel[:, TORSO, 0]
        return self.gain(velocity, task) - self.costs(body, action)

    def fell(self, body: types.SimpleNamespace) -> np.ndarray:
        """Returns which rollouts end after this step, [simulations]."""
        return np.zeros(len(body.qpos), bool)

    def starts(self, key: tf.Tensor, rollouts: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws positions [tasks, rollouts, nq] and velocities [tasks, rollouts, nv].

        key: uint32 [tasks, 2].
        """
        size = self.model.nq + self.model.nv
        bits = keyed_bits(key, 2 * rollouts * size, START)
        drawn = normal(tf.reshape(bits, [-1, rollouts, 2 * size])).numpy().astype(np.float64)
        position, velocity = np.split(drawn, [self.model.nq], -1)
        return self.start + POSITION_NOISE * position, VELOCITY_NOISE * velocity

    def rollouts(self, act: Act, task: tf.Tensor, rollouts: int, key: tf.Tensor) -> Trajectories:
        shape = len(task), rollouts
        with without_warnings():
            record, lost = self._run(act, np.asarray(task, np.float64), shape, key)
        if lost:
            # Not through a progress bar that is being drawn.
            tqdm.write(
                f'{self.name}: {counted(lost, "rollout")} of {shape[0] * shape[1]:,} ended where '
                'the state, the action or the reward was not finite'
            )
        return Trajectories(*(tf.constant(x.reshape(*shape, *x.shape[1:])) for x in record))

    def _run(self, act, task, shape, key):
        """Returns Trajectories of arrays [tasks * rollouts, ...], and how many diverged."""
        number, floats = shape[0] * shape[1], keras.config.floatx()
        drawn = tf.unstack(noise(key, self.horizon, shape[1], self.action_size))
        task = np.repeat(task, shape[1], 0)
        batch, body = self._simulation(number)
        # After a step its velocities are computed, too, and, as in the authors' code, the forces
        # of its action in the new state.
        stages = optional('mujoco').mjtStage
        stage = int(stages.mjSTAGE_ACC if self.forces else stages.mjSTAGE_VEL)
        batch.reset(stage=int(stages.mjSTAGE_NONE))
        for array, value in zip((body.qpos, body.qvel), self.starts(key, shape[1])):
            array[:] = value.reshape(number, -1)
        batch.forward(stage=stage)

        blank = lambda *sizes: np.zeros((number, *sizes), floats)
        record = Trajectories(
            observations=blank(self.horizon, self.observation_size),
            actions=blank(self.horizon, self.action_size),
            rewards=blank(self.horizon),
            counts=blank(self.horizon),
            positions=blank(self.horizon + 1, self.seen_positions),
        )
        alive, lost = np.ones(number, bool), 0
        seen = self.observation(body).astype(floats)
        place = body.qpos[:, : self.seen_positions].copy()
        for t in range(self.horizon):
            record.observations[:, t], record.positions[:, t] = seen, place
            action = act(tf.constant(seen.reshape(*shape, -1)), drawn[t])
            action = np.asarray(action).reshape(number, -1)
            going = alive & np.isfinite(action).all(-1)
            clipped = np.clip(np.where(going[:, np.newaxis], action, 0.0), -1.0, 1.0)
            clipped = clipped.astype(np.float64)
            batch.ctrl[:] = clipped
            batch.step(going, stage=stage)

            with np.errstate(invalid='ignore', over='ignore'):
                after = self.observation(body).astype(floats)
                reward = self.reward(body, clipped, task).astype(floats)
            going &= np.isfinite(after).all(-1) & np.isfinite(reward) & ~bad_states(batch.warning)
            lost += int(np.sum(alive & ~going))
            record.actions[going, t] = action[going]
            record.rewards[going, t] = reward[going]
            record.counts[:, t] = going
            seen[going] = after[going]
            place[going] = body.qpos[going, : self.seen_positions]
            alive = going & ~self.fell(body)
            if not alive.any():
                break
        record.observations[:, t + 1 :] = seen[:, np.newaxis]
        record.positions[:, t + 1 :] = place[:, np.newaxis]
        return record, lost

    def _simulation(self, number):
        """Returns the simulations, and their arrays, which follow each call."""
        if number not in self._simulations:
            batch = self._batches.Batch(self.model, number, self.threads)
            body = types.SimpleNamespace(**{name: batch.bind(name) for name in self.fields})
            # Training and evaluation take turns, each with its own number; others are let go.
            if len(self._simulations) > 1:
                del self._simulations[next(iter(self._simulations))]
            self._simulations[number] = batch, body
        return self._simulations[number]
