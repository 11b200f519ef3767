"""Which points of a regression task are its support and which its query, and how many of them
count."""

import tensorflow as tf

from maml_tf.episodes.random_bits import Stream, uniform
from maml_tf.episodes.task import Task
from maml_tf.errors import UserError

_SIZES = 3  # The stream of the sizes, as in sampling.Sampler.


class Division:
    """Divides tasks of `points` points, all drawn alike: the first spec.shot are the support, the
    others the query.

    Args:
      spec: an EpisodeSpec of way 1; with `least_shot` each task draws how many support points
        count.
      stream: (seed, split), see random_bits.Stream.
      query_contains_support: the query is the support points that count and then spec.query further
        ones.
      least_query: each task draws how many (further) query points count, uniformly from here to
        spec.query; None: all of them.
    Raises: UserError where a least number is out of range, or for `leave_to_query`, which is for
      classes.
    """

    def __init__(self, spec, stream, query_contains_support=False, least_query=None):
        self.spec, self.query_contains_support = spec, query_contains_support
        self.points = spec.shot + spec.query
        self._varies = spec.least_shot is not None or least_query is not None
        self._least = spec.least_shot or spec.shot, least_query or spec.query
        self._bits = Stream(*stream, _SIZES)
        for name, least, most in (
            ('--train_shot_from', spec.least_shot, spec.shot),
            ('least_query', least_query, spec.query),
        ):
            if least is not None and not 0 < least <= most:
                raise UserError(f'{name}={least}: at least 1 and at most {most}')
        if spec.leave_to_query:
            raise UserError('--leave_to_query: not for regression')

    def sizes(self, start, count):
        """How many support and (further) query points count in tasks start ... start + count - 1.

        int32 [tasks, 2]; None: all.
        """
        if not self._varies:
            return None
        steps = [
            most - least + 1.0
            for least, most in zip(self._least, (self.spec.shot, self.spec.query))
        ]
        return self._least + tf.cast(
            uniform(self._bits.bits(start, count, 2), 0.0, tf.constant(steps)), tf.int32
        )

    def __call__(self, x, y, sizes):
        """x, y [tasks, points, ...] -> Task; sizes: from `sizes`."""
        shot = self.spec.shot
        first = 0 if self.query_contains_support else shot
        task = Task(x[:, :shot], y[:, :shot], x[:, first:], y[:, first:])
        if sizes is None:
            return task
        shots, queries = sizes[:, :1], sizes[:, 1:]
        if self.query_contains_support:
            queries += shots
        count = lambda numbers, most: tf.cast(tf.range(most) < numbers, tf.float32)
        return task._replace(
            support_mask=count(shots, shot), query_mask=count(queries, self.points - first)
        )
