"""Regression tasks: which of their points are support and which are queries."""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from maml_tf.episodes.random_bits import KEYS, Stream, uniform
from maml_tf.episodes.source import EpisodeSource
from maml_tf.episodes.task import EpisodeSpec, Spec, Task
from maml_tf.errors import ArgumentError
from maml_tf.objectives.regression import Regression

_SIZES = 3  # The stream of the sizes, as in sampling.Sampler.


class Functions(EpisodeSource):
    """A source whose tasks are random functions, endlessly many in every split.

    Attributes:
      output_dim: numbers that a function gives for one input.
    """

    objective = Regression()
    splits = ('train', 'val', 'test')
    output_dim = 1


@dataclasses.dataclass(frozen=True)
class PromptSpec(EpisodeSpec):
    """Sizes of a task whose inputs are zero but for their first coordinates.

    For sources that say that they heed it (datasets/functions/function_families.py).

    Attributes:
      coordinates: how many are not zero; None: all.
    """

    coordinates: int | None = None


def check(spec: Spec) -> None:
    """Raises ArgumentError for what regression cannot be drawn by."""
    if not isinstance(spec, EpisodeSpec):
        raise ArgumentError('spec', spec, 'regression has tasks only, by an EpisodeSpec')


def contains_support(split: str, in_training: bool, in_test: bool | None) -> bool:
    """Returns whether the queries of a split contain the support; in_test None: as in training."""
    return in_training if in_test is None or split.startswith('train') else in_test


class SizesAndKeys(NamedTuple):
    """Holds what tasks draw besides their points.

    sizes: int32 [tasks, 2], how many support and (further) query points count; None: all
    keys:  uint32 [tasks, 2], see task.Task
    """

    sizes: tf.Tensor | None
    keys: tf.Tensor


class Division:
    """Divides the points of each task: the first spec.shot are the support, the others the query.

    Args:
      spec: an EpisodeSpec of way 1; with `least_shot` each task draws how many support points
        count, with `least_query` how many (further) query points.
      stream: (seed, split), see random_bits.Stream.
      query_contains_support: the query is the support points that count and then spec.query further
        ones.
    Attributes:
      points: how many to draw for each task.
    Raises: ArgumentError where a least number is out of range, or for a spec of what regression
      has not.
    """

    def __init__(
        self,
        spec: Spec,
        stream: tuple[int, str],
        query_contains_support: bool = False,
    ):
        check(spec)
        if spec.leave_to_query:
            raise ArgumentError('leave_to_query', True, 'not for regression')
        for argument, least, most in (
            ('least_shot', spec.least_shot, spec.shot),
            ('least_query', spec.least_query, spec.query),
        ):
            if least is not None and not 0 < least <= most:
                raise ArgumentError(argument, least, f'at least 1 and at most {most}')
        self.spec, self.query_contains_support = spec, query_contains_support
        self.points = spec.shot + spec.query
        self._varies = spec.least_shot is not None or spec.least_query is not None
        self._least = spec.least_shot or spec.shot, spec.least_query or spec.query
        self._size_bits, self._key_bits = Stream(*stream, _SIZES), Stream(*stream, KEYS)

    def drawn(self, start: tf.Tensor | int, count: int) -> SizesAndKeys:
        """Draws the sizes and keys of tasks start ... start + count - 1."""
        return SizesAndKeys(self._sizes(start, count), self._key_bits.bits(start, count, 2))

    def _sizes(self, start, count):
        if not self._varies:
            return None
        steps = [
            most - least + 1.0
            for least, most in zip(self._least, (self.spec.shot, self.spec.query))
        ]
        return self._least + tf.cast(
            uniform(self._size_bits.bits(start, count, 2), 0.0, tf.constant(steps)), tf.int32
        )

    def __call__(self, x: tf.Tensor, y: tf.Tensor, drawn: SizesAndKeys) -> Task:
        """Returns the Task of points x, y [tasks, points, ...], of sizes that `drawn` gave."""
        shot = self.spec.shot
        first = 0 if self.query_contains_support else shot
        task = Task(x[:, :shot], y[:, :shot], x[:, first:], y[:, first:], key=drawn.keys)
        if drawn.sizes is None:
            return task
        shots, queries = drawn.sizes[:, :1], drawn.sizes[:, 1:]
        if self.query_contains_support:
            queries += shots
        count = lambda numbers, most: tf.cast(tf.range(most) < numbers, tf.float32)
        return task._replace(
            support_mask=count(shots, shot), query_mask=count(queries, self.points - first)
        )
