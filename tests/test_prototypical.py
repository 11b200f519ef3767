"""Prototypical Networks and what metric learners share: against NumPy, finite differences, and
Keras."""

import json
import types

import keras
import metric_oracle as oracle
import numpy as np
import pytest
import tensorflow as tf
from precision import float64

from maml_tf.algorithms.metric.prototypical import COSINE_SCALE, Prototypical
from maml_tf.algorithms.metric.zero_shot import ZeroShotPrototypical
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError, UserError
from maml_tf.evaluation import embedding_plots
from maml_tf.networks.encoders import BatchNorm, conv4
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.regression import Regression
from maml_tf.saving.exports.export_embedding import export_embedding

WAY, SIDE = 3, 16
STEP = tf.constant(0, tf.int64)
# Of the support examples, -1 for filling.
CLASSES = {'all': [0, 2, 1, 1, 2], 'filling': [0, -1, 1, -1, 2], 'absent': [2, -1, 0, 0, -1]}


def one_hot(classes, way=WAY):
    """Class numbers, -1 for filling -> float32 labels."""
    return np.where(np.arange(way) == np.asarray(classes)[..., None], np.float32(1), np.float32(0))


def random_task(rng, dtype=np.float32, tasks=2):
    images = lambda n: tf.constant(rng.random((tasks, n, SIDE, SIDE, 1)).astype(dtype))
    labels = lambda classes: tf.constant(np.tile(one_hot(classes), (tasks, 1, 1)).astype(dtype))
    return Task(images(5), labels([0, 2, 1, 1, 2]), images(4), labels([2, 0, 1, 1]))


def assign_state(learner, task):
    """Assigns what training on a task leaves behind, as the training op does; returns it."""
    state = learner.meta_loss(task, STEP).state
    for name, value in state.items():
        learner.named_variables()[name].assign(value)
    return state


@pytest.fixture(scope='module')
def learner():
    keras.utils.set_random_seed(0)
    return Prototypical(conv4((SIDE, SIDE, 1), 8), MeanClassification())


@pytest.mark.parametrize('distance', ['euclidean', 'cosine'])
@pytest.mark.parametrize('classes', CLASSES.values(), ids=CLASSES)
def test_outputs_and_loss_against_numpy(learner, distance, classes):
    """Labels in any order, with filling among them, and with a class that has no support."""
    rng, learner.distance = np.random.default_rng(1), distance
    support, queries = (rng.normal(size=(n, 6)).astype(np.float32) for n in (5, 4))
    labels, query_labels = (
        one_hot(classes),
        one_hot([2, 0, 0, 2] if 1 not in classes else [2, 0, 1, -1]),
    )
    state = learner.summarise(support[None], labels[None])
    outputs = learner.compare(state, queries[None]).numpy()[0]
    there = sorted(set(classes) - {-1})
    centres = oracle.prototypes(support, labels[:, there])
    expected = (
        oracle.squared_euclidean_logits(queries, centres)
        if distance == 'euclidean'
        else oracle.cosine_logits(queries, centres, COSINE_SCALE)
    )
    np.testing.assert_allclose(outputs[:, there], expected, rtol=1e-4, atol=1e-5)
    assert (np.delete(outputs, there, axis=1) < -1e8).all()
    mask = query_labels.max(-1)
    loss = learner.objective.loss(query_labels[None], outputs[None], 1, mask[None])
    np.testing.assert_allclose(loss[0], oracle.nll(expected, query_labels[:, there]), rtol=1e-5)
    accuracy = learner.objective.score(query_labels[None], outputs[None], 1, mask[None])
    assert float(accuracy[0]) == pytest.approx(oracle.accuracy(expected, query_labels[:, there]))


def numpy_encoder(learner, images):
    """The encoder in evaluation, layer by layer."""
    variables = learner.named_variables()
    x, values = images, {name: np.array(value) for name, value in variables.items()}
    for block in '1234':
        x = oracle.conv2d_same(
            x, *(values[f'encoder_conv{block}_{name}'] for name in ('kernel', 'bias'))
        )
        norm = [
            values[f'encoder_norm{block}_{name}']
            for name in ('moving_mean', 'moving_variance', 'gamma', 'beta')
        ]
        # The paper's order; the encoder's, pooling before ReLU, is to be the same.
        x = oracle.max_pool2x2(np.maximum(oracle.batch_norm_running(x, *norm, epsilon=1e-5), 0))
    return x.reshape(len(x), -1)


