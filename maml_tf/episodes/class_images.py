"""The images of some classes, and what is done to each of them before a network sees it."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.errors import UserError


class ClassImages(NamedTuple):
    """Images of some classes, class after class.

    images: uint8 [all, height, width, channels]; a np.memmap is left in its file and read as needed
    sizes:  [classes] images of each class
    class_names: a name for each class, for pictures and manifests; None: their numbers
    image_names: a name for each image; None: their numbers within the class
    groups: [classes] number of the group (alphabet, super-category) of each class, or None
    labels: [classes] what a plain batch calls each class; two that are called alike (forests here
      and there) are one class in pretraining. None: each class is its own
    scenes: [all] number of the scene that each image shows, images of a scene one after another in
      their class. A task takes one image of a scene, so that support and query show different
      ones. None: each image is its own
    """

    images: np.ndarray | tf.Tensor
    sizes: np.ndarray
    class_names: list[str] | None = None
    image_names: list[str] | None = None
    groups: np.ndarray | None = None
    labels: np.ndarray | None = None
    scenes: np.ndarray | None = None

    @property
    def streams(self) -> bool:
        """Whether the images are read from a file as they are needed."""
        return isinstance(self.images, np.memmap)

    @property
    def firsts(self) -> np.ndarray:
        """The number of each class' first image, int32 [classes]."""
        return (np.cumsum(self.sizes) - self.sizes).astype(np.int32)

    @property
    def batch_labels(self) -> np.ndarray:
        """The label of each class in plain batches, int32 [classes], from 0 without a gap."""
        names = np.arange(len(self.sizes)) if self.labels is None else self.labels
        return np.unique(names, return_inverse=True)[1].astype(np.int32)

    def gather(self, numbers: tf.Tensor) -> tf.Tensor:
        """Returns the images of these numbers, int32 [...] -> uint8 [..., height, width, channels].

        XLA can compile it unless `streams`.
        """
        if not self.streams:
            return tf.gather(self.images, numbers)
        # Not stateful: reading changes nothing, and TensorFlow need not keep its order.
        images = tf.numpy_function(self._read, [numbers], tf.uint8, stateful=False)
        return tf.ensure_shape(images, [*numbers.shape, *self.images.shape[1:]])

    def _read(self, numbers):
        # In the file's order, which a disk reads faster.
        order = np.argsort(numbers, axis=None)
        self._check_is_whole(numbers)
        images = np.empty([numbers.size, *self.images.shape[1:]], np.uint8)
        images[order] = self.images[numbers.ravel()[order]]
        return images.reshape(*numbers.shape, *images.shape[1:])

    def _check_is_whole(self, numbers):
        """Raises UserError where the mapped file has been cut short: reading beyond its end would
        kill the process without a word."""
        mapped, last = self.images, int(numbers.max(initial=-1))
        file = mapped
        while isinstance(file, np.ndarray):  # A part of a mapping stands on it.
            file = file.base
        if file.size() < mapped.offset + (last + 1) * math.prod(mapped.shape[1:]):
            raise UserError(
                f'{mapped.filename}: ends before image {last}, it was cut short under the run; '
                'remove it, and the same command writes it anew and goes on'
            )


def pixels(images: tf.Tensor, turns: tf.Tensor | None = None) -> tf.Tensor:
    """Turns images and scales their pixels to [0, 1].

    Args:
      images: uint8 [..., height, width, channels]; square, where there are turns.
      turns: int32 [...], quarter turns counterclockwise; None: nothing is turned.
    Returns: float32 of the images' shape.
    """
    if turns is not None:
        images = _turned(images, turns)
    # Not divided by 255: XLA would multiply by the reciprocal, and the last bit differ from
    # uncompiled tasks.
    return tf.cast(images, tf.float32) * (1 / 255)


def _turned(images, turns):
    """Chooses among the four turns of every image, as bytes.

    XLA makes one loop of it and of what follows. A gather by pixels would take half the time where
    nothing is compiled, but where all is, it makes drawing four to ten times as long. Images are
    stacked along one axis, since uncompiled the number of axes counts.
    """
    side, _, channels = images.shape[-3:]
    as_they_are = tf.reshape(images, [-1, side, side, channels])
    transposed = tf.transpose(as_they_are, [0, 2, 1, 3])
    quarters = [
        as_they_are,
        tf.reverse(transposed, [1]),
        tf.reverse(as_they_are, [1, 2]),
        tf.reverse(transposed, [2]),
    ]
    flat = [tf.reshape(quarter, [-1, side * side * channels]) for quarter in quarters]
    turns = tf.reshape(turns, [-1, 1])
    turned = flat[0]
    for k in (1, 2, 3):
        turned = tf.where(turns == k, flat[k], turned)
    return tf.reshape(turned, images.shape)
