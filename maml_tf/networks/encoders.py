"""Encoders: Keras models that turn images into features, with weights that all tasks share."""

from typing import Literal

import keras
import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.serialisation.configuration import Configured


def torch_default(fan_in: int) -> keras.initializers.Initializer:
    """Returns how PyTorch starts the weights and biases of a layer.

    Both are U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
    """
    bound = fan_in**-0.5
    return keras.initializers.RandomUniform(-bound, bound)


class BatchNorm(Configured, keras.layers.Layer):
    """Normalises images [n, height, width, channels] by the batch, or by running averages.

    By TensorFlow's fused kernels, 1.6 times as fast as Keras' BatchNormalization on a CPU. As in
    PyTorch, the running averages are of the mean and the unbiased variance. A learner moves
    them by its Update's state (training/phases.py), so that replicas cannot differ.

    Args:
      momentum: Keras', what is kept of the running average (PyTorch's is what is taken of the
        batch).
      epsilon: added to the variance.
      kwargs: keras.layers.Layer's (name, dtype).
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, **kwargs):
        super().__init__(**kwargs)
        self.momentum, self.epsilon = momentum, epsilon

    def build(self, shape: tuple[int | None, ...]) -> None:
        size = shape[-1:]
        self.gamma = self.add_weight(name='gamma', shape=size, initializer='ones')
        self.beta = self.add_weight(name='beta', shape=size, initializer='zeros')
        self.moving_mean, self.moving_variance = (
            keras.Variable(
                value,
                shape=size,
                dtype=self.variable_dtype,
                trainable=False,
                name=name,
                aggregation='only_first_replica',
            )
            for name, value in (('moving_mean', 'zeros'), ('moving_variance', 'ones'))
        )

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        gamma, beta, *moving = map(
            tf.convert_to_tensor, (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        )
        if x.dtype == tf.float32:
            y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=x,
                scale=gamma,
                offset=beta,
                mean=[] if training else moving[0],
                variance=[] if training else moving[1],
                epsilon=self.epsilon,
                is_training=training,
            )
        else:  # The fused kernels know no float64.
            mean, variance = tf.nn.moments(x, (0, 1, 2)) if training else moving
            y = tf.nn.batch_normalization(x, mean, variance, beta, gamma, self.epsilon)
            count = tf.cast(tf.size(x) // x.shape[-1], x.dtype)
            variance *= count / (count - 1)
        if training:
            for variable, old, new in zip(
                (self.moving_mean, self.moving_variance), moving, (mean, variance)
            ):
                variable.assign(self.momentum * old + (1 - self.momentum) * new)
        return y

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape


def check_can_be_halved(input_shape: tuple[int, ...], times: int) -> None:
    """Raises ArgumentError where images are too small to be halved so often."""
    smallest, least = min(input_shape[:2]), 2**times
    if smallest < least:
        reason = f'{times} blocks halve the images {times} times, which takes at least '
        raise ArgumentError('image_size', smallest, f'{reason}{least}x{least}')


def conv_block(
    number: int,
    filters: int,
    fan_in: int,
    padding: Literal['valid', 'same'] = 'same',
    pool: bool = True,
    kernel_initializer: keras.initializers.Initializer | None = None,
    momentum: float = 0.9,
) -> list[keras.layers.Layer]:
    """Makes the layers of one block: 3x3 convolution with bias, batch norm, 2x2 max-pool, ReLU.

    The papers' ReLU stands before the pooling, which gives the same: the maximum of four ReLUs is
    the ReLU of the maximum, and there is a quarter to compute.

    Args:
      number: names the layers, conv1, norm1 ...: a checkpoint knows them by it.
      filters: channels that come out.
      fan_in: channels that come in.
      padding: of the convolution.
      pool: whether to pool.
      kernel_initializer: of the convolution; None: PyTorch's.
      momentum: see BatchNorm.
    """
    initializer = torch_default(9 * fan_in)
    layers = [
        keras.layers.Conv2D(
            filters,
            3,
            padding=padding,
            bias_initializer=initializer,
            name=f'conv{number}',
            kernel_initializer=kernel_initializer or torch_default(9 * fan_in),
        ),
        BatchNorm(momentum, name=f'norm{number}'),
    ]
    return layers + [keras.layers.MaxPooling2D(2)] * pool + [keras.layers.ReLU()]


def conv4(
    input_shape: tuple[int, int, int],
    filters: int = 64,
    augmentation: tuple[keras.layers.Layer, ...] = (),
    name: str = 'encoder',
) -> keras.Model:
    """Makes the encoder of four convolution blocks, flattened (Vinyals et al. 2016, section 4.1).

    With 64 filters it has 64 features of 28x28 images, 1600 of 84x84.

    Args:
      input_shape: (height, width, channels).
      filters: of every convolution.
      augmentation: layers before the first, see augmentation.py.
      name: the model's.
    Raises: ArgumentError where the images are too small to be halved four times.
    """
    check_can_be_halved(input_shape, 4)
    layers = [*augmentation]
    for number, fan_in in enumerate([input_shape[-1]] + [filters] * 3, start=1):
        layers += conv_block(number, filters, fan_in)
    return keras.Sequential([keras.Input(input_shape), *layers, keras.layers.Flatten()], name=name)
