"""Ant that is to walk in a direction or at a speed (Finn et al. 2017, section 5.3).

Observations, rewards, starts, ends and the time step are those of the authors' code (rllab and
cbfinn/maml_rl). The robot is gymnasium's ant.xml, with two changes that make it rllab's: a time
step of 0.02 instead of 0.01, one step for each action instead of five, and contacts with rllab's
solref and solimp. Motors of gear 150 and controls up to 1 are rllab's controls up to 150,
rescaled.

What may still differ from the authors' results is MuJoCo itself: rllab had version 1.31, with
another solver of the contacts, and capsules whose inertia was approximated by a cylinder's.
Versions since 2.0 compute the contact forces for sensors alone; one is added, so that the policy
sees them.
"""

import types

import numpy as np

from maml_tf.rl.environments.goals import Direction, Speed
from maml_tf.rl.environments.mujoco_models import Description
from maml_tf.rl.environments.robot import TORSO, Robot

TIME_STEP = '0.02'
CONTACTS = {'solref': '0.02 1', 'solimp': '0.8 0.8 0.01'}
HEIGHTS = (0.2, 1.0)
SURVIVAL, CONTROL_COST, CONTACT_COST = 0.05, 0.5e-2, 0.5e-3


class Ant(Robot):
    """An ant sees all of its state: x and y are among it, unlike the half-cheetah's.

    These are its positions (15), velocities (14), the contact forces on each of 14 bodies, clipped
    to [-1, 1] (84), the torso's rotation (9) and the centre of mass (3). A rollout ends where the
    torso's height leaves [0.2, 1].
    """

    observation_size = 125
    fields = (*Robot.fields, 'cfrc_ext', 'xmat')
    forces = True
    seen_positions = 2

    def build(self) -> tuple[object, np.ndarray]:
        description = Description('ant.xml')
        description.root.find('option').set('timestep', TIME_STEP)
        for name, value in CONTACTS.items():
            description.root.find('default/geom').set(name, value)
        description.sense('subtreelinvel', body='torso')
        # MuJoCo computes the forces on bodies for such a sensor alone.
        description.sense('framelinacc', objtype='body', objname='torso')
        model = description.compile()
        return model, np.array(model.numeric('init_qpos').data)

    def begin(self, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        position, velocity = super().begin(normal)
        # MuJoCo 1.31 made a rotation's quaternion one of length 1 in the state itself.
        turn = position[..., 3:7]
        turn /= np.linalg.norm(turn, axis=-1, keepdims=True)
        return position, velocity

    def observation(self, body: types.SimpleNamespace) -> np.ndarray:
        simulations = len(body.qpos)
        parts = (
            body.qpos,
            body.qvel,
            _clipped_forces(body),
            body.xmat[:, TORSO].reshape(simulations, -1),
            body.subtree_com[:, TORSO],
        )
        return np.concatenate(parts, -1)

    def pose(self, observation: np.ndarray, position: np.ndarray) -> np.ndarray:
        return observation[: self.model.nq].astype(np.float64)

    def fell(self, body: types.SimpleNamespace) -> np.ndarray:
        low, high = HEIGHTS
        return (body.qpos[:, 2] < low) | (body.qpos[:, 2] > high)

    def costs(self, body: types.SimpleNamespace, action: np.ndarray) -> np.ndarray:
        control = CONTROL_COST * np.sum(np.square(action), -1)
        contact = CONTACT_COST * np.sum(np.square(_clipped_forces(body)), -1)
        return control + contact - SURVIVAL


class AntDirection(Direction, Ant):
    """The reward is the velocity along the direction - 0.005 |action|^2 - 0.0005 |forces|^2 + 0.05.

    The forces are those that the ant sees.
    """

    name = 'ant_dir'


class AntVelocity(Speed, Ant):
    """The reward is 1 - |velocity - speed| - 0.005 |action|^2 - 0.0005 |forces|^2 + 0.05.

    The forces are those that the ant sees.
    """

    name = 'ant_vel'
    speeds = (0.0, 3.0)
    content = 1.0  # So that no ant would rather fall than be slow.


def _clipped_forces(body):
    """Returns the contact forces, [simulations, 6 * bodies]."""
    return np.clip(body.cfrc_ext, -1.0, 1.0).reshape(len(body.cfrc_ext), -1)
