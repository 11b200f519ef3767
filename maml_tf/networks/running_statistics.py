"""Batch norm by running statistics that belong to a task: gathered from batches, used on others.

A network keeps no statistics, and inside an inner loop every task needs its own. So they are
tensors {norm0_mean: [tasks, channels], norm0_variance: ..., norm1_mean: ...}, which a learner hands
on from step to step like the weights.
"""

import copy
from collections.abc import Mapping

import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.networks.network import Network
from maml_tf.networks.reference import ReferenceNetwork
from maml_tf.ops import layers

Tensors = dict[str, tf.Tensor]

_OFFSET, _MEAN, _VARIANCE = '_beta', '_mean', '_variance'


def check_tells_statistics(network: Network) -> None:
    """Raises ArgumentError for a network whose statistics of batch norm cannot be gathered."""
    if network.norm == 'batch_norm' and not isinstance(network, ReferenceNetwork):
        reason = 'does not tell the statistics of its batch norm; take ConvNet or FullyConnected'
        raise ArgumentError('network', type(network).__name__, reason)


def is_statistic(name: str) -> bool:
    """Tells whether a tensor of this name is a running mean or variance."""
    return name.startswith('norm') and name.endswith((_MEAN, _VARIANCE))


def start(weights: Mapping[str, tf.Tensor]) -> Tensors:
    """Returns the statistics before any batch, means of 0 and variances of 1.

    weights: of a network with batch norm, each [tasks, ...].
    """
    statistics = {}
    for name, offset in weights.items():
        if name.startswith('norm') and name.endswith(_OFFSET):
            scope = name.removesuffix(_OFFSET)
            statistics[scope + _MEAN] = tf.zeros_like(offset)
            statistics[scope + _VARIANCE] = tf.ones_like(offset)
    return statistics


def forward_and_gather(
    network: ReferenceNetwork,
    x: tf.Tensor,
    weights: Mapping[str, tf.Tensor],
    statistics: Tensors,
    momentum: float,
) -> tuple[tf.Tensor, Tensors]:
    """Computes the outputs by the batch's statistics, and moves the running ones by these.

    Args:
      x: [tasks, n, *input_shape]; weights: as of Network.forward.
      statistics: before this batch.
      momentum: what is taken of the batch, as in Torch: r <- (1 - momentum) r + momentum b. The
        variance that is taken is the unbiased one.
    Returns: (outputs [tasks, n, output_dim], statistics after this batch).
    """
    moved = dict(statistics)

    def normalise(x, weights, block, pool):
        for kind, of_batch in zip((_MEAN, _VARIANCE), _moments(x)):
            name = f'norm{block}{kind}'
            moved[name] += momentum * (of_batch - moved[name])
        return network._normalise(x, weights, block, pool)

    return _with(network, normalise).forward(x, weights), moved


def forward_by(
    network: ReferenceNetwork, x: tf.Tensor, weights: Mapping[str, tf.Tensor], statistics: Tensors
) -> tf.Tensor:
    """Computes the outputs by given statistics: no example sees another.

    Args: as of `forward_and_gather`.
    Returns: [tasks, n, output_dim].
    """

    def normalise(x, weights, block, pool):
        mean, variance = (statistics[f'norm{block}{kind}'] for kind in (_MEAN, _VARIANCE))
        scale = tf.math.rsqrt(variance + network.epsilon)
        if f'norm{block}_gamma' in weights:
            scale *= weights[f'norm{block}_gamma']
        x = (x - layers.per_example(mean, x)) * layers.per_example(scale, x)
        x += layers.per_example(weights[f'norm{block}_beta'], x)
        return x if pool is None else layers.max_pool2x2(x, pool)

    return _with(network, normalise).forward(x, weights)


def _with(network, normalise):
    """A network of the same sizes that normalises by this function."""
    other = copy.copy(network)
    other._normalise = normalise
    return other


def _moments(x):
    """Mean and unbiased variance of each task's batch, [tasks, c] each; x: [tasks, n, ..., c]."""
    axes = list(range(1, x.shape.rank - 1))
    count = tf.cast(tf.reduce_prod(tf.shape(x)[1:-1]), x.dtype)
    mean = tf.reduce_mean(x, axes, keepdims=True)
    squares = tf.reduce_sum(tf.square(x - mean), axes)
    return tf.squeeze(mean, axes), squares / tf.maximum(count - 1, 1)
