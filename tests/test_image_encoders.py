"""Encoders of images, and what they draw in training: against NumPy, alone and within a learner."""

from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_flagfiles import checked

from maml_tf.algorithms.closed_form.r2d2 import R2D2
from maml_tf.algorithms.metric.metric_learner import TrainingPass
from maml_tf.episodes.random_bits import many_bits
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.encoders import BatchNorm, conv4
from maml_tf.networks.image_encoders.augmentation import (
    ColourJitter,
    RandomCrop,
    RandomFlip,
    standard_augmentation,
)
from maml_tf.networks.image_encoders.by_name import encoder_of
from maml_tf.networks.image_encoders.r2d2_encoder import r2d2_encoder
from maml_tf.networks.image_encoders.random_layers import (
    Draws,
    DropBlock,
    Dropout,
    RandomLayer,
    drawing,
)
from maml_tf.networks.image_encoders.resnet12 import resnet12
from maml_tf.objectives.classification import MeanClassification

KEY = (0x12345678, 0x9ABCDEF0)
END = 20_000  # From this iteration on DropBlock has its whole rate.


def random_images(seed, *shape):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def draws(key=KEY, step=0, number=0):
    key = None if key is None else tf.constant(key, tf.uint32)
    return Draws(key, tf.constant(step, tf.int64), number)


def in_training(layer, x, **kwargs):
    """What the layer makes of x in training; kwargs: of `draws`."""
    with drawing(draws(**kwargs)):
        return layer(x).numpy()


def with_numbers(layer, x, numbers, **kwargs):
    """What the layer makes of x if these are the numbers from 0 to 1 that it draws."""

    def uniform(self, shape, draws, low=0.0, high=1.0):
        assert [int(side) for side in shape] == list(numbers.shape)
        return tf.constant(low + (high - low) * numbers, tf.float32)

    with mock.patch.object(RandomLayer, 'uniform', uniform):
        return in_training(layer, x, **kwargs)


def each_layer():
    return [
        Dropout(0.4, name='dropout'),
        DropBlock(0.3, 3, name='dropblock'),
        RandomCrop(2),
        RandomFlip(),
        ColourJitter(0.4),
    ]


each = pytest.mark.parametrize('layer', each_layer(), ids=lambda layer: layer.name)


# What is drawn.


