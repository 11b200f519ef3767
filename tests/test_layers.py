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


def plain_batch_norm(x, pool):
    centred = x - tf.reduce_mean(x, (1, 2, 3), keepdims=True)
    x = centred * tf.math.rsqrt(tf.reduce_mean(tf.square(centred), (1, 2, 3), keepdims=True) + 1e-3)
    return tf.stack([tf.nn.max_pool2d(image, 2, 2, 'VALID') for image in x]) if pool else x


@pytest.mark.parametrize('sides', [(4, 6), (5, 7), (2, 3)], ids=str)
@pytest.mark.parametrize('pool', [False, True])
def test_batch_norm_and_both_derivatives(pool, sides):
    """Against the taped formula, and so against finite differences of it in test_golden.py."""
    beta = tf.constant(RNG.normal(size=(2, 4)))
    assert_same_derivatives(
        lambda x, scale: layers.batch_norm(x * scale, beta, pool=pool),
        lambda x, scale: plain_batch_norm(x * scale, pool) + beta[:, None, None, None],
        RNG.normal(size=(2, 3, *sides, 4)),
        RNG.normal(size=4) + 2,
    )


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


@pytest.mark.parametrize('ties', [False, True])
def test_max_pool_and_where_its_gradient_goes(ties):
    x = RNG.normal(size=(2, 3, 7, 5, 4)).astype('float32')
    x = tf.constant(np.round(x) if ties else x)
    upstream = tf.constant(RNG.normal(size=(2, 3, 3, 2, 4)).astype('float32'))
    flat = tf.reshape(x, [6, 7, 5, 4])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, flat])
        ours = layers.max_pool2x2(x)
        theirs = tf.nn.max_pool2d(flat, 2, 2, 'VALID')
    np.testing.assert_array_equal(ours, tf.reshape(theirs, ours.shape))
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
