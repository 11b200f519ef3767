"""What exported models answer, and what they refuse.

test_conformance.py exports every algorithm's tiny learner and compares the signatures.
"""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from maml_tf.algorithms.metric.prototypical import Prototypical
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.errors import ArgumentError
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import Classification, MeanClassification
from maml_tf.objectives.regression import Regression
from maml_tf.saving.exports.export import export
from maml_tf.saving.exports.export_embedding import export_embedding

WAY = 3


def keras_encoder():
    x = inputs = keras.Input((16, 16, 1))
    for filters in (2, 3):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3, 2)(x)))
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))


def one_by_one():
    """MAML whose queries are predicted each by itself, beside the support set."""
    network = ConvNet((16, 16, 1), WAY, 4)
    return MAML(network, Classification(), inner_lr=0.1, transductive=False)


# {name: (makes a learner, the side of its images)}
LEARNERS = {
    'maml': (lambda: MAML.tiny()[0], 8),
    'one by one': (one_by_one, 16),
    'prototypical': (lambda: Prototypical.tiny()[0], 16),
    'keras encoder': (lambda: Prototypical(keras_encoder(), MeanClassification()), 16),
}


class Exported:
    """A learner and the signatures of its SavedModel."""

    def __init__(self, name, path):
        make, self.side = LEARNERS[name]
        self.learner, self.path = make(), path
        export(self.learner, path, (self.side, self.side, 1), WAY, 1, {})
        self.model = tf.saved_model.load(str(path))
        self.adapt, self.predict_query, self.serve = (
            self.model.signatures[name] for name in ('adapt', 'predict_query', 'serving_default')
        )

    def inputs(self, tasks=2, shot=2, queries=4, seed=0):
        """{'support_x', 'support_y', 'query_x'}, arrays."""
        rng = np.random.default_rng(seed)
        images = lambda n: rng.random((tasks, n, self.side, self.side, 1)).astype('float32')
        labels = np.tile(np.eye(WAY, dtype='float32').repeat(shot, 0), (tasks, 1, 1))
        return dict(support_x=images(WAY * shot), support_y=labels, query_x=images(queries))


@pytest.fixture(scope='module', params=list(LEARNERS))
def exported(request, tmp_path_factory):
    return Exported(request.param, tmp_path_factory.mktemp('export') / 'model')


def call(signature, inputs):
    return signature(**{name: tf.constant(value) for name, value in inputs.items()})


def refused(signature, inputs, words):
    """The signature raises InvalidArgumentError, whose text has these words."""
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        call(signature, inputs)


def support(inputs):
    return {name: value for name, value in inputs.items() if name != 'query_x'}


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    'transductive, kwargs',
    [
        pytest.param(True, {'max_pool': True, 'head': 'flatten'}, marks=pytest.mark.slow),
        (False, {}),
    ],
)
def test_any_number_of_tasks_shots_and_queries(tmp_path, transductive, kwargs):
    network = ConvNet((17, 17, 1), WAY, 4, **kwargs)
    learner = MAML(network, Classification(), inner_lr=0.1, transductive=transductive)
    export(learner, tmp_path / 'model', (17, 17, 1), WAY, 1, {})
    serve = tf.saved_model.load(str(tmp_path / 'model')).signatures['serving_default']
    rng = np.random.default_rng(0)
    for tasks, shot, queries in [(1, 1, 1), (3, 2, 5)]:
        images = lambda n: tf.constant(rng.random((tasks, n, 17, 17, 1), 'float32'))
        labels = np.tile(np.eye(WAY, dtype='float32').repeat(shot, 0), (tasks, 1, 1))
        inputs = dict(
            support_x=images(WAY * shot), query_x=images(queries), support_y=tf.constant(labels)
        )
        close(serve(**inputs)['outputs'], learner(inputs))


def test_what_it_answers(exported):
    inputs = exported.inputs()
    answer = call(exported.serve, inputs)
    close(answer['outputs'], exported.learner({k: tf.constant(v) for k, v in inputs.items()}))
    np.testing.assert_allclose(tf.reduce_sum(answer['probabilities'], -1), 1, rtol=1e-5)
    state = call(exported.adapt, support(inputs))
    again = exported.predict_query(query_x=tf.constant(inputs['query_x']), **state)
    close(again['outputs'], answer['outputs'])


@pytest.mark.parametrize('tasks', [1, 2])
def test_no_queries_have_no_predictions(exported, tasks):
    inputs = exported.inputs(tasks, queries=0)
    state = call(exported.adapt, support(inputs))
    query_x = tf.constant(inputs['query_x'])
    for answer in (call(exported.serve, inputs), exported.predict_query(query_x=query_x, **state)):
        for name in ('outputs', 'probabilities'):
            assert answer[name].shape == (tasks, 0, WAY)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('name', ['support_x', 'query_x'])
def test_numbers_that_are_none(exported, name, value):
    inputs = exported.inputs()
    state = call(exported.adapt, support(inputs))
    inputs[name][1, 2, 3, 4] = value
    words = f'{name}: holds NaN or infinity'
    refused(exported.serve, inputs, words)
    if name == 'query_x':
        refused(exported.predict_query, {'query_x': inputs['query_x'], **state}, words)
    else:
        refused(exported.adapt, support(inputs), words)


