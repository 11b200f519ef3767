"""Made-up raw files of image sets, for the tests that prepare them."""

import os
import pickle
import struct

import numpy as np
from PIL import Image


def write_image(folder, stem, number, rng):
    """A PNG of coarse squares, with one each of what else occurs; returns the path."""
    kind = {0: 'grey', 1: 'large', 2: 'jpeg'}.get(number)
    pixels = np.kron(rng.integers(0, 256, (7, 7, 3), np.uint8), np.ones((12, 12, 1), np.uint8))
    if kind == 'large':
        pixels = np.kron(pixels, np.ones((2, 3, 1), np.uint8))
    ending = {'grey': '.jpg', 'jpeg': '.JPEG'}.get(kind, '.png')
    path = folder / f'{stem}{number:08d}{ending}'
    Image.fromarray(pixels[..., 0] if kind == 'grey' else pixels).save(path)
    return path


def decoded(path):
    """The same by another way: the channels apart."""
    image = Image.open(path)
    channels = [channel.resize((84, 84), Image.LANCZOS) for channel in image.split()]
    return np.stack([np.asarray(channels[i % len(channels)]) for i in range(3)], -1)


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes alike, as Python 2 did."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_text(self, text):
        data = text.encode('latin1') if isinstance(text, str) else text
        self.write(b'T' + struct.pack('<i', len(data)) + data)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_text


def dump(content, path, python=3, protocol=4):
    with open(path, 'wb') as file:
        (Python2Pickler if python == 2 else pickle.Pickler)(file, protocol).dump(content)
    if python == 2:
        path.write_bytes(path.read_bytes().replace(b'numpy._core', b'numpy.core'))


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def truncate(path):
    replace(path, path.read_bytes()[:-200])


class Calls:
    """Pickled, it is a call of os.system."""

    def __reduce__(self):
        return os.system, ('touch executed',)
