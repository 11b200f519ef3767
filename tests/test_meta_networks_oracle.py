"""Meta Networks against their equations in plain NumPy, in float64: the gradients, the fast weights
that are made of them, and what reads them."""

import math

import meta_networks_oracle as oracle
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.model_based import fast_weights, support_gradients
from maml_tf.algorithms.model_based.meta_networks import MetaNetworks
from maml_tf.episodes.order import random_order
from maml_tf.episodes.task import Task
from maml_tf.networks.sequence_models.weight_generators import (
    PointwiseGenerator,
    RecurrentGenerator,
)
from maml_tf.objectives.classification import MeanClassification

TASKS, WAY, FEATURES, CHUNKS = 2, 3, 4, 4
# Chunks of two, of two, of one and of one.
LABELS, QUERY_LABELS = [0, 0, 1, 1, 2, 2], [2, 0, 1]
# Of the readings that the oracle knows, ours: those of the released code.
OURS = {'key': 'linear_embedding', 'total': 'sum'}
STEP = tf.constant(0, tf.int64)
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def plain_cosines(monkeypatch):
    monkeypatch.setattr(fast_weights, 'EPSILON', 0.0)


def toy(hidden):
    """Linear layers of random weights; the base learner of hidden=(5,) has two."""
    learner = MetaNetworks(
        (FEATURES,), WAY, MeanClassification(), (), hidden, chunks=CHUNKS, dtype='float64'
    )
    for variable in learner.variables:
        variable.assign(0.7 * RNG.normal(size=variable.shape))
    return learner


def random_task(tasks=TASKS):
    one_hot = lambda classes: np.tile(np.eye(WAY)[classes], (tasks, 1, 1))
    points = lambda n: RNG.normal(size=(tasks, n, FEATURES))
    arrays = points(len(LABELS)), one_hot(LABELS), points(len(QUERY_LABELS)), one_hot(QUERY_LABELS)
    key = tf.constant(RNG.integers(2**32, size=(tasks, 2)), tf.uint32)
    return Task(*map(tf.constant, arrays), key=key)


def linear(kernels, biases=None):
    biases = biases or [None] * len(kernels)
    return [{'kernel': np.array(k), 'bias': b} for k, b in zip(kernels, biases)]


def of_recurrent(generator):
    *lstm, kernel, bias = map(np.array, generator.weights)
    return {'lstm': lstm, 'kernel': kernel, 'bias': bias}


def of_pointwise(generator):
    weights = list(map(np.array, generator.weights))
    return linear(weights[::2], weights[1::2])


def episode(learner, task, i, given=None):
    """The oracle's, of task i."""
    embedding, base = list(learner.embedding.values()), list(learner.base.values())
    of_tasks, of_examples = (
        of_recurrent(learner.of_tasks['linear']),
        of_pointwise(learner.of_examples['linear']),
    )
    order = np.array(random_order(task.support_y, task.key))[i]
    return oracle.episode(
        (np.array(task.support_x[i]), LABELS),
        (np.array(task.query_x[i]), QUERY_LABELS),
        {'representation': linear([*embedding, learner.head]), 'base': linear(base)},
        {
            # The output layer of the representation has no fast weights.
            'representation': [of_tasks] * len(embedding) + [None],
            'base': [of_examples] * len(base),
        },
        [order[chunk::CHUNKS] for chunk in range(CHUNKS)],
        given=given,
        **OURS,
    )


def assert_close(ours, expected, message=''):
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-11, err_msg=message)


