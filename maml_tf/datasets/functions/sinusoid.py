"""Sinusoid regression (Finn et al. 2017, section 5.1): endless tasks, no data."""

import dataclasses
import math

import tensorflow as tf

from maml_tf.episodes.points import Division, Functions
from maml_tf.episodes.random_bits import Stream, uniform
from maml_tf.episodes.task import Draw, EpisodeSpec, Task

AMPLITUDE, PHASE, X = (0.1, 5.0), (0.0, math.pi), (-5.0, 5.0)


class Sinusoid(Functions):
    """y = A sin(f x - p), A ~ U[0.1, 5], p ~ U[0, pi], x ~ U[-5, 5], f = 1.

    Args:
      oracle: the input is [x, A, p], with a frequency also f: what a network could do that is told
        the task.
      frequency: f ~ U[frequency]; Meta-SGD's family (Li et al. 2017) has (0.8, 1.2). None: 1.
    """

    def __init__(self, oracle: bool = False, frequency: tuple[float, float] | None = None):
        self.oracle, self.frequency = oracle, frequency
        self.input_shape = (1 + oracle * (2 if frequency is None else 3),)

    def tasks(self, split: str, spec: EpisodeSpec, seed: int) -> Draw:
        """Returns draw(start, count), which gives tasks of spec.shot support and spec.query query
        points."""
        division = Division(spec, (seed, split))
        points = Stream(seed, split, 1)

        def draw(start, count):
            x = uniform(points.bits(start, count, division.points), *X)[:, :, None]
            return self._task(division, x, split, seed, start, count)

        return draw

    def curves(self, split: str, spec: EpisodeSpec, seed: int, count: int, points: int) -> Task:
        """Returns the first `count` tasks with an even grid of `points` points as the query."""
        support_x = self.tasks(split, spec, seed)(0, count).support_x[:, :, :1]
        grid = tf.broadcast_to(tf.linspace(*X, points)[None, :, None], [count, points, 1])
        division = Division(dataclasses.replace(spec, query=points), (seed, split))
        return self._task(division, tf.concat([support_x, grid], 1), split, seed, 0, count)

    def waves(self, split: str, seed: int, start: tf.Tensor | int, count: int) -> list[tf.Tensor]:
        """Returns [amplitude, phase] and, where it is drawn, frequency of each task, each
        [count, 1, 1]."""
        bits = Stream(seed, split, 0).bits(start, count, 2)[:, :, None, None]
        waves = [uniform(bits[:, 0], *AMPLITUDE), uniform(bits[:, 1], *PHASE)]
        if self.frequency is not None:
            # From a stream of its own, so that the others stay what they are without it.
            bits = Stream(seed, split, 2).bits(start, count, 1)[:, :, None]
            waves.append(uniform(bits, *self.frequency))
        return waves

    def _task(self, division, x, split, seed, start, count):
        """Returns the Task of inputs x [tasks, support + query, 1]."""
        amplitude, phase, *frequency = waves = self.waves(split, seed, start, count)
        y = amplitude * tf.sin((frequency[0] * x if frequency else x) - phase)
        if self.oracle:
            x = tf.concat([x, *(wave + tf.zeros_like(x) for wave in waves)], -1)
        return division(x, y, division.drawn(start, count))
