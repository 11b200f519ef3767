"""Images as functions from a pixel's position to its value (Garnelo et al. 2018, section 4.2)."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.image_tasks import ImageTasks
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.points import Division, SizesAndKeys, check, contains_support
from maml_tf.episodes.random_bits import Stream, choose, uniform
from maml_tf.episodes.source import EpisodeSource
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError
from maml_tf.objectives.regression import Regression


class ImageCompletion(EpisodeSource):
    """A task is an image, some of whose pixels are given and others to be predicted.

    It is drawn from all images of a split. x is a pixel's [row, column] from 0 (first) to 1 (last),
    y its value, 0 to 1. Support and query are random pixels, none twice. A spec whose `query` is
    the number of pixels asks for the whole image instead, row by row. The paper scales positions to
    [0, 1]; that the last is 1 is this package's reading.

    Args:
      images: its classes and rotations play no part.
      query_contains_support: the query is the support and spec.query further pixels.
      test_query_contains_support: the same of val and test; None: as in training.
    """

    objective = Regression()
    input_shape = (2,)

    def __init__(
        self,
        images: ImageClasses,
        query_contains_support: bool = False,
        test_query_contains_support: bool | None = None,
    ):
        self.images = images
        self._contains_support = query_contains_support, test_query_contains_support
        self.splits, self.output_dim = images.splits, images.input_shape[-1]

    def tasks(self, split: str, spec: EpisodeSpec, seed: int) -> 'PixelTasks':
        """Returns draw(start, count), which gives tasks of spec.shot support and spec.query
        (further) query pixels.

        Raises: ArgumentError where an image has too few pixels.
        """
        classes = self.images.split(split)
        return PixelTasks(
            classes._replace(sizes=np.array([len(classes.images)])),
            spec,
            (seed, split),
            contains_support(split, *self._contains_support),
        )

    def whole_images(self, split: str, seed: int, count: int, given: int) -> Task:
        """Returns the first `count` images of a split: all their pixels, row by row, are the query.

        given: random pixels that are the support; those of a smaller number come first.
        Raises: ArgumentError where an image has not so many.
        """
        pixels = math.prod(self.images.input_shape[:2])
        return self.tasks(split, EpisodeSpec(1, given, pixels), seed)(0, count)


class PixelPicks(NamedTuple):
    """Images and pixels of tasks, by their numbers.

    classes: int32 [tasks, 1], 0;  images: int32 [tasks, 1, 1]
    pixels:  int32 [tasks, points], row by row, the support first
    drawn:   the sizes and keys of the tasks, see points.Division
    """

    classes: tf.Tensor
    images: tf.Tensor
    pixels: tf.Tensor
    drawn: SizesAndKeys


class PixelTasks(ImageTasks):
    """draw(start, count) -> Task of the pixels of an image.

    Args:
      classes: ClassImages of one class.
      stream: (seed, split), see random_bits.Stream.
    Raises: ArgumentError where an image has too few pixels.
    """

    def __init__(
        self,
        classes: ClassImages,
        spec: EpisodeSpec,
        stream: tuple[int, str],
        query_contains_support: bool,
    ):
        check(spec)
        super().__init__(classes, self._pick, spec)
        height, width = classes.images.shape[1:3]
        self._total = height * width
        self._whole = spec.query == self._total
        self._drawn = spec.shot if self._whole else spec.shot + spec.query
        if self._drawn > self._total:
            raise ArgumentError(
                'shot',
                spec.shot,
                f'{spec.shot} support + {spec.query} query pixels are more than the '
                f'{height}x{width} of an image (as many query pixels: all of it)',
            )
        self._division = Division(spec, stream, query_contains_support and not self._whole)
        self._image_bits, self._pixel_bits = Stream(*stream, 0), Stream(*stream, 2)
        rows, columns = np.indices((height, width), np.float32)
        self._positions = np.stack([rows / (height - 1), columns / (width - 1)], -1).reshape(-1, 2)

    def _pick(self, start, count):
        number = tf.cast(
            uniform(self._image_bits.bits(start, count, 1), 0.0, float(self.classes.sizes[0])),
            tf.int32,
        )
        pixels = choose(self._pixel_bits.bits(start, count, self._total), self._drawn)
        if self._whole:
            everywhere = tf.broadcast_to(tf.range(self._total), [count, self._total])
            pixels = tf.concat([pixels, everywhere], 1)
        drawn = self._division.drawn(start, count)
        return PixelPicks(tf.zeros_like(number), number[:, :, None], pixels, drawn)

    def assemble(self, drawn: PixelPicks, images: tf.Tensor) -> Task:
        pixels = tf.reshape(images, [images.shape[0], self._total, images.shape[-1]])
        y = tf.cast(tf.gather(pixels, drawn.pixels, batch_dims=1), tf.float32) * (1 / 255)
        return self._division(tf.gather(self._positions, drawn.pixels), y, drawn.drawn)
