"""Curves of a Gaussian process (Garnelo et al. 2018, section 4.1): endless tasks, no data."""

import dataclasses

import tensorflow as tf

from maml_tf.episodes.points import Division, Functions, contains_support
from maml_tf.episodes.random_bits import Stream, normal, uniform
from maml_tf.episodes.task import Draw, EpisodeSpec, Task
from maml_tf.ops import gaussian_process

X = -2.0, 2.0
KERNEL = gaussian_process.Kernel(length=0.4, amplitude=1.0, noise=0.02)


class GaussianProcess(Functions):
    """y ~ N(0, K), K(x, x') = exp(-(x - x')**2 / (2 * 0.4**2)) + 0.02**2 [x = x'], x ~ U[-2, 2].

    The official code's kernel and inputs (deepmind/neural-processes, the notebook of conditional
    neural processes). It draws 3 to 9 context points and 2 to 9 further targets for a whole batch,
    this for each task: `GaussianProcess(query_contains_support=True)` with
    `EpisodeSpec(1, 9, 9, least_shot=3, least_query=2)`.

    Args:
      query_contains_support: the query is the support and spec.query further points (targets
        contain the context).
      test_query_contains_support: the same of val and test; None: as in training.
    """

    input_shape = (1,)

    def __init__(
        self,
        query_contains_support: bool = False,
        test_query_contains_support: bool | None = None,
    ):
        self._contains_support = query_contains_support, test_query_contains_support

    def tasks(self, split: str, spec: EpisodeSpec, seed: int) -> Draw:
        """Returns draw(start, count), which gives tasks of spec.shot support and spec.query
        (further) query points."""
        division = Division(spec, (seed, split), contains_support(split, *self._contains_support))

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
        division = Division(
            dataclasses.replace(spec, query=points, least_query=None), (seed, split)
        )
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
    factor = tf.linalg.cholesky(KERNEL.of_observed(x))
    return tf.cast(factor @ tf.cast(normals, x.dtype), tf.float32)


def posterior(
    support_x: tf.Tensor,
    support_y: tf.Tensor,
    query_x: tf.Tensor,
    mask: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mean and deviation of the values at queries, given the support, in float64.

    No learner can say more of held-out points. The noise is part of the deviation: a query is a new
    observation, also where it lies on a support point.

    Args:
      support_x, support_y: [tasks, support, 1].
      query_x: [tasks, query, 1].
      mask: [tasks, support], 1 where a point counts; None: all do.
    Returns: mean, deviation, each [tasks, query, 1].
    """
    return gaussian_process.posterior(KERNEL, support_x, support_y, query_x, mask)
