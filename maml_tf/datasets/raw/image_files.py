"""Reading an image file as the square of pixels that a learner sees.

Imports no TensorFlow, so that a command that only looks at files starts at once.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image

from maml_tf.errors import UserError, check_one_of
from maml_tf.serialisation.files import check_is_file
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
# Those of pixels: for others Pillow starts programs, such as Ghostscript for PostScript.
FORMATS = 'JPEG', 'PNG', 'GIF', 'BMP', 'WEBP', 'TIFF', 'MPO', 'JPEG2000', 'PPM', 'DIB', 'AVIF'
MOST_PIXELS = 89_478_485  # to decode: a quarter of a gigabyte in three channels
AT_A_TIME = 256  # files that threads read ahead

FILTERS = ('nearest', 'box', 'bilinear', 'bicubic', 'lanczos')
SQUARES = ('centre', 'whole')
INKS = ('bright', 'dark')
INVERT = ('auto', 'true', 'false')
MIDDLE = 127.5  # grey, between dark and bright

Result = TypeVar('Result')

# What Pillow warns of, such as a damaged entry of the camera, stops no reading. Errors say enough.
warnings.filterwarnings('ignore', module=r'PIL\.')


@dataclasses.dataclass(frozen=True)
class Preparation:
    """Says how an image file becomes float32 [side, side, channels] from 0 to 1.

    First it is turned upright as its EXIF orientation says, what is transparent becomes white, and
    of 16 bits the upper 8 stay.

    Args:
      side: of the square, in pixels.
      channels: 3 (RGB; grey is repeated) or 1 (grey).
      square: 'centre', the central square is cut out; 'whole', the whole image is squeezed.
      filter: resizes the square, unless it has the wanted side already.
      drawn: a square of another side is first made this large, with Lanczos: training shrinks
        drawings of this side. None: it is not.
      ink: 'bright' or 'dark', where the learner was trained on drawings.
      invert: 'true' or 'false', exchange black and white; 'auto', of drawings whose paper is not
        that of the learner's: bright ink is on dark paper.
    Raises: ArgumentError for a value that is none of the choices.
    """

    side: int
    channels: int = 3
    square: str = 'centre'
    filter: str = 'lanczos'
    drawn: int | None = None
    ink: str | None = None
    invert: str = 'auto'

    def __post_init__(self):
        check_one_of('square', self.square, SQUARES)
        check_one_of('filter', self.filter, FILTERS)
        check_one_of('invert', self.invert, INVERT)
        if self.ink is not None:
            check_one_of('ink', self.ink, INKS)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> 'Preparation':
        """Returns the Preparation that `as_json` wrote; entries it does not know are passed over.

        Raises:
          TypeError: there is no side.
          ArgumentError: as the constructor.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in content.items() if name in known})

    def as_json(self) -> dict[str, Any]:
        """Returns {name: JSON value}, with the whole in words."""
        return {**dataclasses.asdict(self), 'in_words': self.in_words()}

    def in_words(self) -> str:
        """Returns what is done to an image, in one sentence."""
        side = f'{self.side}x{self.side}'
        steps = [
            'turned upright by its EXIF orientation',
            'laid on white where it is transparent',
            'made RGB' if self.channels == 3 else 'made grey',
            'cut to the central square' if self.square == 'centre' else 'squeezed to a square',
            *([f'made {self.drawn}x{self.drawn} (lanczos)'] if self.drawn else []),
            f'resized to {side} ({self.filter}) unless it has that size',
        ]
        if self.invert == 'true':
            steps.append('inverted')
        elif self.invert == 'auto' and self.ink and self.channels == 1:
            paper = 'bright' if self.ink == 'bright' else 'dark'
            steps.append(f'inverted if it is {paper} on average (trained on {self.ink} ink)')
        return f'{", ".join(steps)}, divided by 255'

    @property
    def resizings(self) -> list[tuple[int, str]]:
        """Returns [(side, filter)] of a square that has not the wanted side, one after another."""
        first = [(self.drawn, 'lanczos')] if self.drawn else []
        return [*first, (self.side, self.filter)]

    def inverts(self, image: np.ndarray) -> bool:
        """Says whether black and white of a uint8 image are exchanged."""
        if self.invert != 'auto':
            return self.invert == 'true'
        if self.ink is None or self.channels == 3:
            return False
        # Most of a drawing is paper.
        return bool(image.mean() > MIDDLE) == (self.ink == 'bright')


def read_image(path: pathlib.Path, side: int, channels: int = 3) -> np.ndarray:
    """Reads an image file as uint8 [side, side, channels], as training on a folder does.

    See `read_prepared`: the square in the centre is cut out and resized with Lanczos.
    """
    return read_prepared(path, Preparation(side, channels))


def read_prepared(path: pathlib.Path, preparation: Preparation) -> np.ndarray:
    """Reads an image file as a Preparation says, but for `invert`: uint8 [side, side, channels].

    What is cut off the square is still seen by the filter. An animation gives its first picture.

    Raises: UserError where the file cannot be read as a whole image.
    """
    most = GAP * preparation.resizings[0][0]
    try:
        with opened(path) as image:
            # A JPEG is decoded at a half, a quarter or an eighth, and its true size may then end
            # within a pixel.
            drafted = image.draft(None, (most, most))
            width, height = drafted[1][2:] if drafted else image.size
            check_size(image)
            image.load()
            turn = TURNS.get(orientation(image))
            image = _opaque(image).convert('RGB' if preparation.channels == 3 else 'L')
    except Exception as error:  # Pillow's plug-ins raise many types on damaged files.
        raise UserError(
            f'{shown(path)}: not a whole image ({described(error)}); replace it or remove it'
        ) from error
    square = _square(image, width, height, preparation)
    if turn is not None:
        square = square.transpose(turn)
    return np.asarray(square).reshape(*square.size, preparation.channels)


def opened(file: pathlib.Path | BinaryIO) -> Image.Image:
    """Opens an image of one of FORMATS, whose pixels are yet to be decoded.

    Raises: OSError, and whatever else Pillow's plug-ins raise on damaged files.
    """
    if isinstance(file, pathlib.Path):
        check_is_file(file)
    return Image.open(file, formats=_formats())


@functools.cache
def _formats():
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # Old versions of Pillow lack some.


def check_size(image: Image.Image) -> None:
    """Raises OSError for more than MOST_PIXELS: a file of a few bytes can claim any number."""
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise OSError(f'{width}x{height} pixels, more than {MOST_PIXELS // 10**6} million')


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


def _square(image, width, height, preparation):
    """Cuts and resizes an image whose true size, maybe not in whole pixels, is width x height."""
    edge = min(width, height)
    box = 0, 0, width, height
    if preparation.square == 'centre':
        left, top = (width - edge) / 2, (height - edge) / 2
        box = left, top, left + edge, top + edge
    if (box[2] - box[0], box[3] - box[1]) == (preparation.side, preparation.side):
        return image.crop([int(value) for value in box])
    for side, name in preparation.resizings:
        if image.size != (side, side):
            image = image.resize(
                (side, side), Image.Resampling[name.upper()], box, reducing_gap=GAP
            )
        box = None
    return image
