"""The robots' tasks one at a time, as environments of gymnasium."""

import os
import types

import gymnasium
import numpy as np
from gymnasium import spaces

from maml_tf.rl.environments.mujoco_models import bad_states, optional, without_warnings
from maml_tf.rl.environments.robot import Robot

CAMERA = 'track'  # Of gymnasium's robots; it follows the centre of mass.


class RobotTask(gymnasium.Env):
    """One rollout at a time of a family of tasks: the same numbers as its batched rollouts.

    `reset(options={'task': number})` or the argument gives the task; without them `reset` draws one
    by its seed. `info['task']` says which it is. An action outside of [-1, 1] is clipped. A state
    that is not finite ends the rollout with reward 0 and `info['diverged']`.

    Args:
      robot: the robot with its tasks, one of robots.ROBOTS.
      task: a direction (1 or -1) or a speed.
      render_mode: of gymnasium's MuJoCo renderer.
      width, height: of a frame.
    """

    metadata = {
        'render_modes': ['human', 'rgb_array', 'depth_array', 'rgbd_tuple'],
        'render_fps': 50,
    }

    def __init__(
        self,
        robot: Robot,
        task: float | None = None,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
    ):
        self._mujoco = optional('mujoco')
        self.robot, self.model = robot, robot.model
        self.data = self._mujoco.MjData(self.model)
        # Views of one simulation, which follow the data.
        self._body = types.SimpleNamespace(
            **{name: getattr(self.data, name)[np.newaxis] for name in self.robot.fields}
        )
        self._given, self._task = task, None
        self._sizes, self._renderer = (width, height), None
        self.render_mode = render_mode
        self.metadata = {**self.metadata, 'render_fps': round(1 / self.model.opt.timestep)}
        seen = (self.robot.observation_size,)
        self.observation_space = spaces.Box(-np.inf, np.inf, seen, np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (self.robot.action_size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict | None = None
    ) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        task = (options or {}).get('task', self._given)
        drawn, normal = self.np_random.random(), self.np_random.standard_normal
        if task is None:
            task = self.robot.task(drawn)
        self._task = np.full((1, 1), task, np.float64)
        self.set_state(*self.robot.begin(normal(self.model.nq + self.model.nv)))
        return self.observation(), {'task': float(task)}

    def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Starts again from these positions [nq] and velocities [nv]."""
        self._mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        self._settle()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        before = self.observation()
        action = np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        self.data.ctrl[:] = action
        with without_warnings(), np.errstate(invalid='ignore', over='ignore'):
            self._mujoco.mj_step(self.model, self.data)
            self._settle()
            after = self.observation()
            reward = self.robot.reward(self._body, action[np.newaxis], self._task)[0]
        info = {'task': float(self._task[0, 0])}
        warnings = np.array([[[kind.lastinfo, kind.number] for kind in self.data.warning]])
        if bad_states(warnings)[0] or not np.isfinite([reward, *after, *action]).all():
            return before, 0.0, True, False, {**info, 'diverged': True}
        if self.render_mode == 'human':
            self.render()
        return after, float(reward), bool(self.robot.fell(self._body)[0]), False, info

    def render(self) -> np.ndarray | None:
        if self.render_mode is None:
            gymnasium.logger.warn('render() needs a render_mode, for example "rgb_array"')
            return None
        if self._renderer is None:
            from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

            if not any(os.environ.get(screen) for screen in ('DISPLAY', 'WAYLAND_DISPLAY')):
                # Gymnasium would try a window first, and fail.
                os.environ.setdefault('MUJOCO_GL', 'egl')
            width, height = self._sizes
            self._renderer = MujocoRenderer(
                self.model, self.data, width=width, height=height, camera_name=CAMERA
            )
        return self._renderer.render(self.render_mode)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def observation(self) -> np.ndarray:
        """Returns what the policy sees now, [observation_size]."""
        return self.robot.observation(self._body)[0]

    def _settle(self):
        """Computes what follows from positions and velocities, and the forces where they count."""
        if self.robot.forces:
            self._mujoco.mj_forward(self.model, self.data)
            return
        self._mujoco.mj_fwdPosition(self.model, self.data)
        self._mujoco.mj_fwdVelocity(self.model, self.data)
        self._mujoco.mj_subtreeVel(self.model, self.data)
