"""Sizes, initial values, heads and saved forms of the networks."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.network import Network
from maml_tf.networks.reference import NORMS

COUNTS = {
    # Counted from the shapes of MAML's authors: convolution biases, batch-norm offsets only.
    'sinusoid': (FullyConnected((1,), 1), 1761),
    'omniglot': (ConvNet((28, 28, 1), 5), 112005),
    'miniimagenet': (ConvNet((84, 84, 3), 5, filters=32, max_pool=True, head='flatten'), 32773),
    # And of Reptile's: batch norm has a scale, too; 256 and 1152 features.
    'reptile omniglot': (ConvNet((28, 28, 1), 5, head='flatten', scale=True), 113221),
    'reptile miniimagenet': (
        ConvNet(
            (84, 84, 3),
            5,
            filters=32,
            max_pool=True,
            head='flatten',
            scale=True,
            pool_padding='same',
        ),
        34661,
    ),
}


@pytest.mark.parametrize('name', COUNTS)
def test_parameter_counts(name):
    network, count = COUNTS[name]
    assert sum(w.size for w in network.construct_weights(0).values()) == count


def test_initial_values_depend_on_the_seed_alone():
    network = ConvNet((28, 28, 1), 5)
    first, again, other = (network.construct_weights(seed) for seed in (3, 3, 4))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        assert not value.any() or not np.array_equal(value, other[name])


def test_initial_distributions():
    weights = ConvNet((28, 28, 1), 5).construct_weights(0)
    limit = np.sqrt(6 / (9 * 64 + 9 * 64))  # Xavier, uniform
    assert np.abs(weights['conv2']).max() <= limit and weights['conv2'].std() == pytest.approx(
        limit / 3**0.5, rel=0.02
    )
    assert weights['w5'].std() == pytest.approx(1, rel=0.1)
    assert not any(
        weights[f'b{i}'].any() or weights[f'norm{i - 1}_beta'].any() for i in range(1, 5)
    )
    weights = FullyConnected((784,), 5, (256, 128, 64, 64)).construct_weights(0)
    assert np.abs(weights['w1']).max() <= 0.02 and weights['w1'].std() == pytest.approx(
        0.0088, rel=0.02
    )


def small(**kwargs):
    """Pooled from 7x5 to 1x1 by way of odd sides."""
    arguments = {'max_pool': True, 'head': 'flatten', 'pool_padding': 'same'} | kwargs
    return ConvNet((7, 5, 2), 3, 4, **arguments)


def moved(network, stacked=True):
    """Weights away from where they start, in float64; the first channel's scale is negative."""
    rng, weights = np.random.default_rng(0), {}
    for name, value in network.construct_weights(0).items():
        value = value + 0.3 * rng.normal(size=([2] * stacked) + list(value.shape))
        if name.endswith('gamma'):
            value[..., 0] *= -1
        weights[name] = tf.constant(value)
    return weights


@pytest.mark.parametrize(
    'network',
    [
        small(scale=True),
        small(norm='None'),
        small(norm='layer_norm'),
        ConvNet((7, 5, 2), 3, 4, head='flatten', scale=True),
        FullyConnected((4,), 3, (6, 5), 'batch_norm', scale=True),
    ],
    ids=['pooled', 'no norm', 'layer norm', 'strided', 'fully connected'],
)
def test_first_and_second_derivatives_agree_with_finite_differences(network):
    """Along one random direction of all weights and images."""
    rng = np.random.default_rng(1)
    values = [tf.constant(rng.normal(size=(2, 3, *network.input_shape))), *moved(network).values()]
    upstream, way = ([tf.constant(rng.normal(size=v.shape)) for v in values] for _ in range(2))
    names = list(network.construct_weights(0))
    along = lambda gradients, way: tf.add_n([tf.reduce_sum(g * w) for g, w in zip(gradients, way)])

    @tf.function(autograph=False)
    def derivatives(values):
        with tf.GradientTape() as outer:
            outer.watch(values)
            with tf.GradientTape() as inner:
                inner.watch(values)
                outputs = network.forward(values[0], dict(zip(names, values[1:])))
                value = tf.reduce_sum(tf.sin(outputs))
            gradients = inner.gradient(value, values, unconnected_gradients='zero')
            second = along(gradients, upstream)
        to_second = outer.gradient(second, values, unconnected_gradients='zero')
        return value, second, along(gradients, way), along(to_second, way)

    step = 1e-7
    (above, second_above, *_), (below, second_below, *_) = (
        derivatives([value + sign * step * w for value, w in zip(values, way)]) for sign in (1, -1)
    )
    _, _, slope, second_slope = derivatives(values)
    np.testing.assert_allclose((above - below) / (2 * step), slope, rtol=1e-5)
    np.testing.assert_allclose((second_above - second_below) / (2 * step), second_slope, rtol=1e-5)


