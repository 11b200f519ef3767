"""Which classes and which of their examples a task takes: a pure function of (seed, split,
index)."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.episodes.random_bits import KEYS, Stream, choose, uniform
from maml_tf.errors import UserError

ROTATIONS = ('none', 'classes', 'per_class', 'per_task')


class Picks(NamedTuple):
    """What tasks consist of, as numbers.

    classes: int32 [tasks, way], numbers of classes in their split
    turns:   int32 [tasks, way], quarter turns counterclockwise; None: nothing is turned
    images:  int32 [tasks, way, examples], numbers of images in their class; the support comes first
    ways, shots: int32 [tasks], where tasks differ in them, else None
    keys:    uint32 [tasks, 2], each task's own random bits
    """

    classes: tf.Tensor
    turns: tf.Tensor | None
    images: tf.Tensor
    ways: tf.Tensor | None = None
    shots: tf.Tensor | None = None
    keys: tf.Tensor | None = None


class Sampler:
    """Draws Picks.

    Args:
      sizes: images of each class.
      spec: an EpisodeSpec.
      rotations: 'none'; 'classes': each quarter turn of a class is a class of its own, numbered as
        it; 'per_class': each class of a task is turned by itself; 'per_task': the task's images are
        all turned alike.
      groups: [classes] number of each class's group, needed by spec.within_groups.
      stream: (seed, split), see random_bits.Stream.
    Raises: UserError where the classes cannot give such tasks.
    """

    def __init__(self, sizes, spec, stream, rotations='none', groups=None):
        seed, split = stream
        self.sizes, self.spec, self.rotations = np.asarray(sizes, np.int32), spec, rotations
        self.candidates = len(self.sizes) * (4 if rotations == 'classes' else 1)
        self.examples = spec.shot + spec.query
        if rotations == 'classes' and groups is not None:
            groups = np.repeat(groups, 4)  # of the candidates: 4 turns of class 0, 4 of class 1 ...
        self._groups = _members(groups, spec, split) if spec.within_groups else None
        self._check(split)
        # What each stream is for never changes: published results name tasks by their index.
        self._class_bits, self._turn_bits, self._image_bits, self._size_bits, self._group_bits = (
            Stream(seed, split, i) for i in range(5)
        )
        self._key_bits = Stream(seed, split, KEYS)

    def _check(self, split):
        spec = self.spec
        if spec.way > self.candidates:
            raise UserError(
                f'--num_classes={spec.way}: the {split} split has {self.candidates} classes'
            )
        if self.examples > self.sizes.min():
            raise UserError(
                f'--update_batch_size: {spec.shot} support + {spec.query} query images per class '
                'are more '
                f'than the {self.sizes.min()} of the smallest class of the {split} split'
            )
        for flag, least, most in (
            ('way', spec.least_way, spec.way),
            ('shot', spec.least_shot, spec.shot),
        ):
            if least is not None and not 0 < least <= most:
                raise UserError(f'--train_{flag}_from={least}: at least 1 and at most {most}')

    def __call__(self, start, count):
        """Tasks start ... start + count - 1, as Picks."""
        classes, turns = self._classes(start, count)
        sizes, largest = tf.gather(tf.constant(self.sizes), classes), int(self.sizes.max())
        bits = self._image_bits.bits(start, count, self.spec.way * largest)
        images = choose(
            tf.reshape(bits, [count, self.spec.way, largest]), self.examples, below=sizes
        )
        keys = self._key_bits.bits(start, count, 2)
        return Picks(classes, turns, images, *self._numbers(start, count), keys)

    def _classes(self, start, count):
        way = self.spec.way
        if self._groups:
            members, sizes = self._groups
            group = _below(self._group_bits.bits(start, count, 1)[:, 0], len(sizes))
            place = choose(
                self._class_bits.bits(start, count, members.shape[1]),
                way,
                below=tf.gather(sizes, group),
            )
            chosen = tf.gather(tf.gather(members, group), place, batch_dims=1)
        else:
            chosen = choose(self._class_bits.bits(start, count, self.candidates), way)
        if self.rotations == 'classes':
            return chosen // 4, chosen % 4
        if self.rotations == 'none':
            return chosen, None
        turns = self._turn_bits.bits(start, count, way if self.rotations == 'per_class' else 1)
        turns = tf.cast(tf.bitwise.bitwise_and(turns, tf.constant(3, tf.uint32)), tf.int32)
        return chosen, tf.broadcast_to(turns, [count, way])

    def _numbers(self, start, count):
        """(ways, shots) of tasks that differ in them."""
        bits = self._size_bits.bits(start, count, 2) if self.spec.varies else None
        return tuple(
            least if least is None else least + _below(bits[:, i], most - least + 1)
            for i, (least, most) in enumerate(
                [(self.spec.least_way, self.spec.way), (self.spec.least_shot, self.spec.shot)]
            )
        )


def _below(bits, n):
    """uint32 -> int32, uniform in 0 ... n - 1."""
    return tf.cast(uniform(bits, 0.0, float(n)), tf.int32)


def _members(groups, spec, split):
    """(classes of every group that is large enough, filled up to the largest [groups, most]; their
    sizes)."""
    if groups is None:
        raise UserError(f'--within_groups: the classes of the {split} split have no groups')
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    large = [classes for classes in members if len(classes) >= spec.way]
    if not large:
        raise UserError(
            f'--num_classes={spec.way}: the largest group of the {split} split has '
            f'{max(map(len, members))} classes'
        )
    most = max(map(len, large))
    filled = np.stack([np.pad(classes, (0, most - len(classes))) for classes in large])
    return tf.constant(filled, tf.int32), tf.constant([len(classes) for classes in large], tf.int32)
