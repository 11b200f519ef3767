"""Keras models as networks of MAML, against finite differences and the task-stacked networks."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.exact_normalisation import ExactNormalization
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.keras_network import KerasNetwork
from maml_tf.networks.network import Network
from maml_tf.objectives.classification import Classification

WAY, STEP = 3, tf.constant(0, tf.int64)


@pytest.fixture(autouse=True)
def from_one_seed(float64):
    """Makes every test's models in float64, from the same weights."""
    keras.utils.set_random_seed(0)


def mlp():
    return keras.Sequential(
        [keras.Input((5,)), layers.Dense(6, 'tanh'), layers.Dropout(0.5), layers.Dense(WAY)]
    )


def cnn(filters=(3, 4)):
    """One normalisation in the graph itself, one in a model inside the model."""
    first = [layers.Conv2D(filters[0], 3, 2, 'same'), layers.BatchNormalization(), layers.ReLU()]
    x = inputs = keras.Input((7, 7, 2))
    for layer in first:
        x = layer(x)
    x = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            layers.Conv2D(filters[1], 3, 2, 'same'),
            layers.BatchNormalization(center=False),
            layers.ReLU(),
        ]
    )(x)
    return keras.Model(inputs, layers.Dense(WAY)(layers.GlobalAveragePooling2D()(x)))


def lstm():
    return keras.Sequential([keras.Input((4, 2)), layers.LSTM(3), layers.Dense(WAY)])


def normalised():
    """Layer normalisation over several axes, group normalisation over another than the last."""
    return keras.Sequential(
        [
            keras.Input((4, 6)),
            layers.Dense(6, 'tanh'),
            layers.LayerNormalization(axis=[1, 2]),
            layers.GroupNormalization(groups=2, axis=1),
            layers.GroupNormalization(groups=3),
            layers.Flatten(),
            layers.LayerNormalization(),
            layers.Dense(WAY),
        ]
    )


MODELS = {'mlp': mlp, 'cnn': cnn, 'lstm': lstm, 'layer and group norm': normalised}


def random_task(shape, tasks=2):
    rng = np.random.default_rng(1)
    x = lambda k: tf.constant(rng.normal(size=(tasks, WAY * k, *shape)))
    y = lambda k: tf.constant(np.tile(np.repeat(np.eye(WAY), k, axis=0), (tasks, 1, 1)))
    return Task(x(2), y(2), x(3), y(3))


def learner_of(network, inner_steps=2):
    return MAML(network, Classification(), inner_lr=0.05, inner_steps=inner_steps, dtype='float64')


def shaken(model):
    """The model, its weights moved: zero offsets would sit on ReLU's kink, scales of one hide a
    missing scale."""
    rng = np.random.default_rng(2)
    for variable in model.trainable_variables:
        variable.assign(variable + rng.normal(size=variable.shape) * 0.3)
    return model


def graph(function, **kwargs):
    return tf.function(function, autograph=False, **kwargs)


def meta_gradients(learner, task, **kwargs):
    return [g.numpy() for g in graph(learner.meta_gradients, **kwargs)(task, STEP).gradients]


def assert_close(actual, expected, tolerance=1e-9):
    """Lists of arrays agree to `tolerance` of the largest entry."""
    scale = max(np.abs(e).max() for e in expected)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * scale)


def assert_finite_differences(learner, task, moves, epsilon=1e-6):
    """Along one random direction per entry of `moves`, each a list of places of the variables that
    it moves."""
    gradients, loss = (
        meta_gradients(learner, task),
        graph(lambda: learner.meta_loss(task, STEP).value),
    )
    variables, rng = learner.trainable_variables, np.random.default_rng(3)
    scale = max(np.abs(g).max() for g in gradients)
    for moved in moves:
        start = {i: variables[i].numpy() for i in moved}
        direction = {i: rng.normal(size=value.shape) for i, value in start.items()}
        norm = np.sqrt(sum(np.sum(step**2) for step in direction.values()))
        ends = []
        for sign in (1, -1):
            for i in moved:
                variables[i].assign(start[i] + sign * epsilon * direction[i] / norm)
            ends.append(float(loss()))
        for i in moved:
            variables[i].assign(start[i])
        difference = (ends[0] - ends[1]) / (2 * epsilon)
        along = sum(np.sum(step * gradients[i]) for i, step in direction.items()) / norm
        assert abs(difference - along) < 1e-6 * scale, [variables[i].name for i in moved]


