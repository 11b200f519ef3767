"""The reference's networks as pure functions of (inputs, weights), stacked over tasks.

A network holds sizes, no weights: `construct_weights(seed)` gives initial values, `forward(x,
  weights)` the outputs. Weights bear the reference's names: conv1 b1 ... w5 b5, or w1 b1 w2 ...;
  normalisation variables are norm0_beta (and norm0_gamma with layer norm) upwards. Those are
  trained by the outer loop only (`adapted`).
"""

import math

import keras
import numpy as np
import tensorflow as tf

from maml_tf.errors import UserError
from maml_tf.ops import layers

NORMS = ('batch_norm', 'layer_norm', 'None')


class Network:
    """What the two networks share: the normalisation, and initial values drawn weight by weight.

    product_dtype: in which inputs and the weights of tasks are multiplied; the rest is in the
      weights' own.
    """

    def __init__(self, norm, product_dtype=None):
        if norm not in NORMS:
            raise ValueError(f'norm={norm!r}: one of {", ".join(NORMS)}')
        self.norm, self.product_dtype = norm, product_dtype

    def adapted(self, name):
        """Whether the inner loop changes this weight: all but the normalisation variables, as the
        reference."""
        return not name.startswith('norm')

    def construct_weights(self, seed):
        """{name: initial value, a float32 array}, a function of the seed alone."""
        seeds = np.random.SeedSequence(seed).generate_state(len(self.initializers()))
        values = {}
        for (name, (shape, initializer)), weight_seed in zip(self.initializers().items(), seeds):
            config = initializer.get_config() | (
                {'seed': int(weight_seed >> 1)} if 'seed' in initializer.get_config() else {}
            )
            values[name] = np.asarray(type(initializer).from_config(config)(shape, dtype='float32'))
        return values

    def _norm_initializers(self, block, channels):
        """Variables of one normalisation."""
        names = {'batch_norm': ['beta'], 'layer_norm': ['beta', 'gamma'], 'None': []}[self.norm]
        start = {'beta': keras.initializers.Zeros(), 'gamma': keras.initializers.Ones()}
        return {f'norm{block}_{name}': ((channels,), start[name]) for name in names}

    def _normalise_relu(self, x, weights, block):
        if self.norm == 'batch_norm':
            x = layers.batch_norm(x, weights[f'norm{block}_beta'])
        elif self.norm == 'layer_norm':
            x = layers.layer_norm(x, weights[f'norm{block}_gamma'], weights[f'norm{block}_beta'])
        return tf.nn.relu(x)


class FullyConnected(Network):
    """Hidden layers with normalisation and ReLU, then a linear one (Finn et al. 2017, sections 5.1
    and 5.2)."""

    light = True  # so little to do for a task that shares would cost more than they save

    def __init__(self, input_shape, output_dim, hidden=(40, 40), norm='None', product_dtype=None):
        super().__init__(norm, product_dtype)
        self.input_shape, self.output_dim, self.hidden = (
            tuple(input_shape),
            output_dim,
            tuple(hidden),
        )

    def initializers(self):
        """{name: (shape, Keras initializer)}"""
        sizes = [math.prod(self.input_shape), *self.hidden, self.output_dim]
        specs = {}
        for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:]), start=1):
            specs[f'w{i}'] = (fan_in, fan_out), keras.initializers.TruncatedNormal(stddev=0.01)
            specs[f'b{i}'] = (fan_out,), keras.initializers.Zeros()
        for block, size in enumerate(self.hidden):
            specs |= self._norm_initializers(block, size)
        return specs

    def forward(self, x, weights):
        """x: [tasks, n, *input_shape] -> [tasks, n, output_dim]; weights: {name: [(tasks,)
        ...]}."""
        x = tf.reshape(x, tf.concat([tf.shape(x)[:2], [math.prod(self.input_shape)]], 0))
        for block in range(len(self.hidden)):
            x = layers.linear(
                x, weights[f'w{block + 1}'], weights[f'b{block + 1}'], self.product_dtype
            )
            x = self._normalise_relu(x, weights, block)
        last = len(self.hidden) + 1
        return layers.linear(x, weights[f'w{last}'], weights[f'b{last}'], self.product_dtype)


class ConvNet(Network):
    """Four 3x3 convolution blocks and a linear layer (Finn et al. 2017, section 5.2).

    Blocks either stride by 2 or max-pool by 2 (`max_pool`). `head` says what the linear layer sees:
    the 'mean' over the last image (Omniglot; the layer starts from a standard normal) or all of it
    ('flatten', miniImageNet; Xavier).
    """

    blocks = 4

    def __init__(
        self,
        input_shape,
        output_dim,
        filters=64,
        norm='batch_norm',
        max_pool=False,
        head='mean',
        product_dtype=None,
    ):
        super().__init__(norm, product_dtype)
        self.input_shape, self.output_dim, self.filters = tuple(input_shape), output_dim, filters
        self.max_pool, self.head = max_pool, head
        if max_pool and min(input_shape[:2]) < 2**self.blocks:
            raise UserError(
                f'--max_pool halves {self.blocks} times: images of '
                f'{input_shape[0]}x{input_shape[1]} '
                f'are smaller than {2**self.blocks}x{2**self.blocks}'
            )

    def _features(self):
        if self.head == 'mean':
            return self.filters
        side = list(self.input_shape[:2])
        for _ in range(self.blocks):
            side = [n // 2 if self.max_pool else -(-n // 2) for n in side]
        return side[0] * side[1] * self.filters

    def initializers(self):
        """{name: (shape, Keras initializer)}"""
        specs, fan_in = {}, self.input_shape[-1]
        for i in range(1, self.blocks + 1):
            specs[f'conv{i}'] = (3, 3, fan_in, self.filters), keras.initializers.GlorotUniform()
            specs[f'b{i}'] = (self.filters,), keras.initializers.Zeros()
            fan_in = self.filters
        linear = (
            keras.initializers.RandomNormal(stddev=1.0)
            if self.head == 'mean'
            else keras.initializers.GlorotUniform()
        )
        specs['w5'] = (self._features(), self.output_dim), linear
        specs['b5'] = (self.output_dim,), keras.initializers.Zeros()
        for block in range(self.blocks):
            specs |= self._norm_initializers(block, self.filters)
        return specs

    def forward(self, x, weights):
        """x: [tasks, n, height, width, channels] -> [tasks, n, output_dim]; weights: {name:
        [(tasks,) ...]}."""
        for block in range(self.blocks):
            x = layers.conv3x3(
                x, weights[f'conv{block + 1}'], 1 if self.max_pool else 2, self.product_dtype
            )
            if self.norm == 'batch_norm':  # takes any bias away
                x = tf.nn.relu(
                    layers.batch_norm(x, weights[f'norm{block}_beta'], pool=self.max_pool)
                )
            else:
                x = self._normalise_relu(
                    x + layers.per_example(weights[f'b{block + 1}'], x), weights, block
                )
                x = layers.max_pool2x2(x) if self.max_pool else x
        if self.head == 'mean':
            x = tf.reduce_mean(x, axis=(2, 3))
        else:
            x = tf.reshape(x, tf.concat([tf.shape(x)[:2], [self._features()]], 0))
        return layers.linear(x, weights['w5'], weights['b5'], self.product_dtype)


def product_dtype(flags):
    """What --bfloat16 asks of a network."""
    return tf.bfloat16 if flags.bfloat16 else None


def define_flags(flags):
    """Flags of the networks."""
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
