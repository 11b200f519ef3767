"""Prompts unlike those of training, to evaluate on (Garg et al. 2022, section 4).

The definitions are the official code's (dtsip/in-context-learning), from which this differs in two
places. The code draws one subspace, or one skewed covariance, for all tasks, here each task has its
own. The code divides noisy labels by the deviation of its batch, here by what that tends to.
"""

import dataclasses
import math

import tensorflow as tf

from maml_tf.episodes.random_bits import Stream, normal
from maml_tf.errors import ArgumentError, check_one_of

PROMPTS = ('standard', 'quadrants', 'orthogonal', 'half_subspace', 'skewed')
FLAGS = ('prompts', 'x_scale', 'y_scale', 'label_noise')
# Streams of the random bits, apart from those of the functions and of the points.
_DIRECTIONS, _NOISE = 6, 7


@dataclasses.dataclass(frozen=True)
class Shift:
    """Says how tasks of a function family differ from x ~ N(0, I), y = f(x).

    Attributes:
      prompts: one of PROMPTS.
        quadrants: all support points are in one random quadrant, the queries anywhere.
        orthogonal: a query has no part in the span of the support points, and keeps its length.
        half_subspace: all points are in a random subspace of half the dimension.
        skewed: the covariance of x has random axes, and eigenvalues as 1 / i**2.
        The last two keep the mean of |x|**2.
      x_scale: times x, before y is computed.
      y_scale: times y.
      label_noise: standard deviation of the noise of y, of the queries' too; y is then scaled to
        the variance that it has without.
    Raises: ArgumentError where they are not possible.
    """

    prompts: str = 'standard'
    x_scale: float = 1.0
    y_scale: float = 1.0
    label_noise: float = 0.0

    def __post_init__(self):
        check_one_of('prompts', self.prompts, PROMPTS)
        for name in ('x_scale', 'y_scale'):
            if not getattr(self, name) > 0:
                raise ArgumentError(name, getattr(self, name), 'more than 0')
        if self.label_noise < 0:
            raise ArgumentError('label_noise', self.label_noise, 'at least 0')

    def check(self, shot: int, dimension: int) -> None:
        """Raises ArgumentError where no point is orthogonal to so many, or no half is left."""
        if self.prompts == 'orthogonal' and shot >= dimension:
            reason = f'less than the dimension, {dimension}: no query is orthogonal to so many'
            raise ArgumentError('shot', shot, reason)
        if self.prompts == 'half_subspace' and dimension < 2:
            raise ArgumentError('dimension', dimension, 'at least 2, to have a half')

    def inputs(
        self, x: tf.Tensor, shot: int, stream: tuple[int, str], start: tf.Tensor | int
    ) -> tf.Tensor:
        """Returns the shifted inputs.

        Args:
          x: of N(0, I), [tasks, points, dimension]; the first `shot` points are the support.
          stream: (seed, split); start: the number of the first task.
        """
        tasks, _, dimension = x.shape
        if self.prompts == 'quadrants':
            signs = tf.sign(normals((*stream, _DIRECTIONS), start, tasks, 1, dimension))
            x = tf.concat([tf.abs(x[:, :shot]) * signs, x[:, shot:]], 1)
        elif self.prompts == 'orthogonal':
            x = tf.concat([x[:, :shot], _apart_from(x[:, :shot], x[:, shot:])], 1)
        elif self.prompts == 'half_subspace':
            half = dimension // 2
            basis = self._directions(stream, start, tasks, dimension)[:, :, :half]
            x = x @ basis @ tf.linalg.matrix_transpose(basis) * math.sqrt(dimension / half)
        elif self.prompts == 'skewed':
            basis = self._directions(stream, start, tasks, dimension)
            roots = 1 / tf.range(1.0, dimension + 1)
            roots *= tf.sqrt(dimension / tf.reduce_sum(roots**2))
            x = x @ (basis * roots) @ tf.linalg.matrix_transpose(basis)
        return x if self.x_scale == 1 else self.x_scale * x

    def labels(
        self, y: tf.Tensor, variance: float, stream: tuple[int, str], start: tf.Tensor | int
    ) -> tf.Tensor:
        """Returns the shifted labels of y [tasks, points, 1]; variance: of y."""
        if self.label_noise:
            noise = normals((*stream, _NOISE), start, *y.shape)
            y += self.label_noise * noise
            y *= math.sqrt(variance / (variance + self.label_noise**2))
        return y if self.y_scale == 1 else self.y_scale * y

    @staticmethod
    def _directions(stream, start, tasks, dimension):
        """Draws an orthonormal basis of each task, in columns."""
        return tf.linalg.qr(normals((*stream, _DIRECTIONS), start, tasks, dimension, dimension))[0]


STANDARD = Shift()


def _apart_from(support, query):
    """Takes out of each query what it has in the span of the support, and keeps its length."""
    basis = tf.linalg.qr(tf.linalg.matrix_transpose(support))[0]
    apart = query - query @ basis @ tf.linalg.matrix_transpose(basis)
    return apart * tf.norm(query, axis=-1, keepdims=True) / tf.norm(apart, axis=-1, keepdims=True)


def normals(
    stream: tuple[int, str, int], start: tf.Tensor | int, count: int, *shape: int
) -> tf.Tensor:
    """Draws the standard normals of a random_bits.Stream, [count, *shape]."""
    return tf.reshape(
        normal(Stream(*stream).bits(start, count, 2 * math.prod(shape))), [count, *shape]
    )


def from_flags(flags) -> Shift:
    """Returns the shift that the command line describes."""
    return Shift(*(flags[name].value for name in FLAGS))


def define_flags(flags) -> None:
    """Defines the flags of the shifts; training does not heed them."""
    flags.DEFINE_enum(
        'prompts',
        'standard',
        PROMPTS,
        'function families, in evaluation alone: what the inputs are like',
    )
    for name in ('x', 'y'):
        flags.DEFINE_float(
            f'{name}_scale', 1.0, f'function families, in evaluation alone: times {name}'
        )
    flags.DEFINE_float(
        'label_noise',
        0.0,
        'function families, in evaluation alone: standard deviation of the noise of y',
    )
