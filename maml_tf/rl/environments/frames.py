"""Pictures of a robot in the course of a rollout."""

import numpy as np

from maml_tf.errors import UserError
from maml_tf.rl.environments.environment import Trajectories
from maml_tf.rl.environments.mujoco_rollouts import MuJoCoEnvironment


def strip(
    environment: MuJoCoEnvironment,
    trajectories: Trajectories,
    task: int = 0,
    rollout: int = 0,
    frames: int = 6,
    height: int = 160,
    width: int = 160,
) -> np.ndarray:
    """Draws one rollout at evenly spaced steps, from its first to its last, side by side.

    The camera follows the robot; the floor's squares show how far it has come, and
    `trajectories.positions` where it is.

    Args:
      trajectories: of `environment.rollouts`.
      task, rollout: which of them.
      frames: how many.
      height, width: of a frame, in pixels.
    Returns: uint8 [height, frames * width, 3].
    Raises: UserError where nothing can be drawn, since there is neither a screen nor EGL or OSMesa.
    """
    from maml_tf.rl.environments.gym_environments import RobotTask

    seen = np.asarray(trajectories.observations[task, rollout])
    positions = np.asarray(trajectories.positions[task, rollout])
    taken = int(np.sum(trajectories.counts[task, rollout]))
    steps = np.linspace(0, max(taken - 1, 0), frames).round().astype(int)
    scene = RobotTask(
        type(environment), task=0.0, render_mode='rgb_array', width=width, height=height
    )
    pictures = []
    try:
        for step in steps:
            pose = environment.pose(seen[step], positions[step])
            scene.set_state(pose, np.zeros(environment.model.nv))
            pictures.append(scene.render())
    except Exception as error:  # Each way to draw fails in its own.
        raise UserError(f'cannot draw the robot ({error}): try MUJOCO_GL=egl') from error
    finally:
        scene.close()
    return np.concatenate(pictures, 1)