def philox(key, counter):
    """Four words of Philox-4x32 with 10 rounds (Salmon et al. 2011)."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        one, two = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = two >> 32 ^ c1 ^ k0, two % 2**32, one >> 32 ^ c3 ^ k1, one % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def test_philox_of_its_authors():
    """The known answers that Random123 is distributed with."""
    ones = 2**32 - 1
    assert philox((0, 0), (0,) * 4) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox((ones, ones), (ones,) * 4) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize('stream, counter', [(0, 0), (7, 3), (2**32 - 1, 2**32 - 1)])
def test_many_bits_are_philox(stream, counter):
    """The counter counts fours of words in its first word; results of runs depend on it."""
    expected = [philox(KEY, (i, counter, stream, 0)) for i in range(5)]
    key = tf.constant(KEY, tf.uint32)
    bits = many_bits(key, [2, 3, 3], stream, counter)
    assert bits.shape == (2, 3, 3) and bits.dtype == tf.uint32
    np.testing.assert_array_equal(np.ravel(bits), np.ravel(expected)[:18])
    for jit_compile in (False, True):
        compiled = tf.function(
            lambda key: many_bits(key, [2, 3, 3], stream, counter), jit_compile=jit_compile
        )
        np.testing.assert_array_equal(compiled(key), bits)


def test_many_bits_without_a_key_are_always_the_same():
    bits = many_bits(None, [50], 3, 1).numpy()
    np.testing.assert_array_equal(many_bits(None, [50], 3, 1), bits)
    for other in (many_bits(tf.constant(KEY, tf.uint32), [50], 3, 1), many_bits(None, [50], 4, 1)):
        assert not np.isin(bits, other.numpy()).any()


@each
def test_outside_training_nothing_is_drawn(layer):
    x = random_images(1, 4, 8, 6, 3)
    np.testing.assert_array_equal(layer(x), x)
    assert np.any(in_training(layer, x, step=END) != x)
    np.testing.assert_array_equal(layer(x), x)  # The context is over.


def test_an_error_ends_training_too():
    layer, x = Dropout(0.4, name='dropout'), tf.ones([2, 9])
    with pytest.raises(KeyError), drawing(draws()):
        raise KeyError
    np.testing.assert_array_equal(layer(x), x)


@each
def test_draws_depend_on_key_name_and_pass_alone(layer):
    x = random_images(2, 40, 8, 6, 3)
    drawn = in_training(layer, x, step=END)
    assert drawn.shape == x.shape and drawn.dtype == np.float32
    np.testing.assert_array_equal(in_training(layer, x, step=END), drawn)
    np.testing.assert_array_equal(in_training(layer, x, step=END + 5), drawn)
    again = type(layer).from_config(layer.get_config())
    np.testing.assert_array_equal(in_training(again, x, step=END), drawn)
    renamed = type(layer).from_config(layer.get_config() | {'name': 'another'})
    others = [
        in_training(renamed, x, step=END),
        in_training(layer, x, step=END, number=1),
        in_training(layer, x, step=END, key=(KEY[0] + 1, KEY[1])),
        in_training(layer, x, step=END, key=(KEY[0], KEY[1] + 1)),
        in_training(layer, x, step=END, key=None),
    ]
    all_of_them = [drawn, *others]
    for i, one in enumerate(all_of_them):
        for other in all_of_them[:i]:
            assert np.mean(np.any(one != other, axis=(1, 2, 3))) > 0.3


@each
def test_compiled_and_uncompiled_draw_the_same(layer):
    """For a number of images that is not known beforehand, too."""
    x = random_images(3, 5, 8, 6, 3)
    expected = in_training(layer, x, step=END, number=2)

    def run(x, key, step):
        with drawing(Draws(key, step, 2)):
            return layer(x)

    arguments = (x, tf.constant(KEY, tf.uint32), tf.constant(END, tf.int64))
    specs = [
        tf.TensorSpec([None, 8, 6, 3]),
        tf.TensorSpec([2], tf.uint32),
        tf.TensorSpec([], tf.int64),
    ]
    compiled = tf.function(run, input_signature=specs)
    # Sums may be in another order; a draw that differs would show by far more.
    np.testing.assert_allclose(compiled(*arguments), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(compiled(*arguments).numpy() == 0, expected == 0)


# Dropout.


@pytest.mark.parametrize('rate', [0.1, 0.5, 0.9])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_dropout_keeps_its_share_and_scales_exactly(rate, dtype):
    x = np.random.default_rng(4).uniform(1, 2, (200, 250)).astype(dtype)
    y = in_training(Dropout(rate, name='dropout', dtype=np.dtype(dtype).name), x)
    assert y.dtype == dtype
    kept = y != 0
    deviation = np.sqrt(rate * (1 - rate) / x.size)
    assert abs(kept.mean() - (1 - rate)) < 6 * deviation
    np.testing.assert_array_equal(y[kept], x[kept] / dtype(1 - rate))
    # No row and no column is left out, or treated as a whole.
    for axis, count in ((0, 200), (1, 250)):
        shares = kept.mean(axis)
        assert np.abs(shares - (1 - rate)).max() < 7 * np.sqrt(rate * (1 - rate) / count)


def test_dropout_by_its_numbers():
    """What is below the rate is dropped; a rate of 0 drops nothing."""
    numbers = np.array([[0.0, 0.2499, 0.25, 0.9]], np.float32)
    x = np.array([[1.0, 2.0, 3.0, -6.0]], np.float32)
    np.testing.assert_array_equal(
        with_numbers(Dropout(0.25, name='dropout'), x, numbers), [[0, 0, 4, -8]]
    )
    np.testing.assert_array_equal(with_numbers(Dropout(0.0, name='dropout'), x, numbers), x)


def test_gradient_passes_what_is_kept():
    layer, x = Dropout(0.5, name='dropout'), tf.constant(random_images(5, 4, 30) + 1)
    with tf.GradientTape() as tape, drawing(draws()):
        tape.watch(x)
        y = layer(x)
    np.testing.assert_array_equal(tape.gradient(y, x), 2.0 * (y.numpy() != 0))


# DropBlock.


def drop_blocks(x, numbers, rate, size):
    """DropBlock by hand; numbers: of the places where squares may begin."""
    n, height, width, channels = x.shape
    size = min(size, height, width)
    places = (height - size + 1, width - size + 1)
    first = rate / size**2 * (height * width) / (places[0] * places[1])
    assert numbers.shape == (n, *places, channels)
    kept = np.ones(x.shape)
    for image, row, column, channel in np.argwhere(numbers < first):
        kept[image, row : row + size, column : column + size, channel] = 0
    return x * kept * kept.size / max(kept.sum(), 1)


@pytest.mark.parametrize(
    'height, width, size', [(6, 6, 2), (7, 5, 3), (10, 10, 5), (5, 5, 5), (4, 4, 1), (3, 3, 9)]
)
def test_dropblock(height, width, size):
    """The last size is larger than the map, and becomes its side."""
    side = min(size, height, width)
    rng = np.random.default_rng(height * size)
    x = rng.normal(size=(3, height, width, 4)).astype(np.float32)
    numbers = rng.uniform(size=(3, height - side + 1, width - side + 1, 4)).astype(np.float32)
    expected = drop_blocks(x, numbers, 0.3, size)
    assert 0 < np.mean(expected == 0) < 1
    layer = DropBlock(0.3, size, name='dropblock')
    np.testing.assert_allclose(with_numbers(layer, x, numbers, step=END), expected, rtol=1e-5)
    np.testing.assert_array_equal(with_numbers(layer, x, numbers, step=0), x)


def test_dropblock_by_hand():
    """One square, in the corner, of one channel; the 12 of 16 entries that stay are scaled up."""
    numbers = np.ones((1, 3, 3, 2), np.float32)
    numbers[0, 2, 2, 1] = 0
    x = np.ones((1, 4, 4, 2), np.float32)
    y = with_numbers(DropBlock(0.1, 2, name='dropblock'), x, numbers, step=END)
    expected = np.full((4, 4, 2), 32 / 28)
    expected[2:, 2:, 1] = 0
    np.testing.assert_allclose(y[0], expected, rtol=1e-6)


def test_dropblock_that_drops_everything_gives_zeros():
    numbers, x = np.zeros((2, 3, 3, 1), np.float32), np.ones((2, 4, 4, 1), np.float32)
    y = with_numbers(DropBlock(0.1, 2, name='dropblock'), x, numbers, step=END)
    np.testing.assert_array_equal(y, np.zeros_like(x))


@pytest.mark.parametrize('step, share', [(0, 0), (100, 0.1), (250, 0.25), (1000, 1), (9000, 1)])
def test_the_rate_of_dropblock_grows_linearly(step, share):
    """For squares of one entry the share of entries that are dropped is the rate."""
    x = np.ones((20, 10, 10, 30), np.float32)
    y = in_training(DropBlock(0.4, 1, name='dropblock', over=1000), x, step=step)
    rate = 0.4 * share
    assert abs(np.mean(y == 0) - rate) <= 6 * np.sqrt(rate * (1 - rate) / x.size)
    assert np.mean(y) == pytest.approx(1, rel=1e-5)


def test_the_authors_rate_grows_over_20000_iterations():
    """Their keep rate falls over 40,000 passes, and an iteration has two, support and query."""
    numbers = np.full((1, 4, 4, 1), 0.05 * 0.999, np.float32)
    x, layer = np.ones((1, 4, 4, 1), np.float32), DropBlock(0.1, 1, name='dropblock')
    assert with_numbers(layer, x, numbers, step=10_000).sum() == 0
    assert with_numbers(layer, x, numbers, step=9_980).sum() == 16


# Augmentation.


@pytest.mark.parametrize('padding', [0, 1, 4])
def test_crop(padding):
    x = random_images(6, 50, 7, 5, 2) + 0.5
    numbers = np.random.default_rng(7).uniform(size=(50, 2)).astype(np.float32)
    numbers[:2] = [[0, 1 - 2.0**-24], [1 - 2.0**-24, 0]]
    y = with_numbers(RandomCrop(padding), x, numbers)
    border = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    padded = np.pad(x, border)
    for image, around, (down, right) in zip(y, padded, (numbers * (2 * padding + 1)).astype(int)):
        np.testing.assert_array_equal(image, around[down : down + 7, right : right + 5])
    assert padding == 0 or (y == 0).any()


def test_crops_go_everywhere():
    """Each image by itself, to each of the nine places alike."""
    x = np.zeros((900, 5, 5, 1), np.float32)
    x[:, 2, 2] = 1
    y = in_training(RandomCrop(1), x)
    counts = y.sum((0, 3))[1:4, 1:4]
    assert counts.sum() == 900 and np.abs(counts - 100).max() < 6 * np.sqrt(900 * 8 / 81)


def test_flip():
    x, numbers = random_images(8, 4, 3, 5, 2), np.array([0, 0.4999, 0.5, 0.9], np.float32)
    y = with_numbers(RandomFlip(), x, numbers.reshape(4, 1, 1, 1))
    np.testing.assert_array_equal(y[:2], x[:2, :, ::-1])
    np.testing.assert_array_equal(y[2:], x[2:])
    many = np.tile(x[:1], (1000, 1, 1, 1))
    flipped = np.any(in_training(RandomFlip(), many) != many, axis=(1, 2, 3))
    assert abs(flipped.sum() - 500) < 6 * np.sqrt(250)


def jittered(image, brightness, contrast, saturation):
    """As Pillow enhances images, in floats: a mix with black, with the mean grey, with the grey."""
    grey = lambda image: image @ np.array([0.299, 0.587, 0.114])
    image = np.clip(brightness * image, 0, 1)
    image = np.clip(contrast * image + (1 - contrast) * grey(image).mean(), 0, 1)
    return np.clip(saturation * image + (1 - saturation) * grey(image)[..., None], 0, 1)


@pytest.mark.parametrize('strength', [0.4, 1.0])
def test_colour_jitter(strength):
    x = random_images(9, 20, 4, 5, 3)
    numbers = np.random.default_rng(10).uniform(size=(3, 20, 1, 1, 1)).astype(np.float32)
    y = with_numbers(ColourJitter(strength), x, numbers)
    factors = 1 - strength + 2 * strength * numbers.reshape(3, 20).T
    expected = [jittered(image, *of_image) for image, of_image in zip(x, factors)]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert y.min() == 0 and y.max() == 1, 'some values are cut'
    np.testing.assert_allclose(with_numbers(ColourJitter(0.0), x, numbers), x, atol=1e-6)


def test_standard_augmentation():
    kinds = lambda shape: [type(layer) for layer in standard_augmentation(shape)]
    assert kinds((84, 84, 3)) == [RandomCrop, ColourJitter, RandomFlip]
    assert kinds((28, 28, 1)) == [RandomCrop, RandomFlip]
    crop, jitter, _ = standard_augmentation((84, 84, 3))
    assert (crop.padding, jitter.strength) == (8, 0.4)
    assert standard_augmentation((32, 32, 3))[0].padding == 4
    x = random_images(11, 200, 32, 32, 3)
    for layer in standard_augmentation((32, 32, 3)):
        x = in_training(layer, x)
    assert x.min() == 0 and 0.9 < x.max() <= 1


# Encoders.


@pytest.mark.parametrize(
    'filters, expected', [(None, (3584, 8064, 72576)), (64, (512, 1152, 10368))]
)
def test_features_of_r2d2_s_encoder(filters, expected):
    """As the paper has them, of 28, 32 and 84 pixels."""
    filters = (filters,) * 4 if filters else (96, 192, 384, 512)
    for side, features in zip((28, 32, 84), expected):
        arguments = {} if filters[0] == 96 else {'filters': filters}
        encoder = r2d2_encoder((side, side, 3), **arguments)
        assert encoder.output_shape == (None, features)
    channels = (3, *filters[:-1])
    convolutions = sum(9 * before * after + after for before, after in zip(channels, filters))
    assert encoder.count_params() == convolutions + 4 * sum(filters)
    trained = sum(np.prod(v.shape) for v in encoder.trainable_variables)
    assert trained == convolutions + 2 * sum(filters)


def test_features_of_resnet12():
    """16,000 of 84 pixels and 2,560 of 32, as the paper has them."""
    encoders = {side: resnet12((side, side, 3)) for side in (84, 32)}
    assert [encoders[side].output_shape[1] for side in (84, 32)] == [16_000, 2560]
    filters = (64, 160, 320, 640)
    expected = sum(
        9 * before * after + 18 * after * after + before * after + 4 * 4 * after
        for before, after in zip((3, *filters), filters)
    )
    for side, size in ((84, 5), (32, 2)):
        encoder = encoders[side]
        assert encoder.count_params() == expected
        blocks = [encoder.get_layer(f'dropblock{number}') for number in (3, 4)]
        assert [(block.rate, block.size, block.over) for block in blocks] == [(0.1, size, END)] * 2
        assert [encoder.get_layer(f'dropout{number}').rate for number in (1, 2)] == [0.1, 0.1]


def test_resnet12_starts_as_kaiming_has_it():
    keras.utils.set_random_seed(0)
    kernel = resnet12((16, 16, 3), (4, 8, 128, 8)).get_layer('conv3_2').kernel.numpy()
    expected = np.sqrt(2 / (9 * 128))
    assert kernel.std() == pytest.approx(expected, rel=0.02)
    assert np.abs(kernel).max() > 3.5 * expected, 'not cut off'


def of_random_weights(encoder, seed):
    """The encoder, with weights and averages far from where they start."""
    rng = np.random.default_rng(seed)
    for variable in encoder.variables:
        value = rng.normal(size=variable.shape) * 0.5
        positive = variable.name in ('gamma', 'moving_variance')
        variable.assign(0.5 + np.abs(value) if positive else value)
    return encoder


def convolved(x, layer):
    """A layer's convolution with zeros around, in float64."""
    kernel = layer.kernel.numpy().astype(np.float64)
    side = kernel.shape[0]
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (side // 2,) * 2, (side // 2,) * 2, (0, 0)])
    y = sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(side)
        for j in range(side)
    )
    return y if layer.bias is None else y + layer.bias.numpy()


