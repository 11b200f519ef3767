"""Pictures of turned objects: the pose regression of Yin et al. 2020 (arXiv 1912.03820).

A task is an object, x its picture in grey, y the angle by which it was turned, from 0 to 10. As in
the released code, support and query are different pictures of it. The published pictures are not
passed on; the code that renders them is (data/README.md).
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from maml_tf.datasets.objects.pose_files import EXPECTED, Poses, read
from maml_tf.episodes.class_images import pixels
from maml_tf.episodes.points import Division
from maml_tf.episodes.sampling import Sampler
from maml_tf.episodes.source import EpisodeSource
from maml_tf.episodes.task import Draw, EpisodeSpec
from maml_tf.errors import ArgumentError
from maml_tf.objectives.regression import Regression

LARGEST_Y = 10.0
HELD_OUT = 10  # One in so many training objects is for validation, where there are no others.


class ObjectPoses(EpisodeSource):
    """Tasks of pictures of objects that lie in memory.

    Args:
      poses: {'train', 'val', 'test': Poses}.
      identity: see EpisodeSource.
    """

    objective = Regression()
    output_dim = 1

    def __init__(self, poses: Mapping[str, Poses], identity: str = ''):
        self._poses, self.splits, self.identity = dict(poses), tuple(poses), identity
        self.input_shape = self._poses[self.splits[0]].images.shape[1:]

    def tasks(self, split: str, spec: EpisodeSpec, seed: int) -> Draw:
        """Returns draw(start, count), which gives tasks of spec.shot support and spec.query query
        pictures of one object each.

        Raises: ArgumentError where an object has too few pictures.
        """
        parts = ('train', 'val') if split == 'trainval' else (split,)
        poses = [self._poses[part] for part in parts]
        images, turns, sizes = (tf.concat(arrays, 0) for arrays in zip(*poses))
        division = Division(spec, (seed, split))
        of_all = dataclasses.replace(spec, least_shot=None, least_query=None)
        pick = Sampler(sizes.numpy(), of_all, (seed, split))
        firsts = tf.cast(tf.cumsum(sizes, exclusive=True), tf.int32)

        def draw(start, count):
            picks = pick(start, count)
            numbers = (tf.gather(firsts, picks.classes)[..., None] + picks.images)[:, 0]
            y = tf.gather(turns, numbers)[..., None] * LARGEST_Y
            return division(pixels(tf.gather(images, numbers)), y, division.drawn(start, count))

        return draw


def pose(data_dir: str | pathlib.Path | None, side: int = 128) -> ObjectPoses:
    """Returns the objects of a folder, in one of the layouts of pose_files.py.

    Where there are no validation objects, they are the last tenth of those for training; 'trainval'
    are all of these, on which the paper trains.

    Args:
      data_dir: the folder.
      side: of the pictures in pixels.
    Raises: ArgumentError where the folder has no such layout, UserError where a file is bad.
    """
    if not data_dir:
        raise ArgumentError('data_dir', None, f'name the folder that holds {EXPECTED}')
    poses = read(pathlib.Path(data_dir).expanduser(), side)
    if 'val' not in poses:
        whole, objects = poses['train'], len(poses['train'].sizes)
        if objects < 2:
            raise ArgumentError('data_dir', data_dir, 'has one training object; at least 2')
        kept = objects - max(1, objects // HELD_OUT)
        poses |= {'train': whole.part(0, kept), 'val': whole.part(kept, objects)}
    return ObjectPoses(poses, _identity(poses))


def _identity(poses):
    """Names the objects, so that no run resumes another on others."""
    digest = hashlib.sha256()
    for split in sorted(poses):
        for array in poses[split]:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]
