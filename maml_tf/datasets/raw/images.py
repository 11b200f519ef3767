"""Images that people have on disk of a set that cannot be downloaded, known but not yet read.

Imports no TensorFlow.
"""

import functools
import pathlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from maml_tf.datasets.raw.image_files import check_size, opened
from maml_tf.datasets.raw.listing import SPLITS, list_folder, name_in
from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal.text import described, listed, shortened

SIDE = 84


class RawImage(NamedTuple):
    """Describes an image that is known, but not read yet.

    name:  unique in its split; names order the images of a class
    label: the name of its class
    read:  () -> uint8 [84, 84, 3], or a PNG of that, encoded
    """

    name: str
    label: str
    read: Callable[[], np.ndarray | bytes]


class RawSplit(NamedTuple):
    """Says what a split consists of.

    images:      in the order in which they are read fastest
    class_names: in the order in which classes are numbered
    groups:      number of the super-category of each class; None: not known
    """

    images: list[RawImage]
    class_names: list[str]
    groups: list[int] | None = None


# (names of files and folders with {} in place of the split, (split, *their paths) -> RawSplit)
Layout = tuple[Sequence[str], Callable[..., RawSplit]]


class MissingClasses(UserError):
    """Says which classes of a split have no image."""


def find(
    manual_dir: str | pathlib.Path, layouts: Iterable[Layout], title: str, looked_for: str
) -> dict[str, Callable[[], RawSplit]]:
    """Returns the first of the layouts that the folder has, as {split: () -> RawSplit}.

    Nothing is read yet.

    Args:
      manual_dir: the folder.
      title, looked_for: the set and its layouts in words.
    Raises: ArgumentError where there is none of them.
    """
    partly = []
    for patterns, read in layouts:
        paths = {
            split: [pathlib.Path(manual_dir, pattern.format(split)) for pattern in patterns]
            for split in SPLITS
        }
        if all(path.exists() for files in paths.values() for path in files):
            return {split: functools.partial(read, split, *files) for split, files in paths.items()}
        lost = [path.name for files in paths.values() for path in files if not path.exists()]
        if len(lost) < sum(map(len, paths.values())):
            names = ', '.join(pattern.format('…') for pattern in patterns)
            partly.append(f'; of {names} it lacks {", ".join(lost)}')
    raise ArgumentError(
        'manual_dir',
        manual_dir,
        f'no {title}, looked for {looked_for}{"".join(partly)}. It cannot be downloaded by '
        'itself: data/README.md says how to obtain it',
    )


def check_classes(
    path: pathlib.Path,
    images: Iterable[RawImage],
    class_names: Collection[str] | Mapping[str, object],
    whose: str,
) -> None:
    """Checks that the images are of these classes, all of them, and that each is there once.

    Args:
      path, whose: what the message names: the file, and the classes in words.
    Raises:
      MissingClasses: classes have no image.
      UserError: there are others, or an image is there twice.
    """
    counts = dict.fromkeys(class_names, 0)
    names = set()
    for image in images:
        if image.label not in counts:
            raise UserError(
                f'{path}: {shortened(image.name)} is of class {shortened(image.label)}, which is '
                f'not among the {len(counts)} {whose}'
            )
        if image.name in names:
            raise UserError(f'{path}: {image.name} is there twice')
        counts[image.label] += 1
        names.add(image.name)
    if missing := [label for label, count in counts.items() if not count]:
        raise MissingClasses(
            f'{path}: no image of class {listed(missing, 100)}; {len(missing)} of the '
            f'{len(counts)} {whose} are missing'
        )


def images_in_folders(folder: pathlib.Path) -> list[RawImage]:
    """Lists the images of class folders, see listing.list_folder.

    Raises: UserError where there are none.
    """
    return [
        RawImage(name_in(path, folder), label, functools.partial(read_resized, path))
        for label, paths in list_folder(folder).classes.items()
        for path in paths
    ]


def read_resized(file: str | pathlib.Path | BinaryIO, name: str | None = None) -> np.ndarray:
    """Reads an image file as uint8 [84, 84, 3], the whole image resized as the reference does.

    Lanczos is the filter; grey becomes RGB.

    Args:
      name: what the message names where the file has no path.
    Raises: UserError that names a corrupt or truncated file.
    """
    try:
        with opened(pathlib.Path(file) if isinstance(file, str) else file) as image:
            check_size(image)
            image = image.convert('RGB')
    except Exception as error:  # Pillow's plug-ins raise many types on damaged files.
        raise UserError(
            f'{name or file}: not a whole image ({described(error)}); replace it or remove it'
        ) from error
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.LANCZOS)
    return np.asarray(image)