def normalised(x, layer):
    mean, variance, gamma, beta = (
        v.numpy().astype(np.float64)
        for v in (layer.moving_mean, layer.moving_variance, layer.gamma, layer.beta)
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


def pooled(x, stride=2):
    height, width = ((side - 2) // stride + 1 for side in x.shape[1:3])
    parts = [
        x[:, i : i + stride * height : stride, j : j + stride * width : stride][:, :height, :width]
        for i in (0, 1)
        for j in (0, 1)
    ]
    return np.max(parts, axis=0)


def dropped(x, layer, training):
    """Dropout or DropBlock by hand, given what the layer draws."""
    if not training:
        return x
    if isinstance(layer, Dropout):
        kept = layer.uniform(x.shape, draws(step=END)).numpy() >= layer.rate
        return x * kept / (1 - layer.rate)
    size = min(layer.size, *x.shape[1:3])
    places = [side - size + 1 for side in x.shape[1:3]]
    numbers = layer.uniform([len(x), *places, x.shape[-1]], draws(step=END)).numpy()
    return drop_blocks(x, numbers, layer.rate, layer.size)


def of_r2d2(encoder, x, training):
    """What R2-D2's encoder computes, section 4.2."""
    get, maps = encoder.get_layer, []
    for number in (1, 2, 3, 4):
        x = normalised(convolved(x, get(f'conv{number}')), get(f'norm{number}'))
        x = leaky(pooled(x, stride=1 if number == 4 else 2))
        if number > 2:
            x = dropped(x, get(f'dropout{number}'), training)
        maps.append(x)
    parts = pooled(maps[2], stride=1), maps[3]
    return np.concatenate([part.reshape(len(x), -1) for part in parts], axis=1)


def of_resnet12(encoder, x, training):
    """What ResNet-12 computes, with the blocks of MetaOptNet's authors."""
    get = encoder.get_layer
    for number in (1, 2, 3, 4):
        step = lambda x, name: normalised(convolved(x, get(f'conv{name}')), get(f'norm{name}'))
        y = leaky(step(x, f'{number}_1'))
        y = leaky(step(y, f'{number}_2'))
        x = leaky(step(y, f'{number}_3') + step(x, f'{number}_shortcut'))
        kind = 'dropout' if number < 3 else 'dropblock'
        x = dropped(pooled(x), get(f'{kind}{number}'), training)
    return x.reshape(len(x), -1)


@pytest.mark.parametrize('training', [False, True], ids=['evaluation', 'training'])
@pytest.mark.parametrize(
    'make, in_numpy, shape',
    [(r2d2_encoder, of_r2d2, (30, 26, 2)), (resnet12, of_resnet12, (34, 36, 2))],
    ids=['r2d2', 'resnet12'],
)
def test_encoder(make, in_numpy, shape, training):
    """Batch norm by its averages; what is dropped is dropped after the pooling."""
    encoder = of_random_weights(make(shape, (3, 4, 5, 6), dropout=0.3), 12)
    x = random_images(13, 3, *shape)
    expected = in_numpy(encoder, x.astype(np.float64), training)
    y = in_training(encoder, x, step=END) if training else encoder(x).numpy()
    assert y.shape == expected.shape and np.abs(expected).mean() > 0.1
    if training:
        assert 0.02 < np.mean(expected == 0) < 0.6
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def small_encoders():
    augmentation = lambda: tuple(standard_augmentation((18, 18, 3)))
    return {
        'conv4': conv4((18, 18, 3), 4, augmentation=augmentation()),
        'r2d2': r2d2_encoder((18, 18, 3), (4, 4, 6, 8), 0.3, augmentation()),
        'resnet12': resnet12((18, 18, 3), (4, 4, 6, 8), 0.3, augmentation()),
    }


@pytest.mark.parametrize('name', ['conv4', 'r2d2', 'resnet12'])
def test_a_file_brings_back_what_an_encoder_draws(name, tmp_path):
    encoder = of_random_weights(small_encoders()[name], 14)
    encoder.save(tmp_path / 'encoder.keras')
    again = keras.models.load_model(tmp_path / 'encoder.keras')
    x = random_images(15, 6, 18, 18, 3)
    np.testing.assert_array_equal(again(x), encoder(x))
    drawn = in_training(encoder, x, step=END)
    assert np.any(drawn != encoder(x))
    np.testing.assert_array_equal(in_training(again, x, step=END), drawn)
    random = lambda model: [layer for layer in model.layers if isinstance(layer, RandomLayer)]
    assert [one.get_config() for one in random(again)] == [
        one.get_config() for one in random(encoder)
    ]
    assert len(random(encoder)) == {'conv4': 3, 'r2d2': 5, 'resnet12': 7}[name]


# By name, of a command line.


COMMAND = ['--algorithm=prototypical', '--datasource=cifar_fs']


def named(*arguments, shape=(32, 32, 3), default='conv4'):
    return encoder_of(checked(*COMMAND, *arguments), shape, default)


def random_kinds(encoder):
    return [type(layer) for layer in encoder.layers if isinstance(layer, RandomLayer)]


def test_encoders_by_name():
    features = lambda *arguments, **kwargs: named(*arguments, **kwargs).output_shape[-1]
    assert features() == 256 and features('--num_filters=8') == 32
    assert features(default='r2d2_64') == 1152
    assert features('--encoder=r2d2_64') == 1152 and features('--encoder=r2d2') == 8064
    assert features('--encoder=conv4', default='resnet12') == 256
    assert features('--encoder=resnet12') == 2560


def test_what_encoders_draw_by_name():
    augmentation = [RandomCrop, ColourJitter, RandomFlip]
    assert random_kinds(named('--augment')) == augmentation
    assert not random_kinds(named('--encoder=r2d2_64'))
    encoder = named('--encoder=r2d2_64', '--dropout=0.4', '--augment')
    assert random_kinds(encoder) == [*augmentation, Dropout, Dropout]
    assert encoder.get_layer('dropout3').rate == 0.4
    assert random_kinds(named('--encoder=resnet12')) == [Dropout] * 2 + [DropBlock] * 2
    assert not random_kinds(named('--encoder=resnet12', '--dropout=0'))


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--encoder=conv4', '--dropout=0.1'], '--dropout=0.1: means nothing with --encoder=conv4'),
        (
            ['--encoder=r2d2', '--num_filters=8'],
            '--num_filters=8: means nothing with --encoder=r2d2',
        ),
    ],
)
def test_flags_that_mean_nothing_to_an_encoder(arguments, words):
    with pytest.raises(UserError) as error:
        checked(*COMMAND, *arguments)
    assert str(error.value) == words


