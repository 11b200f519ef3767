"""The networks of MAML's authors as pure functions of inputs and task-stacked weights.

Weights bear the authors' names: conv1 b1 ... w5 b5, or w1 b1 w2 ...; normalisation variables are
norm0_beta (and norm0_gamma where there is a scale) upwards.
"""

import abc
import math
from collections.abc import Mapping
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.network import Network
from maml_tf.ops import layers
from maml_tf.ops.pooling import Padding

NORMS = ('batch_norm', 'layer_norm', 'None')
HEADS = ('mean', 'flatten')
PADDINGS = ('valid', 'same')

# {name: (shape, initializer)}
Initializers = dict[str, tuple[tuple[int, ...], keras.initializers.Initializer]]


class ReferenceNetwork(Network):
    """What ConvNet and FullyConnected share: normalisation, and how initial values are drawn.

    Args:
      norm: one of NORMS, of the hidden layers.
      scale: batch normalisation has a scale (gamma) besides its offset; layer normalisation always
        has one.
      product_dtype: name of the dtype in which inputs and weights are multiplied, such as
        'bfloat16'; the rest is in the weights' own. None: that, too.
    Raises: ArgumentError for a value that is none of these.
    """

    def __init__(self, norm: str, scale: bool, product_dtype: str | None):
        _check_one_of('norm', norm, NORMS)
        if scale and norm != 'batch_norm':
            raise ArgumentError('scale', scale, f"for norm='batch_norm', not for norm={norm!r}")
        self.norm, self.scale = norm, scale
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
        return not name.startswith('norm')

    def _norm_initializers(self, block, channels):
        """The variables of one normalisation."""
        of_batch_norm = ['beta', 'gamma'] if self.scale else ['beta']
        names = {'batch_norm': of_batch_norm, 'layer_norm': ['beta', 'gamma'], 'None': []}
        start = {'beta': keras.initializers.Zeros(), 'gamma': keras.initializers.Ones()}
        return {f'norm{block}_{name}': ((channels,), start[name]) for name in names[self.norm]}

    def _batch_norm(self, x, weights, block, pool=None):
        gamma = weights[f'norm{block}_gamma'] if self.scale else None
        return layers.batch_norm(x, weights[f'norm{block}_beta'], pool=pool, gamma=gamma)

    def _normalise_relu(self, x, weights, block):
        if self.norm == 'batch_norm':
            x = self._batch_norm(x, weights, block)
        elif self.norm == 'layer_norm':
            x = layers.layer_norm(x, weights[f'norm{block}_gamma'], weights[f'norm{block}_beta'])
        return tf.nn.relu(x)


