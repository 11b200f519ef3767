"""A small U-Net, which gives every pixel of an image a class (Ronneberger et al. 2015)."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.networks.reference import Initializers, ReferenceNetwork
from maml_tf.ops import layers
from maml_tf.ops.shapes import sizes

DEPTH = 3  # how often an image is halved, unless said otherwise


class UNet(ReferenceNetwork):
    """Convolutions at falling and then at rising resolution, with links between equal ones.

    It is a reduction of the paper's network: one 3x3 convolution with SAME padding, normalisation
    and ReLU at each resolution on the way down and on the way up, where the paper has two without
    padding; the image is enlarged by repeating pixels. At resolution l, counted from 0, there are
    filters * 2**l channels. On the way up a convolution sees the enlarged image beside the one of
    its resolution on the way down. A 1x1 convolution, the head, tells the classes apart.

    Weights are conv0 b0 ... conv<2 depth> b<2 depth>, the way down first, and head_w, head_b.

    Args:
      input_shape: (height, width, channels), sides that are multiples of 2**depth.
      output_dim: classes of a pixel.
      filters: of the convolutions at full resolution.
      depth: how often the image is pooled by 2x2.
      norm, kwargs: see ReferenceNetwork, without `joined`.
    Raises: ArgumentError for a value that is out of range, and sides that cannot be halved so
      often.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        output_dim: int,
        filters: int = 16,
        depth: int = DEPTH,
        norm: str = 'batch_norm',
        **kwargs: Any,
    ):
        super().__init__(norm, **kwargs)
        if self.joined:
            raise ArgumentError('joined', self.joined, 'a U-Net takes no context, 0')
        for argument, value in (('filters', filters), ('depth', depth)):
            if value < 1:
                raise ArgumentError(argument, value, 'at least 1')
        if any(side % 2**depth for side in input_shape[:2]):
            height, width = input_shape[:2]
            reason = f'halves {depth} times: {height}x{width} are no multiples of {2**depth}'
            raise ArgumentError('depth', depth, reason)
        self.input_shape, self.output_dim = tuple(input_shape), output_dim
        self.filters, self.depth = filters, depth

    def initializers(self) -> Initializers:
        glorot, specs = keras.initializers.GlorotUniform(), {}
        channels = [self.filters * 2**level for level in range(self.depth + 1)]
        seen = [self.input_shape[-1], *channels[:-1]]  # on the way down
        made = [*channels, *reversed(channels[:-1])]
        seen += [3 * size for size in reversed(channels[:-1])]  # twice as many from below
        for i, (width, size) in enumerate(zip(seen, made, strict=True)):
            specs |= self._layer_initializers(f'conv{i}', f'b{i}', (3, 3, width, size), glorot)
        shape = self.filters, self.output_dim
        specs |= self._layer_initializers('head_w', 'head_b', shape, glorot)
        for i, size in enumerate(made):
            specs |= self._norm_initializers(i, size)
        return specs

    def is_head(self, name: str) -> bool:
        return name in ('head_w', 'head_b')

    def forward(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Computes the logits of every pixel, [tasks, n, height, width, output_dim]."""
        return self.head(self.features(x, weights), weights['head_w'], weights['head_b'])

    def features(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Computes what the head sees, [tasks, n, height, width, filters]; see `forward`."""
        links = []
        for level in range(self.depth + 1):
            if level:
                x = layers.max_pool2x2(x)
            x = self._block(level, weights, (x, weights[f'conv{level}']))
            links.append(x)
        for level in reversed(range(self.depth)):
            number = 2 * self.depth - level
            kernel, link = weights[f'conv{number}'], links[level]
            below = x.shape[-1]
            # The sum of two convolutions is that of the joined images.
            parts = (_enlarged(x), kernel[..., :below, :]), (link, kernel[..., below:, :])
            x = self._block(number, weights, *parts)
        return x

    def head(self, features: tf.Tensor, weight: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """Computes the logits of features; weight [(tasks,) filters, classes], bias alike."""
        tasks, n, height, width, channels = sizes(features)
        pixels = tf.reshape(features, [tasks, n * height * width, channels])
        logits = layers.linear(pixels, weight, bias, self.product_dtype)
        return tf.reshape(logits, [tasks, n, height, width, weight.shape[-1]])

    def _block(self, number, weights, *parts):
        x = sum(layers.conv3x3(x, kernel, 1, self.product_dtype) for x, kernel in parts)
        if self.norm != 'batch_norm':  # which takes any bias away
            x = x + layers.per_example(weights[f'b{number}'], x)
        return self._activate(self._normalise(x, weights, number, pool=None))


def _enlarged(x):
    """Repeats every pixel: [tasks, n, h, w, c] -> [tasks, n, 2 h, 2 w, c]."""
    tasks, n, height, width, channels = sizes(x)
    x = tf.broadcast_to(
        x[:, :, :, tf.newaxis, :, tf.newaxis], [tasks, n, height, 2, width, 2, channels]
    )
    return tf.reshape(x, [tasks, n, 2 * height, 2 * width, channels])
