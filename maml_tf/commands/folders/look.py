"""Looking at every image of a folder once: whether it can be read, and what it is."""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from maml_tf.datasets.raw.image_files import TURNS, each, opened, orientation, read_image
from maml_tf.errors import UserError
from maml_tf.terminal import progress

SIDE = 84
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height


class Seen(NamedTuple):
    """Tells what a file turned out to be.

    error:     why it is no whole image; then nothing else is known
    digest:    the same for files that are the same, byte for byte
    mode:      Pillow's name for its colours
    size:      width and height, upright
    is_turned: whether it has to be turned to stand upright
    """

    error: str | None
    digest: bytes | None = None
    mode: str | None = None
    size: tuple[int, int] | None = None
    is_turned: bool = False


def look(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, Seen]:
    """Looks at image files, with a progress bar where it takes long."""
    bar = progress.bar(
        each(look_at, paths), 'looking', total=len(paths), unit=' images', delay=1, leave=False
    )
    return dict(zip(paths, bar))


def look_at(path: pathlib.Path) -> Seen:
    """Looks at an image file."""
    try:
        read_image(path, SIDE)
    except UserError as error:
        return Seen(str(error))
    with open(path, 'rb') as file:
        digest = hashlib.file_digest(file, 'blake2b').digest()
        file.seek(0)
        with opened(file) as image:
            held = orientation(image)
            size = image.size[::-1] if held in SIDEWAYS else image.size
            return Seen(None, digest, image.mode, size, held in TURNS)
