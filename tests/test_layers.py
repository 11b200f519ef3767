"""Task-stacked layers and their derivatives against TensorFlow's ordinary ones, task by task."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.ops import layers

RNG = np.random.default_rng(0)


def derivatives(function, x, w):
    """A value, its gradients, and the gradients of a function of those."""
    with tf.GradientTape() as outer:
        outer.watch([x, w])
        with tf.GradientTape() as inner:
            inner.watch([x, w])
            value = function(x, w)
            loss = tf.reduce_sum(tf.sin(value))
        to_x, to_w = inner.gradient(loss, [x, w])
        loss = tf.reduce_sum(tf.cos(to_x)) + tf.reduce_sum(tf.sin(to_w))
    return [value, to_x, to_w, *outer.gradient(loss, [x, w])]


def assert_same_derivatives(function, reference, x, w):
    x, w = tf.constant(x), tf.constant(w)
    for ours, theirs in zip(derivatives(function, x, w), derivatives(reference, x, w), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize('channels', [1, 3, 6])
@pytest.mark.parametrize('sides', [(5, 6), (8, 7), (2, 1)], ids=str)
@pytest.mark.parametrize('stride', [1, 2])
def test_stacked_convolution_and_both_derivatives(stride, sides, channels):
    assert_same_derivatives(
        lambda x, kernel: layers.conv3x3(x, kernel, stride),
        lambda x, kernel: tf.stack(
            [tf.nn.conv2d(x[t], kernel[t], stride, 'SAME') for t in range(2)]
        ),
        RNG.normal(size=(2, 3, *sides, channels)),
        RNG.normal(size=(2, 3, 3, channels, 5)),
    )


@pytest.mark.parametrize('examples', [3, 20])
def test_linear_and_both_derivatives(examples):
    bias = tf.constant(RNG.normal(size=(2, 5)))
    assert_same_derivatives(
        lambda x, w: layers.linear(x, w, bias),
        lambda x, w: tf.matmul(x, w) + bias[:, None],
        RNG.normal(size=(2, examples, 4)),
        RNG.normal(size=(2, 4, 5)),
    )


def plain_batch_norm(x, beta, gamma, pool):
    """The formula, to be differentiated by a tape."""
    centred = x - tf.reduce_mean(x, (1, 2, 3), keepdims=True)
    x = centred * tf.math.rsqrt(tf.reduce_mean(tf.square(centred), (1, 2, 3), keepdims=True) + 1e-3)
    x = x * gamma[..., None, None, None, :] + beta[..., None, None, None, :]
    return tf.stack([tf.nn.max_pool2d(image, 2, 2, pool.upper()) for image in x]) if pool else x


@pytest.mark.parametrize('sides', [(4, 6), (5, 7), (2, 3)], ids=str)
@pytest.mark.parametrize('pool', [None, 'valid', 'same'])
def test_batch_norm_and_both_derivatives(pool, sides):
    """Against the taped formula, and so against finite differences of it in test_golden.py."""
    beta, ones = tf.constant(RNG.normal(size=(2, 4))), tf.ones(4, tf.float64)
    assert_same_derivatives(
        lambda x, scale: layers.batch_norm(x * scale, beta, pool=pool),
        lambda x, scale: plain_batch_norm(x * scale, beta, ones, pool),
        RNG.normal(size=(2, 3, *sides, 4)),
        RNG.normal(size=4) + 2,
    )


@pytest.mark.parametrize('scales', [(4,), (2, 4)], ids=['shared', 'stacked'])
@pytest.mark.parametrize('pool', [None, 'valid', 'same'])
def test_scaled_batch_norm_and_both_derivatives(pool, scales):
    """Pooling follows the scale: of a channel with a negative one it takes the smallest pixels."""
    beta, gamma = tf.constant(RNG.normal(size=(2, 4))), RNG.normal(size=scales)
    assert gamma.min() < 0 < gamma.max()
    assert_same_derivatives(
        lambda x, gamma: layers.batch_norm(x, beta, pool=pool, gamma=gamma),
        lambda x, gamma: plain_batch_norm(x, beta, gamma, pool),
        RNG.normal(size=(2, 3, 5, 4, 4)),
        gamma,
    )


def first_derivatives(function, arguments):
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        value = tf.reduce_sum(tf.sin(function(*arguments)))
    return value, tape.gradient(value, arguments)


def along(gradients, direction):
    return tf.add_n([tf.reduce_sum(g * d) for g, d in zip(gradients, direction, strict=True)])


@pytest.mark.parametrize('pool', [None, 'valid', 'same'])
def test_batch_norm_agrees_with_finite_differences(pool):
    """First and second derivatives with respect to the images, the offset and the scale."""
    function = lambda x, beta, gamma: layers.batch_norm(x, beta, pool=pool, gamma=gamma)
    arguments = [tf.constant(RNG.normal(size=shape)) for shape in ((2, 2, 5, 4, 3), (2, 3), (2, 3))]
    for moved in range(3):  # one argument at a time
        ways = [
            tf.constant(RNG.normal(size=a.shape) * (i == moved)) for i, a in enumerate(arguments)
        ]
        upstream = [tf.constant(RNG.normal(size=a.shape)) for a in arguments]
        step = 1e-6 / float(tf.sqrt(along(ways, ways)))
        ends = [[a + sign * step * way for a, way in zip(arguments, ways)] for sign in (1, -1)]

        (above, to_above), (below, to_below) = (first_derivatives(function, end) for end in ends)
        _, gradients = first_derivatives(function, arguments)
        slope = along(gradients, ways)
        np.testing.assert_allclose((above - below) / (2 * step), slope, rtol=1e-6, atol=1e-6)

        with tf.GradientTape() as tape:
            tape.watch(arguments)
            _, gradients = first_derivatives(function, arguments)
            value = along(gradients, upstream)
        slope = along(tape.gradient(value, arguments), ways)
        difference = along(to_above, upstream) - along(to_below, upstream)
        np.testing.assert_allclose(difference / (2 * step), slope, rtol=1e-6, atol=1e-5)


def test_derivatives_of_a_compiled_scaled_batch_norm():
    x, gamma = tf.constant(RNG.normal(size=(2, 3, 5, 4, 3))), tf.constant(RNG.normal(size=(2, 3)))

    def of_both(x, gamma):
        function = lambda x, w: layers.batch_norm(x, w, pool='same', gamma=w)
        return derivatives(function, x, gamma)

    compiled = tf.function(of_both, jit_compile=True)(x, gamma)
    for ours, theirs in zip(compiled, of_both(x, gamma), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_batch_norm_has_a_third_derivative():
    x, y = tf.constant(RNG.normal(size=(1, 6, 2))), tf.constant(RNG.normal(size=(1, 6, 2)))

    def third(norm):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as middle:
                middle.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    value = tf.reduce_sum(norm(x) * y)
                value = tf.reduce_sum(inner.gradient(value, x) ** 2)
            value = tf.reduce_sum(middle.gradient(value, x) * y)
        return outer.gradient(value, x)

    zero = tf.zeros(2, x.dtype)
    np.testing.assert_allclose(
        third(lambda x: layers.batch_norm(x, zero)),
        third(lambda x: layers.normalise(x, [1], 1e-3)),
        rtol=1e-7,
    )


def test_shared_convolution_equals_stacked():
    x, kernel = tf.constant(RNG.normal(size=(3, 2, 7, 7, 4))), RNG.normal(size=(3, 3, 4, 5))
    stacked = layers.conv3x3(x, tf.constant(np.stack([kernel] * 3)), 2)
    np.testing.assert_allclose(layers.conv3x3(x, tf.constant(kernel), 2), stacked)


@pytest.mark.parametrize('padding', ['valid', 'same'])
@pytest.mark.parametrize('ties', [False, True])
def test_max_pool_and_where_its_gradient_goes(ties, padding):
    x = RNG.normal(size=(2, 3, 7, 5, 4)).astype('float32')
    x = tf.constant(np.round(x) if ties else x)
    flat = tf.reshape(x, [6, 7, 5, 4])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, flat])
        ours = layers.max_pool2x2(x, padding)
        theirs = tf.nn.max_pool2d(flat, 2, 2, padding.upper())
    np.testing.assert_array_equal(ours, tf.reshape(theirs, ours.shape))
    upstream = tf.constant(RNG.normal(size=ours.shape).astype('float32'))
    expected = tape.gradient(theirs, flat, tf.reshape(upstream, theirs.shape))
    np.testing.assert_array_equal(tape.gradient(ours, x, upstream), tf.reshape(expected, x.shape))


def test_norms_by_hand():
    x = RNG.normal(size=(2, 3, 4, 4, 5)).astype('float32') * 3 + 1
    beta, gamma = RNG.normal(size=(2, 5)), RNG.normal(size=(2, 5))
    beta, gamma = beta.astype('float32'), gamma.astype('float32')
    for t in range(2):
        mean, variance = x[t].mean((0, 1, 2)), x[t].var((0, 1, 2))
        np.testing.assert_allclose(
            layers.batch_norm(tf.constant(x), tf.constant(beta))[t],
            (x[t] - mean) / np.sqrt(variance + 1e-3) + beta[t],
            rtol=1e-4,
            atol=1e-5,
        )
        for example in range(3):
            image = x[t, example]
            np.testing.assert_allclose(
                layers.layer_norm(tf.constant(x), tf.constant(gamma), tf.constant(beta))[
                    t, example
                ],
                (image - image.mean()) / image.std() * gamma[t] + beta[t],
                rtol=1e-4,
                atol=1e-5,
            )
