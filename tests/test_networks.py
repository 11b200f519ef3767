"""Sizes and initial values of the reference's networks."""

import numpy as np
import pytest

from maml_tf.networks.reference import ConvNet, FullyConnected

COUNTS = {  # counted from the reference's shapes: convolution biases, batch-norm offsets only
    'sinusoid': (FullyConnected((1,), 1), 1761),
    'omniglot': (ConvNet((28, 28, 1), 5), 112005),
    'miniimagenet': (ConvNet((84, 84, 3), 5, filters=32, max_pool=True, head='flatten'), 32773),
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


def test_errors():
    with pytest.raises(ValueError, match='layer_norm'):
        FullyConnected((1,), 1, norm='instance')
    with pytest.raises(ValueError, match='16x16'):
        ConvNet((12, 12, 1), 5, max_pool=True)
