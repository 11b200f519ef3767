"""Reading an image file as the square of pixels that a learner sees.

Imports no TensorFlow, so that a command that only looks at files starts at once.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

from maml_tf.errors import UserError
from maml_tf.terminal.text import described, shown

# JPEG decoding and box averaging may shrink a photo to this many times the wanted side, before
# Lanczos does the rest: a 12-megapixel photo is read several times as fast, and differs by about a
# grey level.
GAP = 3
# What turns a picture upright, by EXIF's orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
ORIENTATION = 0x0112  # EXIF's tag
AT_A_TIME = 256  # files that threads read ahead

Result = TypeVar('Result')


def read_image(path: pathlib.Path, side: int, channels: int = 3) -> np.ndarray:
    """Reads an image file as uint8 [side, side, channels].

    The square in the centre is cut out and resized with Lanczos (the filter looks past the cut),
    unless it has that size already. It is turned upright as the EXIF orientation says; what is
    transparent becomes white; of 16 bits the upper 8 stay; an animation gives its first picture.

    Args:
      channels: 3 (RGB; grey is repeated) or 1 (grey).
    Raises: UserError where the file cannot be read as a whole image.
    """
    try:
        check_is_file(path)
        with Image.open(path) as image:
            # A JPEG is decoded at a half, a quarter or an eighth, and its true size may then end
            # within a pixel.
            drafted = image.draft(None, (GAP * side, GAP * side))
            width, height = drafted[1][2:] if drafted else image.size
            image.load()
            turn = TURNS.get(orientation(image))
            image = _opaque(image).convert('RGB' if channels == 3 else 'L')
    except Exception as error:  # Pillow's plug-ins raise many types on damaged files.
        raise UserError(
            f'{shown(path)}: not a whole image ({described(error)}); replace it or remove it'
        ) from error
    square = _central_square(image, width, height, side)
    if turn is not None:
        square = square.transpose(turn)
    return np.asarray(square).reshape(side, side, channels)


def check_is_file(path: pathlib.Path) -> None:
    """Raises OSError for what is no file of bytes: opening a FIFO would wait for a writer."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError('not a regular file')


def orientation(image: Image.Image) -> int:
    """Returns how the camera was held, as EXIF numbers it: 1 is upright, and so is no entry."""
    with contextlib.suppress(Exception):  # Whole pictures can have damaged EXIF data around them.
        return image.getexif().get(ORIENTATION, 1)
    return 1


def each(
    function: Callable[[pathlib.Path], Result], paths: Sequence[pathlib.Path]
) -> Iterator[Result]:
    """Yields function(path) for each path, in order; threads work ahead of it."""
    with concurrent.futures.ThreadPoolExecutor(min(16, os.cpu_count())) as pool:
        # Some at a time, so that neither results nor, on Ctrl-C, work piles up.
        for first in range(0, len(paths), AT_A_TIME):
            yield from pool.map(function, paths[first : first + AT_A_TIME])


def _opaque(image):
    """Returns the image with 8 bits per channel and no transparency."""
    if image.mode.startswith('I'):  # Pillow's own conversion clips 16 bits to 8.
        return Image.fromarray((np.clip(np.asarray(image), 0, 65535) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    image = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)


def _central_square(image, width, height, side):
    """Cuts and resizes an image whose true size, maybe not in whole pixels, is width x height."""
    edge = min(width, height)
    left, top = (width - edge) / 2, (height - edge) / 2
    box = left, top, left + edge, top + edge
    if edge == side:
        return image.crop([int(value) for value in box])
    return image.resize((side, side), Image.LANCZOS, box, reducing_gap=GAP)
