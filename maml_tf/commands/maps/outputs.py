"""The files that a map is written to.

Imports no TensorFlow.
"""

import os
import pathlib
from collections.abc import Iterable

from maml_tf.errors import ArgumentError
from maml_tf.terminal.text import shown


def picture_of(image: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """Returns the path of the picture with a legend."""
    return out / f'{image.stem}.png'


def labels_of(image: pathlib.Path, out: pathlib.Path, ending: str) -> pathlib.Path:
    """Returns the path of the map of values; ending: '.tif' or '.png'."""
    return out / f'{image.stem}_labels{ending}'


def check(
    images: Iterable[pathlib.Path], inputs: Iterable[pathlib.Path], out: pathlib.Path
) -> None:
    """Raises ArgumentError where a map would be written over an input, or over another map.

    Args:
      images: those to map.
      inputs: all files that are read.
      out: the folder of the maps; it need not be there.
    """
    read = {_identity(path) for path in inputs}
    image_of: dict[pathlib.Path, pathlib.Path] = {}
    for image in images:
        # Whether it has a georeference, and so which ending, is not known yet.
        maps = (labels_of(image, out, ending) for ending in ('.tif', '.png'))
        for path in (picture_of(image, out), *maps):
            if path.exists() and _identity(path) in read:
                reason = f'{shown(path.name)} in it is an input, and a map would replace it'
                raise ArgumentError('out', shown(out), f'{reason}; name another folder')
            if path in image_of:
                reason = f'maps of {image_of[path].name} and {image.name} would both be called'
                raise ArgumentError('classify', None, shown(f'{reason} {path.name}; rename one'))
            image_of[path] = image


def _identity(path: pathlib.Path) -> tuple[int, int]:
    """Tells a file from others, whatever its path."""
    found = os.stat(path)
    return found.st_dev, found.st_ino
