"""Gaussian policies: a network's output is the mean of the action, its deviation is a weight."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.reference import Initializers
from maml_tf.ops.layers import per_example

LOG_STD = 'log_std'
LEAST_LOG_STD = math.log(1e-6)  # The authors'.


class Gaussian(NamedTuple):
    """Independent normal distributions of the numbers of an action.

    mean: [tasks, n, action_size]. log_std: [tasks, 1, action_size], the same for all n.
    """

    mean: tf.Tensor
    log_std: tf.Tensor

    def actions(self, noise: tf.Tensor) -> tf.Tensor:
        """Returns actions [tasks, n, action_size], drawn by standard normal noise."""
        return self.mean + tf.exp(self.log_std) * noise

    def log_likelihood(self, actions: tf.Tensor) -> tf.Tensor:
        """Returns the logarithm of the density at actions [tasks, n, action_size], [tasks, n]."""
        squares = tf.square((actions - self.mean) * tf.exp(-self.log_std))
        return -tf.reduce_sum(0.5 * (squares + math.log(2 * math.pi)) + self.log_std, -1)

    def divergence(self, other: 'Gaussian') -> tf.Tensor:
        """Returns the Kullback-Leibler divergence KL(self || other), [tasks, n]."""
        gap = tf.square(self.mean - other.mean) + tf.exp(2 * self.log_std)
        terms = other.log_std - self.log_std + 0.5 * (gap * tf.exp(-2 * other.log_std) - 1)
        return tf.reduce_sum(terms, -1)


class GaussianPolicy(FullyConnected):
    """A fully connected network with ReLUs for the mean; log_std does not depend on the state.

    All weights, log_std too, are adapted by the inner loop, and start as in the authors' code:
    Glorot's distribution, zero biases, deviation 1.

    Args:
      input_shape: (observation_size,).
      output_dim: action_size.
      hidden: units of each hidden layer.
      kwargs: ReferenceNetwork's, but for the norm.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_dim: int,
        hidden: tuple[int, ...] = (100, 100),
        start: str = 'glorot',
        **kwargs: Any,
    ):
        super().__init__(input_shape, output_dim, hidden, 'None', start=start, **kwargs)

    def initializers(self) -> Initializers:
        log_std = {LOG_STD: ((self.output_dim,), keras.initializers.Zeros())}
        return super().initializers() | log_std

    def is_head(self, name: str) -> bool:
        return name == LOG_STD or super().is_head(name)

    def distribution(self, observations: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> Gaussian:
        """Returns the distribution of the action in each state.

        Args:
          observations: [tasks, n, observation_size].
          weights: as of `forward`.
        """
        mean = self.forward(observations, weights)
        log_std = tf.maximum(weights[LOG_STD], LEAST_LOG_STD)
        shape = [tf.shape(mean)[0], 1, self.output_dim]  # Weights may be shared by all tasks.
        return Gaussian(mean, tf.broadcast_to(per_example(log_std, mean), shape))