@pytest.mark.slow
@pytest.mark.parametrize('model', MODELS)
def test_meta_gradient_agrees_with_finite_differences(model):
    model = shaken(MODELS[model]())
    learner = learner_of(KerasNetwork(model))
    assert_finite_differences(
        learner,
        random_task(model.input_shape[1:]),
        [[i] for i in range(len(learner.trainable_variables))],
    )


@pytest.mark.slow
def test_meta_gradient_of_a_keras_application():
    model = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, weights=None, classes=WAY, classifier_activation=None
    )
    learner = learner_of(KerasNetwork(model), inner_steps=1)
    everything = range(len(learner.trainable_variables))
    # Batch norm upon batch norm makes a rugged loss: steps of 1e-6 cross the kinks of ReLU.
    assert_finite_differences(learner, random_task((32, 32, 3)), [everything] * 3, epsilon=1e-8)


@pytest.mark.parametrize(
    'model, unroll_tasks',
    [
        ('mlp', True),
        pytest.param('cnn', False, marks=pytest.mark.slow),
        pytest.param('lstm', True, marks=pytest.mark.slow),
    ],
)
def test_compiled_equals_uncompiled(model, unroll_tasks):
    model = MODELS[model]()
    learner = learner_of(KerasNetwork(model, unroll_tasks=unroll_tasks), inner_steps=1)
    task = random_task(model.input_shape[1:])
    assert_close(meta_gradients(learner, task, jit_compile=True), meta_gradients(learner, task))
    outputs = graph(learner.query_outputs, jit_compile=True)(task, steps=3)
    assert outputs.shape == (4, 2, 3 * WAY, WAY)
    assert_close(outputs, graph(learner.query_outputs)(task, steps=3))


@pytest.mark.slow
def test_tasks_do_not_touch_each_other():
    """Nor does it matter whether they are unrolled or run in a loop in the graph."""
    model, task = cnn(), random_task((7, 7, 2), tasks=3)
    unrolled, looped = (
        learner_of(KerasNetwork(model, unroll_tasks=unroll), inner_steps=1)
        for unroll in (True, False)
    )
    one_task = graph(unrolled.meta_gradients)
    alone = [task.map(lambda part: part[t : t + 1]) for t in range(3)]
    one_by_one = [one_task(task, STEP).gradients for task in alone]
    expected = [np.mean(gradients, axis=0) for gradients in zip(*one_by_one)]
    assert_close(meta_gradients(unrolled, task), expected)
    assert_close(meta_gradients(looped, task), expected)


def keras_fully_connected():
    return keras.Sequential(
        [
            keras.Input((2, 3)),
            layers.Flatten(),
            layers.Dense(7, 'relu'),
            layers.Dense(6, 'relu'),
            layers.Dense(WAY),
        ]
    )


def keras_conv_net():
    blocks = [
        layer
        for _ in range(4)
        for layer in (
            layers.Conv2D(3, 3, 2, 'same'),
            layers.BatchNormalization(scale=False),
            layers.ReLU(),
        )
    ]
    return keras.Sequential(
        [keras.Input((9, 9, 2)), *blocks, layers.GlobalAveragePooling2D(), layers.Dense(WAY)]
    )