def test_whole_learner_against_numpy(learner):
    """From pixels to outputs, after training has moved the running averages."""
    rng, learner.distance = np.random.default_rng(2), 'euclidean'
    assign_state(learner, random_task(rng))
    task = random_task(rng)
    outputs = learner.query_outputs(task)[0].numpy()
    for i in range(2):
        support, queries = (
            numpy_encoder(learner, x[i].numpy()) for x in (task.support_x, task.query_x)
        )
        centres = oracle.prototypes(support, task.support_y[i].numpy())
        np.testing.assert_allclose(
            outputs[i], oracle.squared_euclidean_logits(queries, centres), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize('tasks', [1, 2])
@pytest.mark.parametrize('distance', ['euclidean', 'cosine'])
def test_gradient_agrees_with_finite_differences(tasks, distance):
    keras.utils.set_random_seed(0)
    with float64():
        learner = Prototypical(conv4((SIDE, SIDE, 1), 4), MeanClassification(), distance)
        check_gradient(learner, random_task(np.random.default_rng(3), np.float64, tasks))


def check_gradient(learner, task, probes=2, step=1e-6):
    """Some entries of every variable's gradient against central differences of the meta-loss, in
    float64."""
    rng = np.random.default_rng(0)
    gradients = learner.meta_gradients(task, STEP).gradients
    loss = tf.function(lambda: learner.meta_loss(task, STEP).value, autograph=False)
    for variable, gradient in zip(learner.trainable_variables, gradients):
        value, gradient = np.array(variable), np.array(gradient)
        for place in rng.integers(0, value.size, probes):
            direction = np.zeros(value.size)
            direction[place] = step
            direction = direction.reshape(value.shape)
            ends = []
            for sign in (1, -1):
                variable.assign(value + sign * direction)
                ends.append(float(loss()))
            variable.assign(value)
            difference = (ends[0] - ends[1]) / (2 * step)
            assert gradient.flat[place] == pytest.approx(difference, rel=1e-4, abs=1e-7), (
                variable.path
            )


def test_batch_norm_equals_kerass_and_pytorchs_averages():
    """Outputs and gradients as Keras' layer, the averages of the unbiased variance; float64 as
    float32."""
    rng = np.random.default_rng(4)
    x, weights = rng.normal(2, 3, (4, 3, 5, 6)), rng.normal(size=(4, 3, 5, 6))
    gamma, beta = rng.normal(size=(2, 6))
    results = []
    for layer, dtype in (
        (keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5), 'float32'),
        (BatchNorm(), 'float32'),
        (BatchNorm(dtype='float64'), 'float64'),
    ):
        layer.build(x.shape)
        layer.gamma.assign(gamma)
        layer.beta.assign(beta)
        inputs = tf.constant(x, dtype)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(outputs * tf.constant(weights, dtype))
        gradients = tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])
        averages = [np.array(layer.moving_mean), np.array(layer.moving_variance)]
        results.append([outputs, *gradients, *averages, layer(inputs, training=False)])
    for keras_s, ours, exact in list(zip(*results))[:5]:
        np.testing.assert_allclose(ours, keras_s, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-5)
    for ours in results[1:]:
        np.testing.assert_allclose(ours[5], 0.9 + 0.1 * x.var((0, 1, 2), ddof=1), rtol=1e-5)
        expected = oracle.batch_norm_running(x, ours[4], ours[5], gamma, beta, epsilon=1e-5)
        np.testing.assert_allclose(ours[6], expected, rtol=1e-4, atol=1e-5)


def test_running_averages_are_those_that_keras_would_assign(learner):
    """Of one task: the encoder in training mode, on its support set and its queries together."""
    task = random_task(np.random.default_rng(5), tasks=1)
    names = [name for name in learner.named_variables() if 'moving' in name]
    before = {name: np.array(learner.named_variables()[name]) for name in names}
    state = learner.meta_loss(task, STEP).state
    assert sorted(state) == sorted(names) and len(names) == 8
    for name, old in before.items():
        np.testing.assert_array_equal(learner.named_variables()[name], old)
        assert np.abs(state[name] - old).max() > 1e-4
    learner.encoder(tf.concat([task.support_x[0], task.query_x[0]], 0), training=True)
    for name in names:
        np.testing.assert_allclose(state[name], learner.named_variables()[name], rtol=1e-5)


