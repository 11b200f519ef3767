"""Sources whose tasks are one user's objects, in videos of frames."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.datasets.objects.sampling import (
    CLEAN,
    CLUTTER,
    UserSampler,
    VideoSizes,
    frames_of,
    members_of,
    spread,
)
from maml_tf.episodes.class_images import ClassImages, pixels
from maml_tf.episodes.image_tasks import ImageTasks
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.labelled_images import ImageBatches
from maml_tf.episodes.random_bits import KEYS, Stream, choose
from maml_tf.episodes.task import BatchSpec, EpisodeSpec, Spec
from maml_tf.errors import ArgumentError

_OBJECTS, _ORDER, _SUPPORT, _FRAMES = 8, 9, 10, 11  # Streams of the evaluation of whole videos.


class ObjectVideos(NamedTuple):
    """Names the videos of an object, and says how many frames they have.

    clean, clutter: [(name, frames)], in the order in which the frames lie
    """

    clean: list[tuple[str, int]]
    clutter: list[tuple[str, int]]


class VideoFrames(NamedTuple):
    """Holds a video that is to be recognised: the number of its object, and its frames in time.

    frames: () -> float32 [1, frames, height, width, channels], read when it is called.
    """

    name: str
    label: int
    frames: Callable[[], tf.Tensor]


class UserTask(NamedTuple):
    """Holds a user's task for the evaluation of whole videos.

    user, repeat: whose, and which of the user's tasks. objects: names.
    support_x, support_y, key: as in task.Task, of one task. videos: all of these objects in
    clutter.
    """

    user: str
    repeat: int
    objects: list[str]
    support_x: tf.Tensor
    support_y: tf.Tensor
    key: tf.Tensor
    videos: list[VideoFrames]


class UserVideos(ImageClasses):
    """Objects of users, of which clean videos are learnt and videos in clutter recognised.

    A class is an object, and its images are the frames, those of the clean videos first. A task's
    classes are objects of one user, see sampling.UserSampler.

    Args:
      load: split -> (ClassImages whose groups are the users, the ObjectVideos of each class).
      input_shape, splits, identity: as of ImageClasses.
    """

    def __init__(
        self,
        load: Callable[[str], tuple[ClassImages, list[ObjectVideos]]],
        input_shape: Sequence[int],
        splits: Sequence[str] = ('train', 'val', 'test'),
        identity: str = '',
    ):
        self._videos = {}

        def classes(split):
            loaded, videos = load(split)
            self._videos |= dict(zip(loaded.class_names, videos, strict=True))
            return loaded

        super().__init__(classes, input_shape, splits, identity=identity)

    def sizes(self, split: str) -> VideoSizes:
        """Returns where the videos of a split's objects lie."""
        videos = [self._videos[name] for name in self.split(split).class_names]
        return VideoSizes.of([tuple([n for _, n in kind] for kind in one) for one in videos])

    def tasks(self, split: str, spec: Spec, seed: int) -> ImageTasks | ImageBatches:
        """Returns draw(start, count), see EpisodeSource; by type of `spec`.

        In val and test spec.least_way means all objects of the user, at most spec.way.

        Raises: ArgumentError where no user can give what `spec` asks for, and for a SequenceSpec.
        """
        classes = self.split(split)
        if isinstance(spec, BatchSpec):
            return super().tasks(split, spec, seed)
        if not isinstance(spec, EpisodeSpec):
            raise ArgumentError('spec', spec, "users' videos make tasks and batches, no sequences")
        all_objects = not split.startswith('train')
        stream = seed, split
        pick = UserSampler(self.sizes(split), classes.groups, spec, stream, all_objects)
        return ImageTasks(classes, pick, spec)

    def videos(
        self,
        split: str,
        shot: int,
        seed: int,
        repeats: int = 1,
        frames: int = 200,
        way: int | None = None,
    ) -> Iterator[UserTask]:
        """Yields `repeats` tasks of each user, with all of its objects' videos in clutter.

        Args:
          shot: support frames of each object, of its clean videos.
          frames: the most of a video in clutter that are to be recognised, spread evenly over it.
          way: objects of a task, drawn from the user's; users with fewer have no task. None: all
            that a user has.
        Raises: ArgumentError where no user has so many objects.
        """
        classes, sizes = self.split(split), self.sizes(split)
        users = members_of(classes.groups)
        able = {user: of for user, of in users.items() if way is None or len(of) >= way}
        if not able:
            raise ArgumentError('way', way, f'no user of the {split} split has so many objects')
        streams = {i: Stream(seed, split, i) for i in (_OBJECTS, _ORDER, _SUPPORT, _FRAMES, KEYS)}
        for number, (user, of) in enumerate(able.items()):
            for repeat in range(repeats):
                task = number * repeats + repeat
                bits = lambda i, *shape: tf.reshape(
                    streams[i].bits(task, 1, int(np.prod(shape))), [1, *shape]
                )
                chosen = of
                if way is not None:
                    chosen = np.sort(of[choose(bits(_OBJECTS, len(of)), way)[0].numpy()])
                yield self._user_task(classes, sizes, user, repeat, chosen, shot, frames, bits)

    def _user_task(self, classes, sizes, user, repeat, objects, shot, frames, bits):
        way, most = len(objects), sizes.frames.shape[2]
        order, places = bits(_ORDER, way, most), bits(_SUPPORT, way, shot)
        numbers = frames_of(sizes, tf.constant(objects[None], tf.int32), CLEAN, order, places)
        firsts = classes.firsts[objects]
        support_x = pixels(classes.gather(numbers + firsts[None, :, None]))
        starts = sizes.firsts[objects, CLUTTER]
        starts_at = bits(_FRAMES, way, most)[0]

        def read(label, video, size):
            """Returns what reads the frames of a video of so many."""

            def frames_in_time():
                count = min(frames, size)
                drawn = spread(tf.range(count), count, size, starts_at[label, video])
                return pixels(classes.gather(drawn + firsts[label] + starts[label, video]))[None]

            return frames_in_time

        names = [classes.class_names[number] for number in objects]
        videos = [
            VideoFrames(f'{name}/clutter/{video}', label, read(label, i, size))
            for label, name in enumerate(names)
            for i, (video, size) in enumerate(self._videos[name].clutter)
        ]
        return UserTask(
            user,
            repeat,
            names,
            tf.reshape(support_x, [1, way * shot, *self.input_shape]),
            tf.repeat(tf.eye(way), shot, axis=0)[None],
            bits(KEYS, 2),
            videos,
        )