@pytest.mark.parametrize('pool_padding', ['valid', 'same'])
def test_scaled_and_pooled_as_keras_has_it(pool_padding):
    """Convolution, batch norm with both variables, pooling, ReLU; negative scales among them."""
    network = ConvNet(
        (19, 17, 2), 3, 4, max_pool=True, head='flatten', scale=True, pool_padding=pool_padding
    )
    weights = moved(network, stacked=False)
    x = tf.constant(np.random.default_rng(1).normal(size=(2, 5, 19, 17, 2)))
    for task in range(2):
        y = x[task]
        for i in range(4):
            y = tf.nn.conv2d(y, weights[f'conv{i + 1}'], 1, 'SAME') + weights[f'b{i + 1}']
            mean, variance = tf.nn.moments(y, (0, 1, 2))
            offset, scale = weights[f'norm{i}_beta'], weights[f'norm{i}_gamma']
            y = tf.nn.batch_normalization(y, mean, variance, offset, scale, 1e-3)
            y = tf.nn.relu(tf.nn.max_pool2d(y, 2, 2, pool_padding.upper()))
        expected = tf.matmul(tf.reshape(y, [5, -1]), weights['w5']) + weights['b5']
        np.testing.assert_allclose(network.forward(x, weights)[task], expected, rtol=1e-9)


@pytest.mark.parametrize('norm', NORMS)
def test_which_weights_are_adapted_and_which_are_the_head(norm):
    dense, conv = FullyConnected((4,), 2, (3, 3), norm), ConvNet((8, 8, 1), 2, norm=norm)
    for network, head in ((dense, ['w3', 'b3']), (conv, ['w5', 'b5'])):
        assert isinstance(network, Network)
        names = list(network.construct_weights(0))
        assert [name for name in names if network.is_head(name)] == head
        assert {name for name in names if not network.adapted(name)} == {
            name for name in names if name.startswith('norm')
        }
    assert dense.light and not conv.light


def test_scales_start_at_one_and_are_not_adapted():
    for network in (small(scale=True), FullyConnected((4,), 2, (3, 3), 'batch_norm', scale=True)):
        scales = {n: w for n, w in network.construct_weights(0).items() if n.endswith('gamma')}
        assert scales and all((w == 1).all() for w in scales.values())
        assert not any(network.adapted(name) for name in scales)


@pytest.mark.parametrize(
    'network',
    [
        small(scale=True, product_dtype='bfloat16'),
        FullyConnected((4, 2), 3, (6,), 'layer_norm'),
    ],
)
def test_saved_and_made_again(network):
    saved = json.dumps(keras.saving.serialize_keras_object(network))
    again = keras.saving.deserialize_keras_object(json.loads(saved))
    assert type(again) is type(network) and again.get_config() == network.get_config()
    weights, same = network.construct_weights(1), again.construct_weights(1)
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 3, *network.input_shape)), tf.float32)
    assert weights.keys() == same.keys()
    outputs, same_outputs = (
        network.forward(x, {name: tf.constant(w) for name, w in weights.items()})
        for network, weights in ((network, weights), (again, same))
    )
    np.testing.assert_array_equal(outputs, same_outputs)


@pytest.mark.parametrize(
    'make, argument, reason',
    [
        (lambda: FullyConnected((1,), 1, norm='instance'), 'norm', 'layer_norm'),
        (lambda: FullyConnected((1,), 1, norm='None', scale=True), 'scale', 'batch_norm'),
        (lambda: ConvNet((12, 12, 1), 5, max_pool=True), 'max_pool', '16x16'),
        (lambda: ConvNet((12, 12, 1), 5, head='max'), 'head', 'mean, flatten'),
        (lambda: ConvNet((12, 12, 1), 5, pool_padding='SAME'), 'pool_padding', 'valid, same'),
        (lambda: ConvNet((12, 12, 1), 5, product_dtype='bf16'), 'product_dtype', 'bfloat16'),
        (lambda: ConvNet((12, 12, 1), 5, product_dtype='int32'), 'product_dtype', 'bfloat16'),
    ],
)
def test_errors(make, argument, reason):
    with pytest.raises(ArgumentError, match=reason) as error:
        make()
    assert error.value.argument == argument