@pytest.mark.parametrize(
    'rows, words',
    [
        (np.zeros((6, WAY)), 'no example of a task has a class'),
        (np.full((6, WAY), 1 / WAY), 'every row is one-hot'),
        (2 * np.eye(WAY)[[0, 0, 1, 1, 2, 2]], 'every row is one-hot'),
        (np.ones((6, WAY)), 'every row is one-hot'),
        (-np.eye(WAY)[[0, 0, 1, 1, 2, 2]], 'every row is one-hot'),
        (np.full((6, WAY), np.nan), 'every row is one-hot'),
    ],
    ids=['zeros', 'shares', 'twos', 'ones', 'negative', 'nan'],
)
def test_labels_that_are_none(exported, rows, words):
    """Already where one task of two has them."""
    inputs = exported.inputs()
    inputs['support_y'][1] = rows
    refused(exported.serve, inputs, f'support_y: {words}')
    refused(exported.adapt, support(inputs), f'support_y: {words}')


def test_no_support_at_all(exported):
    refused(exported.serve, exported.inputs(shot=0), 'support_y: no example of a task has a class')


def test_examples_that_do_not_count_have_rows_of_zeros(exported):
    inputs = exported.inputs()
    inputs['support_y'][:, 1::2] = 0
    outputs = call(exported.serve, inputs)['outputs']
    assert np.isfinite(outputs).all()
    if not exported.learner.fixed_way:  # MAML's batch norm and loss see the filling.
        for name in ('support_x', 'support_y'):
            inputs[name] = inputs[name][:, ::2]
        close(call(exported.serve, inputs)['outputs'], outputs)


def test_it_can_be_compiled(exported):
    """Which takes the checks away, and nothing else."""
    inputs = exported.inputs(tasks=1)
    expected = call(exported.serve, inputs)['outputs']
    compiled = tf.function(lambda **inputs: exported.serve(**inputs), jit_compile=True)
    np.testing.assert_allclose(
        call(compiled, inputs)['outputs'],
        expected,
        rtol=0,
        atol=1e-4 * max(1e-2, np.abs(expected).max()),
    )
    assert call(compiled, exported.inputs(tasks=1, queries=0))['outputs'].shape == (1, 0, WAY)


def test_regression(tmp_path):
    """Labels are any numbers but NaN and infinity, and there are no probabilities."""
    learner = MAML(FullyConnected((1,), 1), Regression())
    export(learner, tmp_path / 'model', (1,), 1, 2, {'inputs': 'x'})
    serve = tf.saved_model.load(str(tmp_path / 'model')).signatures['serving_default']
    inputs = {'support_x': np.ones((2, 5, 1), 'float32'), 'query_x': np.ones((2, 7, 1), 'float32')}
    inputs['support_y'] = -2.5 * inputs['support_x']
    assert {name: x.shape for name, x in call(serve, inputs).items()} == {'outputs': (2, 7, 1)}
    inputs['support_y'][0, 1] = np.nan
    refused(serve, inputs, 'support_y: holds NaN')
    described = json.loads((tmp_path / 'model' / 'maml_tf.json').read_text())
    wanted = {'input_shape': [1], 'output_dim': 1, 'inner_steps': 2, 'inputs': 'x'}
    assert wanted.items() <= described.items() and described['method']['name'] == 'maml'


def test_an_export_overwrites_nothing(exported):
    before = {file: file.read_bytes() for file in exported.path.rglob('*') if file.is_file()}
    with pytest.raises(ArgumentError, match='exists'):
        export(exported.learner, exported.path, (exported.side, exported.side, 1), WAY, 1, {})
    assert {f: f.read_bytes() for f in exported.path.rglob('*') if f.is_file()} == before


def test_an_export_that_fails_leaves_nothing(exported, tmp_path):
    shape, no_json = (exported.side, exported.side, 1), {'flags': object()}
    with pytest.raises(TypeError, match='JSON'):
        export(exported.learner, tmp_path / 'model', shape, WAY, 1, no_json)
    assert not list(tmp_path.iterdir())


def test_the_embedding_alone(tmp_path):
    learner = Prototypical(keras_encoder(), MeanClassification(), transductive=True)
    export_embedding(learner, tmp_path / 'model', (16, 16, 1), {'inputs': 'images'})
    model = tf.saved_model.load(str(tmp_path / 'model'))
    serve = model.signatures['serving_default']
    images = np.random.default_rng(0).random((4, 16, 16, 1)).astype('float32')
    close(serve(images=tf.constant(images))['embeddings'], learner.encoder(images))
    refused(serve, {'images': np.full_like(images, np.inf)}, 'images: holds NaN or infinity')
    described = json.loads((tmp_path / 'model' / 'maml_tf.json').read_text())
    wanted = {'input_shape': [16, 16, 1], 'embedding_shape': [5], 'inputs': 'images'}
    assert wanted.items() <= described.items()
    with pytest.raises(ArgumentError, match='export_embedding_dir: maml has no embedding'):
        export_embedding(MAML.tiny()[0], tmp_path / 'other', (8, 8, 1))
    with pytest.raises(ArgumentError, match='exists'):
        export_embedding(learner, tmp_path / 'model', (16, 16, 1))
