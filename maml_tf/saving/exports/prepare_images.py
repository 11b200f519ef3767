"""Encoded images to the pixels that a learner was trained on, as operations of a graph.

What `datasets/raw/image_files.py` does with Pillow is done here by TensorFlow alone, so that it can
be part of a SavedModel.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from maml_tf.datasets.raw.image_files import MIDDLE, Preparation
from maml_tf.saving.exports.orientation import orientation

# TensorFlow Serving takes base64 for what is named so.
IMAGE_BYTES = 'image_bytes'
AT_A_TIME = 4  # images, which may be large
EDGE = 1e-9  # Rounding shall not decide on which side of it a pixel lies.
# {filter: its value at x}, as Pillow has them.
FILTERS = {
    'box': lambda x: tf.cast((x > -0.5 + EDGE) & (x <= 0.5 + EDGE), x.dtype),
    'bilinear': lambda x: tf.maximum(1 - abs(x), tf.zeros_like(x)),
    'bicubic': lambda x: _cubic(abs(x)),
    'lanczos': lambda x: tf.where(abs(x) < 3, _sinc(x) * _sinc(x / 3), tf.zeros_like(x)),
}


def described(preparation: Preparation | None) -> dict[str, Any]:
    """Returns what maml_tf.json says of a Preparation; nothing of None."""
    return {} if preparation is None else {'preparation': preparation.as_json()}


def signatures(
    preparation: Preparation | None, dtype: str = 'float32'
) -> dict[str, tf.types.experimental.ConcreteFunction]:
    """Returns {'prepare': image_bytes, strings [n] -> {'images': [n, side, side, channels]}}.

    Nothing of None.
    """
    if preparation is None:
        return {}

    @tf.function(autograph=False)
    def prepare(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        return {'images': tf.cast(prepared(image_bytes, preparation), dtype)}

    return {'prepare': prepare.get_concrete_function(tf.TensorSpec([None], tf.string, IMAGE_BYTES))}


def prepared(image_bytes: tf.Tensor, preparation: Preparation) -> tf.Tensor:
    """Returns float32 [n, side, side, channels] from 0 to 1 of encoded images.

    They are JPEG, PNG, GIF (the first picture), BMP (without a palette) or WebP. Where an image is
    no larger than twice three times the wanted side, they differ from what Pillow makes of it by
    rounding; larger ones by about a grey level, for Pillow takes a short cut.

    Args:
      image_bytes: strings [n]. What is not a whole image raises tf.errors.InvalidArgumentError.
    """
    side, channels = preparation.side, preparation.channels
    return tf.map_fn(
        lambda one: _prepared(one, preparation),
        image_bytes,
        parallel_iterations=AT_A_TIME,
        fn_output_signature=tf.TensorSpec([side, side, channels], tf.float32),
    )


def _prepared(image_bytes, preparation):
    image = _coloured(_decoded(image_bytes), preparation.channels)
    square = _turned(_square(image, preparation), orientation(image_bytes))
    if preparation.invert == 'true':
        square = 255 - square
    elif preparation.invert == 'auto' and preparation.ink and preparation.channels == 1:
        on_bright = tf.reduce_mean(square) > MIDDLE
        square = tf.where(on_bright == (preparation.ink == 'bright'), 255 - square, square)
    return tf.ensure_shape(square / 255, [preparation.side] * 2 + [preparation.channels])


def _decoded(image_bytes):
    """Returns uint8 [height, width, 1 to 4], with what a JPEG holds as Pillow computes it."""
    return tf.cond(
        tf.io.is_jpeg(image_bytes),
        lambda: tf.io.decode_jpeg(image_bytes, dct_method='INTEGER_ACCURATE'),
        lambda: tf.io.decode_image(image_bytes, expand_animations=False),
    )


def _coloured(image, channels):
    """Returns float32 [height, width, channels] without transparency."""
    held = tf.shape(image)[-1]
    colours = tf.cast(tf.gather(image, tf.where(held < 3, [0, 0, 0], [0, 1, 2]), axis=-1), tf.int32)
    opaque = tf.cond(
        held % 2 == 1, lambda: colours, lambda: _on_white(colours, tf.cast(image, tf.int32))
    )
    if channels == 1:  # ITU-R 601-2, in Pillow's fixed point.
        luma = tf.reduce_sum(opaque * [19595, 38470, 7471], -1, keepdims=True)
        opaque = (luma + 0x8000) // 0x10000
    return tf.cast(opaque, tf.float32)


def _on_white(colours, image):
    alpha = image[..., -1:]
    return (colours * alpha + 255 * (255 - alpha) + 127) // 255


def _square(image, preparation):
    """Cuts and resizes [height, width, channels], values rounded as bytes are."""
    size = tf.shape(image)[:2]
    lengths = whole = tf.cast(size, tf.float64)
    if preparation.square == 'centre':
        lengths = tf.repeat(tf.reduce_min(lengths), 2)
    firsts = (whole - lengths) / 2
    fits = tf.reduce_all(lengths == preparation.side)

    def cut():
        start = tf.cast(firsts, tf.int32)
        return tf.slice(image, [start[0], start[1], 0], [preparation.side, preparation.side, -1])

    def resized():
        made, box = image, (firsts, lengths)
        for side, name in preparation.resizings:
            made = _resized(made, box, side, name)
            box = tf.zeros([2], tf.float64), tf.fill([2], tf.constant(side, tf.float64))
        return made

    return tf.cond(fits, cut, resized)


def _resized(image, box, side, name):
    """Resizes what lies in a box, (firsts [2], lengths [2]), to [side, side, channels]."""
    firsts, lengths = box
    scales = lengths / side
    if name == 'nearest':
        rows, columns = (_nearest(firsts[axis], scales[axis], side) for axis in (0, 1))
        return tf.gather(tf.gather(image, rows, axis=0), columns, axis=1)
    numbers = tf.range(side, dtype=tf.float64) + 0.5
    centres = [firsts[axis] + numbers * scales[axis] for axis in (0, 1)]
    height, width = tf.unstack(tf.shape(image)[:2])
    down = _weights(height, centres[0], scales[0], FILTERS[name])
    across = _weights(width, centres[1], scales[1], FILTERS[name])
    image = _as_bytes(tf.einsum('xw,hwc->hxc', across, image))
    return _as_bytes(tf.einsum('yh,hxc->yxc', down, image))


def _nearest(first, scale, side):
    """Returns which input pixel each output pixel shows, [side]."""
    # Pillow goes from one to the next by adding, and its rounding decides between two pixels.
    steps = tf.concat([[first + 0.5 * scale], tf.fill([side - 1], scale)], axis=0)
    return tf.cast(tf.cumsum(steps), tf.int32)


def _weights(
    size: tf.Tensor,
    centres: tf.Tensor,
    scale: tf.Tensor,
    value: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """Returns what every input pixel counts for every output pixel, [side, size]; rows add to 1."""
    scale = tf.maximum(
        scale, tf.constant(1, tf.float64)
    )  # A filter is widened where the image shrinks.
    pixels = tf.cast(tf.range(size), tf.float64) + 0.5
    weights = value((pixels - centres[:, tf.newaxis]) / scale)
    return tf.cast(weights / tf.reduce_sum(weights, axis=1, keepdims=True), tf.float32)


def _as_bytes(values):
    return tf.clip_by_value(tf.floor(values + 0.5), 0, 255)


def _cubic(x):
    """The cubic of Keys with a = -0.5, of distances."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return tf.where(x < 1, near, tf.where(x < 2, far, tf.zeros_like(x)))


def _sinc(x):
    turn = 3.141592653589793 * x
    return tf.where(x == 0, tf.ones_like(x), tf.math.divide_no_nan(tf.sin(turn), turn))


def _turned(square, held):
    """Turns a square upright, by EXIF's orientation."""
    among = lambda *numbers: tf.reduce_any(held == tf.constant(numbers))
    square = tf.where(held >= 5, tf.transpose(square, [1, 0, 2]), square)
    square = tf.where(among(2, 3, 6, 7), tf.reverse(square, [1]), square)
    return tf.where(among(3, 4, 7, 8), tf.reverse(square, [0]), square)
