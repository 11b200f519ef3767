"""Sinusoid regression (Finn et al. 2017, section 5.1): endless tasks, no data."""
import math

import tensorflow as tf

from maml_tf.episodes.random_bits import Stream, uniform
from maml_tf.episodes.task import Task
from maml_tf.objectives import Regression

AMPLITUDE, PHASE, X = (0.1, 5.0), (0.0, math.pi), (-5.0, 5.0)


class Sinusoid:
    """y = A sin(x - p), A ~ U[0.1, 5], p ~ U[0, pi], x ~ U[-5, 5].

    With `oracle` the input is [x, A, p]: what a network could do that is told the task.
    """
    objective = Regression()
    output_dim = 1

    def __init__(self, oracle=False):
        self.oracle = oracle
        self.input_shape = (3,) if oracle else (1,)

    def tasks(self, split, spec, seed):
        """Returns draw(start, count) -> Task, with spec.shot support and spec.query query points per task."""
        examples = spec.shot + spec.query
        points = Stream(seed, split, 1)

        def draw(start, count):
            x = uniform(points.bits(start, count, examples), *X)[:, :, None]
            return self._task(x, *self._waves(split, seed, start, count), spec.shot)
        return draw

    def curves(self, split, spec, seed, count, points):
        """The first `count` tasks of `tasks(split, spec, seed)`, but the query is an even grid of `points`."""
        support_x = self.tasks(split, spec, seed)(0, count).support_x[:, :, :1]
        grid = tf.broadcast_to(tf.linspace(*X, points)[None, :, None], [count, points, 1])
        return self._task(tf.concat([support_x, grid], 1), *self._waves(split, seed, 0, count), spec.shot)

    def _waves(self, split, seed, start, count):
        """Amplitude and phase, each [count, 1, 1]."""
        bits = Stream(seed, split, 0).bits(start, count, 2)[:, :, None, None]
        return uniform(bits[:, 0], *AMPLITUDE), uniform(bits[:, 1], *PHASE)

    def _task(self, x, amplitude, phase, shot):
        """x [tasks, support + query, 1] -> Task."""
        y = amplitude * tf.sin(x - phase)
        if self.oracle:
            x = tf.concat([x, amplitude + tf.zeros_like(x), phase + tf.zeros_like(x)], -1)
        return Task(x[:, :shot], y[:, :shot], x[:, shot:], y[:, shot:])
