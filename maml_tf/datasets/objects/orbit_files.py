"""The layout of ORBIT on disk: users, their objects, and the videos of each, as folders of frames.

    orbit_benchmark_224/{train,validation,test}/<user>/<object>/{clean,clutter}/<video>/*.jpg
    orbit_benchmark_224/annotations/{train,validation,test}/<video>.json

Imports no TensorFlow.
"""

import json
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from maml_tf.datasets.raw.listing import composed, images_below, visible_folders
from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal.text import counted, described, listed, shown

FOLDERS = {'train': 'train', 'val': 'validation', 'test': 'test'}
KINDS = ('clean', 'clutter')  # what is learnt from, and what is recognised
ABSENT = 'object_not_present_issue'


class Video(NamedTuple):
    """Names a video and its frames, in the order of time.

    user, object, kind ('clean' or 'clutter'), name: its folders. frames: paths of its images.
    """

    user: str
    object: str
    kind: str
    name: str
    frames: list[pathlib.Path]

    @property
    def of_object(self) -> str:
        """The name of its class: two users' mugs are two objects."""
        return f'{self.user}/{self.object}'

    @property
    def path(self) -> str:
        return f'{self.of_object}/{self.kind}/{self.name}'


def find(data_dir: str | pathlib.Path | None) -> pathlib.Path:
    """Returns the folder of the splits: data_dir itself, or the one orbit_benchmark_* in it.

    Raises: ArgumentError where there is none, or more than one.
    """
    if not data_dir:
        reason = 'name the folder that holds the folders train, validation and test of ORBIT'
        raise ArgumentError('data_dir', None, reason)
    folder = pathlib.Path(data_dir).expanduser()
    names = {path.name for path in visible_folders(folder)}
    if names & {*FOLDERS.values()}:
        return folder
    inner = sorted(name for name in names if name.startswith('orbit_benchmark_'))
    if len(inner) != 1:
        found = f'{listed(inner)}: name one of them' if inner else 'no such folder in it'
        raise ArgumentError(
            'data_dir',
            data_dir,
            f'the folders train, validation and test of ORBIT, or one orbit_benchmark_*; {found}',
        )
    return folder / inner[0]


def splits_of(folder: pathlib.Path) -> tuple[str, ...]:
    """Returns what there is of 'train', 'val' and 'test'."""
    return tuple(split for split, name in FOLDERS.items() if (folder / name).is_dir())


def list_videos(folder: pathlib.Path, split: str, every: int = 1) -> list[Video]:
    """Lists the videos of a split, object by object: first the clean ones, then those in clutter.

    Where there are annotations, frames of clutter videos are left out that do not show the object,
    as the benchmark asks. An object that lacks either kind of video is left out, and a line says
    so.

    Args:
      every: of this many frames one is listed, from the first on.
    Raises: UserError where a folder cannot be listed, or an annotation is no JSON.
    """
    root = folder / FOLDERS[split]
    annotations = folder / 'annotations' / FOLDERS[split]
    videos, incomplete = [], []
    for user in visible_folders(root):
        for thing in visible_folders(user):
            found = [
                video
                for kind in KINDS
                if (thing / kind).is_dir()
                for video in _of_kind(thing / kind, annotations, every)
            ]
            if {video.kind for video in found} == {*KINDS}:
                videos += found
            else:
                incomplete.append(f'{user.name}/{thing.name}')
    if incomplete:
        objects = counted(len(incomplete), 'object')
        print(f'{split}: left out {objects} without frames of both kinds: {listed(incomplete)}')
    if not videos:
        raise UserError(
            f'{shown(root)}: no object in it; the layout is <user>/<object>/clean/<video>/*.jpg, '
            'and clutter beside clean'
        )
    return videos


def _of_kind(folder: pathlib.Path, annotations: pathlib.Path, every: int) -> Iterator[Video]:
    """Yields the videos below .../<user>/<object>/<kind> that have frames."""
    thing = folder.parent
    for path in visible_folders(folder):
        frames, _ = images_below(path)
        if folder.name == 'clutter':
            absent = _absent(annotations / f'{path.name}.json')
            frames = [frame for frame in frames if frame.name not in absent]
        if frames:
            names = (thing.parent.name, thing.name, folder.name, path.name)
            yield Video(*map(composed, names), frames[::every])


def _absent(path):
    """The names of the frames that do not show the object; none where nobody says so."""
    try:
        content = json.loads(path.read_text('utf-8'))
        return {name for name, issues in content.items() if issues.get(ABSENT) is True}
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f'{shown(path)}: no annotations of ORBIT ({described(error)})') from error
