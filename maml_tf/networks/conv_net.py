"""The convolutional network of MAML's authors (Finn et al. 2017, section 5.2)."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
import tensorflow as tf

from maml_tf.errors import ArgumentError, check_one_of
from maml_tf.networks.network import CONTEXT
from maml_tf.networks.reference import Initializers, ReferenceNetwork
from maml_tf.ops import layers
from maml_tf.ops.pooling import Padding

HEADS = ('mean', 'flatten')
PADDINGS = ('valid', 'same')
FILM_BLOCK = 2  # the third, as in CAVIA's code


class ConvNet(ReferenceNetwork):
    """Four blocks of 3x3 convolution, normalisation and ReLU, then a linear layer.

    Blocks stride by 2, or with `max_pool` pool by 2 before the ReLU. With `scale` and 'flatten', on
    miniImageNet with 'same' padding of the pooling, it is the network of Reptile (Nichol et al.
    2018); with `film` that of CAVIA (Zintgraf et al. 2019).

    Args:
      input_shape: (height, width, channels).
      output_dim: outputs of the linear layer.
      filters: of every convolution.
      norm, kwargs: see ReferenceNetwork. A `joined` vector enters the linear layer.
      max_pool: pool rather than stride.
      head: what the linear layer sees, one of HEADS: the 'mean' over the last image (Omniglot; the
        layer starts from a standard normal) or all of it ('flatten', miniImageNet; Glorot uniform).
      pool_padding: of the pooling, one of PADDINGS: 'valid' leaves an odd last row or column out
        (84 -> 42 -> 21 -> 10 -> 5), 'same' pools it by itself (84 -> 42 -> 21 -> 11 -> 6).
      film: length of a vector `context`, of which a linear layer makes a factor gamma and a summand
        delta for every filter of the third block: h <- gamma h + delta, before its ReLU (FiLM,
        Perez et al. 2018). 0: there is none.
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
        pool_padding: Padding = 'valid',
        film: int = 0,
        **kwargs: Any,
    ):
        super().__init__(norm, **kwargs)
        check_one_of('head', head, HEADS)
        check_one_of('pool_padding', pool_padding, PADDINGS)
        if film < 0:
            raise ArgumentError('film', film, 'the length of a vector, or 0 for none')
        if film and self.joined:
            raise ArgumentError('film', film, f'or joined={self.joined}, one of the two')
        self.input_shape, self.output_dim, self.filters = tuple(input_shape), output_dim, filters
        self.max_pool, self.pool_padding, self.head = max_pool, pool_padding, head
        self.film = film
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
        glorot = keras.initializers.GlorotUniform()
        for i in range(1, self.blocks + 1):
            shape = 3, 3, fan_in, self.filters
            specs |= self._layer_initializers(f'conv{i}', f'b{i}', shape, glorot)
            fan_in = self.filters
        of_mean = keras.initializers.RandomNormal(stddev=1.0)
        shape = self._features() + self.joined, self.output_dim
        linear = of_mean if self.head == 'mean' else glorot
        specs |= self._layer_initializers('w5', 'b5', shape, linear)
        for block in range(self.blocks):
            specs |= self._norm_initializers(block, self.filters)
        if self.film:
            # As PyTorch starts a layer, whatever `start`: at a context of zero its bias is all.
            bound = self.film**-0.5
            uniform = keras.initializers.RandomUniform(-bound, bound)
            specs['film_w'] = (self.film, 2 * self.filters), uniform
            specs['film_b'] = (2 * self.filters,), uniform
        return specs | self._context_initializers(self.joined or self.film)

    def is_head(self, name: str) -> bool:
        # The vector belongs to the layer that it enters.
        return name in ('w5', 'b5', *([CONTEXT] if self.joined else []))

    def forward(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        stride, pool = (1, self.pool_padding) if self.max_pool else (2, None)
        for block in range(self.blocks):
            x = layers.conv3x3(x, weights[f'conv{block + 1}'], stride, self.product_dtype)
            if self.norm == 'batch_norm':  # takes any bias away
                x = self._modulate(self._normalise(x, weights, block, pool), weights, block)
                x = self._activate(x)
                continue
            x = x + layers.per_example(weights[f'b{block + 1}'], x)
            x = self._normalise(x, weights, block, pool=None)
            if pool is not None:
                x = layers.max_pool2x2(x, pool)
            x = self._activate(self._modulate(x, weights, block))
        if self.head == 'mean':
            x = tf.reduce_mean(x, axis=(2, 3))
        else:
            x = tf.reshape(x, tf.concat([tf.shape(x)[:2], [self._features()]], 0))
        x = self._join(x, weights)
        return layers.linear(x, weights['w5'], weights['b5'], self.product_dtype)

    def _modulate(self, x, weights, block):
        """Applies FiLM to the images of its block."""
        if not self.film or block != FILM_BLOCK:
            return x
        context = weights[CONTEXT]
        stacked = context if context.shape.rank == 2 else context[tf.newaxis]
        w, b = weights['film_w'], weights['film_b']
        affine = layers.linear(stacked[:, tf.newaxis], w, b)[:, 0]
        gamma, delta = tf.split(affine, 2, axis=-1)
        return layers.per_example(gamma, x) * x + layers.per_example(delta, x)

    def _features(self):
        """Counts what the linear layer sees of the images."""
        if self.head == 'mean':
            return self.filters
        rounds_down = self.max_pool and self.pool_padding == 'valid'
        sides = self.input_shape[:2]
        for _ in range(self.blocks):
            sides = [side // 2 if rounds_down else -(-side // 2) for side in sides]
        return sides[0] * sides[1] * self.filters
