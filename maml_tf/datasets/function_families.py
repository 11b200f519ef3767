"""Functions to learn in context (Garg et al. 2022, section 2, appendix A): endless tasks, no data.

Inputs are x ~ N(0, I). The definitions are the official code's (dtsip/in-context-learning).
"""

import abc
import math

import tensorflow as tf

from maml_tf.episodes.points import Division, Functions
from maml_tf.episodes.random_bits import Stream, choose, normal, uniform
from maml_tf.episodes.task import Draw, EpisodeSpec

SPARSITY, DEPTH, HIDDEN = 3, 4, 100


class Family(Functions):
    """Functions of one kind; subclasses write `parameters` and `values`.

    Args:
      dimension: of x.
    """

    def __init__(self, dimension: int = 20):
        self.dimension = dimension
        self.input_shape = (dimension,)

    def tasks(self, split: str, spec: EpisodeSpec, seed: int) -> Draw:
        """Returns draw(start, count), which gives tasks of spec.shot support and spec.query query
        points."""
        division = Division(spec, (seed, split))

        def draw(start, count):
            x = _normals((seed, split, 1), start, count, division.points, self.dimension)
            y = self.values(x, *self.parameters(split, seed, start, count))
            return division(x, y, division.drawn(start, count))

        return draw

    @abc.abstractmethod
    def parameters(
        self, split: str, seed: int, start: tf.Tensor | int, count: int
    ) -> tuple[tf.Tensor, ...]:
        """Draws what makes each task's function, as tensors [count, ...]."""

    @abc.abstractmethod
    def values(self, x: tf.Tensor, *parameters: tf.Tensor) -> tf.Tensor:
        """Returns the functions at x: [count, points, dimension] -> [count, points, 1]."""


class Linear(Family):
    """y = w'x, w ~ N(0, I)."""

    def parameters(
        self, split: str, seed: int, start: tf.Tensor | int, count: int
    ) -> tuple[tf.Tensor, ...]:
        """Draws w [count, dimension, 1]."""
        return (_normals((seed, split, 0), start, count, self.dimension, 1),)

    def values(self, x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return x @ weights


class SparseLinear(Linear):
    """y = w'x with 3 random coordinates of w ~ N(0, I) kept and the others 0."""

    def parameters(
        self, split: str, seed: int, start: tf.Tensor | int, count: int
    ) -> tuple[tf.Tensor, ...]:
        """Draws w [count, dimension, 1]."""
        kept = choose(
            Stream(seed, split, 2).bits(start, count, self.dimension), min(SPARSITY, self.dimension)
        )
        mask = tf.reduce_sum(tf.one_hot(kept, self.dimension), 1)
        (weights,) = super().parameters(split, seed, start, count)
        return (weights * mask[:, :, None],)


class DecisionTree(Family):
    """A full binary tree of depth 4: a node goes right where its random coordinate is positive,
    leaves are N(0, 1)."""

    def parameters(
        self, split: str, seed: int, start: tf.Tensor | int, count: int
    ) -> tuple[tf.Tensor, ...]:
        """Draws the nodes' coordinates, int32 [count, 15], and leaves [count, 16].

        The children of node i are 2i + 1 and 2i + 2.
        """
        nodes = 2**DEPTH - 1
        bits = Stream(seed, split, 2).bits(start, count, nodes)
        leaves = _normals((seed, split, 0), start, count, nodes + 1)
        return tf.cast(uniform(bits, 0.0, float(self.dimension)), tf.int32), leaves

    def values(self, x: tf.Tensor, coordinates: tf.Tensor, leaves: tf.Tensor) -> tf.Tensor:
        node = tf.zeros(x.shape[:2], tf.int32)
        for _ in range(DEPTH):
            coordinate = tf.gather(coordinates, node, batch_dims=1)
            right = tf.gather(x, coordinate, batch_dims=2) > 0
            node = 2 * node + 1 + tf.cast(right, tf.int32)
        return tf.gather(leaves, node - (2**DEPTH - 1), batch_dims=1)[:, :, None]


class TwoLayerNetwork(Family):
    """y = sqrt(2 / 100) v' relu(W'x), W [dimension, 100] and v of N(0, 1)."""

    def parameters(
        self, split: str, seed: int, start: tf.Tensor | int, count: int
    ) -> tuple[tf.Tensor, ...]:
        """Draws W [count, dimension, 100] and v [count, 100, 1]."""
        return (
            _normals((seed, split, 0), start, count, self.dimension, HIDDEN),
            _normals((seed, split, 2), start, count, HIDDEN, 1),
        )

    def values(self, x: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        return math.sqrt(2 / HIDDEN) * (tf.nn.relu(x @ first) @ second)


def _normals(stream, start, count, *shape):
    """Draws the standard normals of a random_bits.Stream, [count, *shape]."""
    return tf.reshape(
        normal(Stream(*stream).bits(start, count, 2 * math.prod(shape))), [count, *shape]
    )
