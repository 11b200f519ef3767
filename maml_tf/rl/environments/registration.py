"""Names of the robots' tasks for gymnasium.make; gymnasium itself calls `register`."""

import importlib

from maml_tf.rl.environments.mujoco_models import optional

HORIZON = 200
FAMILIES = {
    'HalfCheetahDir-v0': 'half_cheetah:HalfCheetahDirection',
    'HalfCheetahVel-v0': 'half_cheetah:HalfCheetahVelocity',
    'AntDir-v0': 'ant:AntDirection',
    'AntVel-v0': 'ant:AntVelocity',
}


def register() -> None:
    """Registers 'maml_tf/HalfCheetahDir-v0' and the others; a second time does nothing.

    Raises: UserError where gymnasium is missing.
    """
    gymnasium = optional('gymnasium')
    for name, family in FAMILIES.items():
        if f'maml_tf/{name}' not in gymnasium.registry:
            gymnasium.register(
                f'maml_tf/{name}',
                entry_point=f'{__name__}:make',
                max_episode_steps=HORIZON,
                kwargs={'family': family},
            )


def make(family: str, **arguments: object) -> object:
    """Returns a gym_environments.RobotTask; family: one of FAMILIES' values."""
    module, name = family.split(':')
    room = __name__.rpartition('.')[0]
    environments = importlib.import_module(f'{room}.gym_environments')
    return environments.RobotTask(
        getattr(importlib.import_module(f'{room}.{module}'), name), **arguments
    )
