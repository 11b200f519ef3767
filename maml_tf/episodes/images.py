"""N-way K-shot tasks from images by class, held in memory or streamed from a file."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.episodes.sampling import Sampler
from maml_tf.episodes.source import EpisodeSource
from maml_tf.episodes.task import Task
from maml_tf.errors import UserError
from maml_tf.objectives import Classification


class ClassImages(NamedTuple):
    """Images of some classes, class after class.

    images: uint8 [all, height, width, channels]; a np.memmap is left in its file and read as needed
    sizes:  [classes] images of each class
    class_names: a name for each class, for pictures and manifests; None: their numbers
    image_names: a name for each image; None: their numbers within the class
    groups: [classes] number of the group (alphabet, super-category) of each class, or None
    """

    images: np.ndarray
    sizes: np.ndarray
    class_names: list | None = None
    image_names: list | None = None
    groups: np.ndarray | None = None


class ImageClasses(EpisodeSource):
    """Classes of images, each split loaded once when it is first needed.

    In memory the images are uint8; they are gathered, turned and scaled in the graph. A split whose
    images are a np.memmap (a set larger than memory) is gathered on the host instead.

    Args:
      load: split -> ClassImages, for each of `splits`.
      input_shape: (height, width, channels).
      splits: what there is of 'train', 'val', 'test'.
      rotations: {split: one of sampling.ROTATIONS}, or one for all.
      identity: what tells this source from others that the same flags could describe, a short word
        for the name of a run; '' where the flags say all.
    """

    objective = Classification()

    def __init__(
        self, load, input_shape, splits=('train', 'val', 'test'), rotations='none', identity=''
    ):
        self._load, self._loaded = load, {}
        self.input_shape, self.splits, self.identity = tuple(input_shape), tuple(splits), identity
        self.rotations = {
            split: rotations if isinstance(rotations, str) else rotations[split] for split in splits
        }

    @classmethod
    def from_arrays(cls, images, splits, rotations='none', **kwargs):
        """images: uint8 [classes, images per class, height, width, channels]; splits: {split:
        [class numbers]}."""

        def load(split):
            chosen = images[splits[split]]
            return ClassImages(
                chosen.reshape(-1, *images.shape[2:]),
                np.full(len(chosen), images.shape[1]),
                [str(number) for number in splits[split]],
            )

        return cls(load, images.shape[2:], tuple(splits), rotations, **kwargs)

    def split(self, split):
        """The ClassImages of 'train', 'val', 'test' or, both together, 'trainval'; images are a
        tensor or stream."""
        if split not in self._loaded:
            loaded = (
                _joined([self.split(part) for part in ('train', 'val')])
                if split == 'trainval'
                else self._load(self._there(split))
            )
            if not isinstance(loaded.images, np.memmap):
                loaded = loaded._replace(images=tf.constant(loaded.images))
            self._loaded[split] = loaded._replace(sizes=np.asarray(loaded.sizes))
        return self._loaded[split]

    def _there(self, split):
        if split not in self.splits:
            hint = '; evaluate with --test_set=True' if split == 'val' else ''
            raise UserError(
                f'--class_split: this split has no {split} classes, only '
                f'{" and ".join(self.splits)}{hint}'
            )
        return split

    def count_classes(self, split):
        rotations = self.rotations['train' if split == 'trainval' else split]
        return len(self.split(split).sizes) * (4 if rotations == 'classes' else 1)

    def tasks(self, split, spec, seed):
        """Returns an ImageTasks: draw(start, count) -> Task. Raises UserError where it cannot give
        such tasks."""
        classes = self.split(split)
        rotations = self.rotations['train' if split == 'trainval' else split]
        sampler = Sampler(classes.sizes, spec, (seed, split), rotations, classes.groups)
        return ImageTasks(classes, sampler, spec)


def _joined(parts):
    """Several ClassImages as one. Groups are named alike in all of them."""
    if any(isinstance(part.images, np.memmap) for part in parts):
        raise UserError('--train_on=trainval: not for a set that is larger than memory')
    together = lambda field: (
        None
        if getattr(parts[0], field) is None
        else np.concatenate([getattr(part, field) for part in parts])
    )
    names = [
        None if (joined := together(field)) is None else joined.tolist()
        for field in ('class_names', 'image_names')
    ]
    return ClassImages(together('images'), together('sizes'), *names, together('groups'))


class ImageTasks:
    """draw(start, count) -> Task, in two parts: which images (`pick`), and what becomes of them
    (`assemble`).

    Args:
      classes: ClassImages.
      pick: (start, count) -> Picks: a Sampler, or a manifest's tasks.
      spec: the EpisodeSpec that `pick` draws by.
    """

    def __init__(self, classes, pick, spec):
        self.classes, self.pick, self.spec = classes, pick, spec
        self.streams = isinstance(classes.images, np.memmap)
        self._firsts = tf.constant(np.cumsum(classes.sizes) - classes.sizes, tf.int32)

    def __call__(self, start, count):
        return self.assemble(*self.fetch(start, count))

    def fetch(self, start, count):
        """(Picks, their images uint8 [tasks, way, examples, h, w, c]); a graph can be compiled
        unless `streams`."""
        picks = self.pick(start, count)
        numbers = tf.gather(self._firsts, picks.classes)[..., None] + picks.images
        if not self.streams:
            return picks, tf.gather(self.classes.images, numbers)
        # Not stateful: reading changes nothing, and TensorFlow need not keep its order.
        images = tf.numpy_function(self._read, [numbers], tf.uint8, stateful=False)
        return picks, tf.ensure_shape(images, [*numbers.shape, *self.classes.images.shape[1:]])

    def _read(self, numbers):
        # In the file's order, which a disk reads faster.
        order = np.argsort(numbers, axis=None)
        images = np.empty([numbers.size, *self.classes.images.shape[1:]], np.uint8)
        images[order] = self.classes.images[numbers.ravel()[order]]
        return images.reshape(*numbers.shape, *images.shape[1:])

    def assemble(self, picks, images):
        """Picks and their images -> Task."""
        spec = self.spec
        # Not divided by 255: XLA would multiply by the reciprocal, and the last bit differ from
        # uncompiled tasks.
        x = tf.cast(images, tf.float32) * (1 / 255)
        if picks.turns is not None:
            x = _quarter_turns(x, picks.turns)
        count, way, examples = x.shape[:3]
        y = tf.broadcast_to(tf.eye(way)[:, None], [count, way, examples, way])
        if not spec.varies:
            support, query = slice(None, spec.shot), slice(spec.shot, None)
            return Task(
                *(
                    _class_by_class(values[:, :, part])
                    for part in (support, query)
                    for values in (x, y)
                ),
                key=picks.keys,
            )
        support, query = self._masks(picks, count)
        first = spec.least_shot or spec.shot if spec.leave_to_query else spec.shot
        parts = (slice(None, spec.shot), support), (slice(first, None), query[:, :, first:])
        (support_x, support_y), (query_x, query_y) = (
            (_class_by_class(x[:, :, part]), _class_by_class(y[:, :, part] * mask[..., None]))
            for part, mask in parts
        )
        return Task(
            support_x,
            support_y,
            query_x,
            query_y,
            *(_class_by_class(mask) for _, mask in parts),
            key=picks.keys,
        )

    def _masks(self, picks, count):
        """Which examples belong to the support and which to the query, each [tasks, way, ...]."""
        spec = self.spec
        ways = tf.fill([count], spec.way) if picks.ways is None else picks.ways
        shots = tf.fill([count], spec.shot) if picks.shots is None else picks.shots
        there = (tf.range(spec.way) < ways[:, None])[..., None]
        place = tf.range(spec.shot + spec.query)
        support = there & (place[: spec.shot] < shots[:, None, None])
        left = shots[:, None, None] if spec.leave_to_query else spec.shot
        return tf.cast(support, tf.float32), tf.cast(there & (place >= left), tf.float32)


def _class_by_class(x):
    """[tasks, way, examples, ...] -> [tasks, way*examples, ...]"""
    return tf.reshape(x, [x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:]])


def _quarter_turns(images, turns):
    """images [tasks, way, examples, side, side, c], turned counterclockwise by turns [tasks, way]
    quarters."""
    turns = turns[:, :, None, None, None, None]
    transposed = tf.transpose(images, [0, 1, 2, 4, 3, 5])
    quarters = [
        images,
        transposed[:, :, :, ::-1],
        images[:, :, :, ::-1, ::-1],
        transposed[:, :, :, :, ::-1],
    ]
    turned = quarters[0]
    for k in (1, 2, 3):
        turned = tf.where(turns == k, quarters[k], turned)
    return turned
