"""A small network of molecules' graphs, with weights that may differ by task."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
import tensorflow as tf

from maml_tf.errors import ArgumentError, check_one_of
from maml_tf.networks.reference import Initializers, ReferenceNetwork
from maml_tf.ops import layers
from maml_tf.ops.shapes import sizes

BOND_TYPES = 5
READOUTS = ('mean', 'sum')
MOST_ATOMS = 256


def check_atoms(atoms: int) -> None:
    """Raises ArgumentError for a number of atoms that no graph here has."""
    if not 1 <= atoms <= MOST_ATOMS:
        raise ArgumentError('most_atoms', atoms, f'from 1 to {MOST_ATOMS}')


class GraphNetwork(ReferenceNetwork):
    """Passes messages along the bonds, sums up the atoms, then a hidden layer and a linear one.

    A graph is [atoms, features + atoms], see datasets/molecules/features.py: the atoms' features,
    of which the first is 1 where there is an atom, and the types of their bonds, 0 where there is
    none, up to BOND_TYPES. A layer is

        h_v <- ReLU(norm(h_v W + sum_t (sum of h_u over the bonds of type t of v) E_t + b)).

    That is a graph isomorphism network (Xu et al. 2019) whose perceptron has one layer, and whose
    1 + epsilon is part of W, with a matrix for every type of bond (Schlichtkrull et al. 2018). Its
    sizes are our choice.

    Args:
      input_shape: (atoms, features + atoms).
      output_dim: outputs of the last layer.
      hidden: features of an atom after each layer of messages.
      dense: units of the hidden layer.
      readout: 'mean' or 'sum' over the atoms.
      norm: 'layer_norm', over the features of each atom and of the hidden layer, or 'None'.
      start, kwargs: see ReferenceNetwork; a `joined` vector enters the hidden layer.
    Raises: ArgumentError for a value that is not among the choices, or what is no graph.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        output_dim: int,
        hidden: tuple[int, ...] = (64, 64, 64),
        dense: int = 64,
        readout: Literal['mean', 'sum'] = 'mean',
        norm: str = 'None',
        start: Literal['reference', 'torch', 'glorot', 'he'] = 'glorot',
        **kwargs: Any,
    ):
        super().__init__(norm, start=start, **kwargs)
        check_one_of('readout', readout, READOUTS)
        if norm == 'batch_norm':
            reason = 'would see the rows that fill up small molecules; layer_norm or None do not'
            raise ArgumentError('norm', norm, reason)
        if len(input_shape) != 2 or input_shape[0] >= input_shape[1]:
            raise ArgumentError('input_shape', tuple(input_shape), '(atoms, features + atoms)')
        self.input_shape, self.output_dim = tuple(input_shape), output_dim
        self.hidden, self.dense, self.readout = tuple(hidden), dense, readout

    def initializers(self) -> Initializers:
        atoms, width = self.input_shape
        reference = keras.initializers.TruncatedNormal(stddev=0.01)
        width -= atoms
        specs = {}
        for i, size in enumerate(self.hidden, start=1):
            specs |= self._layer_initializers(f'w{i}', f'b{i}', (width, size), reference)
            of_bonds = self._layer_initializers('e', 'b', (BOND_TYPES * width, size), reference)
            specs[f'e{i}'] = of_bonds['e']
            width = size
        last = len(self.hidden) + 1
        shapes = ((width + self.joined, self.dense), (self.dense, self.output_dim))
        for i, shape in enumerate(shapes, start=last):
            specs |= self._layer_initializers(f'w{i}', f'b{i}', shape, reference)
        for block, size in enumerate((*self.hidden, self.dense)):
            specs |= self._norm_initializers(block, size)
        return specs | self._context_initializers(self.joined)

    def is_head(self, name: str) -> bool:
        last = len(self.hidden) + 2
        return name in (f'w{last}', f'b{last}')

    def forward(self, x: tf.Tensor, weights: Mapping[str, tf.Tensor]) -> tf.Tensor:
        tasks, n, atoms, _ = sizes(x)
        width = self.input_shape[1] - self.input_shape[0]
        h, kinds = x[..., :width], tf.round(x[..., width:])
        there = h[..., :1]
        # Row t * atoms + v says which bonds of type t the atom v has.
        bonds = tf.concat([tf.cast(kinds == t, x.dtype) for t in range(1, BOND_TYPES + 1)], 2)
        h = tf.reshape(h, [tasks, n * atoms, width])
        for block in range(len(self.hidden)):
            w, b, e = (weights[f'{kind}{block + 1}'] for kind in 'wbe')
            width = h.shape[-1]
            messages = tf.matmul(bonds, tf.reshape(h, [tasks, n, atoms, width]))
            messages = tf.reshape(messages, [tasks, n, BOND_TYPES, atoms, width])
            messages = tf.transpose(messages, [0, 1, 3, 2, 4])
            messages = tf.reshape(messages, [tasks, n * atoms, BOND_TYPES * width])
            h = layers.linear(h, w, b, self.product_dtype)
            h += layers.linear(messages, e, tf.zeros_like(b), self.product_dtype)
            h = self._activate(self._normalise(h, weights, block, pool=None))
        h = tf.reshape(h, [tasks, n, atoms, h.shape[-1]])
        y = tf.reduce_sum(h * there, 2)
        if self.readout == 'mean':
            y /= tf.maximum(tf.reduce_sum(there, 2), 1)
        last = len(self.hidden) + 1
        y = self._join(y, weights)
        y = layers.linear(y, weights[f'w{last}'], weights[f'b{last}'], self.product_dtype)
        y = self._activate(self._normalise(y, weights, len(self.hidden), pool=None))
        w, b = weights[f'w{last + 1}'], weights[f'b{last + 1}']
        return layers.linear(y, w, b, self.product_dtype)
