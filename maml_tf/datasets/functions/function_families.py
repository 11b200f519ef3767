"""Functions to learn in context (Garg et al. 2022, section 2, appendix A): endless tasks, no data.

Inputs are x ~ N(0, I). The definitions are the official code's (dtsip/in-context-learning). Scores
are squared errors over the variance of y, as the authors plot them: 1 is the error of the
prediction 0.
"""

import abc
import math

import tensorflow as tf

from maml_tf.datasets.functions.prompt_shifts import STANDARD, Shift, normals
from maml_tf.episodes.points import Division, Functions
from maml_tf.episodes.random_bits import Stream, choose, uniform
from maml_tf.episodes.task import Draw, EpisodeSpec
from maml_tf.errors import ArgumentError
from maml_tf.objectives.regression import Regression

SPARSITY, DEPTH, HIDDEN = 3, 4, 100
# Of the source's shift the training tasks know nothing.
EVALUATED = ('val', 'test')


class Family(Functions):
    """Functions of one kind; subclasses write `variance`, `parameters` and `values`.

    Args:
      dimension: of x.
      shift: how the tasks of evaluation differ from those of training, see prompt_shifts.py.
    """

    def __init__(self, dimension: int = 20, shift: Shift = STANDARD):
        self.dimension, self.shift = dimension, shift
        self.input_shape = (dimension,)
        self.objective = Regression(self.variance)

    @property
    @abc.abstractmethod
    def variance(self) -> float:
        """Returns that of y, over tasks and points."""

    def tasks(self, split: str, spec: EpisodeSpec, seed: int) -> Draw:
        """Returns draw(start, count), which gives tasks of spec.shot support and spec.query query
        points.

        By a points.PromptSpec the later coordinates of x are zero, and y is the function of that.

        Raises: ArgumentError for more coordinates than there are, or more support points than the
          shift has.
        """
        division = Division(spec, (seed, split))
        coordinates = getattr(spec, 'coordinates', None) or self.dimension
        if not 0 < coordinates <= self.dimension:
            reason = f'at least 1 and at most the dimension, {self.dimension}'
            raise ArgumentError('coordinates', coordinates, reason)
        shift = self.shift if split in EVALUATED else STANDARD
        shift.check(spec.shot, self.dimension)

        def draw(start, count):
            x = normals((seed, split, 1), start, count, division.points, self.dimension)
            if coordinates < self.dimension:
                x *= tf.cast(tf.range(self.dimension) < coordinates, x.dtype)
            x = shift.inputs(x, spec.shot, (seed, split), start)
            y = self.values(x, *self.parameters(split, seed, start, count, coordinates))
            y = shift.labels(y, self.variance, (seed, split), start)
            return division(x, y, division.drawn(start, count))

        return draw

    @abc.abstractmethod
    def parameters(
        self,
        split: str,
        seed: int,
        start: tf.Tensor | int,
        count: int,
        coordinates: int | None = None,
    ) -> tuple[tf.Tensor, ...]:
        """Draws what makes each task's function, as tensors [count, ...].

        coordinates: how many of x are not zero, for functions that look at few; None: all.
        """

    @abc.abstractmethod
    def values(self, x: tf.Tensor, *parameters: tf.Tensor) -> tf.Tensor:
        """Returns the functions at x: [count, points, dimension] -> [count, points, 1]."""


class Linear(Family):
    """y = w'x, w ~ N(0, I)."""

    @property
    def variance(self) -> float:
        return float(self.dimension)

    def parameters(
        self,
        split: str,
        seed: int,
        start: tf.Tensor | int,
        count: int,
        coordinates: int | None = None,
    ) -> tuple[tf.Tensor, ...]:
        """Draws w [count, dimension, 1]."""
        return (normals((seed, split, 0), start, count, self.dimension, 1),)

    def values(self, x: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        return x @ weights


class SparseLinear(Linear):
    """y = w'x with 3 random coordinates of w ~ N(0, I) kept and the others 0.

    Where later coordinates of x are zero, the 3 are among the others, as in the authors' code.
    """

    @property
    def variance(self) -> float:
        return float(min(SPARSITY, self.dimension))

    def parameters(
        self,
        split: str,
        seed: int,
        start: tf.Tensor | int,
        count: int,
        coordinates: int | None = None,
    ) -> tuple[tf.Tensor, ...]:
        """Draws w [count, dimension, 1]."""
        among = self.dimension if coordinates is None else coordinates
        bits = Stream(seed, split, 2).bits(start, count, self.dimension)
        kept = choose(bits, min(SPARSITY, among), tf.fill([count], among))
        mask = tf.reduce_sum(tf.one_hot(kept, self.dimension), 1)
        (weights,) = super().parameters(split, seed, start, count)
        return (weights * mask[:, :, None],)


class DecisionTree(Family):
    """A full binary tree of depth 4: a node goes right where its random coordinate is positive,
    leaves are N(0, 1)."""

    variance = 1.0

    def parameters(
        self,
        split: str,
        seed: int,
        start: tf.Tensor | int,
        count: int,
        coordinates: int | None = None,
    ) -> tuple[tf.Tensor, ...]:
        """Draws the nodes' coordinates, int32 [count, 15], and leaves [count, 16].

        The children of node i are 2i + 1 and 2i + 2.
        """
        nodes = 2**DEPTH - 1
        bits = Stream(seed, split, 2).bits(start, count, nodes)
        leaves = normals((seed, split, 0), start, count, nodes + 1)
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

    @property
    def variance(self) -> float:
        return float(self.dimension)

    def parameters(
        self,
        split: str,
        seed: int,
        start: tf.Tensor | int,
        count: int,
        coordinates: int | None = None,
    ) -> tuple[tf.Tensor, ...]:
        """Draws W [count, dimension, 100] and v [count, 100, 1]."""
        return (
            normals((seed, split, 0), start, count, self.dimension, HIDDEN),
            normals((seed, split, 2), start, count, HIDDEN, 1),
        )

    def values(self, x: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        return math.sqrt(2 / HIDDEN) * (tf.nn.relu(x @ first) @ second)
