"""All robots with their tasks, by the name of their --datasource."""

from maml_tf.rl.environments.ant import AntDirection, AntVelocity
from maml_tf.rl.environments.half_cheetah import HalfCheetahDirection, HalfCheetahVelocity

ROBOTS = {
    robot.name: robot
    for robot in (HalfCheetahDirection, HalfCheetahVelocity, AntDirection, AntVelocity)
}
