"""Half-cheetah that is to run in a direction or at a speed (Finn et al. 2017, section 5.3).

Observations, rewards, starts and the time step are those of the authors' code (rllab and
cbfinn/maml_rl). The robot is gymnasium's half_cheetah.xml, whose bodies, joints, gears, friction
and solver settings are rllab's number for number: nothing of its physics is changed. Gymnasium's
own environments repeat its step of 0.01 five times; here an action is one step, as in rllab.

What may still differ from the authors' results is MuJoCo itself: rllab had version 1.31, with
another solver of the contacts, and capsules whose inertia was approximated by a cylinder's.
"""

import types

import numpy as np

from maml_tf.rl.environments.goals import Direction, Speed
from maml_tf.rl.environments.mujoco_models import Description
from maml_tf.rl.environments.robot import TORSO, Robot

CONTROL_COST = 0.05


class HalfCheetah(Robot):
    """A half-cheetah sees its positions without x, its velocities and its centre of mass.

    It starts near the model's rest, and no fall ends a rollout.
    """

    observation_size = 20

    def build(self) -> tuple[object, np.ndarray]:
        description = Description('half_cheetah.xml')
        description.sense('subtreelinvel', body='torso')
        model = description.compile()
        return model, model.qpos0.copy()

    def observation(self, body: types.SimpleNamespace) -> np.ndarray:
        parts = body.qpos[:, 1:], body.qvel, body.subtree_com[:, TORSO]
        return np.concatenate(parts, -1)

    def pose(self, observation: np.ndarray, position: np.ndarray) -> np.ndarray:
        return np.concatenate([position, observation[: self.model.nq - 1]]).astype(np.float64)

    def costs(self, body: types.SimpleNamespace, action: np.ndarray) -> np.ndarray:
        return CONTROL_COST * np.sum(np.square(action), -1)


class HalfCheetahDirection(Direction, HalfCheetah):
    """The reward is the velocity along the direction - 0.05 |action|^2."""

    name = 'half_cheetah_dir'


class HalfCheetahVelocity(Speed, HalfCheetah):
    """The reward is -|velocity - speed| - 0.05 |action|^2."""

    name = 'half_cheetah_vel'
    speeds = (0.0, 2.0)