STACKED_NAMES = {
    keras_fully_connected: ['w1', 'b1', 'w2', 'b2', 'w3', 'b3'],
    keras_conv_net: [
        name for i in range(4) for name in (f'conv{i + 1}', f'b{i + 1}', f'norm{i}_beta')
    ]
    + ['w5', 'b5'],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    'model, stacked',
    [
        (keras_fully_connected, FullyConnected((2, 3), WAY, (7, 6))),
        (keras_conv_net, ConvNet((9, 9, 2), WAY, 3)),
    ],
)
def test_same_meta_gradient_as_the_task_stacked_network(model, stacked):
    names, model = STACKED_NAMES[model], shaken(model())
    from_keras, expected = learner_of(KerasNetwork(model)), learner_of(stacked)
    for name, variable in zip(names, model.trainable_variables, strict=True):
        expected.meta_weights[name].assign(variable)
    task = random_task(model.input_shape[1:])
    gradients = dict(
        zip((v.name for v in expected.trainable_variables), meta_gradients(expected, task))
    )
    assert_close(meta_gradients(from_keras, task), [gradients[name] for name in names])
    adapted = [from_keras.network.adapted(name) for name in from_keras.meta_weights]
    assert adapted == [stacked.adapted(name) for name in names]


def test_meta_learning_leaves_the_model_as_it_was():
    model = shaken(cnn())
    before, config, task = model.get_weights(), model.get_config(), random_task((7, 7, 2))
    outputs = model(task.support_x[0], training=False)
    learner = learner_of(KerasNetwork(model))
    for meta_weight, weight in zip(
        learner.trainable_variables, model.trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(meta_weight, weight)
    gradients = learner.meta_gradients(task, STEP).gradients
    keras.optimizers.SGD(1.0).apply(gradients, learner.trainable_variables)
    assert np.abs(learner.trainable_variables[0] - before[0]).max() > 1e-3
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)
    np.testing.assert_array_equal(model(task.support_x[0], training=False), outputs)
    assert model.get_config() == config


def test_compiled_model_is_accepted():
    """With a loss that Keras could not serialise into a copy."""
    model = cnn()
    model.compile(loss=lambda targets, outputs: keras.ops.mean(targets - outputs))
    assert model.compiled and not KerasNetwork(model).model.compiled


def test_frozen_batch_normalization_keeps_its_moving_statistics():
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(WAY)]
    )
    norm = model.layers[1]
    norm.set_weights(
        np.array(
            [[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 0.0, 1.0], [1.0, 2.0, 1.0, 2.0], [2.0, 1.0, 2.0, 1.0]]
        )
    )
    x = random_task((5,)).support_x
    batch = KerasNetwork(model)
    norm.trainable = False
    frozen = KerasNetwork(model)
    expected = tf.stack([model(x[t], training=False) for t in range(2)])
    np.testing.assert_allclose(frozen.forward(x, frozen.construct_weights(0)), expected, rtol=1e-12)
    assert np.abs(batch.forward(x, batch.construct_weights(0)) - expected).max() > 0.1


@pytest.mark.parametrize('model', [cnn, lstm, normalised])
def test_numbers_of_tasks_and_examples_may_be_unknown(model):
    """As in an exported model's signature."""
    model = model()
    learner, task = learner_of(KerasNetwork(model)), random_task(model.input_shape[1:])
    unknown = [tf.TensorSpec([None, None, *part.shape[2:]], part.dtype) for part in task[:4]]
    outputs = graph(lambda *parts: learner.query_outputs(Task(*parts)), input_signature=unknown)(
        *task[:4]
    )
    assert_close(outputs, learner.query_outputs(task))


class Subclassed(keras.Model):
    """Its `call` takes no `training`."""

    def __init__(self, norm):
        super().__init__()
        self.hidden, self.norm, self.out = layers.Dense(4, 'tanh'), norm, layers.Dense(WAY)

    def call(self, x):
        return self.out(self.norm(self.hidden(x)))


def built(model):
    model(np.zeros((1, 5)))
    return model


def test_subclassed_model_that_wraps_its_normalization():
    model = shaken(built(Subclassed(ExactNormalization(layers.BatchNormalization()))))
    learner = learner_of(KerasNetwork(model))
    assert_finite_differences(
        learner, random_task((5,)), [[i] for i in range(len(learner.trainable_variables))]
    )
    assert [learner.network.adapted(name) for name in learner.meta_weights].count(False) == 2


