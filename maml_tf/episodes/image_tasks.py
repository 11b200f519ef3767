"""Tasks of images: a support and a query set of some classes."""

from collections.abc import Callable

import tensorflow as tf

from maml_tf.episodes.class_images import ClassImages, pixels
from maml_tf.episodes.sampling import Picks
from maml_tf.episodes.streaming import FetchedDraw
from maml_tf.episodes.task import EpisodeSpec, Task


class ImageTasks(FetchedDraw):
    """draw(start, count) -> Task, in two parts: which images (`pick`), and what becomes of them.

    Args:
      classes: ClassImages.
      pick: (start, count) -> Picks: a Sampler, or a manifest's tasks.
      spec: the EpisodeSpec that `pick` draws by.
    """

    def __init__(
        self,
        classes: ClassImages,
        pick: Callable[[tf.Tensor | int, int], Picks],
        spec: EpisodeSpec,
    ):
        self.classes, self.pick, self.spec = classes, pick, spec
        self.streams = classes.streams

    def fetch(self, start: tf.Tensor | int, count: int) -> tuple[Picks, tf.Tensor]:
        """Returns (Picks, their images uint8 [tasks, way, examples, height, width, channels])."""
        picks = self.pick(start, count)
        first = tf.gather(self.classes.firsts, picks.classes)
        return picks, self.classes.gather(first[..., None] + picks.images)

    def picked_by(self, pick: Callable[[tf.Tensor | int, int], Picks]) -> 'ImageTasks':
        """Returns the draw of other tasks of the same images."""
        return ImageTasks(self.classes, pick, self.spec)

    def inputs(self, images: tf.Tensor, turns: tf.Tensor | None) -> tf.Tensor:
        """Returns what a network sees of what was fetched, [tasks, way, examples, ...] float32."""
        return pixels(images, turns)

    def assemble(self, drawn: Picks, images: tf.Tensor) -> Task:
        spec, turns = self.spec, drawn.turns
        count, way, examples = images.shape[:3]
        if turns is not None:
            turns = tf.broadcast_to(turns[..., None], [count, way, examples])
        x = self.inputs(images, turns)
        y = tf.broadcast_to(tf.eye(way)[:, None], [count, way, examples, way])
        if not spec.varies:
            support, query = slice(None, spec.shot), slice(spec.shot, None)
            return Task(
                *(
                    _class_by_class(values[:, :, part])
                    for part in (support, query)
                    for values in (x, y)
                ),
                key=drawn.keys,
            )
        support, query = self._masks(drawn, count)
        first = spec.least_shot or spec.shot if spec.leave_to_query else spec.shot
        parts = (slice(None, spec.shot), support), (slice(first, None), query[:, :, first:])
        (support_x, support_y), (query_x, query_y) = (
            (_class_by_class(x[:, :, part]), _class_by_class(y[:, :, part] * mask[..., None]))
            for part, mask in parts
        )
        masks = (_class_by_class(mask) for _, mask in parts)
        return Task(support_x, support_y, query_x, query_y, *masks, key=drawn.keys)

    def _masks(self, picks, count):
        """Says which examples are support and which are queries, each float [tasks, way, ...]."""
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
