"""Pickles of arrays and of encoded images, read without executing anything in them."""

import collections
import pathlib
import pickle
import pickletools
from collections.abc import Iterator
from typing import Any

import numpy as np

from maml_tf.errors import UserError
from maml_tf.serialisation.files import check_is_file
from maml_tf.terminal.text import described, shortened

# What a PNG starts with, as bytes and as Python 2 text.
SIGNATURES = (b'\x89PNG\r\n\x1a\n', '\x89PNG\r\n\x1a\n')


def _encode(text: str, codec: str = 'latin1') -> bytes:
    """As which Python 3 writes bytes for Python 2."""
    return text.encode({'latin1': 'latin1', 'latin-1': 'latin1'}[codec])


def _from_numpy(module: str, name: str) -> Any:
    return getattr(getattr(np._core, module), name)


# {what a pickle names: what is taken for it}; NumPy's rooms were called core, and are _core.
CALLED = {
    ('numpy', 'dtype'): np.dtype,
    ('_codecs', 'encode'): _encode,
    ('collections', 'OrderedDict'): collections.OrderedDict,
} | {
    (f'numpy.{core}.{module}', name): _from_numpy(module, name)
    for core in ('core', '_core')
    for module, name in (
        ('multiarray', '_reconstruct'),
        ('multiarray', 'scalar'),
        ('numeric', '_frombuffer'),
    )
}
NAMED = {('numpy', 'ndarray'): np.ndarray}  # to be made by others, and not called itself


class _ArraysOnly(pickle._Unpickler):
    """Refuses every function that a pickle names to be called but the few that build arrays.

    This is the unpickler in Python: the one in C reserves as many gigabytes as a damaged file says.
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module, name):
        named = CALLED | NAMED
        if (module, name) not in named:
            raise _refusal(f'{module}.{name}')
        return named[module, name]

    def load_reduce(self):
        *_, function, _ = self.stack
        if not any(function is known for known in CALLED.values()):
            raise _refusal(getattr(function, '__name__', type(function).__name__))
        super().load_reduce()

    dispatch[pickle.REDUCE[0]] = load_reduce

    def load_build(self):
        *_, built, state = self.stack
        if isinstance(built, np.dtype):
            # The flags in it say where pointers are; others would be made of bytes of the file.
            if state[1:] != built.newbyteorder(state[1]).__reduce__()[2][1 : len(state)]:
                raise _refusal('a dtype with fields')
        elif not isinstance(built, np.ndarray):
            raise _refusal(f'a state of {type(built).__name__}')
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build

    def load_other(self):
        raise _refusal('a class')

    for code in (pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.INST, pickle.OBJ):
        dispatch[code[0]] = load_other


def _refusal(used: str) -> UserError:
    used = shortened(used)
    return UserError(f'refused, since loading it would use {used}, and images need no such thing')


def load_arrays(path: pathlib.Path) -> Any:
    """Unpickles plain containers and NumPy arrays (also as Python 2 wrote them).

    Raises: UserError where the file holds anything else or is cut short.
    """
    try:
        with _opened(path) as file:
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
    try:
        with _opened(path) as file:
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


def _opened(path):
    check_is_file(path)
    return open(path, 'rb')
