"""SNAIL's network for few-shot learning (Mishra et al., ICLR 2018, section 5.1)."""

import keras
import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.networks.encoders import torch_default
from maml_tf.networks.sequence_models.causal_blocks import CausalAttention, Past, tc_block
from maml_tf.serialisation.configuration import Configured

# (length of keys, of values) of the paper's three attentions, and filters of its dense blocks.
ATTENTIONS, FILTERS = ((64, 32), (256, 128), (512, 256)), 128


class SnailNetwork(Configured, keras.layers.Layer):
    """Attention, TC block, attention, TC block, attention and a linear layer.

    By the paper's sizes A(64, 32), TC(T, 128), A(256, 128), TC(T, 128), A(512, 256) and a 1x1
    convolution. See causal_blocks.py. All weights start as PyTorch's.

    Args:
      inputs: features of a position.
      outputs: what comes out at each position.
      length: T, of the longest sequence that dense blocks are to see as a whole. Longer ones are
        taken, too: attention sees all of them.
      filters, attentions: the sizes.
      name: the layer's.
      kwargs: keras.layers.Layer's (dtype).
    Raises: ArgumentError for a length below 2.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        length: int,
        filters: int = FILTERS,
        attentions: tuple[tuple[int, int], ...] = ATTENTIONS,
        name: str = 'network',
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        if length < 2:
            raise ArgumentError('length', length, 'at least 2: an example and a query')
        first, *others = attentions
        policy = self.dtype_policy
        self.blocks = [CausalAttention(*first, 'attention1', dtype=policy)]
        for number, sizes in enumerate(others, start=1):
            self.blocks += tc_block(length, filters, f'tc{number}', dtype=policy)
            self.blocks.append(CausalAttention(*sizes, f'attention{number + 1}', dtype=policy))
        shape = (None, None, inputs)
        for block in self.blocks:
            block.build(shape)
            shape = block.compute_output_shape(shape)
        start = torch_default(shape[-1])
        self.head = keras.layers.Dense(
            outputs, kernel_initializer=start, bias_initializer=start, dtype=policy, name='head'
        )
        self.head.build(shape)
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Returns the outputs at all positions of sequences, [n, length, inputs] -> [n, length,
        outputs]."""
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def read(self, x: tf.Tensor, there: tf.Tensor) -> Past:
        """Returns what positions after a sequence need of it, {name: [n, ...]}.

        x: [n, length, inputs]; there: [n, length], 1 where a position counts. Filling stands at the
          end.
        """
        past = {'there': there}
        for block in self.blocks:
            x, noted = block.read(x, there)
            past |= noted
        return past

    def step(self, x: tf.Tensor, past: Past) -> tf.Tensor:
        """Returns the outputs at positions of which each could come next, [n, m, outputs].

        x: [n, m, inputs]; past: what `read` returned.
        """
        for block in self.blocks:
            x = block.step(x, past)
        return self.head(x)
