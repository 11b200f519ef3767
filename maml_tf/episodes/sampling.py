"""Which classes and which of their examples a task takes, drawn by its index."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.episodes.random_bits import KEYS, Stream, choose, uniform
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError

_SCENES = 9  # Stream; 0 to 5 are known below, 6 to 8 are labelled_images'.
ROTATIONS = ('none', 'classes', 'per_class', 'per_task')


class Picks(NamedTuple):
    """Tasks of images by the numbers of what they hold.

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
    """Draws classes and images of tasks: sampler(start, count) -> Picks.

    Args:
      sizes: images of each class.
      rotations: 'none'; 'classes': each quarter turn of a class is a class of its own, numbered as
        it; 'per_class': each class of a task is turned by itself; 'per_task': the task's images are
        all turned alike.
      groups: [classes] number of each class's group, needed by spec.within_groups.
      scenes: [images] see ClassImages; None: each image is a scene.
      stream: (seed, split), see random_bits.Stream.
    Attributes:
      candidates: how many classes there are to draw from.
    Raises: ArgumentError where the classes cannot give such tasks.
    """

    def __init__(
        self,
        sizes: np.ndarray,
        spec: EpisodeSpec,
        stream: tuple[int, str],
        rotations: str = 'none',
        groups: np.ndarray | None = None,
        scenes: np.ndarray | None = None,
    ):
        if rotations not in ROTATIONS:
            raise ArgumentError('rotations', rotations, f'one of {", ".join(ROTATIONS)}')
        seed, split = stream
        self.sizes, self.spec, self.rotations = np.asarray(sizes, np.int32), spec, rotations
        self.candidates = len(self.sizes) * (4 if rotations == 'classes' else 1)
        self.examples = spec.shot + spec.query
        if rotations == 'classes' and groups is not None:
            groups = np.repeat(groups, 4)  # of the candidates: 4 turns of class 0, 4 of class 1 ...
        self._groups = _members(groups, spec, split) if spec.within_groups else None
        self._scenes = None if scenes is None else Scenes(self.sizes, scenes)
        self._there = self.sizes if scenes is None else self._scenes.counts
        self._check(split)
        # What each stream is for never changes: published results name tasks by their index.
        self._class_bits, self._turn_bits, self._image_bits, self._size_bits, self._group_bits = (
            Stream(seed, split, i) for i in range(5)
        )
        self._key_bits, self._scene_bits = Stream(seed, split, KEYS), Stream(seed, split, _SCENES)

    def _check(self, split):
        spec = self.spec
        if spec.way > self.candidates:
            raise ArgumentError('way', spec.way, f'the {split} split has {self.candidates} classes')
        if self.examples > self._there.min():
            of = '' if self._scenes is None else ', one of a scene,'
            raise ArgumentError(
                'shot',
                spec.shot,
                f'{spec.shot} support + {spec.query} query images per class{of} are more than the '
                f'{self._there.min()} of the smallest class of the {split} split',
            )
        if spec.least_query is not None:
            raise ArgumentError('least_query', spec.least_query, 'only for regression')
        for argument, least, most in (
            ('least_way', spec.least_way, spec.way),
            ('least_shot', spec.least_shot, spec.shot),
        ):
            if least is not None and not 0 < least <= most:
                raise ArgumentError(argument, least, f'at least 1 and at most {most}')

    def __call__(self, start: tf.Tensor | int, count: int) -> Picks:
        """Draws tasks start ... start + count - 1."""
        classes, turns = self._classes(start, count)
        there, most = tf.gather(tf.constant(self._there), classes), int(self._there.max())
        shape = [count, self.spec.way, most]
        bits = tf.reshape(self._image_bits.bits(start, count, self.spec.way * most), shape)
        images = choose(bits, self.examples, below=there)
        if self._scenes is not None:
            # A word for every scene, so that tasks of fewer shots take the same images first.
            bits = tf.reshape(self._scene_bits.bits(start, count, self.spec.way * most), shape)
            images = self._scenes.image(classes, images, tf.gather(bits, images, batch_dims=2))
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
        """Draws (ways, shots) of tasks that differ in them."""
        bits = self._size_bits.bits(start, count, 2) if self.spec.varies else None
        return tuple(
            least if least is None else least + _below(bits[:, i], most - least + 1)
            for i, (least, most) in enumerate(
                [(self.spec.least_way, self.spec.way), (self.spec.least_shot, self.spec.shot)]
            )
        )


class Scenes:
    """Where the images of each scene lie in their class.

    Args:
      sizes: images of each class.
      scenes: [images] number of each image's scene, see ClassImages.
    Attributes:
      counts: int32 [classes], how many scenes each class has.
    """

    def __init__(self, sizes: np.ndarray, scenes: np.ndarray):
        # Of each class (the first image of every scene, how many images it has).
        runs = [
            np.unique(part, return_index=True, return_counts=True)[1:]
            for part in np.split(np.asarray(scenes), np.cumsum(sizes)[:-1])
        ]
        self.counts = np.array([len(firsts) for firsts, _ in runs], np.int32)
        filled = lambda of: np.pad(of, (0, self.counts.max() - len(of))).astype(np.int32)
        self._firsts = tf.constant(np.stack([filled(firsts) for firsts, _ in runs]))
        self._sizes = tf.constant(np.stack([filled(counts) for _, counts in runs]))

    def image(self, classes: tf.Tensor, scenes: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
        """Returns an image of each scene, by its number in its class, int32 [tasks, way, examples].

        Args: classes, int32 [tasks, way]; scenes, int32 [tasks, way, examples], numbers of scenes
          in their class; bits, uint32 alike.
        """
        of = lambda table: tf.gather(tf.gather(table, classes), scenes, batch_dims=2)
        return of(self._firsts) + _below(bits, of(self._sizes))


def _below(bits, n):
    """Makes int32 of uint32, uniform in 0 ... n - 1; n: a number, or int32 of the bits' shape."""
    return tf.cast(uniform(bits, 0.0, tf.cast(n, tf.float32)), tf.int32)


def _members(groups, spec, split):
    """Returns the classes of every group that is large enough, and the groups' sizes.

    The classes are int32 [groups, most], filled up to the largest.
    """
    if groups is None:
        raise ArgumentError(
            'within_groups', None, f'the classes of the {split} split have no groups'
        )
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    large = [classes for classes in members if len(classes) >= spec.way]
    if not large:
        raise ArgumentError(
            'way',
            spec.way,
            f'the largest group of the {split} split has {max(map(len, members))} classes',
        )
    most = max(map(len, large))
    filled = np.stack([np.pad(classes, (0, most - len(classes))) for classes in large])
    return tf.constant(filled, tf.int32), tf.constant([len(classes) for classes in large], tf.int32)
