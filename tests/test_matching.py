"""Matching Networks against NumPy written from the equations, step by step, and by finite
differences."""

import keras
import metric_oracle as oracle
import numpy as np
import pytest
import tensorflow as tf
from precision import float64
from test_conformance import source_for
from test_prototypical import (
    CLASSES,
    SIDE,
    STEP,
    WAY,
    check_gradient,
    one_hot,
    random_task,
)

from maml_tf.algorithms.metric.matching import TEMPERATURES, Matching
from maml_tf.episodes.order import random_order
from maml_tf.networks.context_embeddings import FullContext
from maml_tf.networks.encoders import conv4
from maml_tf.objectives.classification import MeanClassification

FEATURES = 6


def make(**kwargs):
    keras.utils.set_random_seed(0)
    return Matching(conv4((SIDE, SIDE, 1), 4), MeanClassification(), **kwargs)


def with_keys(task, seed=0):
    """The task with random keys."""
    tasks = task.support_x.shape[0]
    keys = np.random.default_rng(seed).integers(0, 2**32, (tasks, 2), dtype=np.uint32)
    return task._replace(key=tf.constant(keys))


def weights_of(lstm):
    return [np.array(variable) for variable in lstm]


@pytest.mark.parametrize('temperature', [None, 3.0])
@pytest.mark.parametrize('similarity', TEMPERATURES)
@pytest.mark.parametrize('classes', CLASSES.values(), ids=CLASSES)
def test_probabilities_and_loss_against_numpy(similarity, temperature, classes):
    rng = np.random.default_rng(1)
    learner = make(similarity=similarity, temperature=temperature)
    support, queries = (rng.normal(size=(n, FEATURES)).astype(np.float32) for n in (5, 4))
    labels, query_labels = one_hot(classes), one_hot([2, 0, 0, 2])
    outputs = learner.compare(learner.summarise(support[None], labels[None]), queries[None]).numpy()
    temperature = TEMPERATURES[similarity] if temperature is None else temperature
    expected = oracle.matching_simple(support, labels, queries, similarity, temperature)
    np.testing.assert_allclose(np.exp(outputs[0]), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(tf.nn.softmax(outputs)[0], expected, rtol=1e-4, atol=1e-6)
    assert (outputs[0][:, expected.sum(0) == 0] < -1e8).all()
    loss = learner.objective.loss(query_labels[None], outputs, 1)
    np.testing.assert_allclose(loss[0], oracle.matching_loss(expected, query_labels), rtol=1e-4)


def test_far_queries_keep_a_finite_loss():
    """Squared distances in the hundreds: probabilities underflow, their logarithms do not."""
    learner = make(similarity='squared_l2')
    support = 30 * np.eye(WAY, FEATURES, dtype=np.float32)[None]
    labels = one_hot(range(WAY))[None]
    state = learner.summarise(support, labels)
    wrong = np.roll(labels, 1, axis=1)
    outputs = learner.compare(state, support)
    assert float(learner.objective.loss(wrong, outputs, 1)[0]) == pytest.approx(1800, rel=1e-4)


def test_bare_cosines_are_floored():
    """Why there is a temperature: cosines from 0 to 1 allow no more than 0.40 among 5 and 0.13
    among 20."""
    for way, most in ((5, 0.405), (20, 0.125)):
        orthogonal = np.eye(way, dtype=np.float32)[None]
        for temperature, reached in ((1.0, most), (None, 1)):
            learner = make(temperature=temperature)
            outputs = learner.compare(learner.summarise(orthogonal, orthogonal), orthogonal)
            assert np.exp(outputs[0, 0, 0]) == pytest.approx(reached, abs=1e-3)


@pytest.fixture(scope='module')
def context():
    """Full context embeddings with weights larger than initial ones, and embeddings: the second
    task has filling."""
    keras.utils.set_random_seed(0)
    rng, layer = np.random.default_rng(2), FullContext(FEATURES, 1)
    for variable in layer.variables:
        variable.assign(rng.normal(size=variable.shape))
    counts = np.ones((2, 5), np.float32)
    counts[1, [1, 4]] = 0
    embedded = lambda n: rng.normal(size=(2, n, FEATURES)).astype(np.float32)
    return layer, embedded(5), embedded(4), counts


def test_context_of_the_support_set_against_numpy(context):
    layer, support, _, counts = context
    g = layer.of_support(tf.constant(support), tf.constant(counts)).numpy()
    for i in range(2):
        there = counts[i] > 0
        expected = oracle.fce_g(
            support[i][there], weights_of(layer.forward), weights_of(layer.backward)
        )
        np.testing.assert_allclose(g[i][there], expected, rtol=1e-4, atol=1e-5)


def test_context_of_queries_against_numpy_step_by_step(context):
    """After every number of reads; the filling is not read."""
    layer, support, queries, counts = context
    for steps in range(1, 5):
        layer.steps = steps
        f = layer.of_queries(
            tf.constant(queries), tf.constant(support), tf.constant(counts)
        ).numpy()
        for i in range(2):
            for q in range(4):
                last, every, _ = oracle.fce_f(
                    queries[i, q], support[i][counts[i] > 0], 4, weights_of(layer.reading)
                )
                np.testing.assert_allclose(f[i, q], every[steps - 1], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(last, every[-1])


def test_whole_learner_with_context_against_numpy():
    """Embeddings in, probabilities out, in the order that the tasks' keys decide; the state is in
    the order given."""
    learner, task = make(fce=True), with_keys(random_task(np.random.default_rng(3)))
    outputs = learner.query_outputs(task)[0].numpy()
    state = learner.adapt(task.support_x, task.support_y, key=task.key)
    attention = learner.resemblance(state, task.query_x).numpy()
    order = random_order(task.support_y, task.key).numpy()
    assert (order[0] != order[1]).any()
    layer = learner.context
    for i in range(2):
        support, queries = (
            learner.embed(x[i : i + 1])[0].numpy() for x in (task.support_x, task.query_x)
        )
        g = oracle.fce_g(support[order[i]], weights_of(layer.forward), weights_of(layer.backward))
        f = [oracle.fce_f(query, g, 3, weights_of(layer.reading))[0] for query in queries]
        labels = task.support_y[i].numpy()[order[i]]
        expected = oracle.matching_simple(g, labels, f, 'cosine', TEMPERATURES['cosine'])
        np.testing.assert_allclose(np.exp(outputs[i]), expected, rtol=1e-3)
        single = oracle.matching_simple(g, np.eye(5), f, 'cosine', TEMPERATURES['cosine'])
        np.testing.assert_allclose(attention[i][:, order[i]], single, rtol=1e-3)
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(attention @ task.support_y.numpy(), np.exp(outputs), rtol=1e-4)


@pytest.mark.parametrize(
    'kwargs',
    [{}, {'similarity': 'squared_l2'}, {'fce': True}, {'fce': True, 'similarity': 'dot'}],
    ids=str,
)
def test_gradient_agrees_with_finite_differences(kwargs):
    with float64():
        task = with_keys(random_task(np.random.default_rng(4), np.float64))
        check_gradient(make(**kwargs), task)


def test_random_order():
    """A function of each task's key; over many keys every place is as likely."""
    labels = np.tile(one_hot([0, 1, 2, 0, 1, 2]), (300, 1, 1))
    keys = np.random.default_rng(5).integers(0, 2**32, (300, 2), dtype=np.uint32)
    orders = random_order(tf.constant(labels), tf.constant(keys)).numpy()
    assert (np.sort(orders, axis=1) == np.arange(6)).all()
    counts = np.stack([(orders == k).sum(0) for k in range(6)])
    # chi squared with 25 degrees of freedom: 59.2 is 1 in 10000.
    assert np.square(counts - 50).sum() / 50 < 60
    alone = random_order(tf.constant(labels[7:9]), tf.constant(keys[7:9])).numpy()
    np.testing.assert_array_equal(alone, orders[7:9])
    compiled = tf.function(random_order, jit_compile=True)
    np.testing.assert_array_equal(compiled(tf.constant(labels), tf.constant(keys)), orders)


def test_filling_is_read_last_and_changes_the_order_of_nothing_else():
    labels = np.tile(one_hot([0, 1, 2, 0, 1, 2]), (50, 1, 1))
    keys = tf.constant(np.random.default_rng(6).integers(0, 2**32, (50, 2), dtype=np.uint32))
    full = random_order(tf.constant(labels), keys).numpy()
    labels[:, 3] = 0
    filled = random_order(tf.constant(labels), keys).numpy()
    assert (filled[:, -1] == 3).all()
    np.testing.assert_array_equal(filled[:, :5], full[full != 3].reshape(50, 5))


def test_tasks_made_by_hand_are_all_shuffled_alike():
    order = random_order(tf.constant(np.tile(one_hot([0, 1, 2, 0, 1, 2]), (3, 1, 1)))).numpy()
    assert (order == order[0]).all() and (order[0] != np.arange(6)).any()
    assert (np.sort(order[0]) == np.arange(6)).all()


def test_the_key_decides_how_the_support_set_is_read():
    """In adaptation and in training, with context alone."""
    task = random_task(np.random.default_rng(7))
    for fce in (True, False):
        learner, predictions, losses = make(fce=fce), [], []
        for seed in (1, 1, 2):
            keyed = with_keys(task, seed)
            predictions.append(np.array(learner.query_outputs(keyed)))
            losses.append(float(learner.meta_loss(keyed, STEP).value))
        np.testing.assert_array_equal(predictions[0], predictions[1])
        assert losses[0] == losses[1]
        assert (np.abs(predictions[0] - predictions[2]).max() > 1e-5) == fce
        assert (abs(losses[0] - losses[2]) > 1e-6) == fce


def test_how_much_the_order_of_reading_matters():
    """Why the order is drawn: changes of the probabilities over ten orders."""
    keras.utils.set_random_seed(0)
    learner, spec = Matching.tiny()
    task = source_for(learner, spec).tasks('test', spec, 0)(0, 8)
    embedded, query = learner.embed(task.support_x), learner.embed(task.query_x)
    rng, probabilities = np.random.default_rng(6), []
    for _ in range(10):
        order = rng.permutation(embedded.shape[1])
        state = learner.summarise(
            tf.gather(embedded, order, axis=1), tf.gather(task.support_y, order, axis=1)
        )
        probabilities.append(np.exp(learner.compare(state, query)))
    changes = np.ptp(probabilities, axis=0)
    print(
        f'over ten orders a probability changes by {changes.mean():.3f}, at most by '
        f'{changes.max():.3f}'
    )
    assert changes.mean() > 1e-3