def test_generators_read_gradients_of_every_size():
    """Of either sign, zero, and around e^-7, below which the logarithm is cut off."""
    least = math.exp(-7)
    sizes = [0, 1e-12, least / 2, least * (1 - 1e-9), least * (1 + 1e-9), 0.01, 1, 30]
    gradients = np.stack([sizes, np.negative(sizes), RNG.permutation(sizes)])
    recurrent, pointwise = (
        kind('generator', dtype='float64') for kind in (RecurrentGenerator, PointwiseGenerator)
    )
    shapes = [(2, 20), (20,), (20, 20), (20,), (20, 1), (1,)]
    assert [tuple(weight.shape) for weight in pointwise.weights] == shapes
    for generator in (recurrent, pointwise):
        for variable in generator.weights:
            variable.assign(RNG.normal(size=variable.shape))
    of_entries = [oracle.lstm_fast_weight(g, of_recurrent(recurrent)) for g in gradients.T]
    assert_close(recurrent(tf.constant(gradients)), of_entries)
    of_entries = [oracle.mlp_fast_weight(g, of_pointwise(pointwise)) for g in gradients.flat]
    assert_close(pointwise(tf.constant(gradients)), np.reshape(of_entries, gradients.shape))


@pytest.mark.parametrize('hidden', [(5,), (6, 5)], ids=['two_layers', 'three_layers'])
def test_every_part_of_an_episode(hidden):
    learner, task = toy(hidden), random_task()
    support = task.support_x, task.support_y
    embedding, base = (
        {name: variable.value for name, variable in part.items()}
        for part in (learner.embedding, learner.base)
    )
    of_chunks, there = support_gradients.of_chunks(
        *support, embedding, learner.head.value, task.key, CHUNKS
    )
    assert there is None
    of_each = support_gradients.of_each_example(*support, base)
    state = learner.adapt(*support, key=task.key)
    outputs = learner.predict_query(state, task.query_x)
    losses = learner.objective.loss(task.query_y, outputs, 1)
    loss, totals, seen = learner.meta_loss(task, STEP), [], []
    assert_close(loss.log['post_loss'], np.mean(losses))
    for i in range(TASKS):
        expected = episode(learner, task, i)
        for layer, name in enumerate(embedding):
            for chunk, gradients in enumerate(expected['chunk_gradients']):
                assert_close(of_chunks[name][chunk, i], gradients[layer]['kernel'], name)
                seen.extend(np.ravel(gradients[layer]['kernel']))
            fast = expected['task_fast'][layer]['kernel']
            assert_close(state[f'embedding_{name}'][i], fast, name)
        for layer, name in enumerate(base):
            for example, (gradients, fast) in enumerate(
                zip(expected['example_gradients'], expected['memory'])
            ):
                place = len(LABELS) * i + example
                assert_close(of_each[name][place], gradients[layer]['kernel'], name)
                assert_close(state[f'memory_{name}'][i, example], fast[layer]['kernel'], name)
        assert_close(state['keys'][i], expected['keys'])
        attention = fast_weights.attend(expected['query_keys'][None], expected['keys'][None])
        assert_close(attention[0], expected['attention'])
        assert_close(outputs[i], expected['logits'])
        assert_close(losses[i], expected['losses'].mean())
        totals.append(expected['loss'])
    assert_close(loss.value, np.mean(totals))
    sizes = np.abs(seen)
    assert (sizes < math.exp(-7)).any() and (sizes > math.exp(-7)).any(), 'both ways to read them'


def test_the_meta_gradient_takes_what_generators_read_for_constant():
    """Along a random direction of all weights at once, by differences of the oracle's loss."""
    learner, task = toy((5,)), random_task(tasks=1)
    update = learner.meta_gradients(task, STEP)
    variables = learner.trainable_variables
    start = [variable.numpy() for variable in variables]
    directions = [RNG.normal(size=value.shape) for value in start]
    whole = episode(learner, task, 0)
    given = {name: whole[name] for name in ('chunk_gradients', 'example_gradients')}
    ends = []
    for step in (1e-6, -1e-6):
        for variable, value, direction in zip(variables, start, directions):
            variable.assign(value + step * direction)
        ends.append(episode(learner, task, 0, given)['loss'])
    slope = sum(np.sum(d * np.array(g)) for d, g in zip(directions, update.gradients, strict=True))
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-6, rtol=1e-6)
