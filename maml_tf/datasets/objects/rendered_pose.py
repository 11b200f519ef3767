"""Objects that are drawn as needed, each from many sides: what tells memorising from learning.

A RECONSTRUCTION. The experiment is that of Yin, Tucker, Zhou, Levine and Finn 2020
(arXiv 1912.03820), whose objects are CAD models drawn by MuJoCo: a task is an object, x its picture
in grey, y the angle by which it was turned, scaled to [0, 10). All else is ours: the objects, the
little renderer, the size of the pictures.

An object is a cloud of soft blobs. All objects have the same blobs, up to displacements of their
own; the angle 0 is another side of every object. So the same picture means another angle for
another object, and only a support set tells which. But where the training objects are
few, a network can know each of them by its displacements, remember its angle 0, and need no support
set: the tasks are not mutually exclusive. Of a new object it then knows nothing.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.episodes.points import Division, Functions
from maml_tf.episodes.random_bits import Stream, normal, uniform
from maml_tf.episodes.task import Draw, EpisodeSpec
from maml_tf.errors import ArgumentError

SIDE, OBJECTS = 16, 50
LARGEST_Y = 10.0  # Angles are labelled from 0 to this.
BLOBS = 12
TURN = math.pi  # The angle that is labelled LARGEST_Y.
SPREAD, OWN, WIDTH, ELEVATION = 0.45, 0.12, 0.16, math.radians(30)
MOST_OBJECTS = 100_000
# Of the training objects themselves, which are the same whatever the seed.
_OBJECTS_SEED, _OF_OBJECTS, _OF_ALL = 0, 6, 7
_WORDS = 1 + BLOBS + 6 * BLOBS


class Shapes(NamedTuple):
    """Objects.

    places: float32 [objects, BLOBS, 3]; brightness: [objects, BLOBS]; zero: [objects], the angle
    in radians that is labelled 0.
    """

    places: tf.Tensor
    brightness: tf.Tensor
    zero: tf.Tensor


class RenderedPose(Functions):
    """Pictures of random objects as inputs, the angle by which each was turned as the output.

    Args:
      objects: how many there are to train on, always the same ones whatever the seed; 0: endlessly
        many. In validation and test every task is a new object.
      side: of the pictures in pixels.
    Raises: ArgumentError for numbers out of range.
    """

    def __init__(self, objects: int = OBJECTS, side: int = SIDE):
        if not 0 <= objects <= MOST_OBJECTS:
            reason = f'from 1 to {MOST_OBJECTS} training objects, or 0 for endlessly many'
            raise ArgumentError('objects', objects, reason)
        if side < 5:
            raise ArgumentError('image_size', side, 'at least 5 pixels')
        self.objects, self.side = objects, side
        self.input_shape = (side, side, 1)

    def tasks(self, split: str, spec: EpisodeSpec, seed: int) -> Draw:
        """Returns draw(start, count), which gives tasks of spec.shot support and spec.query query
        pictures of one object each."""
        division = Division(spec, (seed, split))
        angles, numbers = Stream(seed, split, 1), Stream(seed, split, 0)

        def draw(start, count):
            if self.objects and split.startswith('train'):
                number = uniform(numbers.bits(start, count, 1)[:, 0], 0.0, float(self.objects))
                known = shapes(Stream(_OBJECTS_SEED, 'train', _OF_OBJECTS), 0, self.objects)
                drawn = Shapes(*(tf.gather(part, tf.cast(number, tf.int32)) for part in known))
            else:
                drawn = shapes(Stream(seed, split, _OF_OBJECTS), start, count)
            y = uniform(angles.bits(start, count, division.points), 0.0, LARGEST_Y)
            turned = drawn.zero[:, None] + y * (TURN / LARGEST_Y)
            x = pictures(drawn, turned, self.side)
            return division(x, y[..., None], division.drawn(start, count))

        return draw


def shapes(stream: Stream, start: tf.Tensor | int, count: int) -> Shapes:
    """Draws the objects of rows start ... start + count - 1 of a stream."""
    bits = stream.bits(start, count, _WORDS)
    zero = uniform(bits[:, 0], 0.0, 2 * math.pi)
    brightness = uniform(bits[:, 1 : 1 + BLOBS], 0.5, 1.0)
    own = _places(bits[:, 1 + BLOBS :]) * OWN
    of_all = Stream(_OBJECTS_SEED, 'train', _OF_ALL).bits(0, 1, 6 * BLOBS)
    return Shapes(_places(of_all) * SPREAD + own, brightness, zero)


def _places(bits):
    """[n, 6 * BLOBS] bits -> [n, BLOBS, 3] standard normals."""
    return tf.reshape(normal(bits), [-1, BLOBS, 3])


def pictures(drawn: Shapes, turned: tf.Tensor, side: int) -> tf.Tensor:
    """Draws objects, by parallel rays from 30 degrees above.

    A blob is a Gaussian spot of the picture; what is nearer is brighter, and bright spots saturate.

    Args:
      drawn: Shapes of n objects.
      turned: angles in radians about the upright axis, [n, views].
    Returns: float32 [n, views, side, side, 1], from 0 to below 1.
    """
    x, y, z = (drawn.places[:, None, :, i] for i in range(3))
    cos, sin = tf.cos(turned)[..., None], tf.sin(turned)[..., None]
    across, away = x * cos - y * sin, x * sin + y * cos
    up = z * math.cos(ELEVATION) + away * math.sin(ELEVATION)
    near = z * math.sin(ELEVATION) - away * math.cos(ELEVATION)
    light = drawn.brightness[:, None] * tf.sigmoid(2.0 * near)
    grid = np.linspace(-1.2, 1.2, side, dtype=np.float32)
    spot = lambda centre: tf.exp(-tf.square((grid - centre[..., None]) * (1 / WIDTH)) / 2)
    # A spot is the product of what it is along rows and along columns.
    rows = spot(-up) * light[..., None]
    sums = tf.matmul(rows, spot(across), transpose_a=True)  # [n, views, side, side]
    return (1.0 - tf.exp(-sums))[..., None]
