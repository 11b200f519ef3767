"""Curves of a Gaussian process (Garnelo et al. 2018, section 4.1): endless tasks, no data."""

import dataclasses

import tensorflow as tf

from maml_tf.episodes.points import Division, Functions
from maml_tf.episodes.random_bits import Stream, normal, uniform
from maml_tf.episodes.task import Draw, EpisodeSpec, Task

LENGTH, AMPLITUDE, NOISE, X = 0.4, 1.0, 0.02, (-2.0, 2.0)


class GaussianProcess(Functions):
    """y ~ N(0, K), K(x, x') = exp(-(x - x')**2 / (2 * 0.4**2)) + 0.02**2 [x = x'], x ~ U[-2, 2].

    The official code's kernel and inputs (deepmind/neural-processes, the notebook of conditional
    neural processes). It draws 3 to 9 context points and 2 to 9 further targets for a whole batch,
    this for each task: `GaussianProcess(query_contains_support=True, least_query=2)` with
    `EpisodeSpec(1, 9, 9, least_shot=3)`.

    Args:
      query_contains_support: the query is the support and spec.query further points (targets
        contain the context).
      least_query: each task draws the number of (further) query points, from here to spec.query;
        None: spec.query.
    """

    input_shape = (1,)

    def __init__(self, query_contains_support: bool = False, least_query: int | None = None):
        self.query_contains_support, self.least_query = query_contains_support, least_query

    def tasks(self, split: str, spec: EpisodeSpec, seed: int) -> Draw:
        """Returns draw(start, count), which gives tasks of spec.shot support and spec.query
        (further) query points."""
        division = Division(spec, (seed, split), self.query_contains_support, self.least_query)

        def draw(start, count):
            x, normals = self.draws(split, seed, start, count, division.points)
            return division(x, values(x, normals), division.drawn(start, count))

        return draw

    def curves(self, split: str, spec: EpisodeSpec, seed: int, count: int, points: int) -> Task:
        """Returns the first `count` tasks with an even grid of `points` points as the query."""
        x, normals = (
            drawn[:, : spec.shot]
            for drawn in self.draws(split, seed, 0, count, spec.shot + spec.query)
        )
        grid = tf.broadcast_to(tf.linspace(*X, points)[None, :, None], [count, points, 1])
        x = tf.concat([x, grid], 1)
        # The values at the support stay what they are: they come first, and a Cholesky factor is
        # triangular.
        further = normal(Stream(seed, split, 2).bits(0, count, 2 * points))[:, :, None]
        division = Division(dataclasses.replace(spec, query=points), (seed, split))
        y = values(x, tf.concat([normals, further], 1))
        return division(x, y, division.drawn(0, count))

    def draws(
        self, split: str, seed: int, start: tf.Tensor | int, count: int, points: int
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what makes the tasks: inputs and standard normals, each [count, points, 1]."""
        x = uniform(Stream(seed, split, 1).bits(start, count, points), *X)
        normals = normal(Stream(seed, split, 0).bits(start, count, 2 * points))
        return x[:, :, None], normals[:, :, None]


def values(x: tf.Tensor, normals: tf.Tensor) -> tf.Tensor:
    """Returns the process at x, made of as many standard normals: L n with L L' = K.

    Both and the result are [tasks, points, 1].
    """
    # In single precision the matrix of close points is not positive definite.
    x = tf.cast(x, tf.float64)
    squares = tf.square((x - tf.linalg.matrix_transpose(x)) / LENGTH)
    kernel = AMPLITUDE**2 * tf.exp(-0.5 * squares) + NOISE**2 * tf.eye(x.shape[1], dtype=x.dtype)
    return tf.cast(tf.linalg.cholesky(kernel) @ tf.cast(normals, x.dtype), tf.float32)
