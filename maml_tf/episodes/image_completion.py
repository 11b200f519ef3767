"""Images as functions from a pixel's position to its value (Garnelo et al. 2018, section 4.2)."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.episodes.image_tasks import ImageTasks
from maml_tf.episodes.points import Division, SizesAndKeys
from maml_tf.episodes.random_bits import Stream, choose, uniform
from maml_tf.episodes.source import EpisodeSource
from maml_tf.errors import UserError
from maml_tf.objectives import Regression


class ImageCompletion(EpisodeSource):
    """A task is an image, drawn from all of a split: x [row, column] from 0 (first) to 1 (last), y
    the pixel, 0 to 1.

    Support and query are random pixels, none twice. A spec whose `query` is the number of pixels
    asks for the whole image instead, row by row. The paper scales positions to [0, 1]; that the
    last is 1 is this package's reading.

    Args:
      images: ImageClasses; its classes and rotations play no part.
      query_contains_support: the query is the support and spec.query further pixels.
    """

    objective = Regression()
    input_shape = (2,)

    def __init__(self, images, query_contains_support=False):
        self.images, self.query_contains_support = images, query_contains_support
        self.splits, self.output_dim = images.splits, images.input_shape[-1]

    def tasks(self, split, spec, seed):
        """Returns draw(start, count) -> Task, with spec.shot support and spec.query (further) query
        pixels per task.

        Raises: UserError where an image has too few pixels.
        """
        classes = self.images.split(split)
        return PixelTasks(
            classes._replace(sizes=[len(classes.images)]),
            spec,
            (seed, split),
            self.query_contains_support,
        )


class PixelPicks(NamedTuple):
    """Which image of a task, int32 [tasks, 1] class (0) and [tasks, 1, 1] number; which pixels of
    it; the sizes and keys of tasks, see Division."""

    classes: tf.Tensor
    images: tf.Tensor
    pixels: tf.Tensor
    drawn: SizesAndKeys


class PixelTasks(ImageTasks):
    """draw(start, count) -> Task.

    Args:
      classes: ClassImages of one class.
      stream: (seed, split), see random_bits.Stream.
    """

    def __init__(self, classes, spec, stream, query_contains_support):
        super().__init__(classes, self._pick, spec)
        height, width = classes.images.shape[1:3]
        self._total = height * width
        self._whole = spec.query == self._total
        drawn = spec.shot if self._whole else spec.shot + spec.query
        if drawn > self._total:
            raise UserError(
                f'--update_batch_size: {spec.shot} support + {spec.query} query pixels are more '
                'than the '
                f'{height}x{width} of an image (as many query pixels: all of it)'
            )
        self._drawn = drawn
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
        return PixelPicks(
            tf.zeros_like(number), number[:, :, None], pixels, self._division.drawn(start, count)
        )

    def assemble(self, picks, images):
        """PixelPicks and their images uint8 [tasks, 1, 1, height, width, channels] -> Task."""
        pixels = tf.reshape(images, [images.shape[0], self._total, images.shape[-1]])
        y = tf.cast(tf.gather(pixels, picks.pixels, batch_dims=1), tf.float32) * (1 / 255)
        return self._division(tf.gather(self._positions, picks.pixels), y, picks.drawn)
