"""Objects that Keras writes and makes again from what they were made with."""

import copy
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from command import ROOT
from keras import layers

from maml_tf.algorithms.metric.prototypical import Prototypical
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.objectives.classification import MeanClassification
from maml_tf.serialisation.configuration import Configured


class Hinge(Configured):
    """An object without a constructor."""


class Sizes(Configured):
    def __init__(self, sizes, dtype=None, *, scale=1.0, hinge=None, **others):
        self.sizes, self.dtype, self.scale, self.hinge, self.others = (
            sizes,
            dtype,
            scale,
            hinge,
            others,
        )


class Holder(Configured):
    """No layer itself, it holds a model that has weights beyond those of whoever holds it."""

    def __init__(self, model):
        self.model = model


class Model(Configured, keras.Model):
    def __init__(self, holder, sizes, part=None, **kwargs):
        super().__init__(**kwargs)
        self.holder, self.part = holder, part
        self.weight = self.add_weight(shape=sizes, initializer='random_normal', name='weight')
        self.built = True

    def call(self, x):
        x = x * self.weight + self.holder.model(x, training=False)
        return self.part(x) if self.part else x


class Scale(Configured, layers.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return x * self.factor


def again(configured):
    """What is made of the object's JSON."""
    text = json.dumps(keras.saving.serialize_keras_object(configured))
    return keras.saving.deserialize_keras_object(json.loads(text))


def test_arguments_come_back_as_they_were():
    hinge = Hinge()
    made = Sizes((3, (4, 5)), tf.bfloat16, scale=0.1, hinge=hinge, more=[1, (2,)], none=None)
    copied = again(made)
    assert type(copied) is Sizes and type(copied.hinge) is Hinge and copied.hinge is not hinge
    assert copied.sizes == (3, (4, 5)) and copied.dtype is tf.bfloat16 and copied.scale == 0.1
    assert copied.others == {'more': [1, (2,)], 'none': None}
    assert again(copied).get_config() == made.get_config()


@pytest.mark.parametrize('value', [1, 1.5, True, 'text', None, [], (), {'a': {'b': (1,)}}])
def test_values(value):
    found = again(Sizes(value)).sizes
    assert found == value and type(found) is type(value)


def test_numbers_of_numpy_and_arrays():
    made = again(Sizes(np.float32(0.5), np.array([[1.5, 2.0]])))
    assert made.sizes == 0.5
    np.testing.assert_array_equal(made.dtype, [[1.5, 2.0]])


def test_what_keras_serialises():
    found = again(Sizes(keras.initializers.RandomUniform(-0.5, 0.5, seed=3))).sizes
    assert isinstance(found, keras.initializers.RandomUniform) and found.maxval == 0.5


def test_what_nobody_can_serialise():
    with pytest.raises(TypeError, match='object'):
        Sizes(object()).get_config()


def test_a_wrong_call_is_the_constructor_s_error():
    with pytest.raises(TypeError, match='sizes'):
        Sizes()


def test_arguments_without_a_name_are_refused():
    class Many(Configured):
        def __init__(self, *many):
            pass

    assert Many().get_config() == {}
    with pytest.raises(TypeError, match=r'\*many'):
        Many(1, 2)


def test_copies():
    made = Sizes((1, 2), scale=2.0)
    for copied in (copy.copy(made), copy.deepcopy(made)):
        assert copied.sizes == (1, 2) and again(copied).scale == 2.0


def encoder():
    """Its batch norm is frozen and its running averages are not what they start from."""
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4), layers.BatchNormalization(trainable=False)]
    )
    model.layers[-1].moving_mean.assign([1.0, 2.0, 3.0, 4.0])
    model.compile(loss=lambda targets, outputs: keras.ops.mean(targets - outputs))
    return model


def test_the_arguments_are_no_part_of_a_model():
    model = Model(Holder(encoder()), (4,), dtype='float64')
    assert [v.path for v in model.variables] == ['model/weight']
    assert model.layers == [] and model.dtype == 'float64'


def test_a_model_and_what_hangs_on_it(tmp_path):
    """The weights of a model inside an argument that is no layer are saved, too."""
    model = Model(Holder(encoder()), (4,), part=layers.Dense(2), name='mine')
    x = np.random.default_rng(0).normal(size=(3, 4)).astype('float32')
    outputs = model(x)
    model.save(tmp_path / 'model.keras')
    loaded = keras.models.load_model(tmp_path / 'model.keras')
    assert type(loaded) is Model and type(loaded.holder) is Holder and loaded.name == 'mine'
    np.testing.assert_array_equal(loaded(x), outputs)
    assert not loaded.holder.model.compiled
    loaded.weight.assign_add([1.0, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(model(x), outputs)


def test_a_layer_in_a_functional_model(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Scale(3.0)(Scale(2.0, dtype='float64')(inputs)))
    model.save(tmp_path / 'model.keras')
    loaded = keras.models.load_model(tmp_path / 'model.keras')
    np.testing.assert_array_equal(loaded(np.ones((1, 4))), [[6.0] * 4])
    assert [layer.factor for layer in loaded.layers[1:]] == [2.0, 3.0]
    assert [layer.dtype for layer in loaded.layers[1:]] == ['float64', 'float32']


def keras_encoder():
    inputs = keras.Input((16, 16, 1))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3, 2)(inputs))
    return keras.Model(inputs, layers.Flatten()(layers.Conv2D(4, 3, 2)(x)))


LEARNERS = {
    'maml': lambda: MAML.tiny()[0],
    'prototypical': lambda: Prototypical.tiny()[0],
    'keras_encoder': lambda: Prototypical(keras_encoder(), MeanClassification(), 'cosine'),
}
ANOTHER_PROCESS = """
import sys, keras, numpy as np
import maml_tf.algorithms.optimisation.maml, maml_tf.algorithms.metric.prototypical
for name in sys.argv[2:]:
    learner = keras.models.load_model(f'{sys.argv[1]}/{name}.keras')
    inputs = dict(np.load(f'{sys.argv[1]}/{name}.npz'))
    np.save(f'{sys.argv[1]}/{name}.npy', learner(inputs))
"""


def test_learners_in_another_process(tmp_path):
    """Outputs are the same bit by bit, after training has moved all variables."""
    rng, expected = np.random.default_rng(0), {}
    for name, make in LEARNERS.items():
        learner = make()
        for variable in learner.variables:
            variable.assign_add(tf.cast(rng.random(variable.shape), variable.dtype))
        side = 8 if name == 'maml' else 16
        images = lambda n: rng.random((2, n, side, side, 1)).astype('float32')
        support_y = np.tile(np.eye(3, dtype='float32').repeat(2, 0), (2, 1, 1))
        inputs = {'support_x': images(6), 'support_y': support_y, 'query_x': images(4)}
        expected[name] = learner({key: tf.constant(value) for key, value in inputs.items()})
        np.savez(tmp_path / name, **inputs)
        learner.save(tmp_path / f'{name}.keras')
    subprocess.run(
        [sys.executable, '-c', ANOTHER_PROCESS, str(tmp_path), *LEARNERS],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name, outputs in expected.items():
        assert np.abs(outputs).max() > 0
        np.testing.assert_array_equal(np.load(tmp_path / f'{name}.npy'), outputs)