@pytest.mark.parametrize('masked', [False, True])
def test_a_meta_batch_moves_running_averages_by_the_mean_of_its_tasks(learner, masked):
    task = random_task(np.random.default_rng(6), tasks=3)
    if masked:  # Other examples count in each task.
        masks = np.ones((3, 9), np.float32)
        masks[[0, 1, 2], [1, 4, 7]] = 0
        support_y, query_y = task.support_y * masks[:, :5, None], task.query_y * masks[:, 5:, None]
        task = Task(task.support_x, support_y, task.query_x, query_y, masks[:, :5], masks[:, 5:])
    together = learner.meta_loss(task, STEP).state
    alone = [learner.meta_loss(task.map(lambda x: x[i : i + 1]), STEP).state for i in range(3)]
    for name, value in together.items():
        values = [state[name] for state in alone]
        np.testing.assert_allclose(value, np.mean(values, axis=0), rtol=1e-5)
        assert np.ptp(values, axis=0).max() > 1e-6


def test_transductive_batch_norm_sees_the_other_queries(learner):
    task = random_task(np.random.default_rng(6))
    learner.transductive = True
    try:
        state = learner.adapt(task.support_x, task.support_y)
        alone = learner.predict_query(state, task.query_x[:, :2])
        assert np.abs(alone - learner.predict_query(state, task.query_x)[:, :2]).max() > 1e-3
    finally:
        learner.transductive = False


def test_parameters_of_the_published_encoder():
    """Protocol: 111,936 trainable weights with one channel, 113,088 with three; 64 and 1600
    features."""
    for shape, weights, features in (((28, 28, 1), 111936, 64), ((84, 84, 3), 113088, 1600)):
        encoder = conv4(shape)
        assert sum(v.shape.num_elements() for v in encoder.trainable_variables) == weights
        assert encoder.output_shape == (None, features)


def test_regression_is_refused():
    flags = types.SimpleNamespace(algorithm='prototypical', datasource='sinusoid', num_filters=8)
    problem = types.SimpleNamespace(input_shape=(1,), objective=Regression())
    with pytest.raises(ArgumentError, match='Prototypical') as error:
        Prototypical.from_flags(flags, problem)
    assert error.value.of_flag({}).startswith('--datasource=sinusoid: ')


def test_exported_embedding(learner, tmp_path):
    export_embedding(learner, tmp_path / 'embedding', (SIDE, SIDE, 1), {'iteration': 7})
    serve = tf.saved_model.load(str(tmp_path / 'embedding')).signatures['serving_default']
    images = np.random.default_rng(7).random((3, SIDE, SIDE, 1)).astype(np.float32)
    for n in (1, 3):
        np.testing.assert_allclose(
            serve(images=tf.constant(images[:n]))['embeddings'],
            learner.embed(images[None, :n])[0],
            rtol=1e-4,
            atol=1e-6,
        )
    content = json.loads((tmp_path / 'embedding' / 'maml_tf.json').read_text())
    known = {'input_shape': [SIDE, SIDE, 1], 'embedding_shape': [8], 'iteration': 7}
    assert content.items() >= known.items() and content['method']['name'] == 'prototypical'
    with pytest.raises(UserError, match='exists'):
        export_embedding(learner, tmp_path / 'embedding', (SIDE, SIDE, 1))


def zero_shot_task(rng, way, attributes, features):
    """Features are a linear function of the class's attributes, and noise."""
    mixing = np.random.default_rng(0).normal(size=(attributes, features))

    def draw(tasks=4, queries=3):
        classes = rng.normal(size=(tasks, way, attributes))
        labels = np.tile(np.eye(way).repeat(queries, 0), (tasks, 1, 1))
        x = labels @ classes @ mixing + rng.normal(size=(tasks, way * queries, features))
        order = rng.permutation(way)  # Rows of attributes in any order, as their labels say.
        support_y = np.tile(np.eye(way)[order], (tasks, 1, 1))
        return Task(
            *(tf.constant(part, tf.float32) for part in (classes[:, order], support_y, x, labels))
        )

    return draw


