"""An encoder and a head on its code: what the outer loop alone may learn, and what adapts.

The sizes are those of the released code of Yin et al. 2020 (google-research,
meta_learning_without_memorization): with convolutions `pose_code/maml_bbb.py`, without the notebook
of the sinusoid, where it regularises weights, but for the length of the code. With a bottleneck
they stay the same, which is our choice. There TensorFlow Probability starts the encoder; here
Glorot's distribution does, as in `pose_code/maml_vanilla_2.py`.
"""

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.reference import Initializers, ReferenceNetwork
from maml_tf.ops import layers

# By this name among the weights `forward` finds the noise of the code, [tasks, n, code].
NOISE = 'code_noise'
FILTERS = 32, 48, 64  # of the encoder's convolutions
DENSE, HIDDEN = (100,), (40, 40)  # units of the encoder and of the head, without convolutions
BLOCKS = 4  # of the head


class EncodedNetwork(ReferenceNetwork):
    """Makes a code of an input, of which a head makes the output.

    With `conv` the encoder is three 3x3 convolutions of stride 2 with ReLU, 2x2 max-pooling before
    the last, and a linear layer; the head sees the code as a square image: four 3x3 convolutions
    with normalisation and ReLU, the mean over the image, a linear layer. Without, the encoder is a
    hidden layer with ReLU and a linear one, and the head a FullyConnected.

    Args:
      input_shape: of one example; with `conv` (height, width, channels).
      output_dim: outputs of the last layer.
      filters: of the head's convolutions.
      norm, kwargs: see ReferenceNetwork; the encoder is not normalised, and nothing can be joined.
      conv: whether both convolve.
      code: numbers in the code; with `conv` a square number.
      bottleneck: the encoder says a mean and a deviation of each of these numbers. With NOISE among
        the weights the code is mean + deviation * noise, else the mean.
    Raises: ArgumentError for a value that is not among the choices, for images too small to be
      pooled, and for a code that is no square.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_dim: int,
        filters: int = 64,
        norm: str = 'batch_norm',
        conv: bool = True,
        code: int = 196,
        bottleneck: bool = False,
        **kwargs: Any,
    ):
        super().__init__(norm, **kwargs)
        self.input_shape, self.output_dim = tuple(input_shape), output_dim
        self.filters, self.conv, self.code, self.bottleneck = filters, conv, code, bottleneck
        self.light = not conv
        if self.joined:
            raise ArgumentError('joined', self.joined, 'this network has no place for a vector')
        if conv and math.isqrt(code) ** 2 != code:
            raise ArgumentError('code', code, 'a square number, or conv=False')
        if conv and min(self.input_shape[:2]) < 5:
            raise ArgumentError('image_size', min(self.input_shape[:2]), 'at least 5 pixels')
        if not conv:
            # MAML's authors start such layers next to zero, where a code would not get through.
            start = 'glorot' if self.start == 'reference' else self.start
            self._head = FullyConnected(
                (code,), output_dim, HIDDEN, norm, **kwargs | {'start': start}
            )

    def initializers(self) -> Initializers:
        glorot = keras.initializers.GlorotUniform()
        specs, fan_in = {}, self.input_shape[-1]
        if self.conv:
            for i, filters in enumerate(FILTERS, start=1):
                shape, names = (3, 3, fan_in, filters), (f'encoder_conv{i}', f'encoder_convb{i}')
                specs |= self._layer_initializers(*names, shape, glorot)
                fan_in = filters
        sizes = self._encoder_sizes()
        for i, shape in enumerate(zip(sizes, sizes[1:]), start=1):
            specs |= self._layer_initializers(f'encoder_w{i}', f'encoder_b{i}', shape, glorot)
        if not self.conv:
            return specs | self._head.initializers()
        fan_in = 1
        for i in range(1, BLOCKS + 1):
            shape = 3, 3, fan_in, self.filters
            specs |= self._layer_initializers(f'conv{i}', f'b{i}', shape, glorot)
            fan_in = self.filters
        of_mean = keras.initializers.RandomNormal(stddev=1.0)
        specs |= self._layer_initializers('w5', 'b5', (fan_in, self.output_dim), of_mean)
        for block in range(BLOCKS):
            specs |= self._norm_initializers(block, self.filters)
        return specs

    def _encoder_sizes(self):
        """The widths of what its dense layers see and make."""
        out = self.code * (2 if self.bottleneck else 1)
        if not self.conv:
            return [math.prod(self.input_shape), *DENSE, out]
        halved = lambda side: -(-side // 2)
        sides = [halved(halved(halved(side)) // 2) for side in self.input_shape[:2]]
        return [math.prod(sides) * FILTERS[-1], out]

    def is_head(self, name: str) -> bool:
        return name in ('w5', 'b5') if self.conv else self._head.is_head(name)

    def is_encoder(self, name: str) -> bool:
        return name.startswith('encoder_')

    def encode(
        self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns (the code or its mean, with a `bottleneck` its deviation, else None).

        x: [tasks, n, *input_shape]. Both are [tasks, n, code].
        """
        if self.conv:
            for i in range(1, len(FILTERS) + 1):
                if i == len(FILTERS):
                    x = layers.max_pool2x2(x)
                x = layers.conv3x3(x, weights[f'encoder_conv{i}'], 2, self.product_dtype)
                x = tf.nn.relu(x + layers.per_example(weights[f'encoder_convb{i}'], x))
        sizes = self._encoder_sizes()
        x = tf.reshape(x, tf.concat([tf.shape(x)[:2], sizes[:1]], 0))
        for i in range(1, len(sizes)):
            x = tf.nn.relu(x) if i > 1 else x
            w, b = weights[f'encoder_w{i}'], weights[f'encoder_b{i}']
            x = layers.linear(x, w, b, self.product_dtype)
        if not self.bottleneck:
            return x, None
        return x[..., : self.code], tf.nn.softplus(x[..., self.code :])

    def forward(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        x, deviation = self.encode(x, weights)
        if deviation is not None and NOISE in weights:
            x += deviation * weights[NOISE]
        if not self.conv:
            return self._head.forward(x, weights)
        side = math.isqrt(self.code)
        x = tf.reshape(x, tf.concat([tf.shape(x)[:2], [side, side, 1]], 0))
        for block in range(BLOCKS):
            x = layers.conv3x3(x, weights[f'conv{block + 1}'], 1, self.product_dtype)
            if self.norm != 'batch_norm':  # It takes any bias away.
                x = x + layers.per_example(weights[f'b{block + 1}'], x)
            x = self._activate(self._normalise(x, weights, block, pool=None))
        x = tf.reduce_mean(x, axis=(2, 3))
        return layers.linear(x, weights['w5'], weights['b5'], self.product_dtype)
