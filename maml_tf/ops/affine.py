"""Random affine distortions of drawings (Koch, Zemel, Salakhutdinov 2015, section 3.2), a function
of random bits.

T = (theta, rho_x, rho_y, s_x, s_y, t_x, t_y): rotation, shears, scales and shifts, each there with
probability 0.5.
"""

import math

import tensorflow as tf

from maml_tf.episodes.random_bits import uniform

WORDS = 7  # Random words that one image takes.
# Of each component: what does nothing, and the range it is drawn from.
_NEUTRAL = (0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0)
_LOW = (-math.radians(10), -0.3, -0.3, 0.8, 0.8, -2.0, -2.0)
_HIGH = (math.radians(10), 0.3, 0.3, 1.2, 1.2, 2.0, 2.0)


def components(bits):
    """uint32 [n, WORDS] -> float32 [n, WORDS]: theta, rho_x, rho_y in radians; s_x, s_y; t_x, t_y
    in pixels."""
    drawn = uniform(bits, tf.constant(_LOW), tf.constant(_HIGH))
    # `uniform` leaves the lowest bits unused.
    there = tf.equal(tf.bitwise.bitwise_and(bits, tf.constant(1, tf.uint32)), 1)
    return tf.where(there, drawn, tf.constant(_NEUTRAL))


def distort(images, parts, background=0.0):
    """Images [n, h, w, c] moved by `components` [n, WORDS]; what comes in from outside is
    `background`.

    A point p goes to centre + R Shear Scale (p - centre) + t, in pixels, x to the right and y down,
    with R = [[cos, -sin], [sin, cos]] of theta and Shear = [[1, tan rho_x], [tan rho_y, 1]]; pixels
    are bilinear. The paper does not fix an order.
    """
    height, width, channels = images.shape[1:]
    theta, lean_x, lean_y, scale_x, scale_y, shift_x, shift_y = (
        value[:, None, None] for value in tf.unstack(tf.cast(parts, images.dtype), axis=1)
    )
    sin, cos, lean_x, lean_y = tf.sin(theta), tf.cos(theta), tf.tan(lean_x), tf.tan(lean_y)
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


def bits_of(images):
    """Random bits that are a function of each task's pixels: [tasks, n, h, w, c] -> uint32 [tasks,
    n, WORDS].

    A loss that sees nothing but its task draws by them: the same task is distorted alike wherever
    and whenever it comes, and so an interrupted run goes on as if it had not been.
    """
    n = images.shape[1]
    pixels = tf.bitcast(tf.cast(images, tf.float32), tf.int32)
    folded = tf.bitwise.bitwise_and(
        tf.bitwise.bitwise_xor(pixels, tf.bitwise.right_shift(pixels, 16)), 0xFFFF
    )
    flat = tf.cast(tf.reshape(folded, [-1, math.prod(images.shape[1:])]), tf.int64)
    # 16 bits each, times 16 bits: a sum of 2**31 of them, whatever the order, does not overflow.
    sums = tf.reduce_sum(flat * (tf.range(flat.shape[1], dtype=tf.int64) % 65521 + 1), axis=1)

    def of_task(key):
        return tf.raw_ops.StatelessRandomUniformFullIntV2(
            shape=[n, WORDS],
            key=key[None],
            counter=tf.zeros([2], tf.uint64),
            alg=tf.random.Algorithm.PHILOX.value,
            dtype=tf.uint32,
        )

    return tf.map_fn(
        of_task, tf.cast(sums, tf.uint64), fn_output_signature=tf.TensorSpec([n, WORDS], tf.uint32)
    )
