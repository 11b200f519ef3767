"""Pictures of a robot, side by side.

They are drawn by a process of their own, without TensorFlow, which breaks Mesa's OpenGL.
"""

import io
import os
import pathlib
import subprocess
import sys

import numpy as np

from maml_tf.errors import UserError
from maml_tf.rl.environments.robots import ROBOTS

SECONDS = 300  # At most, where each picture takes a part of a second.


def strip(name: str, poses: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draws a robot; the camera follows it, and the floor's squares show how far it has come.

    Args:
      name: one of ROBOTS.
      poses: generalised positions, [frames, nq].
      height, width: of a frame, in pixels.
    Returns: uint8 [height, frames * width, 3].
    Raises: UserError where nothing can be drawn, for want of EGL or OSMesa.
    """
    package = str(pathlib.Path(__file__).parents[3])
    path = os.pathsep.join([package, *filter(None, [os.environ.get('PYTHONPATH')])])
    given = io.BytesIO()
    np.save(given, poses)
    try:
        drawn = subprocess.run(
            [sys.executable, '-m', __name__, name, str(height), str(width)],
            input=given.getvalue(),
            capture_output=True,
            timeout=SECONDS,
            env={**os.environ, 'PYTHONPATH': path},
            check=True,
        ).stdout
        return np.load(io.BytesIO(drawn))
    except (subprocess.SubprocessError, OSError, ValueError, EOFError) as error:
        said = (getattr(error, 'stderr', None) or b'').decode(errors='replace').strip()
        reason = said.splitlines()[-1] if said else error
        raise UserError(f'cannot draw the robot ({reason}): try MUJOCO_GL=egl') from None


def main() -> None:
    """Draws the poses of the standard input to the standard output."""
    from maml_tf.rl.environments.gym_environments import RobotTask

    name, height, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    # Libraries below Python print where the picture is to be.
    out = os.fdopen(os.dup(sys.stdout.fileno()), 'wb')
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    poses = np.load(io.BytesIO(sys.stdin.buffer.read()))
    scene = RobotTask(ROBOTS[name](), task=0.0, render_mode='rgb_array', width=width, height=height)
    frames = []
    for pose in poses:
        scene.set_state(pose, np.zeros(scene.model.nv))
        frames.append(scene.render())
    drawn = io.BytesIO()
    np.save(drawn, np.concatenate(frames, 1))
    out.write(drawn.getvalue())
    out.close()


if __name__ == '__main__':
    main()