@pytest.mark.parametrize(
    'model, shapes',
    [
        (mlp, ((5,), WAY)),
        (cnn, ((7, 7, 2), WAY)),
        (lstm, ((4, 2), WAY)),
        (lambda: built(Subclassed(layers.Activation('relu'))), ((5,), WAY)),
        (lambda: built(keras.Sequential([layers.Dense(4)])), ((5,), 4)),
    ],
)
def test_the_sizes_are_the_models(model, shapes):
    network = KerasNetwork(model())
    assert isinstance(network, Network) and not network.light and network.norm == 'batch_norm'
    assert (network.input_shape, network.output_dim) == shapes


def normalised_at_last():
    return keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.BatchNormalization()])


def nested():
    """Its last layer stands in a model inside the model."""
    x = inputs = keras.Input((5,))
    head = keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.Dense(WAY, name='head')])
    return keras.Model(inputs, layers.Softmax()(head(layers.Dense(4)(x))))


@pytest.mark.parametrize(
    'model, head',
    [
        (mlp, ['w2_dense_kernel', 'w3_dense_bias']),
        (cnn, ['w7_dense_kernel', 'w8_dense_bias']),
        (lstm, ['w3_dense_kernel', 'w4_dense_bias']),
        (nested, ['w4_head_kernel', 'w5_head_bias']),
        (normalised_at_last, ['w0_dense_kernel', 'w1_dense_bias']),
        (lambda: built(Subclassed(layers.Dense(4))), ['w4_dense_kernel', 'w5_dense_bias']),
    ],
)
def test_the_head_is_the_last_layer_with_weights(model, head):
    """By names that do not depend on what else the process has made."""
    network = KerasNetwork(model())
    assert [name for name in network.construct_weights(0) if network.is_head(name)] == head


@keras.saving.register_keras_serializable('tests')
def is_first(name):
    return name.startswith('w0_')


def test_predicates_may_be_given():
    network = KerasNetwork(mlp(), adapted=is_first, is_head=is_first)
    names = list(network.construct_weights(0))
    for says in (network.adapted, network.is_head):
        assert [name for name in names if says(name)] == names[:1]


@pytest.mark.parametrize('predicate', [None, is_first])
def test_saved_and_made_again(predicate):
    network = KerasNetwork(cnn(), predicate, unroll_tasks=False, is_head=predicate)
    saved = json.dumps(keras.saving.serialize_keras_object(network))
    again = keras.saving.deserialize_keras_object(json.loads(saved))
    weights, x = network.construct_weights(0), random_task((7, 7, 2)).support_x
    assert list(again.construct_weights(0)) == list(weights) and not again.unroll_tasks
    assert all(again.is_head(name) == network.is_head(name) for name in weights)
    assert all(again.adapted(name) == network.adapted(name) for name in weights)
    np.testing.assert_allclose(again.forward(x, weights), network.forward(x, weights))


@pytest.mark.parametrize(
    'model, message',
    [
        (lambda: keras.Sequential([layers.Dense(WAY)]), 'not built'),
        (lambda: keras.Model(*[[keras.Input((2,)), keras.Input((2,))]] * 2), '2 inputs'),
        (lambda: built(Subclassed(layers.BatchNormalization())), 'wrap it'),
    ],
    ids=['unbuilt', 'two inputs', 'normalisation'],
)
def test_refused(model, message):
    with pytest.raises(ArgumentError, match=message) as error:
        KerasNetwork(model())
    assert error.value.argument == 'model' and '\n' not in str(error.value)


class Sum(keras.Model):
    """A subclassed model of two tensors."""

    def call(self, inputs):
        return inputs[0] + inputs[1]


def test_a_subclassed_model_of_two_inputs_is_refused():
    model = Sum()
    model([np.zeros((1, 5)), np.zeros((1, 5))])
    with pytest.raises(ArgumentError, match='several inputs'):
        KerasNetwork(model)
