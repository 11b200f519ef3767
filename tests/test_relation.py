"""Relation Network against plain loops: both networks, scores, loss, clipping, gradients; and its
zero-shot form."""

import types

import keras
import metric_oracle as oracle
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.metric import zero_shot_relation
from maml_tf.algorithms.metric.relation import CLIP, Relation
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError
from maml_tf.objectives.classification import Classification
from maml_tf.objectives.pairs import RelationScores
from maml_tf.objectives.regression import Regression

RNG = np.random.default_rng(0)
EPSILON = 1e-5
STEP = tf.constant(0, tf.int64)


def task_of(side, way, shot, query, tasks=1):
    images = lambda k: tf.constant(RNG.uniform(size=(tasks, way * k, side, side, 1)))
    labels = lambda k: tf.constant(np.tile(np.repeat(np.eye(way), k, axis=0), (tasks, 1, 1)))
    return Task(images(shot), labels(shot), images(query), labels(query))


def small_learner(side=22, transductive=True):
    """Two filters; all weights and averages somewhere, not where they start."""
    learner = Relation((side, side, 1), 2, transductive)
    for variable in learner.variables:
        variable.assign(variable + np.abs(RNG.normal(size=variable.shape)) * 0.3)
    return learner


def layers_of(learner):
    """Every variable by the name of its layer, whichever network that is in."""
    parts = ('encoder_', 'relation_module_')
    values = {}
    for name, variable in learner.named_variables().items():
        values[name.removeprefix(parts[0]).removeprefix(parts[1])] = variable.numpy()
    return values


def test_parameter_counts():
    count = lambda variables: sum(int(np.prod(v.shape)) for v in variables)
    for shape, of_encoder, of_relation, maps in [
        ((28, 28, 1), 111_936, 111_505, 5),
        ((84, 84, 3), 113_088, 115_601, 19),
    ]:
        learner = Relation(shape)
        assert count(learner.encoder.trainable_variables) == of_encoder
        assert count(learner.trainable_variables) == of_encoder + of_relation
        assert learner.encoder.output_shape == (None, maps, maps, 64)
    values = layers_of(learner)
    for i in range(1, 7):
        assert values[f'conv{i}_kernel'].std() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    assert values['fc1_kernel'].std() == pytest.approx(0.01, rel=0.05)
    assert (values['fc1_bias'] == 1).all()


def normalised(x, weights, number, running):
    names = ('gamma', 'beta', 'moving_mean', 'moving_variance')
    gamma, beta, mean, variance = (weights[f'norm{number}_{name}'] for name in names)
    if running:
        return oracle.batch_norm_running(x, mean, variance, gamma, beta, EPSILON)
    return oracle.batch_norm_batch(x, gamma, beta, EPSILON)


def block(x, weights, number, convolve, pool, running):
    """3x3 convolution, batch norm, ReLU, pooling, in the paper's order."""
    x = convolve(x, weights[f'conv{number}_kernel'], weights[f'conv{number}_bias'])
    x = np.maximum(normalised(x, weights, number, running), 0)
    return oracle.max_pool2x2(x) if pool else x


def plain_scores(weights, task, running, unpadded=False):
    """Relation scores of one task by the oracle's loops."""
    valid, same = oracle.conv2d_valid, oracle.conv2d_same
    maps = []
    for x in (task.support_x[0].numpy(), task.query_x[0].numpy()):
        for number, convolve, pool in [
            (1, valid, True),
            (2, valid, True),
            (3, same, False),
            (4, same, False),
        ]:
            x = block(x, weights, number, convolve, pool, running)
        maps.append(x)
    pairs = oracle.relation_pairs(maps[0], task.support_y[0].numpy(), maps[1])
    x = pairs.reshape(-1, *pairs.shape[2:])
    for number in (5, 6):
        x = block(x, weights, number, valid if unpadded else same, True, running)
    hidden = np.maximum(x.reshape(len(x), -1) @ weights['fc1_kernel'] + weights['fc1_bias'], 0)
    return oracle.sigmoid(hidden @ weights['fc2_kernel'] + weights['fc2_bias']).reshape(
        pairs.shape[:2]
    )


