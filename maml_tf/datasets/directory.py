"""A user's own folder of class folders as few-shot tasks.

    photos/cat/*.jpg, photos/dog/*.jpg, ...
        the classes are split by their names, or as a split file says
    photos/train/cat/*.jpg, photos/val/..., photos/test/...
        the folders are the split

What counts as a class and as an image stands in raw/listing.py, how an image is read in
raw/image_files.py, how classes are split in raw/folder_split.py.
"""

import hashlib
import itertools
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from maml_tf.datasets.raw import memory_map
from maml_tf.datasets.raw.folder_images import Outcome, Wanted, in_memory, mapped
from maml_tf.datasets.raw.folder_split import check_enough, large_enough, split_classes, too_small
from maml_tf.datasets.raw.listing import SPLITS, left_out, list_splits
from maml_tf.episodes.class_images import ClassImages
from maml_tf.episodes.images import ImageClasses
from maml_tf.errors import ArgumentError
from maml_tf.terminal.text import counted, listed, shown


def directory(
    data_dir: str | pathlib.Path,
    image_size: int = 84,
    split_file: str | pathlib.Path | None = None,
    channels: int = 3,
    way: int | Mapping[str, int] = 2,
    least: int | Mapping[str, int] = 2,
) -> ImageClasses:
    """Returns the classes of a folder; here files are only listed, a split is read when needed.

    What cannot be used is left out, and a line says so: class folders without images, classes with
    fewer than `least`, files that are not whole images. More than a gigabyte of pixels is written
    once to files, in `.maml_tf` in the folder or, where that may not be written, in the user's
    cache directory.

    Args:
      data_dir: the folder.
      image_size: side of the images in pixels; channels: 3 or 1. See image_files.read_image.
      split_file: a csv file that says which split each class is in, see
        folder_split.read_split_file; None: see folder_split.split_by_name.
      way: classes that a task takes; a number, or {split: number}.
      least: images that a class needs, support and query together; a number, or {split: number}.
    Raises:
      UserError: there is no such folder, or too few classes to split them.
      ArgumentError: no folder is named, the split file is wrong, or a split has fewer than `way`
        classes; this also where files turn out not to be whole images.
    """
    if not data_dir:
        raise ArgumentError(
            'data_dir', None, 'name the folder that holds a folder of images for each class'
        )
    folder = pathlib.Path(data_dir).expanduser()
    way, least = _by_split(way), _by_split(least)
    listings = list_splits(folder)
    parts = split_classes(folder, listings, split_file)
    for line in (*left_out(folder, listings), *too_small(parts, least)):
        print(f'{shown(folder)}: left out {line}')
    large = large_enough(parts, least)
    check_enough(folder, large, way, least)
    shape = (image_size, image_size, channels)
    total = sum(len(paths) for classes in large.values() for paths in classes.values())
    streams = memory_map.streams(total, shape)

    def load(split):
        root = folder if '' in listings else folder / split
        wanted = Wanted(split, root, large[split], shape, least[split])
        images, outcome = mapped(wanted, folder) if streams else in_memory(wanted)
        _report(wanted, outcome)
        _check_kept(folder, wanted, outcome, way[split])
        names = list(itertools.chain(*outcome.kept.values()))
        sizes = np.array([len(names) for names in outcome.kept.values()])
        return ClassImages(images[: len(names)], sizes, list(outcome.kept), names)

    return ImageClasses(load, shape, identity=_identity(large))


def _by_split(number):
    return {split: number[split] if isinstance(number, Mapping) else number for split in SPLITS}


def _identity(parts):
    """Names the split, so that no run resumes another on other classes or on another split."""
    names = {split: sorted(classes) for split, classes in parts.items()}
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:12]


def _report(wanted: Wanted, outcome: Outcome) -> None:
    """Prints what was left out since it could not be read."""
    if outcome.unreadable:
        files = counted(len(outcome.unreadable), 'file')
        print(f'{wanted.split}: left out {files}; {outcome.unreadable[0]}')
    if lost := [name for name in wanted.classes if name not in outcome.kept]:
        few = f'{counted(len(lost), "class")} with too few images without them'
        print(f'{wanted.split}: left out {few}: {listed(lost)}')


def _check_kept(folder, wanted, outcome, way):
    if len(outcome.kept) < way:
        raise ArgumentError(
            'way',
            way,
            f'only {len(outcome.kept)} classes of the {wanted.split} split of {shown(folder)} have '
            f'{wanted.least} images that can be read',
        )
