"""Reading the images of class folders, into memory or, once, into a file that streams.

Imports no TensorFlow.
"""

import itertools
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from maml_tf.datasets.raw import memory_map
from maml_tf.datasets.raw.image_files import each, read_image
from maml_tf.datasets.raw.listing import name_in
from maml_tf.errors import UserError
from maml_tf.serialisation import cache
from maml_tf.serialisation.files import check_is_file, write_atomically
from maml_tf.terminal import progress
from maml_tf.terminal.text import described


class Wanted(NamedTuple):
    """Describes the images of one split that are to be read.

    split:   its name
    root:    the folder of the class folders
    classes: {class: [paths]}
    shape:   (side, side, channels) of an image
    least:   images that a class needs; of what is left when files cannot be read
    depth:   folders between root and the images of a class, which their names leave out
    count:   names of a class's images -> how many of them a task can take together
    """

    split: str
    root: pathlib.Path
    classes: dict[str, list[pathlib.Path]]
    shape: tuple[int, int, int]
    least: int
    depth: int = 1
    count: Callable[[list[str]], int] = len

    @property
    def files(self) -> list[pathlib.Path]:
        """The paths of all images, class after class."""
        return list(itertools.chain(*self.classes.values()))


class Outcome(NamedTuple):
    """Tells what became of the files of a split.

    kept:       {class: [image names]} of the images that were read, in their order
    unreadable: a message for each file that is not a whole image
    """

    kept: dict[str, list[str]]
    unreadable: list[str]


def in_memory(wanted: Wanted) -> tuple[np.ndarray, Outcome]:
    """Reads the images of a split; returns (uint8 [files, *shape], the Outcome).

    The first images are those that the Outcome keeps; what follows them is undefined.
    """
    outcome = Outcome({}, [])
    images = np.empty([len(wanted.files), *wanted.shape], np.uint8)
    with progress.bar(
        None, f'reading {wanted.split}', total=len(images), unit=' images', delay=1, leave=False
    ) as bar:
        for number, image in enumerate(_read(wanted, outcome, bar.update)):
            images[number] = image
    return images, outcome


def mapped(wanted: Wanted, folder: pathlib.Path) -> tuple[np.memmap, Outcome]:
    """Reads the images of a split into a file, where it is not there yet, and maps the file.

    Returns what `in_memory` does. The file's name holds what it was made of: the classes and sizes
    in the first part, the files in the second, so that a file that is out of date is known and
    removed. The Outcome is written beside it.

    Args:
      folder: holds the files, in `.maml_tf`; where it may not be written they are in the user's
        cache directory.
    Raises: UserError where the disk is full or may not be written.
    """
    height, width, channels = wanted.shape
    content = cache.digest([wanted.least, list(wanted.classes)])
    made_of = f'{wanted.split}-{height}x{width}x{channels}-{content}'
    files = [(name_in(path, wanted.root), *cache.state(path)) for path in wanted.files]
    path = cache.cached(folder, f'{made_of}-{cache.digest(files)}.npy')
    record = path.with_suffix('.json')
    if not record.exists():
        path.unlink(missing_ok=True)
    images = memory_map.memory_mapped(path, len(files), wanted.shape, _numbered(wanted, record))
    cache.remove_outdated(path, made_of)
    return images, _outcome(record, wanted)


def _read(
    wanted: Wanted, outcome: Outcome, seen: Callable[[int], object] = lambda files: None
) -> Iterator[np.ndarray]:
    """Yields uint8 images, class after class, and fills the Outcome; seen(1) counts each file."""
    side, _, channels = wanted.shape

    def read(path):
        try:
            return read_image(path, side, channels)
        except UserError as error:
            return error

    results = each(read, wanted.files)
    for name, paths in wanted.classes.items():
        names, images = [], []
        for path, result in zip(paths, results):
            seen(1)
            if isinstance(result, UserError):
                outcome.unreadable.append(str(result))
            else:
                names.append(name_in(path, wanted.root).split('/', wanted.depth)[-1])
                images.append(result)
        if wanted.count(names) >= wanted.least:
            outcome.kept[name] = names
            yield from images


def _numbered(wanted, record):
    """Yields (number, image) for every file, zeros for what is left out; then writes the record."""
    outcome = Outcome({}, [])
    number = -1
    for number, image in enumerate(_read(wanted, outcome)):
        yield number, image
    for unused in range(number + 1, len(wanted.files)):
        yield unused, np.zeros(wanted.shape, np.uint8)
    write_atomically(record, json.dumps(outcome._asdict()))


def _outcome(record, wanted):
    """Reads what was written beside a file of images. Raises UserError where it is not whole."""
    try:
        check_is_file(record)
        outcome = Outcome(**json.loads(record.read_text('utf-8')))
        lists = [*outcome.kept.values(), outcome.unreadable]
        if not all(isinstance(name, str) for names in lists for name in names):
            raise ValueError('names are text')
        if not outcome.kept.keys() <= wanted.classes.keys():
            raise ValueError('it is of other classes')
        if sum(map(len, outcome.kept.values())) > len(wanted.files):
            raise ValueError('it is of more images')
        return outcome
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f'{record}: damaged ({described(error)}); remove it, and it is written anew'
        ) from error
