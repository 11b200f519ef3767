"""Sources whose tasks are N-way K-shot problems of images, in memory or streamed from a file."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Self

import numpy as np
import tensorflow as tf

from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.image_tasks import ImageTasks
from maml_tf.episodes.labelled_images import ImageBatches, ImagesBesideTasks, ImageSequences
from maml_tf.episodes.sampling import Sampler
from maml_tf.episodes.source import EpisodeSource
from maml_tf.episodes.task import BatchSpec, SequenceSpec, Spec, TaskAndBatchSpec
from maml_tf.errors import ArgumentError, UserError
from maml_tf.objectives.classification import Classification


class ImageClasses(EpisodeSource):
    """Classes of images, each split loaded once when it is first needed.

    In memory the images are uint8; they are gathered, turned and scaled in the graph. A split whose
    images are a np.memmap (a set larger than memory) is gathered on the host instead.

    Args:
      load: split -> ClassImages, for each of `splits`.
      input_shape: (height, width, channels).
      splits: what there is of 'train', 'val', 'test'.
      rotations: {split: one of sampling.ROTATIONS}, or one for all; 'trainval' is turned as 'train'
        is.
      identity: see EpisodeSource.
      within_groups: no task mixes groups, whatever its spec says (a task is a region).
    """

    objective = Classification()
    # (the source of what is drawn beside tasks, whether its labels are groups); None: the same
    # classes as the tasks, by class.
    _external: 'tuple[ImageClasses, bool] | None' = None

    def __init__(
        self,
        load: Callable[[str], ClassImages],
        input_shape: Sequence[int],
        splits: Sequence[str] = ('train', 'val', 'test'),
        rotations: str | Mapping[str, str] = 'none',
        identity: str = '',
        within_groups: bool = False,
    ):
        self._load, self._loaded, self.within_groups = load, {}, within_groups
        self.input_shape, self.splits, self.identity = tuple(input_shape), tuple(splits), identity
        self.rotations = {
            split: rotations if isinstance(rotations, str) else rotations[split] for split in splits
        }

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray,
        splits: Mapping[str, Sequence[int]],
        rotations: str | Mapping[str, str] = 'none',
        identity: str = '',
    ) -> 'ImageClasses':
        """Makes a source of images in memory, as many of each class.

        Args:
          images: uint8 [classes, images per class, height, width, channels].
          splits: {split: numbers of its classes}.
        """

        def load(split):
            chosen = images[splits[split]]
            return ClassImages(
                chosen.reshape(-1, *images.shape[2:]),
                np.full(len(chosen), images.shape[1]),
                [str(number) for number in splits[split]],
            )

        return cls(load, images.shape[2:], tuple(splits), rotations, identity)

    def split(self, split: str) -> ClassImages:
        """Returns the classes of 'train', 'val', 'test' or, both together, 'trainval'.

        Images are a tensor, or a np.memmap where they stream.
        Raises: ArgumentError where there are none.
        """
        if split not in self._loaded:
            self._loaded[split] = self._joined() if split == 'trainval' else self._in_memory(split)
        return self._loaded[split]

    def _in_memory(self, split):
        if split not in self.splits:
            reason = f'there are no {split} classes, only {" and ".join(self.splits)}'
            if split == 'val' and 'test' in self.splits:
                reason += '; evaluate on the test classes'
            raise ArgumentError('split', None, reason)
        loaded = self._load(split)
        if not loaded.streams:
            loaded = loaded._replace(images=tf.constant(loaded.images))
        return loaded._replace(sizes=np.asarray(loaded.sizes))

    def _joined(self):
        """Returns train and val as one. Groups and labels are numbered alike in both."""
        parts = [self.split(part) for part in ('train', 'val')]
        if any(part.streams for part in parts):
            raise ArgumentError('train_on', 'trainval', 'not for a set larger than memory')

        def together(field):
            """Returns a field of both, None where there is none."""
            values = [part[ClassImages._fields.index(field)] for part in parts]
            return None if values[0] is None else np.concatenate(values)

        names = {
            field: None if (joined := together(field)) is None else joined.tolist()
            for field in ('class_names', 'image_names')
        }
        images = tf.concat([part.images for part in parts], 0)
        others = {field: together(field) for field in ('groups', 'labels', 'scenes')}
        return ClassImages(images, together('sizes'), **names, **others)

    def beside(self, external: 'ImageClasses', groups: bool = False) -> Self:
        """Returns the same tasks beside the training classes of another source.

        What a TaskAndBatchSpec draws then has external examples beside its tasks.

        Args:
          external: images of the same shape; this source itself, too.
          groups: whether labels tell the group (alphabet, super-category) of a class, not the
            class.
        Raises: ArgumentError where the images have another shape, or there are no groups.
        """
        if external.input_shape != self.input_shape:
            theirs, ours = ('x'.join(map(str, s.input_shape)) for s in (external, self))
            raise ArgumentError('external', None, f'its images are {theirs}, of the tasks {ours}')
        count = external.count_classes('train')
        if groups:
            of_classes = external.split('train').groups
            if of_classes is None:
                reason = 'its classes have no groups (super-classes); its labels are classes'
                raise ArgumentError('external_labels', 'groups', reason)
            count = len(np.unique(of_classes))
        other = copy.copy(self)
        other._external, other.external_classes = (external, groups), count
        if external is not self:
            other.identity = '-'.join(filter(None, (self.identity, external.identity)))
        return other

    def count_classes(self, split: str) -> int:
        labels = np.unique(self.split(split).batch_labels)
        return len(labels) * (4 if self._turned(split) == 'classes' else 1)

    def tasks(
        self, split: str, spec: Spec, seed: int
    ) -> ImageTasks | ImageBatches | ImagesBesideTasks | ImageSequences:
        """Returns draw(start, count), see EpisodeSource; by type of `spec`.

        Raises: ArgumentError where the classes cannot give what `spec` asks for.
        """
        classes, rotations, stream = self.split(split), self._turned(split), (seed, split)
        if isinstance(spec, BatchSpec):
            return ImageBatches(classes, spec, stream, rotations)
        if self.within_groups and isinstance(spec, SequenceSpec):
            raise UserError(
                'a sequence would mix groups of classes, and of these data a task is of one group: '
                'name a method that learns from tasks or batches'
            )
        if isinstance(spec, SequenceSpec):
            return ImageSequences(classes, spec, stream, rotations)
        if isinstance(spec, TaskAndBatchSpec):
            return self._beside_tasks(split, spec, seed)
        if self.within_groups:
            spec = dataclasses.replace(spec, within_groups=True)
        pick = Sampler(classes.sizes, spec, stream, rotations, classes.groups, classes.scenes)
        return ImageTasks(classes, pick, spec)

    def _beside_tasks(self, split, spec, seed):
        tasks, groups = self.tasks(split, spec.task, seed), None
        if self._external is None:
            return ImagesBesideTasks(tasks, self.tasks(split, BatchSpec(spec.size), seed))
        external, by_group = self._external
        if by_group:
            groups = external.split('train').groups
        batches = external.tasks('train', BatchSpec(spec.size), seed)
        return ImagesBesideTasks(tasks, batches, groups)

    def _turned(self, split):
        """Returns how a split's images are turned."""
        rotations = self.rotations['train' if split == 'trainval' else split]
        height, width, _ = self.input_shape
        if rotations != 'none' and height != width:
            reason = f'images of {height}x{width} have no quarter turns'
            raise ArgumentError('rotations', rotations, reason)
        return rotations
