"""Which objects and which frames of their videos a user's task takes, drawn by its index."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from maml_tf.episodes.random_bits import KEYS, Stream, choose, uniform
from maml_tf.episodes.sampling import Picks
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError

CLEAN, CLUTTER = 0, 1
_TURNS = 6  # The stream of which part of a video comes first.


class VideoSizes(NamedTuple):
    """Holds where the videos of each object lie, filled up to the most that an object has.

    All are int32. counts: [objects, 2], videos of each kind. firsts, frames: [objects, 2, most],
    the number of a video's first frame within its object, and how many it has.
    """

    counts: np.ndarray
    firsts: np.ndarray
    frames: np.ndarray

    @classmethod
    def of(cls, objects: Sequence[tuple[Sequence[int], Sequence[int]]]) -> 'VideoSizes':
        """Makes it of each object's (frames of the clean videos, of those in clutter)."""
        most = max(len(kind) for kinds in objects for kind in kinds)
        frames = np.zeros([len(objects), 2, most], np.int32)
        counts = np.array([[len(kind) for kind in kinds] for kinds in objects], np.int32)
        for i, kinds in enumerate(objects):
            for j, kind in enumerate(kinds):
                frames[i, j, : len(kind)] = kind
        flat = frames.reshape(len(objects), -1)
        firsts = (np.cumsum(flat, 1, dtype=np.int32) - flat).reshape(frames.shape)
        return cls(counts, firsts, frames)


class UserSampler:
    """Draws tasks of one user's objects: sampler(start, count) -> Picks.

    The support frames are of the objects' clean videos, the queries of their videos in clutter. A
    user is drawn first, each with the same chance, and then `way` of the user's objects. With
    spec.least_way the way is drawn, too, from there to as many as the user has, at most spec.way;
    or, with `all_objects`, it is as many as that. Of each object the frames are divided evenly
    among its videos, in random order, and spread evenly over each video, from a random start. So a
    frame comes twice only where a video has fewer than are asked of it. With spec.least_shot a task
    of fewer shots has the first of spec.shot support frames; a random part of each video comes
    first, so that they may be of any part.

    Args:
      sizes: of the videos, object by object.
      users: [objects] the user of each.
      stream: (seed, split), see random_bits.Stream.
    Raises: ArgumentError where no user can give such tasks.
    """

    def __init__(
        self,
        sizes: VideoSizes,
        users: Sequence[str],
        spec: EpisodeSpec,
        stream: tuple[int, str],
        all_objects: bool = False,
    ):
        self.sizes, self.spec, self.all_objects = sizes, spec, all_objects
        members = members_of(users)
        least = spec.least_way or spec.way
        self._check(members, least, stream[1])
        chosen = [objects for objects in members.values() if len(objects) >= least]
        most = max(spec.way, *map(len, chosen))
        self._members = np.stack([np.pad(some, (0, most - len(some))) for some in chosen])
        self._numbers = np.array([len(some) for some in chosen], np.int32)
        self._objects, self._order, self._frames, self._size, self._user = (
            Stream(*stream, i) for i in range(5)
        )
        self._turns = Stream(*stream, _TURNS)
        self._keys = Stream(*stream, KEYS)

    def _check(self, members, least, split):
        spec = self.spec
        if spec.leave_to_query:
            reason = 'not of videos, whose queries are of other videos than the support'
            raise ArgumentError('leave_to_query', True, reason)
        if spec.least_query is not None:
            raise ArgumentError('least_query', spec.least_query, 'only for regression')
        for argument, value, most in (
            ('least_way', spec.least_way, spec.way),
            ('least_shot', spec.least_shot, spec.shot),
        ):
            if value is not None and not 0 < value <= most:
                raise ArgumentError(argument, value, f'at least 1 and at most {most}')
        largest = max(map(len, members.values()))
        if largest < least:
            reason = f'no user of the {split} split has more than {largest} objects'
            raise ArgumentError('way' if spec.least_way is None else 'least_way', least, reason)

    def __call__(self, start: tf.Tensor | int, count: int) -> Picks:
        """Draws tasks start ... start + count - 1."""
        spec = self.spec
        user = below(self._user.bits(start, count, 1)[:, 0], len(self._numbers))
        there = tf.gather(self._numbers, user)
        place = choose(
            self._objects.bits(start, count, self._members.shape[1]), spec.way, below=there
        )
        # Objects beyond the user's are filling.
        place = tf.minimum(place, there[:, None] - 1)
        objects = tf.cast(tf.gather(tf.gather(self._members, user), place, batch_dims=1), tf.int32)
        images = self._images(objects, start, count)
        ways, shots = self._ways_and_shots(there, start, count)
        return Picks(objects, None, images, ways, shots, self._keys.bits(start, count, 2))

    def _ways_and_shots(self, there, start, count):
        spec = self.spec
        bits = self._size.bits(start, count, 2)
        ways = shots = None
        if spec.least_way is not None:
            ways = most = tf.minimum(there, spec.way)
            if not self.all_objects:
                ways = spec.least_way + below(bits[:, 0], most - spec.least_way + 1)
        if spec.least_shot is not None:
            shots = spec.least_shot + below(bits[:, 1], spec.shot - spec.least_shot + 1)
        return ways, shots

    def _images(self, objects, start, count):
        """Draws frames of objects [count, way]: their numbers [count, way, shot + query]."""
        spec, most = self.spec, self.sizes.frames.shape[2]
        order = tf.reshape(
            self._order.bits(start, count, spec.way * 2 * most), [count, spec.way, 2, most]
        )
        places = tf.reshape(
            self._frames.bits(start, count, spec.way * (spec.shot + spec.query)),
            [count, spec.way, spec.shot + spec.query],
        )
        turns = None
        if spec.least_shot is not None:
            turns = tf.reshape(
                self._turns.bits(start, count, spec.way * most), [count, spec.way, most]
            )
        support, query = tf.split(places, [spec.shot, spec.query], axis=2)
        support = frames_of(self.sizes, objects, CLEAN, order[:, :, CLEAN], support, turns)
        query = frames_of(self.sizes, objects, CLUTTER, order[:, :, CLUTTER], query)
        return tf.concat([support, query], 2)


