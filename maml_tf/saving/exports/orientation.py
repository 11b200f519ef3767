"""How a camera was held, read from the bytes of a photo by operations of a graph.

TensorFlow's decoders disregard it. JPEG (Exif 3.0, sections 4.5 and 4.7) and PNG (its chunk eXIf)
tell it in the same way: a TIFF header, and a table of 12-byte entries.
"""

import tensorflow as tf

TAG = 0x0112
LOOKED_THROUGH = 1 << 18  # bytes; Exif data stand at the beginning, and a segment has 64 KB at most
EXIF = tuple(b'Exif\0\0')
APP1, START_OF_SCAN = 0xE1, 0xDA
PNG = tuple(b'\x89PNG\r\n\x1a\n')
CHUNK, PIXELS = tuple(b'eXIf'), tuple(b'IDAT')


def orientation(image_bytes: tf.Tensor) -> tf.Tensor:
    """Returns the EXIF orientation of an encoded image, an int32 from 1 to 8; 1 is upright.

    What has no such entry, or one that makes no sense, is upright.

    Args:
      image_bytes: a string scalar.
    """
    data = _Bytes(tf.strings.substr(image_bytes, 0, LOOKED_THROUGH))
    start = tf.where(data.has(0, PNG), _in_png(data), _in_jpeg(data))
    found = _entry(data, start)
    return tf.where((start > 0) & (found >= 1) & (found <= 8), found, 1)


class _Bytes:
    """Bytes by position; beyond the end they are zero."""

    def __init__(self, text: tf.Tensor):
        self.values = tf.concat([tf.cast(tf.io.decode_raw(text, tf.uint8), tf.int32), [0]], 0)
        self.count = tf.size(self.values) - 1

    def at(self, position: tf.Tensor) -> tf.Tensor:
        """Returns the bytes at these positions, int32."""
        outside = (position < 0) | (position > self.count)
        return tf.gather(self.values, tf.where(outside, self.count, position))

    def number(self, position: tf.Tensor, size: int, little: tf.Tensor | bool = False) -> tf.Tensor:
        """Returns the whole number of `size` bytes at these positions; little: little-endian."""
        digits = [self.at(position + i) for i in range(size)]
        forwards, backwards = (
            sum(digit * 256**power for power, digit in enumerate(order))
            for order in (digits[::-1], digits)
        )
        return tf.where(little, backwards, forwards)

    def has(self, position: tf.Tensor | int, text: tuple[int, ...]) -> tf.Tensor:
        """Returns whether these bytes stand there."""
        return tf.reduce_all(self.at(position + tf.range(len(text))) == tf.constant(text))


def _in_jpeg(data: _Bytes) -> tf.Tensor:
    """Returns where the TIFF header begins in a JPEG; 0: nowhere."""

    def goes_on(position, start):
        marker = data.at(position + 1)
        inside = (data.at(position) == 0xFF) & (marker != START_OF_SCAN) & (position < data.count)
        return (start == 0) & inside

    def segment(position, start):
        is_exif = (data.at(position + 1) == APP1) & data.has(position + 4, EXIF)
        start = tf.where(is_exif, position + 4 + len(EXIF), start)
        # A marker may be filled up with bytes of 0xFF before it.
        fill = data.at(position + 1) == 0xFF
        return position + tf.where(fill, 1, 2 + data.number(position + 2, 2)), start

    first = tf.where(data.has(0, (0xFF, 0xD8)), 2, data.count)
    return tf.while_loop(goes_on, segment, [first, 0])[1]


def _in_png(data: _Bytes) -> tf.Tensor:
    """Returns where the TIFF header begins in a PNG; 0: nowhere."""

    def goes_on(position, start):
        inside = (position >= 0) & (position < data.count) & ~data.has(position + 4, PIXELS)
        return (start == 0) & inside

    def chunk(position, start):
        start = tf.where(data.has(position + 4, CHUNK), position + 8, start)
        size = data.number(position, 4)
        return tf.where(size < 0, data.count, position + 12 + size), start

    return tf.while_loop(goes_on, chunk, [tf.constant(len(PNG)), 0])[1]


def _entry(data: _Bytes, start: tf.Tensor) -> tf.Tensor:
    """Returns what the table of the TIFF header at `start` says; 0: nothing."""
    little = data.at(start) == ord('I')
    table = start + data.number(start + 4, 4, little)
    entries = table + 2 + 12 * tf.range(tf.minimum(data.number(table, 2, little), 1 << 12))
    is_it = data.number(entries, 2, little) == TAG
    return tf.reduce_max(tf.where(is_it, data.number(entries + 8, 2, little), 0))