class FullyConnected(ReferenceNetwork):
    """Hidden layers with normalisation and ReLU, then a linear one.

    The networks of Finn et al. 2017, sections 5.1 and 5.2.

    Args:
      input_shape: of one example; it is flattened.
      output_dim: outputs of the last layer.
      hidden: units of each hidden layer.
      norm, product_dtype, scale: see ReferenceNetwork.
    Raises: ArgumentError for a value that is not among the choices.
    """

    light = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_dim: int,
        hidden: tuple[int, ...] = (40, 40),
        norm: str = 'None',
        product_dtype: str | None = None,
        scale: bool = False,
    ):
        super().__init__(norm, scale, product_dtype)
        self.input_shape, self.output_dim = tuple(input_shape), output_dim
        self.hidden = tuple(hidden)

    def initializers(self) -> Initializers:
        sizes = [math.prod(self.input_shape), *self.hidden, self.output_dim]
        specs = {}
        for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:]), start=1):
            specs[f'w{i}'] = (fan_in, fan_out), keras.initializers.TruncatedNormal(stddev=0.01)
            specs[f'b{i}'] = (fan_out,), keras.initializers.Zeros()
        for block, size in enumerate(self.hidden):
            specs |= self._norm_initializers(block, size)
        return specs

    def is_head(self, name: str) -> bool:
        last = len(self.hidden) + 1
        return name in (f'w{last}', f'b{last}')

    def forward(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        x = tf.reshape(x, tf.concat([tf.shape(x)[:2], [math.prod(self.input_shape)]], 0))
        for block in range(len(self.hidden)):
            x = layers.linear(
                x, weights[f'w{block + 1}'], weights[f'b{block + 1}'], self.product_dtype
            )
            x = self._normalise_relu(x, weights, block)
        last = len(self.hidden) + 1
        return layers.linear(x, weights[f'w{last}'], weights[f'b{last}'], self.product_dtype)


class ConvNet(ReferenceNetwork):
    """Four blocks of 3x3 convolution, normalisation and ReLU, then a linear layer.

    The network of Finn et al. 2017, section 5.2. Blocks stride by 2, or with `max_pool` pool by 2
    before the ReLU. With `scale` and 'flatten', on miniImageNet with 'same' padding of the pooling,
    it is that of Reptile (Nichol et al. 2018).

    Args:
      input_shape: (height, width, channels).
      output_dim: outputs of the linear layer.
      filters: of every convolution.
      norm, product_dtype, scale: see ReferenceNetwork.
      max_pool: pool rather than stride.
      head: what the linear layer sees, one of HEADS: the 'mean' over the last image (Omniglot; the
        layer starts from a standard normal) or all of it ('flatten', miniImageNet; Glorot uniform).
      pool_padding: of the pooling, one of PADDINGS: 'valid' leaves an odd last row or column out
        (84 -> 42 -> 21 -> 10 -> 5), 'same' pools it by itself (84 -> 42 -> 21 -> 11 -> 6).
    Raises: ArgumentError for a value that is not among the choices, and where images are too small
      to be pooled.
    """

    blocks = 4

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        output_dim: int,
        filters: int = 64,
        norm: str = 'batch_norm',
        max_pool: bool = False,
        head: Literal['mean', 'flatten'] = 'mean',
        product_dtype: str | None = None,
        scale: bool = False,
        pool_padding: Padding = 'valid',
    ):
        super().__init__(norm, scale, product_dtype)
        _check_one_of('head', head, HEADS)
        _check_one_of('pool_padding', pool_padding, PADDINGS)
        self.input_shape, self.output_dim, self.filters = tuple(input_shape), output_dim, filters
        self.max_pool, self.pool_padding, self.head = max_pool, pool_padding, head
        smallest = 2**self.blocks
        if max_pool and pool_padding == 'valid' and min(input_shape[:2]) < smallest:
            raise ArgumentError(
                'max_pool',
                max_pool,
                f'halves {self.blocks} times: images of {input_shape[0]}x{input_shape[1]} are '
                f'smaller than {smallest}x{smallest}',
            )

    def initializers(self) -> Initializers:
        specs, fan_in = {}, self.input_shape[-1]
        for i in range(1, self.blocks + 1):
            specs[f'conv{i}'] = (3, 3, fan_in, self.filters), keras.initializers.GlorotUniform()
            specs[f'b{i}'] = (self.filters,), keras.initializers.Zeros()
            fan_in = self.filters
        linear = keras.initializers.GlorotUniform()
        if self.head == 'mean':
            linear = keras.initializers.RandomNormal(stddev=1.0)
        specs['w5'] = (self._features(), self.output_dim), linear
        specs['b5'] = (self.output_dim,), keras.initializers.Zeros()
        for block in range(self.blocks):
            specs |= self._norm_initializers(block, self.filters)
        return specs

    def is_head(self, name: str) -> bool:
        return name in ('w5', 'b5')

    def forward(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        stride, pool = (1, self.pool_padding) if self.max_pool else (2, None)
        for block in range(self.blocks):
            x = layers.conv3x3(x, weights[f'conv{block + 1}'], stride, self.product_dtype)
            if self.norm == 'batch_norm':  # takes any bias away
                x = tf.nn.relu(self._batch_norm(x, weights, block, pool))
            else:
                x = x + layers.per_example(weights[f'b{block + 1}'], x)
                x = self._normalise_relu(x, weights, block)
                if pool is not None:
                    x = layers.max_pool2x2(x, pool)
        if self.head == 'mean':
            x = tf.reduce_mean(x, axis=(2, 3))
        else:
            x = tf.reshape(x, tf.concat([tf.shape(x)[:2], [self._features()]], 0))
        return layers.linear(x, weights['w5'], weights['b5'], self.product_dtype)

    def _features(self):
        """Counts what the linear layer sees."""
        if self.head == 'mean':
            return self.filters
        rounds_down = self.max_pool and self.pool_padding == 'valid'
        sides = self.input_shape[:2]
        for _ in range(self.blocks):
            sides = [side // 2 if rounds_down else -(-side // 2) for side in sides]
        return sides[0] * sides[1] * self.filters


def _check_one_of(argument, value, choices):
    if value not in choices:
        raise ArgumentError(argument, repr(value), f'one of {", ".join(choices)}')


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


def product_dtype(flags) -> str | None:
    """Returns the network argument that --bfloat16 stands for."""
    return 'bfloat16' if flags.bfloat16 else None


def check_flags(flags) -> None:
    """Raises UserError for a flag of convolutions where the network has none."""
    for name in ('num_filters', 'max_pool'):
        if not flags.conv and flags[name].value != flags[name].default:
            raise UserError(f'--{name}={flags[name].value}: means nothing with --conv=False')


def define_flags(flags) -> None:
    """Defines the flags of the networks."""
    flags.DEFINE_enum('norm', 'batch_norm', NORMS, 'normalisation of the hidden layers')
    flags.DEFINE_integer(
        'num_filters',
        64,
        'number of filters of the convolutional net: 64 for omniglot, 32 for miniimagenet',
        lower_bound=1,
    )
    flags.DEFINE_bool(
        'conv', True, 'convolutional network for images; False: fully connected, 256-128-64-64'
    )
    flags.DEFINE_bool(
        'bfloat16',
        False,
        'multiply in bfloat16; weights, their updates, normalisation and losses stay in float32',
    )
    flags.DEFINE_bool('max_pool', False, 'max-pooling rather than strided convolutions')