@pytest.mark.parametrize(
    'algorithm, flag',
    [
        ('prototypical', '--dropout=0.1'),
        ('r2d2', '--num_filters=8'),
        ('metaoptnet', '--num_filters=8'),
    ],
)
def test_flags_that_mean_nothing_to_the_method_s_own_encoder(algorithm, flag):
    with pytest.raises(UserError, match=f'{flag}: means nothing'):
        checked('--datasource=cifar_fs', f'--algorithm={algorithm}', flag)


# What is refused.


@pytest.mark.parametrize('rate', [1.0, -0.1, 7, float('nan')])
def test_rates_that_are_none(rate):
    for make in (
        lambda: Dropout(rate, name='dropout'),
        lambda: DropBlock(rate, 2, name='dropblock'),
        lambda: r2d2_encoder((16, 16, 1), (2, 2, 2, 2), dropout=rate),
        lambda: resnet12((16, 16, 1), (2, 2, 2, 2), dropout=rate),
    ):
        with pytest.raises(ArgumentError) as error:
            make()
        assert str(error.value) == f'dropout={rate}: from 0 to below 1'
        assert error.value.of_flag({}).startswith(f'--dropout={rate}: ')


@pytest.mark.parametrize('make', [conv4, r2d2_encoder, resnet12])
@pytest.mark.parametrize('shape', [(15, 16, 1), (40, 8, 3)])
def test_images_that_are_too_small(make, shape):
    with pytest.raises(
        ArgumentError, match=f'image_size={min(shape[:2])}: .*at least 16x16'
    ) as error:
        make(shape)
    assert '\n' not in str(error.value)