def frames_of(
    sizes: VideoSizes,
    objects: tf.Tensor,
    kind: int,
    order: tf.Tensor,
    places: tf.Tensor,
    turns: tf.Tensor | None = None,
) -> tf.Tensor:
    """Draws frames of some objects' videos of a kind, as UserSampler says.

    Args:
      objects: int32 [..., way].
      kind: CLEAN or CLUTTER.
      order, places: random words, uint32 [..., way, most] and [..., way, n].
      turns: random words, uint32 [..., way, most], by which a random part of each video comes
        first, and after the last part the first; None: the parts come in time.
    Returns: the frames' numbers within their object, int32 [..., way, n].
    """
    videos = tf.gather(sizes.counts[:, kind], objects)[..., None]
    ordered = choose(order, order.shape[-1], below=videos[..., 0])
    number = tf.range(places.shape[-1])
    turn = tf.broadcast_to(number % videos, tf.shape(places))
    video = tf.gather(ordered, turn, axis=-1, batch_dims=turn.shape.rank - 1)
    # Of the n frames so many are of this video, and this one is so far among them.
    visits = (places.shape[-1] - turn - 1) // videos + 1
    first, size = (
        tf.gather(tf.gather(table[:, kind], objects), video, batch_dims=turn.shape.rank - 1)
        for table in (sizes.firsts, sizes.frames)
    )
    of_video = tf.gather(places, turn, axis=-1, batch_dims=turn.shape.rank - 1)
    part = number // videos
    if turns is not None:
        turned = tf.gather(turns, turn, axis=-1, batch_dims=turn.shape.rank - 1)
        part = (part + below(turned, visits)) % visits
    return first + spread(part, visits, size, of_video)


def spread(part: tf.Tensor, parts: tf.Tensor | int, size: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Draws a frame from a part of a video of `size` frames that is divided into equal parts.

    Parts with the same bits give frames at the same distance: no frame twice where size >= parts,
    and each with the same chance (systematic sampling).
    """
    return (part * size + below(bits, size)) // parts


def below(bits: tf.Tensor, n: tf.Tensor | int) -> tf.Tensor:
    """Makes int32 of uint32, uniform in 0 ... n - 1."""
    return tf.cast(uniform(bits, 0.0, tf.cast(n, tf.float32)), tf.int32)


def members_of(users: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Returns {user: numbers of the user's objects}, sorted."""
    users = np.asarray(users)
    return {str(user): np.flatnonzero(users == user) for user in np.unique(users)}
