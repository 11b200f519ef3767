"""ORBIT: objects of people who are blind or have low vision, in videos of their own phones.

By Massiceti et al. 2021 (ICCV) and its program (microsoft/ORBIT-Dataset). The data, and that a
user's clean videos are learnt and the videos in clutter recognised, are theirs. Ours is how frames
are drawn (objects/sampling.py): they train on clips of 8 frames that follow each other, from some
of the videos. And frames are of any side, 84 by default, where they use 224 and encoders that were
trained on ImageNet: no figure here is comparable with theirs.
"""

import hashlib
import itertools
import json
import pathlib

import numpy as np

from maml_tf.datasets.objects import orbit_files
from maml_tf.datasets.objects.user_videos import ObjectVideos, UserVideos
from maml_tf.datasets.raw import memory_map
from maml_tf.datasets.raw.folder_images import Wanted, in_memory, mapped
from maml_tf.episodes.class_images import ClassImages
from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal.text import counted, shown


def orbit(
    data_dir: str | pathlib.Path | None, image_size: int = 84, frame_every: int = 1
) -> UserVideos:
    """Returns the objects of ORBIT; here files are only listed, a split is read when needed.

    More than a gigabyte of pixels is written once to files, in `.maml_tf` in the folder.

    Args:
      data_dir: the folder of train, validation and test, or the one around it.
      image_size: side of the frames in pixels.
      frame_every: one of so many frames is read; neighbours look nearly alike.
    Raises: ArgumentError where there is no such folder; UserError for what is not ORBIT's layout.
    """
    if frame_every < 1:
        raise ArgumentError('frame_every', frame_every, 'at least 1')
    folder = orbit_files.find(data_dir)
    listed = {
        split: orbit_files.list_videos(folder, split, frame_every)
        for split in orbit_files.splits_of(folder)
    }
    shape = (image_size, image_size, 3)
    total = sum(len(video.frames) for videos in listed.values() for video in videos)
    streams = memory_map.streams(total, shape)

    def load(split):
        root = folder / orbit_files.FOLDERS[split]
        videos = {video.path: video for video in listed[split]}
        files = {path: video.frames for path, video in videos.items()}
        wanted = Wanted(split, root, files, shape, least=1)
        images, outcome = mapped(wanted, folder) if streams else in_memory(wanted)
        if outcome.unreadable:
            number = counted(len(outcome.unreadable), 'frame')
            print(f'{split}: left out {number}; {outcome.unreadable[0]}')
        return _by_object(root, videos, images, outcome.kept)

    return UserVideos(load, shape, tuple(listed), _identity(listed))


def _by_object(root, videos, images, kept):
    """Returns the (ClassImages, [ObjectVideos]) of frames that lie video by video."""
    names, sizes, users, of_each = [], [], [], []
    for name, some in itertools.groupby(videos.values(), lambda video: video.of_object):
        frames = {kind: [] for kind in orbit_files.KINDS}
        for video in some:
            if video.path in kept:
                frames[video.kind].append((video.name, len(kept[video.path])))
        lacking = ' or '.join(kind for kind in orbit_files.KINDS if not frames[kind])
        if lacking:
            raise UserError(
                f'{shown(root / name)}: no frame of its {lacking} videos can be read; remove the '
                'folder, or put whole files there'
            )
        names.append(name)
        users.append(name.split('/')[0])
        sizes.append(sum(count for kind in frames.values() for _, count in kind))
        of_each.append(ObjectVideos(**frames))
    # A frame's name is its path below its object.
    frames = [
        f'{path.split("/", 2)[2]}/{frame.rsplit("/", 1)[-1]}'
        for path, of_video in kept.items()
        for frame in of_video
    ]
    images = images[: len(frames)]
    return ClassImages(images, np.array(sizes), names, frames, np.array(users)), of_each


def _identity(listed):
    """Names the videos, so that no run resumes another on others."""
    names = {split: [video.path for video in videos] for split, videos in listed.items()}
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:12]