def test_the_smallest_images():
    assert r2d2_encoder((16, 16, 1), (2, 2, 2, 2)).output_shape == (None, 4)
    encoder = of_random_weights(resnet12((16, 16, 1), (2, 2, 2, 2), dropout=0.3), 16)
    x = random_images(17, 3, 16, 16, 1)
    np.testing.assert_allclose(
        in_training(encoder, x, step=END),
        of_resnet12(encoder, x, training=True),
        rtol=1e-3,
        atol=1e-4,
    )


def test_a_layer_that_draws_by_itself_is_refused():
    layers = [keras.Input((16, 16, 1)), keras.layers.Flatten(), keras.layers.Dropout(0.5)]
    with pytest.raises(ArgumentError) as error:
        R2D2(keras.Sequential(layers, name='mine'), MeanClassification())
    message = str(error.value)
    assert message.startswith('encoder=mine: ') and '\n' not in message
    assert 'maml_tf.networks.image_encoders' in message


# Within a learner.


def some_tasks(shape=(16, 16, 3), tasks=3, way=3, shot=2):
    rng = np.random.default_rng(18)
    labels = np.tile(np.repeat(np.eye(way, dtype=np.float32), shot, 0), (tasks, 1, 1))
    images = lambda: tf.constant(rng.uniform(size=(tasks, way * shot, *shape)), tf.float32)
    keys = rng.integers(2**32, size=(tasks, 2), dtype=np.uint32)
    return Task(images(), tf.constant(labels), images(), tf.constant(labels), key=tf.constant(keys))


