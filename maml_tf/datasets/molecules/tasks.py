"""Tasks of molecules: an assay, of which some inactive and some active molecules are known."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.image_tasks import ImageTasks
from maml_tf.episodes.random_bits import uniform
from maml_tf.episodes.sampling import Picks, Sampler
from maml_tf.episodes.task import EpisodeSpec


class AssaySampler(Sampler):
    """Draws an assay and molecules of it: sampler(start, count) -> Picks.

    Assay a is the classes 2a (inactive) and 2a + 1 (active). Their order is never shuffled: class 1
    of a task is always the active one.

    Args: as of Sampler; sizes: molecules of each class, of two classes for each assay.
    """

    def __init__(self, sizes: np.ndarray, spec: EpisodeSpec, stream: tuple[int, str]):
        super().__init__(sizes, spec, stream)
        self._assays = len(self.sizes) // 2

    def _classes(self, start, count):
        bits = self._group_bits.bits(start, count, 1)
        inactive = 2 * tf.cast(uniform(bits, 0.0, float(self._assays)), tf.int32)
        return tf.concat([inactive, inactive + 1], 1), None


class MoleculeTasks(ImageTasks):
    """draw(start, count) -> Task of the features of molecules.

    Args:
      classes: the inactive and the active molecules of each assay; in the place of images there are
        numbers of molecules, int32 [all].
      pick, spec: see ImageTasks.
      features: uint8 or int8 [molecules, *input_shape].
    """

    def __init__(
        self,
        classes: ClassImages,
        pick: Callable[[tf.Tensor | int, int], Picks],
        spec: EpisodeSpec,
        features: tf.Tensor,
    ):
        super().__init__(classes, pick, spec)
        self.features = features

    def picked_by(self, pick: Callable[[tf.Tensor | int, int], Picks]) -> 'MoleculeTasks':
        return MoleculeTasks(self.classes, pick, self.spec, self.features)

    def fetch(self, start: tf.Tensor | int, count: int) -> tuple[Picks, tf.Tensor]:
        """Returns (Picks, their features [tasks, 2, examples, *input_shape])."""
        picks, molecules = super().fetch(start, count)
        return picks, tf.gather(self.features, molecules)

    def inputs(self, images: tf.Tensor, turns: tf.Tensor | None) -> tf.Tensor:
        del turns
        return tf.cast(images, tf.float32)
