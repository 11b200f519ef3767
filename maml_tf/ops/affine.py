"""Random affine distortions of drawings (Koch, Zemel, Salakhutdinov 2015, section 3.2).

T = (theta, rho_x, rho_y, s_x, s_y, t_x, t_y): rotation, shears, scales and shifts, each there with
probability 0.5.
"""

import math

import tensorflow as tf

WORDS = 7  # Random words that one image takes.
# Of each component: what does nothing, and the range it is drawn from.
_NEUTRAL = (0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)
_LOW = (-math.radians(10), -0.3, -0.3, 0.8, 0.8, -2.0, -2.0)
_HIGH = (math.radians(10), 0.3, 0.3, 1.2, 1.2, 2.0, 2.0)


def components(bits: tf.Tensor) -> tf.Tensor:
    """Turns random bits into the components of a distortion.

    Args:
      bits: uint32 [n, WORDS].
    Returns: float32 [n, WORDS]: theta, rho_x, rho_y in radians; s_x, s_y; t_x, t_y in pixels.
    """
    low, high = tf.constant(_LOW), tf.constant(_HIGH)
    # The 24 highest bits place a component in its range; the lowest says whether it is there.
    fraction = tf.cast(tf.bitwise.right_shift(bits, 8), tf.float32) * 2.0**-24
    drawn = low + (high - low) * fraction
    there = tf.equal(tf.bitwise.bitwise_and(bits, tf.constant(1, tf.uint32)), 1)
    return tf.where(there, drawn, tf.constant(_NEUTRAL))


def distort(images: tf.Tensor, parts: tf.Tensor, background: float = 0.0) -> tf.Tensor:
    """Moves, turns and stretches images.

    A point p goes to centre + R Shear Scale (p - centre) + t, in pixels, x to the right and y down,
    with R = [[cos, -sin], [sin, cos]] of theta and Shear = [[1, tan rho_x], [tan rho_y, 1]]; pixels
    are bilinear. The paper does not fix an order.

    Args:
      images: [n, height, width, channels].
      parts: [n, WORDS] as `components` returns them.
      background: the value of pixels that come in from outside.
    Returns: [n, height, width, channels].
    """
    height, width, channels = images.shape[1:]
    theta, lean_x, lean_y, scale_x, scale_y, shift_x, shift_y = (
        value[:, None, None] for value in tf.unstack(tf.cast(parts, images.dtype), axis=1)
    )
    sin, cos = tf.sin(theta), tf.cos(theta)
    lean_x, lean_y = tf.tan(lean_x), tf.tan(lean_y)
    # [[a, b], [c, d]] = R Shear Scale
    a, b = (cos - sin * lean_y) * scale_x, (cos * lean_x - sin) * scale_y
    c, d = (sin + cos * lean_y) * scale_x, (sin * lean_x + cos) * scale_y
    to_x = tf.range(width, dtype=images.dtype)[None, None, :] - (width - 1) / 2 - shift_x
    to_y = tf.range(height, dtype=images.dtype)[None, :, None] - (height - 1) / 2 - shift_y
    determinant = a * d - b * c
    x = (d * to_x - b * to_y) / determinant + (width - 1) / 2
    y = (a * to_y - c * to_x) / determinant + (height - 1) / 2

    # A frame of background, on which all that lies further out falls.
    framed = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], constant_values=background)
    pixels = tf.reshape(framed, [-1, (height + 2) * (width + 2), channels])

    def pixel(row, column):
        row = tf.clip_by_value(tf.cast(row, tf.int32) + 1, 0, height + 1)
        column = tf.clip_by_value(tf.cast(column, tf.int32) + 1, 0, width + 1)
        return tf.gather(pixels, row * (width + 2) + column, batch_dims=1)

    left, top = tf.floor(x), tf.floor(y)
    right_share, lower_share = (x - left)[..., None], (y - top)[..., None]
    upper = (1 - right_share) * pixel(top, left) + right_share * pixel(top, left + 1)
    lower = (1 - right_share) * pixel(top + 1, left) + right_share * pixel(top + 1, left + 1)
    return (1 - lower_share) * upper + lower_share * lower
