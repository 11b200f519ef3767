"""The network of cells for methods that adapt its weights, task by task.

A RECONSTRUCTION of Auto-Meta's networks (Kim et al. 2018, arXiv 1806.06927), of which there is no
official code. How the cells are strung together is our choice: a 3x3 convolution of stride 2 and
copies of one cell, with pooling by 2 between them. ReLU comes before each convolution of a cell and
normalisation after it.
"""

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.networks.cells.cell import OUTSIDE, Cell
from maml_tf.networks.network import CONTEXT
from maml_tf.networks.reference import Initializers, ReferenceNetwork
from maml_tf.ops import layers
from maml_tf.ops.windows.depthwise import depthwise
from maml_tf.ops.windows.pooling import average_pool3x3, max_pool3x3

# What an operation convolves with: (depthwise size or 0, size of the full kernel).
CONVOLUTIONS = {
    'conv1x1': (0, 1),
    'conv3x3': (0, 3),
    'conv5x5': (0, 5),
    'separable3x3': (3, 1),
    'separable5x5': (5, 1),
}
POOLS = {'max3x3': max_pool3x3, 'average3x3': average_pool3x3}
SIDES = ('a', 'b')


class CellNet(ReferenceNetwork):
    """A 3x3 convolution, copies of a cell, then a linear layer that sees all of the last image.

    The convolution has stride 2, and its output is what the first cell takes as both of its images.
    The images of every other cell are pooled by 2, an odd last row or column by itself (84 -> 42 ->
    21 -> 11). The operations of a cell are

      conv, separable: ReLU, convolution (separable: each channel by itself, then 1x1),
        normalisation.
      max, average: of 3x3 pixels. identity: nothing.

    The outputs of a cell's `ends` are joined; ReLU, a 1x1 convolution to `filters` and
    normalisation follow. Biases are where there is no normalisation.

    Args:
      input_shape: (height, width, channels).
      output_dim: outputs of the linear layer.
      cell: what is repeated.
      filters: channels of every image within.
      cells: copies of the cell.
      norm, kwargs: see ReferenceNetwork; a `joined` vector enters the linear layer, and `start`
        'reference' is Glorot's.
    Raises: ArgumentError for numbers below 1, and where images are too small to be pooled.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        output_dim: int,
        cell: Cell,
        filters: int = 64,
        cells: int = 2,
        norm: str = 'batch_norm',
        **kwargs: Any,
    ):
        super().__init__(norm, **kwargs)
        self.input_shape, self.output_dim = tuple(input_shape), output_dim
        self.cell, self.filters, self.cells = cell, filters, cells
        check_sizes(self.input_shape, filters, cells)

    def initializers(self) -> Initializers:
        shape = 3, 3, self.input_shape[-1], self.filters
        specs = self._convolution_initializers('stem', shape)
        for number in range(self.cells):
            for place, block in enumerate(self.cell.blocks):
                for side, operation in zip(SIDES, (block[1], block[3])):
                    if operation in CONVOLUTIONS:
                        name = f'cell{number}_block{place}{side}'
                        specs |= self._operation_initializers(name, *CONVOLUTIONS[operation])
            shape = 1, 1, len(self.cell.ends) * self.filters, self.filters
            specs |= self._convolution_initializers(f'cell{number}_join', shape)
        features = math.prod(halved(self.input_shape[:2], self.cells)) * self.filters
        glorot = keras.initializers.GlorotUniform()
        shape = features + self.joined, self.output_dim
        specs |= self._layer_initializers('head', 'head_bias', shape, glorot)
        return specs | self._context_initializers(self.joined)

    def is_head(self, name: str) -> bool:
        return name in ('head', 'head_bias', *([CONTEXT] if self.joined else []))

    def forward(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        images = [self._convolve(x, weights, 'stem', stride=2)] * OUTSIDE
        for number in range(self.cells):
            if number:
                images = [layers.max_pool2x2(x, 'same') for x in images]
            images = [images[1], self._cell(images, weights, f'cell{number}')]
        previous = images[1]
        last = self._activate(previous)
        n, features = tf.shape(last)[:2], math.prod(last.shape[2:])
        x = self._join(tf.reshape(last, tf.concat([n, [features]], 0)), weights)
        return layers.linear(x, weights['head'], weights['head_bias'], self.product_dtype)

    def _cell(self, images, weights, name):
        for place, (input_a, of_a, input_b, of_b) in enumerate(self.cell.blocks):
            sides = zip(SIDES, (input_a, input_b), (of_a, of_b))
            images = [
                *images,
                tf.add_n(
                    [
                        self._operate(
                            images[taken], operation, weights, f'{name}_block{place}{side}'
                        )
                        for side, taken, operation in sides
                    ]
                ),
            ]
        joined = tf.concat([images[end] for end in self.cell.ends], -1)
        return self._convolve(self._activate(joined), weights, f'{name}_join')

    def _operate(self, x, operation, weights, name):
        """Applies an operation to images [tasks, n, height, width, filters]."""
        if operation in POOLS:
            return POOLS[operation](x)
        if operation == 'identity':
            return x
        x = self._activate(x)
        if CONVOLUTIONS[operation][0]:
            x = depthwise(x, weights[f'{name}_depthwise'], self.product_dtype)
        return self._convolve(x, weights, name)

    def _convolve(self, x, weights, name, stride=1):
        x = layers.conv(x, weights[name], stride, self.product_dtype)
        if self.norm == 'None':
            return x + layers.per_example(weights[f'{name}_bias'], x)
        return self._normalise(x, weights, f'_{name}', pool=None)

    def _operation_initializers(self, name, depth, size):
        specs = {}
        if depth:
            # Of each channel's own inputs and outputs, depth * depth.
            share = {'torch': 1, 'he': 6}.get(self.start, 3) ** 0.5 / depth
            start = keras.initializers.RandomUniform(-share, share)
            specs[f'{name}_depthwise'] = (depth, depth, self.filters), start
        shape = size, size, self.filters, self.filters
        return specs | self._convolution_initializers(name, shape)

    def _convolution_initializers(self, name, shape):
        glorot = keras.initializers.GlorotUniform()
        specs = self._layer_initializers(name, f'{name}_bias', shape, glorot)
        if self.norm != 'None':
            del specs[f'{name}_bias']
        return specs | self._norm_initializers(f'_{name}', self.filters)


def check_sizes(input_shape: tuple[int, ...], filters: int, cells: int) -> None:
    """Raises ArgumentError for numbers below 1, and images too small to be pooled so often."""
    for argument, value in (('filters', filters), ('cells', cells)):
        if value < 1:
            raise ArgumentError(argument, value, 'at least 1')
    if min(input_shape[:2]) < 2**cells:
        height, width = input_shape[:2]
        reason = f'each halves the images, {height}x{width}; take fewer, or larger images'
        raise ArgumentError('cells', cells, reason)


def halved(sides: tuple[int, int], times: int) -> tuple[int, int]:
    """Returns the sides of images that are pooled so often, odd ones rounded up."""
    for _ in range(times):
        sides = tuple(-(-side // 2) for side in sides)
    return sides
