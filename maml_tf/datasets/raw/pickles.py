"""Pickles of arrays and of encoded images, read without executing anything in them."""

import pathlib
import pickle
import pickletools
from collections.abc import Iterator
from typing import Any

from maml_tf.errors import UserError
from maml_tf.terminal.text import described

# What a PNG starts with, as bytes and as Python 2 text.
SIGNATURES = (b'\x89PNG\r\n\x1a\n', '\x89PNG\r\n\x1a\n')


class _ArraysOnly(pickle.Unpickler):
    """Refuses every function that a pickle names to be called but the few that build arrays."""

    ALLOWED = {
        ('numpy', 'ndarray'),
        ('numpy', 'dtype'),
        ('_codecs', 'encode'),
        ('collections', 'OrderedDict'),
    } | {
        (f'numpy.{core}.{module}', name)
        for core in ('core', '_core')
        for module, name in (
            ('multiarray', '_reconstruct'),
            ('multiarray', 'scalar'),
            ('numeric', '_frombuffer'),
        )
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise UserError(
                f'refused, since loading it would use {module}.{name}, and images need no such '
                'thing'
            )
        return super().find_class(module.replace('numpy.core', 'numpy._core'), name)


def load_arrays(path: pathlib.Path) -> Any:
    """Unpickles plain containers and NumPy arrays (also as Python 2 wrote them).

    Raises: UserError where the file holds anything else or is cut short.
    """
    with open(path, 'rb') as file:
        try:
            return _ArraysOnly(file, encoding='latin1').load()
        except UserError as error:
            raise UserError(f'{path}: {error}') from None
        except Exception as error:  # A damaged pickle can raise anything.
            raise UserError(f'{path}: not a whole pickle of arrays ({described(error)})') from error


def png_positions(path: pathlib.Path) -> Iterator[int]:
    """Yields where each encoded PNG lies in a pickle, which is looked through without loading it.

    As Python 2 wrote it, loading the published training images of tieredImageNet takes more than
    twice the 7 GB of the file.

    Raises: UserError where the file is no pickle or is cut short.
    """
    with open(path, 'rb') as file:
        try:
            for _, value, position in pickletools.genops(file):
                if isinstance(value, (bytes, bytearray, str)) and value[:8] in SIGNATURES:
                    yield position
        except Exception as error:  # A damaged pickle can raise anything.
            raise UserError(f'{path}: not a whole pickle of images ({described(error)})') from error


def png_at(path: pathlib.Path, position: int) -> bytes:
    """Returns the encoded PNG at a position that `png_positions` gave."""
    with open(path, 'rb') as file:
        file.seek(position)
        _, value, _ = next(pickletools.genops(file))
    return value.encode('latin1') if isinstance(value, str) else bytes(value)