@pytest.mark.parametrize('side, transductive', [(22, True), (22, False), (46, True)])
def test_both_networks_equal_the_loops(side, transductive, float64):
    """46 pixels a side leave maps of 10, which the relation module does not pad."""
    learner, task = small_learner(side, transductive), task_of(side, 2, 1 if side == 46 else 2, 1)
    weights = layers_of(learner)
    expected = plain_scores(weights, task, running=not transductive, unpadded=side == 46)
    outputs = learner.query_outputs(task)[-1]
    np.testing.assert_allclose(tf.sigmoid(outputs)[0], expected, rtol=1e-8)
    np.testing.assert_allclose(
        learner.query_scores(task)[0][0, 0],
        oracle.relation_mse(expected, task.query_y[0]),
        rtol=1e-8,
    )
    loss = learner.meta_loss(task, STEP)
    if transductive:  # Training uses the same statistics.
        np.testing.assert_allclose(
            loss.value, oracle.relation_mse(expected, task.query_y[0]), rtol=1e-8
        )
    for name, value in layers_of(learner).items():
        np.testing.assert_array_equal(value, weights[name])
    averages = {name: v for name, v in learner.named_variables().items() if 'moving' in name}
    assert loss.state.keys() == averages.keys() and len(averages) == 12
    for name, value in averages.items():
        assert (loss.state[name] != value).numpy().any()


def test_running_averages_are_those_that_keras_would_assign(float64):
    """Of one task: the encoder on the support set, then on the queries, then the pairs."""
    learner, task = small_learner(), task_of(22, 2, 2, 1)
    state = learner.meta_loss(task, STEP).state
    maps = [learner.encoder(x[0], training=True) for x in (task.support_x, task.query_x)]
    class_maps = learner.summarise(maps[0][None], task.support_y)['class_maps']
    pairs = learner.pair_convolution(class_maps, maps[1][None])[0]
    learner.relation(tf.reshape(pairs, [-1, *pairs.shape[2:]]), training=True)
    for name, value in state.items():
        np.testing.assert_allclose(value, learner.named_variables()[name], rtol=1e-9)


def test_a_meta_batch_moves_running_averages_by_the_mean_of_its_tasks(float64):
    learner, task = small_learner(), task_of(22, 2, 2, 1, tasks=3)
    together = learner.meta_loss(task, STEP).state
    alone = [learner.meta_loss(task.map(lambda x: x[i : i + 1]), STEP).state for i in range(3)]
    for name, value in together.items():
        values = [state[name] for state in alone]
        np.testing.assert_allclose(value, np.mean(values, axis=0), rtol=1e-9)
        assert np.ptp(values, axis=0).max() > 1e-6


def test_maps_are_summed_over_shots_and_absent_classes_come_last(float64):
    learner = small_learner()
    maps = RNG.normal(size=(1, 5, 5, 5, 2))
    labels = np.eye(4)[[0, 0, 1, 2, 0]]
    labels[4] = 0
    state = learner.summarise(tf.constant(maps), tf.constant(labels[None]))
    np.testing.assert_allclose(state['class_maps'][0, 0], maps[0, 0] + maps[0, 1])
    np.testing.assert_array_equal(state['present'], [[1, 1, 1, 0]])
    outputs = learner.compare(state, tf.constant(maps[:, :3])).numpy()
    assert (outputs[..., 3] < outputs[..., :3].min() - 1e6).all()
    pairs = oracle.relation_pairs(maps[0], labels, maps[0, :3])
    convolved = learner.pair_convolution(state['class_maps'], tf.constant(maps[:, :3]))[0]
    weights = learner.pair_convolution.kernel, learner.pair_convolution.bias
    expected = oracle.conv2d_same(pairs.reshape(-1, 5, 5, 4), *weights)
    np.testing.assert_allclose(tf.reshape(convolved, expected.shape), expected, rtol=1e-9)


