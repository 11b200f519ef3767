"""Robots in MuJoCo: every rollout of every task is stepped at once, on all cores."""

import types

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from maml_tf.episodes.random_bits import keyed_bits, normal, uniform
from maml_tf.rl.environments.environment import TASK, Act, Environment, Trajectories, noise
from maml_tf.rl.environments.mujoco_models import bad_states, optional, without_warnings
from maml_tf.rl.environments.robot import Robot
from maml_tf.rl.environments.strip import strip
from maml_tf.terminal.text import counted

START = 2  # Stream of a rollout's key.


class MuJoCoEnvironment(Environment):
    """A robot's tasks.

    Numbers are computed in float64, and rounded to keras.config.floatx() for the policy. What is
    simulated depends on the key alone, not on the number of threads.

    Args:
      robot: the robot with its tasks, one of robots.ROBOTS.
      threads: of the simulation; 0: as many as there are cores.
    Raises: UserError where mujoco is missing.
    """

    task_size = 1

    def __init__(self, robot: Robot, threads: int = 0):
        self._batches = optional('mujoco.batch')
        self.robot, self.threads = robot, threads
        self.name, self.horizon = robot.name, robot.horizon
        self.observation_size, self.action_size = robot.observation_size, robot.action_size
        self._simulations: dict[int, object] = {}

    def draw_tasks(self, tasks: int, key: tf.Tensor) -> tf.Tensor:
        """Returns a direction or a speed of each task, [tasks, 1]."""
        unit = uniform(keyed_bits(key, 1, TASK), 0.0, 1.0)
        return tf.cast(self.robot.task(unit), keras.config.floatx())

    def describe(self, task: tf.Tensor) -> str:
        return self.robot.describe(float(task[0]))

    def starts(self, key: tf.Tensor, rollouts: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws positions [tasks, rollouts, nq] and velocities [tasks, rollouts, nv].

        key: uint32 [tasks, 2].
        """
        size = 2 * (self.robot.model.nq + self.robot.model.nv)
        bits = keyed_bits(key, rollouts * size, START)
        drawn = normal(tf.reshape(bits, [-1, rollouts, size]))
        return self.robot.begin(drawn.numpy().astype(np.float64))

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
        stage = int(stages.mjSTAGE_ACC if self.robot.forces else stages.mjSTAGE_VEL)
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
            positions=blank(self.horizon + 1, self.robot.seen_positions),
        )
        alive, lost = np.ones(number, bool), 0
        seen = self.robot.observation(body).astype(floats)
        place = body.qpos[:, : self.robot.seen_positions].copy()
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
                after = self.robot.observation(body).astype(floats)
                reward = self.robot.reward(body, clipped, task).astype(floats)
            going &= np.isfinite(after).all(-1) & np.isfinite(reward) & ~bad_states(batch.warning)
            lost += int(np.sum(alive & ~going))
            record.actions[going, t] = action[going]
            record.rewards[going, t] = reward[going]
            record.counts[:, t] = going
            seen[going] = after[going]
            place[going] = body.qpos[going, : self.robot.seen_positions]
            alive = going & ~self.robot.fell(body)
            if not alive.any():
                break
        record.observations[:, t + 1 :] = seen[:, np.newaxis]
        record.positions[:, t + 1 :] = place[:, np.newaxis]
        return record, lost

    def _simulation(self, number):
        """Returns the simulations, and their arrays, which follow each call."""
        if number not in self._simulations:
            batch = self._batches.Batch(self.robot.model, number, self.threads)
            body = types.SimpleNamespace(**{name: batch.bind(name) for name in self.robot.fields})
            # Training and evaluation take turns, each with its own number; others are let go.
            if len(self._simulations) > 1:
                del self._simulations[next(iter(self._simulations))]
            self._simulations[number] = batch, body
        return self._simulations[number]

    def strip(
        self,
        trajectories: Trajectories,
        task: int = 0,
        rollout: int = 0,
        frames: int = 6,
        height: int = 160,
        width: int = 160,
    ) -> np.ndarray:
        """Draws one rollout at evenly spaced steps, from its first to its last, side by side.

        Args:
          trajectories: of `rollouts`.
          task, rollout: which of them.
          frames, height, width: how many, and their size in pixels.
        Returns: uint8 [height, frames * width, 3].
        Raises: UserError where nothing can be drawn, for want of EGL or OSMesa.
        """
        seen = np.asarray(trajectories.observations[task, rollout])
        positions = np.asarray(trajectories.positions[task, rollout])
        taken = int(np.sum(trajectories.counts[task, rollout]))
        steps = np.linspace(0, max(taken - 1, 0), frames).round().astype(int)
        poses = np.stack([self.robot.pose(seen[step], positions[step]) for step in steps])
        return strip(self.name, poses, height, width)