def test_zero_shot():
    """Against NumPy, and it learns to tell apart classes that it has never seen by their attributes
    alone."""
    keras.utils.set_random_seed(0)
    draw = zero_shot_task(np.random.default_rng(8), 5, 12, 20)
    learner, task = ZeroShotPrototypical(12, 20, 16), draw()
    outputs = learner(task._asdict())
    weights, offset, image_weights, image_offset = (
        np.array(v) for v in learner.trainable_variables
    )
    for i in range(4):
        rows = task.support_x[i].numpy() @ weights + offset
        centres = oracle.prototypes(
            rows / np.linalg.norm(rows, axis=1, keepdims=True), task.support_y[i].numpy()
        )
        queries = task.query_x[i].numpy() @ image_weights + image_offset
        np.testing.assert_allclose(
            outputs[i], oracle.squared_euclidean_logits(queries, centres), rtol=1e-4, atol=1e-4
        )
    optimizer, test = keras.optimizers.Adam(3e-3), draw(50)
    optimizer.build(learner.trainable_variables)
    before = np.mean(learner.query_scores(test)[1])

    @tf.function(autograph=False)
    def step(task):
        optimizer.apply(learner.meta_gradients(task, STEP).gradients, learner.trainable_variables)

    for _ in range(300):
        step(draw())
    assert np.mean(learner.query_scores(test)[1]) > 0.9 > 0.5 > before


def test_projection_keeps_what_two_directions_hold():
    rng = np.random.default_rng(9)
    plane = np.linalg.qr(rng.normal(size=(10, 2)))[0]
    flat = [rng.normal(size=(n, 2)) * [3, 1] for n in (4, 7)]
    projected, shares = embedding_plots.project(*(points @ plane.T + 5 for points in flat))
    assert sum(shares) == pytest.approx(1) and shares[0] > shares[1]
    distances = lambda points: np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.testing.assert_allclose(
        distances(np.concatenate(projected)), distances(np.concatenate(flat)), atol=1e-9
    )


def test_pictures(tmp_path):
    rng = np.random.default_rng(10)
    labels, query_labels = np.eye(5).repeat(2, 0), np.eye(5).repeat(6, 0)
    centres = 4 * rng.normal(size=(5, 8))
    embedding_plots.episode_embedding(
        tmp_path / 'episode.png',
        labels @ centres + rng.normal(size=(10, 8)),
        labels,
        query_labels @ centres + rng.normal(size=(30, 8)),
        query_labels,
        [f'alphabet/{k}' for k in range(5)],
        centres,
    )
    attention = rng.random((30, 10)) + 3 * query_labels @ labels.T
    embedding_plots.similarity_matrix(
        tmp_path / 'attention.png',
        attention / attention.sum(1, keepdims=True),
        query_labels.argmax(1),
        labels.argmax(1),
        'Attention',
    )
    for name in ('episode', 'attention'):
        assert (tmp_path / f'{name}.png').read_bytes()[:4] == b'\x89PNG'


def test_averages_of_parts_with_one_path():
    """Keras gives layers of one name in two functional models of an encoder the same path."""

    def part(shift):
        inputs = keras.Input((4,))
        shifted = keras.layers.Rescaling(1.0, shift)(inputs)
        return keras.Model(inputs, keras.layers.BatchNormalization(name='bn')(shifted))

    images = keras.Input((SIDE, SIDE, 1))
    features = keras.layers.Dense(4)(keras.layers.Flatten()(images))
    encoder = keras.Model(images, part(700.0)(part(-500.0)(features)))
    first, second = [v for v in encoder.non_trainable_variables if v.name == 'moving_mean']
    assert first.path == second.path
    learner = Prototypical(encoder, MeanClassification())
    assign_state(learner, random_task(np.random.default_rng(5)))
    np.testing.assert_allclose(first, np.full(4, -5.0), atol=0.2)
    np.testing.assert_allclose(second, np.full(4, 7.0), atol=0.2)