def learner_that_draws(transductive=False, draws=True):
    """R2-D2 with dropout and augmentation; draws: False: with the same weights, without them."""
    shape = (16, 16, 3)
    encoder = r2d2_encoder(
        shape,
        (4, 4, 6, 8),
        dropout=0.3 if draws else 0.0,
        augmentation=tuple(standard_augmentation(shape)) if draws else (),
    )
    encoder = of_random_weights(encoder, 19)
    return R2D2(encoder, MeanClassification(), ridge=1.0, scale=2.0, transductive=transductive)


STEP = tf.constant(7, tf.int64)


def test_the_update_of_a_meta_batch_is_the_mean_of_its_tasks():
    learner, task = learner_that_draws(), some_tasks()
    whole = learner.meta_gradients(task, STEP)
    alone = [learner.meta_gradients(task.map(lambda x: x[i : i + 1]), STEP) for i in range(3)]
    losses = [float(update.log['post_loss']) for update in alone]
    assert np.ptp(losses) > 1e-3
    assert float(whole.log['post_loss']) == pytest.approx(np.mean(losses), rel=1e-5)
    largest = 0
    for number, gradient in enumerate(whole.gradients):
        expected = np.mean([update.gradients[number] for update in alone], axis=0)
        largest = max(largest, np.abs(expected).max())
        tolerance = 1e-4 * max(np.abs(expected).max(), 1e-2)
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=tolerance)
    assert largest > 1e-2
    for name, value in whole.state.items():
        expected = np.mean([update.state[name] for update in alone], axis=0)
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_training_draws_by_the_task_s_key():
    learner, task = learner_that_draws(), some_tasks(tasks=1)
    loss = lambda key, step=STEP: float(learner.meta_loss(task._replace(key=key), step).value)
    keys = [None, *(tf.constant([[number, 5]], tf.uint32) for number in range(3))]
    losses = [loss(key) for key in keys]
    assert losses == [loss(key) for key in keys]
    assert min(np.diff(sorted(losses))) > 1e-5
    compiled = tf.function(lambda key: learner.meta_loss(task._replace(key=key), STEP).value)
    assert float(compiled(keys[1])) == pytest.approx(losses[1], rel=1e-4)


