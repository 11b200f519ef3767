"""Sources whose tasks are regions, and whose labels are images."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from maml_tf.episodes.segmentation import label_images
from maml_tf.episodes.segmentation.label_images import LabelImages
from maml_tf.episodes.segmentation.tasks import RegionTasks, TileBatches
from maml_tf.episodes.source import EpisodeSource
from maml_tf.episodes.task import BatchSpec, EpisodeSpec, Spec
from maml_tf.errors import ArgumentError
from maml_tf.objectives.pixels import Segmentation
from maml_tf.terminal.text import counted, listed


class LabelledRegions(EpisodeSource):
    """Tasks of one region each: some of its classes, tiles that show them, and label images.

    See RegionSampler for what a task takes, and RegionTasks for its labels. Each split is loaded
    once when it is first needed. Regions that are left out are printed then.

    Args:
      load: split -> LabelImages, for each of `splits`.
      input_shape: (height, width, bands).
      class_names: of all classes, by their number in the label images.
      splits, identity: see EpisodeSource.
    """

    objective = Segmentation()

    def __init__(
        self,
        load: Callable[[str], LabelImages],
        input_shape: Sequence[int],
        class_names: Sequence[str],
        splits: Sequence[str] = ('train', 'val', 'test'),
        identity: str = '',
    ):
        self._load, self._loaded, self._told = load, {}, set()
        self.input_shape, self.splits, self.identity = tuple(input_shape), tuple(splits), identity
        self.class_names = list(class_names)

    @classmethod
    def from_arrays(
        cls,
        bands: np.ndarray,
        labels: np.ndarray,
        regions: Sequence[str],
        splits: Mapping[str, Sequence[str]],
        class_names: Sequence[str],
    ) -> 'LabelledRegions':
        """Makes a source of tiles in memory.

        Args:
          bands: [tiles, height, width, bands], uint8 from 0 to 255 or uint16 from 0 to 10000.
          labels: uint8 [tiles, height, width], a number of a class, or 255 where there is no label.
          regions: the name of each tile's region.
          splits: {split: names of its regions}.
        """
        of = np.array(regions)

        def load(split):
            numbers = np.concatenate([np.flatnonzero(of == name) for name in splits[split]])
            return label_images.from_arrays(
                bands[numbers], labels[numbers], of[numbers].tolist(), class_names
            )

        return cls(load, bands.shape[1:], class_names, tuple(splits))

    def split(self, split: str) -> LabelImages:
        """Returns the tiles of 'train', 'val', 'test' or, both together, 'trainval'.

        Raises: ArgumentError where there are none.
        """
        if split not in self._loaded:
            self._loaded[split] = self._joined() if split == 'trainval' else self._in_memory(split)
        return self._loaded[split]

    def _in_memory(self, split):
        if split not in self.splits:
            reason = f'there are no {split} regions, only {" and ".join(self.splits)}'
            raise ArgumentError('split', None, reason)
        loaded = self._load(split)
        if loaded.streams:
            return loaded
        return loaded._replace(tiles=loaded.tiles._replace(images=tf.constant(loaded.tiles.images)))

    def _joined(self):
        parts = [self.split(part) for part in ('train', 'val')]
        if any(part.streams for part in parts):
            raise ArgumentError('train_on', 'trainval', 'not for a set larger than memory')
        return label_images.joined(parts)

    def count_classes(self, split: str) -> int:
        """Returns how many classes a label tells apart: all of the set, whatever the split has."""
        return len(self.class_names)

    def tasks(self, split: str, spec: Spec, seed: int) -> RegionTasks | TileBatches:
        """Returns draw(start, count), see EpisodeSource; by type of `spec`.

        Raises: ArgumentError where the regions cannot give what `spec` asks for.
        """
        images, bands, stream = self.split(split), self.input_shape[-1], (seed, split)
        if isinstance(spec, BatchSpec):
            return TileBatches(images, bands, spec, stream)
        if not isinstance(spec, EpisodeSpec):
            reason = 'label images are drawn as tasks or batches, not as sequences'
            raise ArgumentError('spec', None, reason)
        tasks = RegionTasks(images, bands, spec, stream)
        self._tell(split, spec, images, tasks)
        return tasks

    def _tell(self, split, spec, images, tasks):
        """Prints once which regions give no task."""
        used = {images.tiles.class_names[number] for number in tasks.pick.regions}
        left = [name for name in images.tiles.class_names if name not in used]
        if left and (split, spec) not in self._told:
            self._told.add((split, spec))
            print(
                f'{split}: left out {counted(len(left), "region")} with fewer than {spec.way} '
                f'classes that have tiles enough for {spec.shot} support and {spec.query} query '
                f'tiles of each: {listed(left)}'
            )
