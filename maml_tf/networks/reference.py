"""What the networks of MAML's authors share: normalisation, nonlinearity, how weights start.

The networks themselves are in fully_connected.py and conv_net.py, pure functions of inputs and
task-stacked weights. Weights bear the authors' names: conv1 b1 ... w5 b5, or w1 b1 w2 ...;
normalisation variables are norm0_beta (and norm0_gamma where there is a scale) upwards.
"""

import abc
from collections.abc import Mapping
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from maml_tf.errors import ArgumentError, check_one_of
from maml_tf.networks.encoders import torch_default
from maml_tf.networks.network import CONTEXT, Network
from maml_tf.ops import layers
from maml_tf.ops.pooling import Padding

NORMS = ('batch_norm', 'layer_norm', 'None')
STARTS = ('reference', 'torch', 'glorot', 'he')

Initializer = keras.initializers.Initializer
# {name: (shape, initializer)}
Initializers = dict[str, tuple[tuple[int, ...], Initializer]]


class ReferenceNetwork(Network):
    """What ConvNet and FullyConnected share.

    Args:
      norm: one of NORMS, of the hidden layers.
      scale: batch normalisation has a scale (gamma) besides its offset; layer normalisation always
        has one.
      epsilon: of batch normalisation.
      product_dtype: name of the dtype in which inputs and weights are multiplied, such as
        'bfloat16'; the rest is in the weights' own. None: that, too.
      joined: length of a vector `context` that is joined to the input of a layer of every task: of
        the first fully connected one (bias transformation, CAVIA). 0: there is none.
      start: how weights are drawn, one of STARTS: as in the authors' code ('reference'), as
        PyTorch's layers start ('torch', U(+-1/sqrt(fan_in)), biases too), or with zero biases by
        Glorot's or He's uniform distribution.
      negative_slope: of the nonlinearity below zero; 0 is a ReLU.
    Raises: ArgumentError for a value that is none of these.
    """

    def __init__(
        self,
        norm: str,
        scale: bool = False,
        epsilon: float = 1e-3,
        product_dtype: str | None = None,
        joined: int = 0,
        start: Literal['reference', 'torch', 'glorot', 'he'] = 'reference',
        negative_slope: float = 0.0,
    ):
        check_one_of('norm', norm, NORMS)
        check_one_of('start', start, STARTS)
        if scale and norm != 'batch_norm':
            raise ArgumentError('scale', scale, f"for norm='batch_norm', not for norm={norm!r}")
        if joined < 0:
            raise ArgumentError('joined', joined, 'the length of a vector, or 0 for none')
        self.norm, self.scale, self.epsilon = norm, scale, epsilon
        self.joined, self.start, self.negative_slope = joined, start, negative_slope
        self.product_dtype = _dtype(product_dtype)

    @abc.abstractmethod
    def initializers(self) -> Initializers:
        """Returns each weight's shape and how it starts, in the order in which they are drawn."""

    def construct_weights(self, seed: int) -> dict[str, np.ndarray]:
        """Returns initial values by name, float32 arrays: a function of the seed alone."""
        seeds = np.random.SeedSequence(seed).generate_state(len(self.initializers()))
        return {
            name: _drawn(initializer, shape, int(weight_seed >> 1))
            for (name, (shape, initializer)), weight_seed in zip(self.initializers().items(), seeds)
        }

    def adapted(self, name: str) -> bool:
        """Tells whether the inner loop changes this weight: all but the normalisation variables."""
        return not self.is_norm(name)

    def is_norm(self, name: str) -> bool:
        return name.startswith('norm')

    def _layer_initializers(self, kernel, bias, shape, reference):
        """The weights of a layer, by these names; `reference`: how the authors start its kernel."""
        fan_in = int(np.prod(shape[:-1]))
        of_kernel = {
            'reference': reference,
            'glorot': keras.initializers.GlorotUniform(),
            'he': keras.initializers.HeUniform(),
        }
        of_bias = keras.initializers.Zeros()
        if self.start == 'torch':
            of_kernel['torch'] = of_bias = torch_default(fan_in)
        return {kernel: (shape, of_kernel[self.start]), bias: (shape[-1:], of_bias)}

    def _context_initializers(self, size):
        """The vector that is the same for all examples of a task."""
        return {CONTEXT: ((size,), keras.initializers.Zeros())} if size else {}

    def _norm_initializers(self, block, channels):
        """The variables of one normalisation."""
        of_batch_norm = ['beta', 'gamma'] if self.scale else ['beta']
        names = {'batch_norm': of_batch_norm, 'layer_norm': ['beta', 'gamma'], 'None': []}
        start = {'beta': keras.initializers.Zeros(), 'gamma': keras.initializers.Ones()}
        return {f'norm{block}_{name}': ((channels,), start[name]) for name in names[self.norm]}

    def _join(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Joins the vector to features [tasks, n, c], where there is one."""
        return layers.join(x, weights[CONTEXT]) if self.joined else x

    def _normalise(
        self, x: tf.Tensor, weights: Mapping[str, tf.Tensor], block: int, pool: Padding | None
    ) -> tf.Tensor:
        """Normalises; with batch norm, which is quicker so, the pooling follows here."""
        gamma = weights.get(f'norm{block}_gamma')
        if self.norm == 'batch_norm':
            beta = weights[f'norm{block}_beta']
            return layers.batch_norm(x, beta, self.epsilon, pool, gamma)
        if self.norm == 'layer_norm':
            return layers.layer_norm(x, gamma, weights[f'norm{block}_beta'])
        return x

    def _activate(self, x: tf.Tensor) -> tf.Tensor:
        if self.negative_slope:
            return tf.maximum(x, self.negative_slope * x)
        return tf.nn.relu(x)


def check_has_context(network: Network) -> None:
    """Raises ArgumentError for a network without a vector that methods could adapt."""
    if CONTEXT not in network.construct_weights(0):
        reason = f'has no weight {CONTEXT!r} to adapt; give it joined=5, for example'
        raise ArgumentError('network', type(network).__name__, reason)


def check_keeps_context(norm: str) -> None:
    """Raises ArgumentError for a normalisation that takes a joined vector away again."""
    if norm == 'batch_norm':
        reason = (
            'takes away what a vector adds alike to all examples of a task, in a fully connected '
            'network; layer_norm or None keep it'
        )
        raise ArgumentError('norm', norm, reason)


def _dtype(name):
    if name is None:
        return None
    try:
        dtype = tf.as_dtype(name)
    except TypeError:
        dtype = None
    if dtype is None or not dtype.is_floating:
        reason = "the name of a floating-point dtype, such as 'bfloat16'"
        raise ArgumentError('product_dtype', repr(name), reason)
    return dtype


def _drawn(initializer, shape, seed):
    """Draws an initial value; zeros and ones take no seed."""
    config = initializer.get_config()
    if 'seed' in config:
        config['seed'] = seed
    return np.asarray(type(initializer).from_config(config)(shape, dtype='float32'))
