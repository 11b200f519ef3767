"""Advantages: how much better an action turned out than its state promised."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.ops.shapes import sizes
from maml_tf.rl.baseline import fitted
from maml_tf.rl.environments.environment import Trajectories


class Samples(NamedTuple):
    """Steps of all rollouts of a task in one row, as a policy gradient takes them.

    observations: [tasks, n, observation_size]. actions: [tasks, n, action_size].
    advantages: [tasks, n], of mean 0 and deviation 1 over the steps that count.
    counts: [tasks, n], 1 where a step counts.
    """

    observations: tf.Tensor
    actions: tf.Tensor
    advantages: tf.Tensor
    counts: tf.Tensor

    def mean(self, values: tf.Tensor) -> tf.Tensor:
        """Averages values [tasks, n] over the steps that count, [tasks]."""
        # What does not count may be infinite by now.
        values = tf.where(self.counts > 0, values, tf.zeros_like(values))
        return tf.math.divide_no_nan(tf.reduce_sum(values, -1), tf.reduce_sum(self.counts, -1))


def samples(trajectories: Trajectories, discount: float, gae_lambda: float) -> Samples:
    """Returns the steps of trajectories with their advantages, from which no gradient flows.

    Generalised advantage estimation (Schulman et al. 2016) with the linear feature baseline; the
    return after a rollout's last step counts as 0, also where the horizon cut it off.
    """
    rewards, counts = trajectories.rewards, trajectories.counts
    values = counts * fitted(trajectories.observations, discounted(rewards, discount), counts)
    following = tf.pad(values[..., 1:], [[0, 0], [0, 0], [0, 1]])
    surprise = counts * (rewards + discount * following - values)
    advantages = counts * discounted(surprise, discount * gae_lambda)
    tasks, rollouts, horizon = sizes(rewards)
    rows = lambda x: tf.reshape(x, [tasks, rollouts * horizon, *x.shape[3:]])
    taken = Samples(
        rows(trajectories.observations),
        rows(trajectories.actions),
        rows(advantages),
        rows(counts),
    )
    return tf.nest.map_structure(tf.stop_gradient, taken._replace(advantages=_standardised(taken)))


def discounted(values: tf.Tensor, discount: float) -> tf.Tensor:
    """Returns sum over k of discount^k values[..., t + k] at each t, [..., horizon]."""
    steps = np.arange(values.shape[-1])
    ahead = steps[:, None] - steps  # One product with all the powers is quicker than a loop.
    powers = np.where(ahead >= 0, float(discount) ** np.maximum(ahead, 0), 0.0)
    return tf.linalg.matmul(values, tf.constant(powers, values.dtype))


def _standardised(taken):
    """Returns the advantages shifted and scaled, task by task; 0 where a step does not count."""
    centred = taken.advantages - taken.mean(taken.advantages)[:, tf.newaxis]
    deviation = tf.sqrt(taken.mean(tf.square(centred)))[:, tf.newaxis]
    return taken.counts * centred / (deviation + 1e-8)