def test_loss_and_probabilities():
    """Filling queries and an absent class count for nothing."""
    outputs = RNG.normal(size=(2, 1, 4, 4))
    outputs[..., 3] = np.finfo(float).min
    labels = np.eye(4)[[0, 1, 2, 0]]
    labels[3] = 0
    objective, scores = RelationScores(), oracle.sigmoid(outputs[..., :3])
    losses = objective.loss(tf.constant(labels[None]), tf.constant(outputs), shots=1)
    np.testing.assert_allclose(
        losses[:, 0], [oracle.relation_mse(s[0], labels[:, :3]) for s in scores], rtol=1e-9
    )
    probabilities = objective.probabilities(tf.constant(outputs)).numpy()
    np.testing.assert_allclose(
        probabilities[..., :3], scores / scores.sum(-1, keepdims=True), rtol=1e-9
    )
    assert not probabilities[..., 3].any()


@pytest.mark.parametrize('transductive', [True, False])
def test_filling_counts_for_nothing(transductive, float64):
    """A task of two ways, filled up to three, predicts and loses as the task of two ways does."""
    learner, small, junk = (
        small_learner(transductive=transductive),
        task_of(22, 2, 1, 2),
        task_of(22, 1, 1, 2),
    )
    labels = lambda y, k: tf.pad(y, [[0, 0], [0, k], [0, 1]])
    filled = Task(
        tf.concat([small.support_x, junk.support_x], 1),
        labels(small.support_y, 1),
        tf.concat([small.query_x, junk.query_x], 1),
        labels(small.query_y, 2),
        tf.constant([[1.0, 1, 0]], tf.float64),
        tf.constant([[1.0, 1, 1, 1, 0, 0]], tf.float64),
    )
    np.testing.assert_allclose(
        learner.query_outputs(filled)[..., :4, :2], learner.query_outputs(small), rtol=1e-8
    )
    np.testing.assert_allclose(learner.query_scores(filled), learner.query_scores(small), rtol=1e-8)
    ours, theirs = (learner.meta_loss(task, STEP) for task in (filled, small))
    np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-8)
    for name, value in theirs.state.items():
        np.testing.assert_allclose(ours.state[name], value, rtol=1e-8)


def test_each_network_is_clipped_by_itself():
    learner = small_learner()
    names = [v.path.split('/')[0] for v in learner.trainable_variables]
    for sizes in ({'encoder': 3.0, 'relation': 0.1}, {'encoder': 0.1, 'relation': 3.0}):
        gradients = [
            tf.constant(
                RNG.normal(size=v.shape) * sizes['encoder' if name == 'encoder' else 'relation']
            )
            for v, name in zip(learner.trainable_variables, names)
        ]
        clipped = learner.clip_gradients(gradients)
        for ours in (True, False):
            before, after = (
                np.concatenate(
                    [np.ravel(g) for g, name in zip(values, names) if (name == 'encoder') == ours]
                )
                for values in (gradients, clipped)
            )
            np.testing.assert_allclose(
                after, before * min(1, CLIP / np.linalg.norm(before)), rtol=1e-6
            )
    small = [g * 1e-6 for g in gradients]
    np.testing.assert_array_equal(
        np.concatenate([np.ravel(g) for g in learner.clip_gradients(small)]),
        np.concatenate([np.ravel(g) for g in small]),
    )


def test_gradient_agrees_with_finite_differences(float64):
    learner, task = small_learner(), task_of(22, 3, 2, 2, tasks=2)
    gradients = tf.function(learner.meta_gradients, autograph=False)(task, STEP).gradients
    loss = tf.function(lambda: learner.meta_loss(task, STEP).value, autograph=False)
    scale = max(np.abs(g).max() for g in gradients)
    for variable, gradient in zip(learner.trainable_variables, gradients):
        direction, value = np.asarray(RNG.normal(size=variable.shape)), variable.numpy()
        direction /= np.linalg.norm(direction)

        def moved(step):
            variable.assign(value + float(step) * direction)
            return loss()

        slope = oracle.finite_difference_gradient(moved, 0.0, 1e-6)
        variable.assign(value)
        assert abs(slope - np.sum(direction * gradient)) < 1e-6 * scale, variable.path


