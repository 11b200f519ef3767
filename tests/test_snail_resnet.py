"""SNAIL's encoder of miniImageNet, against NumPy."""

import numpy as np
import pytest
from test_image_encoders import (
    END,
    convolved,
    dropped,
    in_training,
    leaky,
    named,
    normalised,
    of_random_weights,
    random_images,
)

from maml_tf.networks.image_encoders.random_layers import Dropout
from maml_tf.networks.image_encoders.snail_resnet import snail_resnet


def pooled_to_the_rim(x):
    """2x2 maxima, an odd last row or column by itself."""
    odd = [(0, 0), *((0, side % 2) for side in x.shape[1:3]), (0, 0)]
    x = np.pad(x, odd, constant_values=-np.inf)
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


def in_numpy(encoder, x, training):
    """In the paper's order: the 1x1 convolution on the maps, then their mean."""
    get = encoder.get_layer
    for number in (1, 2, 3, 4):
        y = x
        for place in (1, 2, 3):
            name = f'{number}_{place}'
            y = leaky(normalised(convolved(y, get(f'conv{name}')), get(f'norm{name}')))
        y = pooled_to_the_rim(y + convolved(x, get(f'conv{number}_shortcut')))
        x = dropped(y, get(f'dropout{number}'), training)
    weights = lambda name: [np.array(w) for w in get(name).weights]
    kernel, bias = weights('hidden')
    x = np.maximum((x @ kernel + bias).mean((1, 2)), 0)
    kernel, bias = weights('features')
    return dropped(x, get('dropout5'), training) @ kernel + bias


@pytest.mark.parametrize('training', [False, True], ids=['evaluation', 'training'])
def test_encoder(training):
    encoder = snail_resnet((21, 19, 2), (3, 4, 5, 6), 0.3, hidden=9, features=7)
    encoder = of_random_weights(encoder, 20)
    x = random_images(21, 3, 21, 19, 2)
    expected = in_numpy(encoder, x.astype(np.float64), training)
    y = in_training(encoder, x, step=END) if training else encoder(x).numpy()
    assert y.shape == expected.shape == (3, 7)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_maps_and_features_are_the_paper_s():
    encoder = snail_resnet((84, 84, 3))
    assert encoder.output_shape == (None, 384)
    assert encoder.get_layer('dropout4').output.shape[1:] == (6, 6, 256)
    assert tuple(encoder.get_layer('hidden').kernel.shape) == (256, 2048)
    rates = [layer.rate for layer in encoder.layers if isinstance(layer, Dropout)]
    assert rates == [0.1] * 5


def test_by_name():
    assert named('--encoder=snail_resnet').output_shape[-1] == 384
    without = named('--encoder=snail_resnet', '--dropout=0')
    assert not any(isinstance(layer, Dropout) for layer in without.layers)
