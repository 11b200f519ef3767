"""An environment that tells the policy its task: what an oracle gets to see."""

import tensorflow as tf

from maml_tf.rl.environments.environment import Act, Environment, Trajectories


class Told(Environment):
    """Another environment, whose observations are followed by the numbers of the task.

    environment: that one.
    """

    def __init__(self, environment: Environment):
        self.environment = environment
        self.name, self.compiled = environment.name, environment.compiled
        self.observation_size = environment.observation_size + environment.task_size
        self.action_size, self.horizon = environment.action_size, environment.horizon
        self.task_size = environment.task_size

    def draw_tasks(self, tasks: int, key: tf.Tensor) -> tf.Tensor:
        return self.environment.draw_tasks(tasks, key)

    def rollouts(self, act: Act, task: tf.Tensor, rollouts: int, key: tf.Tensor) -> Trajectories:
        def told(observations):
            between = observations.shape.rank - 2
            numbers = tf.reshape(task, [task.shape[0], *[1] * between, task.shape[1]])
            shape = [*observations.shape[:-1], task.shape[1]]
            return tf.concat([observations, tf.broadcast_to(numbers, shape)], -1)

        trajectories = self.environment.rollouts(
            lambda observations, noise: act(told(observations), noise), task, rollouts, key
        )
        return trajectories._replace(observations=told(trajectories.observations))

    def describe(self, task: tf.Tensor) -> str:
        return self.environment.describe(task)
