"""Names of the robots' tasks for gymnasium.make, known once this module is imported.

The name 'maml_tf.rl.environments.registration:maml_tf/HalfCheetahDir-v0' has it imported.
"""

import gymnasium

from maml_tf.rl.environments.gym_environments import RobotTask
from maml_tf.rl.environments.robots import ROBOTS


def register() -> None:
    """Registers 'maml_tf/HalfCheetahDir-v0' and the others; a second time does nothing."""
    for name, robot in ROBOTS.items():
        known = gymnasium_name(name)
        if known not in gymnasium.registry:
            gymnasium.register(
                known,
                entry_point=f'{__name__}:make',
                max_episode_steps=robot.horizon,
                kwargs={'name': name},
            )


def gymnasium_name(name: str) -> str:
    """Returns 'maml_tf/HalfCheetahDir-v0' of 'half_cheetah_dir'."""
    return f'maml_tf/{name.title().replace("_", "")}-v0'


def make(name: str, **arguments: object) -> RobotTask:
    """Returns the environment of one of ROBOTS; arguments: of RobotTask."""
    return RobotTask(ROBOTS[name](), **arguments)


register()