def test_filling_changes_no_draw():
    learner, task = learner_that_draws(), some_tasks()
    bare = learner.meta_loss(task, STEP)
    filled = lambda x: tf.concat([x, 0 * x[:, :3]], 1)
    mask = tf.constant([[1.0] * 6 + [0.0] * 3] * 3)
    with_filling = Task(*(filled(x) for x in task[:4]), mask, mask, task.key)
    loss = learner.meta_loss(with_filling, STEP)
    assert float(loss.value) == pytest.approx(float(bare.value), rel=1e-4)
    for name, value in bare.state.items():
        np.testing.assert_allclose(loss.state[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('transductive', [False, True])
def test_evaluation_does_not_draw(transductive):
    learner, plain = (learner_that_draws(transductive, draws) for draws in (True, False))
    task = some_tasks()
    expected = plain.query_outputs(task)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(learner.query_outputs(task), expected, rtol=1e-4, atol=1e-4)
    without = learner.query_outputs(task._replace(key=None))
    np.testing.assert_array_equal(learner.query_outputs(task), without)
    gap = abs(float(learner.meta_loss(task, STEP).value - plain.meta_loss(task, STEP).value))
    assert gap > 1e-3


def test_every_pass_of_a_loss_draws_anew():
    """Each task by its own key, whether alone or with others."""
    encoder = keras.Sequential(
        [keras.Input((8,)), Dropout(0.5, name='first'), Dropout(0.5, name='second')], name='drops'
    )
    learner = R2D2(encoder, MeanClassification())
    keys = np.array([[1, 2], [3, 4], [1, 2]], np.uint32)
    x = tf.ones([3, 5, 8])

    def passes(keys, x):
        training = TrainingPass(learner, tf.constant(keys), STEP)
        return [learner.apply(encoder, x, training=training).numpy() for _ in range(3)]

    together = passes(keys, x)
    for number, y in enumerate(together):
        expected = [in_training(encoder, tf.ones([5, 8]), key=key, number=number) for key in keys]
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(y[0], y[2])
        assert np.any(y[0] != y[1])
    assert np.any(together[0] != together[1]) and np.any(together[1] != together[2])
    for y, alone in zip(together, passes(keys[1:2], x[1:2])):
        np.testing.assert_array_equal(alone[0], y[1])
    np.testing.assert_array_equal(learner.apply(encoder, x), x)


def test_dropblock_follows_the_iterations():
    """The rate of a learner's DropBlock is that of the iteration: at the first nothing is drawn."""
    layers = [keras.Input((6, 6, 2)), DropBlock(0.5, 2, name='dropblock', over=10), BatchNorm()]
    encoder = keras.Sequential([*layers, keras.layers.Flatten()], name='encoder')
    learner, x = R2D2(encoder, MeanClassification()), tf.constant(random_images(20, 2, 4, 6, 6, 2))
    key = tf.constant([[1, 2], [3, 4]], tf.uint32)

    def moved(step):
        training = TrainingPass(learner, key, None if step is None else tf.constant(step, tf.int64))
        learner.apply(encoder, x, training=training)
        (mean,) = (v for name, v in training.state().items() if name.endswith('moving_mean'))
        return mean.numpy()

    np.testing.assert_allclose(moved(0), 0.1 * np.mean(x, axis=(0, 1, 2, 3)), rtol=1e-4)
    np.testing.assert_array_equal(moved(None), moved(0))
    assert np.abs(moved(10) - moved(0)).max() > 1e-4
    np.testing.assert_array_equal(moved(10), moved(50))
