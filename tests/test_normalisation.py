"""Keras' normalisation layers, run so that they can be differentiated twice."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from maml_tf.errors import ArgumentError
from maml_tf.networks.exact_normalisation import ExactNormalization, with_exact_normalisation

RNG = np.random.default_rng(0)
NORMS = {
    'batch': lambda: layers.BatchNormalization(dtype='float64'),
    'batch, another axis': lambda: layers.BatchNormalization(axis=1, dtype='float64'),
    'layer': lambda: layers.LayerNormalization(dtype='float64'),
    'layer, two axes': lambda: layers.LayerNormalization(axis=[1, -1], dtype='float64'),
    'group': lambda: layers.GroupNormalization(3, dtype='float64'),
    'group, another axis': lambda: layers.GroupNormalization(
        2, axis=1, scale=False, dtype='float64'
    ),
}


def exact(norm):
    """The wrapped layer, with weights that are not those it starts from."""
    wrapped = ExactNormalization(norm, dtype='float64')
    wrapped.build((6, 4, 6))
    for variable in wrapped.trainable_variables:
        variable.assign(variable + 0.3 * RNG.normal(size=variable.shape))
    return wrapped


@pytest.mark.parametrize('norm', NORMS)
def test_values_are_those_of_keras(norm):
    norm, x = NORMS[norm](), tf.constant(RNG.normal(size=(6, 4, 6)))
    wrapped = exact(norm)
    batch = isinstance(norm, layers.BatchNormalization)
    expected = norm(x, training=True) if batch else norm(x)
    np.testing.assert_allclose(wrapped(x), expected, rtol=1e-9)
    np.testing.assert_allclose(wrapped(x, training=True), wrapped(x), rtol=1e-12)


@pytest.mark.parametrize('norm', NORMS)
def test_second_derivatives_agree_with_finite_differences(norm):
    wrapped = exact(NORMS[norm]())
    x, upstream, way = (RNG.normal(size=(6, 4, 6)) for _ in range(3))

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(tf.sin(wrapped(x)))
        return tf.reduce_sum(tape.gradient(value, x) * upstream)

    step, x = 1e-6, tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = gradient(x)
    slope = tf.reduce_sum(tape.gradient(value, x) * way)
    difference = gradient(x + step * way) - gradient(x - step * way)
    np.testing.assert_allclose(difference / (2 * step), slope, rtol=1e-6)


def test_masked_steps_do_not_enter_batch_statistics():
    norm, x = NORMS['batch'](), tf.constant(RNG.normal(size=(6, 4, 6)))
    mask = tf.constant([[True, True, False, False], [True, True, True, False]] * 3)
    wrapped = exact(norm)
    np.testing.assert_allclose(wrapped(x, mask=mask), norm(x, training=True, mask=mask), rtol=1e-5)


def test_saved_and_made_again():
    wrapped = ExactNormalization(layers.GroupNormalization(3, epsilon=0.1), name='norm')
    saved = json.dumps(keras.saving.serialize_keras_object(wrapped))
    again = keras.saving.deserialize_keras_object(json.loads(saved))
    assert (again.name, again.layer.groups, again.layer.epsilon) == ('norm', 3, 0.1)


def test_a_model_shares_its_variables_with_the_one_whose_layers_are_wrapped():
    inner = keras.Sequential([keras.Input((4,)), layers.LayerNormalization()])
    inputs = keras.Input((3,))
    outputs = inner(layers.BatchNormalization()(layers.Dense(4)(inputs)))
    model = keras.Model(inputs, outputs)
    wrapped = with_exact_normalisation(model)
    kinds = [type(layer) for layer in wrapped._flatten_layers()]
    assert kinds.count(ExactNormalization) == 2
    for ours, theirs in zip(wrapped.variables, model.variables, strict=True):
        assert ours is theirs


@pytest.mark.parametrize(
    'layer',
    [
        lambda: layers.BatchNormalization(trainable=False),
        lambda: ExactNormalization(layers.BatchNormalization()),
        lambda: layers.RMSNormalization(),
        lambda: layers.Dense(4),
    ],
    ids=['frozen', 'wrapped', 'no mean', 'dense'],
)
def test_what_is_exact_stays_as_it_is(layer):
    model = keras.Sequential([keras.Input((4,)), layer()])
    assert with_exact_normalisation(model) is model


class Subclassed(keras.Model):
    """A model without a graph, in which no layer can be replaced."""

    def __init__(self, norm):
        super().__init__()
        self.hidden, self.norm = layers.Dense(4), norm

    def call(self, x):
        return self.norm(self.hidden(x))


class OwnBatchNormalization(layers.BatchNormalization):
    """A subclass, which may compute something else."""


def built(model):
    model(np.zeros((1, 5)))
    return model


@pytest.mark.parametrize(
    'model, message',
    [
        (lambda: built(Subclassed(layers.BatchNormalization())), 'wrap it'),
        (lambda: built(keras.Sequential([Subclassed(layers.LayerNormalization())])), 'wrap it'),
        (
            lambda: built(keras.Sequential([layers.Dense(3), OwnBatchNormalization()])),
            'OwnBatchNormalization',
        ),
        (
            lambda: keras.Sequential(
                [keras.Input((4, 5)), layers.TimeDistributed(layers.BatchNormalization())]
            ),
            'wrap it in maml_tf.networks.exact_normalisation.ExactNormalization',
        ),
    ],
    ids=['subclassed model', 'subclassed inside', 'subclassed layer', 'time distributed'],
)
def test_what_cannot_be_replaced_is_refused(model, message):
    with pytest.raises(ArgumentError, match=message) as error:
        with_exact_normalisation(model())
    assert error.value.argument == 'model' and '\n' not in str(error.value)


def test_a_subclassed_model_may_wrap_its_own():
    model = built(Subclassed(ExactNormalization(layers.BatchNormalization())))
    assert with_exact_normalisation(model) is model
