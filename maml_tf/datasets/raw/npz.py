"""Images in the array of an .npz file, read one by one without loading the array."""

import pathlib
import zipfile

import numpy as np

from maml_tf.datasets.raw.images import SIDE
from maml_tf.errors import UserError
from maml_tf.serialisation.files import check_is_file
from maml_tf.terminal.text import described

IMAGE = SIDE * SIDE * 3  # bytes


class NpzImages:
    """Reads the array `images`, uint8 [n, 84, 84, 3] in blue, green, red, of an .npz file.

    Attributes:
      count: n.
    Raises: UserError where the file is damaged or its array is another.
    """

    def __init__(self, path: pathlib.Path):
        self._path = path
        try:
            check_is_file(path)
            archive = zipfile.ZipFile(path)
            self._file = archive.open('images.npy')
            np.lib.format.read_magic(self._file)
            shape, in_fortran_order, dtype = np.lib.format.read_array_header_1_0(self._file)
        except Exception as error:  # A damaged file can raise anything.
            raise UserError(
                f'{path}: not a whole .npz file with the array images ({described(error)})'
            ) from error
        if dtype != np.uint8 or shape[1:] != (SIDE, SIDE, 3) or in_fortran_order:
            raise UserError(f'{path}: images is {dtype} {shape}, not uint8 (n, {SIDE}, {SIDE}, 3)')
        self.count = shape[0]
        self._start = self._file.tell()
        # Nothing is made of a number before it is known to be true.
        held = archive.getinfo('images.npy').file_size - self._start
        if self.count * IMAGE != held:
            raise UserError(
                f'{path}: images is {dtype} {shape}, and holds {held} bytes, not {IMAGE} an image'
            )

    def read(self, number: int) -> np.ndarray:
        """Reads an image as uint8 [84, 84, 3] in red, green, blue; fast in ascending order.

        Raises: UserError where the array is cut short.
        """
        try:
            self._file.seek(self._start + number * IMAGE)
            pixels = np.frombuffer(self._file.read(IMAGE), np.uint8).reshape(SIDE, SIDE, 3)
        except Exception as error:  # A damaged file can raise anything.
            raise UserError(
                f'{self._path}: image {number} cannot be read ({described(error)})'
            ) from error
        # The published script fills the array with OpenCV, whose channels are blue, green, red.
        return pixels[..., ::-1]
