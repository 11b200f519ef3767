"""Task-stacked layers against TensorFlow's ordinary ones, task by task."""
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import layers

RNG = np.random.default_rng(0)


@pytest.mark.parametrize('side', [5, 8])
@pytest.mark.parametrize('stride', [1, 2])
def test_stacked_convolution(stride, side):
    x, kernels = RNG.normal(size=(3, 2, side, side + 1, 4)), RNG.normal(size=(3, 3, 3, 4, 5))
    biases = RNG.normal(size=(3, 5))
    expected = [tf.nn.conv2d(*pair, stride, 'SAME') + bias for pair, bias in zip(zip(x, kernels), biases)]
    np.testing.assert_allclose(layers.conv3x3(x, tf.constant(kernels), tf.constant(biases), stride), expected)


def test_shared_convolution_equals_stacked():
    x, kernel, bias = tf.constant(RNG.normal(size=(3, 2, 7, 7, 4))), RNG.normal(size=(3, 3, 4, 5)), RNG.normal(size=5)
    stacked = layers.conv3x3(x, tf.constant(np.stack([kernel] * 3)), tf.constant(np.stack([bias] * 3)), 2)
    np.testing.assert_allclose(layers.conv3x3(x, tf.constant(kernel), tf.constant(bias), 2), stacked)


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
        np.testing.assert_allclose(layers.batch_norm(tf.constant(x), tf.constant(beta))[t],
                                   (x[t] - mean) / np.sqrt(variance + 1e-3) + beta[t], rtol=1e-4, atol=1e-5)
        for example in range(3):
            image = x[t, example]
            np.testing.assert_allclose(
                layers.layer_norm(tf.constant(x), tf.constant(gamma), tf.constant(beta))[t, example],
                (image - image.mean()) / image.std() * gamma[t] + beta[t], rtol=1e-4, atol=1e-5)
