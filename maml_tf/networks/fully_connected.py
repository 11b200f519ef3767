"""The fully connected networks of MAML's authors (Finn et al. 2017, sections 5.1 and 5.2)."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from maml_tf.networks.network import CONTEXT
from maml_tf.networks.reference import Initializers, ReferenceNetwork
from maml_tf.ops import layers


class FullyConnected(ReferenceNetwork):
    """Hidden layers with normalisation and ReLU, then a linear one.

    Args:
      input_shape: of one example; it is flattened.
      output_dim: outputs of the last layer.
      hidden: units of each hidden layer.
      norm, kwargs: see ReferenceNetwork. A `joined` vector enters the first layer.
    Raises: ArgumentError for a value that is not among the choices.
    """

    light = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_dim: int,
        hidden: tuple[int, ...] = (40, 40),
        norm: str = 'None',
        **kwargs: Any,
    ):
        super().__init__(norm, **kwargs)
        self.input_shape, self.output_dim = tuple(input_shape), output_dim
        self.hidden = tuple(hidden)

    def initializers(self) -> Initializers:
        sizes = [math.prod(self.input_shape) + self.joined, *self.hidden, self.output_dim]
        specs = {}
        for i, shape in enumerate(zip(sizes, sizes[1:]), start=1):
            reference = keras.initializers.TruncatedNormal(stddev=0.01)
            specs |= self._layer_initializers(f'w{i}', f'b{i}', shape, reference)
        for block, size in enumerate(self.hidden):
            specs |= self._norm_initializers(block, size)
        return specs | self._context_initializers(self.joined)

    def is_head(self, name: str) -> bool:
        last = len(self.hidden) + 1
        # The vector belongs to the layer that it enters.
        return name in (f'w{last}', f'b{last}', *([] if self.hidden else [CONTEXT]))

    def forward(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        x = tf.reshape(x, tf.concat([tf.shape(x)[:2], [math.prod(self.input_shape)]], 0))
        x = self._join(x, weights)
        for block in range(len(self.hidden)):
            w, b = weights[f'w{block + 1}'], weights[f'b{block + 1}']
            x = layers.linear(x, w, b, self.product_dtype)
            x = self._activate(self._normalise(x, weights, block, pool=None))
        last = len(self.hidden) + 1
        return layers.linear(x, weights[f'w{last}'], weights[f'b{last}'], self.product_dtype)