def test_from_flags():
    flags = lambda transductive: types.SimpleNamespace(
        algorithm='relation', datasource='omniglot', num_filters=4, transductive=transductive
    )
    problem = lambda side, objective: types.SimpleNamespace(
        input_shape=(side, side, 1), objective=objective
    )
    make = lambda side, objective=Classification(), transductive=None: Relation.from_flags(
        flags(transductive), problem(side, objective)
    )
    assert make(28).transductive and make(28, transductive=True).transductive
    assert not make(28, transductive=False).transductive
    for arguments, message in [
        ((20,), '--image_size=20: '),
        ((28, Regression()), '--datasource=omniglot: '),
    ]:
        with pytest.raises(ArgumentError) as error:
            make(*arguments)
        assert error.value.of_flag({}).startswith(message)


def test_zero_shot_scores_and_loss(float64):
    model = zero_shot_relation.ZeroShotRelation(5, 6, 7)
    attributes, features = RNG.normal(size=(4, 5)), RNG.normal(size=(8, 6))
    labels = np.array([2, 0, 2, 3, 0, 0, 3, 2])
    w1, b1, w2, b2 = model.embedding.get_weights()
    (w3, b3), (w4, b4) = model.first.get_weights(), model.last.get_weights()
    embedded = np.maximum(np.maximum(attributes @ w1 + b1, 0) @ w2 + b2, 0)
    expected = np.array(
        [
            [
                oracle.sigmoid(np.maximum(np.concatenate([a, f]) @ w3 + b3, 0) @ w4 + b4)[0]
                for a in embedded
            ]
            for f in features
        ]
    )
    np.testing.assert_allclose(model.scores(attributes, features, batch=3), expected, rtol=1e-9)
    present = [0, 2, 3]
    np.testing.assert_allclose(
        model.loss_of(attributes, features, labels),
        oracle.relation_mse(expected[:, present], np.eye(4)[labels][:, present]),
        rtol=1e-9,
    )


def test_zero_shot_sizes():
    sizes = [v.shape for v in zero_shot_relation.ZeroShotRelation().trainable_variables]
    assert [tuple(s) for s in sizes if len(s) == 2] == [
        (312, 1200),
        (1200, 2048),
        (4096, 1200),
        (1200, 1),
    ]


def test_zero_shot_learns_to_tell_unseen_classes_apart():
    """Features are a linear map of the attributes with noise: what holds for 40 classes holds for 5
    others."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    attributes = rng.integers(0, 2, (45, 12)).astype(np.float32)
    labels = np.repeat(np.arange(45), 20)
    features = (
        np.maximum(attributes @ rng.normal(size=(12, 16)), 0)[labels]
        + rng.normal(size=(900, 16)) * 0.1
    )
    features, seen = features.astype(np.float32), labels < 40
    model = zero_shot_relation.ZeroShotRelation(12, 16, 64)
    scores = lambda: model.scores(attributes[40:], features[~seen])
    unseen = lambda: zero_shot_relation.class_accuracy(scores(), labels[~seen] - 40)
    before = unseen()
    losses = zero_shot_relation.train(
        model, attributes, features[seen], labels[seen], 800, learning_rate=1e-3
    )
    assert np.mean(losses[-50:]) < np.mean(losses[:50]) / 3
    assert unseen() > max(0.7, before), before


def test_zero_shot_accuracies():
    scores, labels = np.eye(3)[[0, 0, 1, 2, 2]], np.array([0, 0, 0, 0, 2])
    assert zero_shot_relation.class_accuracy(scores, labels) == pytest.approx((0.5 + 1) / 2)
    assert (
        zero_shot_relation.harmonic_mean(0.6, 0.3) == pytest.approx(0.4)
        and zero_shot_relation.harmonic_mean(0, 0) == 0
    )
