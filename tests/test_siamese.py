"""Siamese networks against plain loops: scores, losses, pairs, the twins, gradients."""

import types

import keras
import metric_oracle as oracle
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.metric.siamese import DISTANCES, Siamese, koch, pairs
from maml_tf.commands.command_line import FLAG_OF
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError
from maml_tf.networks.encoders import conv4
from maml_tf.objectives.classification import Classification
from maml_tf.objectives.pairs import SamePairs
from maml_tf.objectives.regression import Regression

RNG = np.random.default_rng(0)
STEP = tf.constant(0, tf.int64)


def task_of(shape, way, shot, query, tasks=2, rng=RNG):
    images = lambda k: tf.constant(rng.uniform(size=(tasks, way * k, *shape)))
    labels = lambda k: tf.constant(np.tile(np.repeat(np.eye(way), k, axis=0), (tasks, 1, 1)))
    return Task(images(shot), labels(shot), images(query), labels(query))


def plain(learner):
    return learner.kernel.numpy(), float(learner.bias)


@pytest.mark.parametrize('distance', DISTANCES)
def test_scores(distance, float64):
    """The best match of each class; class 3 has no support, one example is filling."""
    learner = Siamese(keras.Sequential([keras.Input([3]), keras.layers.Identity()]), distance)
    support, queries = RNG.normal(size=(6, 3)), RNG.normal(size=(5, 3))
    queries[0], support[1] = 0, 0
    labels = np.eye(4)[[0, 0, 1, 2, 2, 0]]
    labels[5] = 0
    state = learner.summarise(tf.constant(support[None]), tf.constant(labels[None]))
    outputs = learner.compare(state, tf.constant(queries[None]))[0]
    expected = oracle.siamese_scores(support, labels, queries, *plain(learner), distance)
    np.testing.assert_allclose(tf.sigmoid(outputs)[:, :3], expected[:, :3], rtol=1e-9)
    assert (outputs.numpy()[:, 3] < outputs.numpy()[:, :3].min() - 1e6).all()
    similarity = learner.resemblance(state, tf.constant(queries[None]))
    assert similarity.shape == (1, 5, 6)
    for q, s in np.ndindex(5, 6):
        same = oracle.siamese_probability(queries[q], support[s], *plain(learner), distance)
        np.testing.assert_allclose(similarity[0, q, s], same, rtol=1e-9)
    probabilities = learner.objective.probabilities(outputs)
    np.testing.assert_allclose(
        probabilities[:, :3], expected[:, :3] / expected[:, :3].sum(1, keepdims=True), rtol=1e-9
    )
    assert not probabilities.numpy()[:, 3].any()


def test_loss_of_outputs():
    """Every query that counts with every class that is there."""
    outputs = RNG.normal(size=(2, 1, 4, 4))
    outputs[..., 3] = np.finfo(float).min
    labels = np.eye(4)[[0, 1, 2, 0]]
    labels[3] = 0
    losses = SamePairs().loss(tf.constant(labels[None]), tf.constant(outputs), shots=1)
    assert losses.shape == (2, 1)
    for step in (0, 1):
        expected = oracle.binary_cross_entropy(
            oracle.sigmoid(outputs[step, 0, :3, :3]).ravel(), labels[:3, :3].ravel()
        )
        np.testing.assert_allclose(losses[step, 0], expected, rtol=1e-9)


@pytest.mark.parametrize('ways', [(5, 5), (3, 2)])
def test_pairs(ways):
    """Features say whose they are."""
    way = 5
    present = (np.arange(way) < np.array(ways)[:, None]).astype(float)
    classes = np.tile(np.arange(way), (2, 1))[..., None].astype(float)
    left, right, same = pairs(*map(tf.constant, (classes, classes + 100, present)))
    made = tf.concat([left, right - 100, same[..., None]], -1).numpy().astype(int)
    for task, n in enumerate(ways):
        found = [tuple(pair) for pair in made[task][np.tile(present[task], 2) > 0].tolist()]
        assert sorted(found) == sorted(
            [(c, c, 1) for c in range(n)] + [(c, (c + 1) % n, 0) for c in range(n)]
        )


@pytest.mark.parametrize('shot, query', [(1, 1), (2, 3)])
def test_loss_of_a_task(shot, query, float64):
    """Pairs of the first support and query image of each class, however they lie."""
    learner = Siamese(conv4((16, 16, 1), 3), l2=(0.1, 0.2, 0.3, 0.4, 0.5), distort=False)
    way, task = 4, task_of((16, 16, 1), 4, shot, query)
    losses, right = [], []
    for t in range(2):
        firsts = np.concatenate([task.support_x[t, ::shot], task.query_x[t, ::query]])
        features = learner.encoder(firsts, training=True).numpy()
        a, b = features[:way], features[way:]
        chosen = [(a[c], b[c], 1) for c in range(way)] + [
            (a[c], b[(c + 1) % way], 0) for c in range(way)
        ]
        same = [oracle.siamese_probability(x, y, *plain(learner)) for x, y, _ in chosen]
        losses.append(oracle.binary_cross_entropy(same, [s for *_, s in chosen]))
        right += [(p > 0.5) == s for p, (*_, s) in zip(same, chosen)]
    penalty = sum(
        weight * np.square(kernel).sum()
        for weight, kernel in zip(
            learner.l2,
            [
                *(layer.kernel for layer in learner.encoder.layers if hasattr(layer, 'kernel')),
                learner.kernel,
            ],
        )
    )
    loss, log, _ = learner.meta_loss(task, STEP)
    np.testing.assert_allclose(log['post_loss'], np.mean(losses), rtol=1e-9)
    np.testing.assert_allclose(loss, np.mean(losses) + penalty, rtol=1e-9)
    np.testing.assert_allclose(log['post_accuracy'], np.mean(right))
    order = RNG.permutation(way * shot) if shot == 1 else np.arange(way * shot)
    shuffled = task._replace(
        support_x=tf.gather(task.support_x, order, axis=1),
        support_y=tf.gather(task.support_y, order, axis=1),
    )
    np.testing.assert_allclose(learner.meta_loss(shuffled, STEP).value, loss, rtol=1e-9)


def test_filling_counts_for_nothing(float64):
    """A task of three ways, filled up to five, has the loss of the task of three ways."""
    learner, small = Siamese(conv4((16, 16, 1), 3), distort=False), task_of((16, 16, 1), 3, 1, 1)
    junk = task_of((16, 16, 1), 2, 1, 1)
    images = lambda a, b: tf.concat([a, b], 1)
    labels = lambda y: tf.pad(y, [[0, 0], [0, 2], [0, 2]])
    mask = tf.constant([[1.0, 1, 1, 0, 0]] * 2, tf.float64)
    filled = Task(
        images(small.support_x, junk.support_x),
        labels(small.support_y),
        images(small.query_x, junk.query_x),
        labels(small.query_y),
        mask,
        mask,
    )
    ours, theirs = (learner.meta_loss(task, STEP) for task in (filled, small))
    np.testing.assert_allclose(ours.value, theirs.value, rtol=1e-9)
    for name, value in theirs.state.items():
        np.testing.assert_allclose(ours.state[name], value, rtol=1e-9)


def keys(*seeds):
    """A key for each of as many tasks."""
    words = [np.random.default_rng(seed).integers(0, 2**32, 2, dtype=np.uint32) for seed in seeds]
    return tf.constant(np.stack(words))


def test_running_averages_move_by_the_mean_of_the_tasks(float64):
    """Those of one task as Keras would assign them: of the first images of each class together."""
    learner, task = Siamese(conv4((16, 16, 1), 3), distort=False), task_of((16, 16, 1), 3, 2, 1)
    together = learner.meta_loss(task, STEP).state
    alone = [learner.meta_loss(task.map(lambda x: x[i : i + 1]), STEP).state for i in (0, 1)]
    for name, value in together.items():
        np.testing.assert_allclose(value, (alone[0][name] + alone[1][name]) / 2, rtol=1e-9)
    learner.encoder(tf.concat([task.support_x[1, ::2], task.query_x[1]], 0), training=True)
    variables = learner.named_variables()
    assert together.keys() == {name for name in variables if 'moving' in name}
    for name, value in alone[1].items():
        np.testing.assert_allclose(value, variables[name], rtol=1e-9)


def test_distortion_depends_on_the_task_s_key_alone():
    """With one key twice the same loss, with another another, and another one without."""
    learner, task = (
        Siamese(conv4((16, 16, 1), 4)),
        task_of((16, 16, 1), 4, 1, 1).cast(tf.float32),
    )
    loss = lambda *seeds: float(learner.meta_loss(task._replace(key=keys(*seeds)), STEP).value)
    first = loss(1, 2)
    assert loss(1, 2) == first
    compiled = tf.function(learner.meta_loss)(task._replace(key=keys(1, 2)), STEP).value
    assert compiled.numpy() == pytest.approx(first, rel=1e-5)
    by_itself = [
        float(learner.meta_loss(task.map(lambda x: x[i : i + 1])._replace(key=key), STEP).value)
        for i, key in enumerate((keys(1), keys(2)))
    ]
    assert np.mean(by_itself) == pytest.approx(first, rel=1e-5)
    assert abs(loss(1, 3) - first) > 1e-5
    without_keys = float(learner.meta_loss(task, STEP).value)
    assert float(learner.meta_loss(task, STEP).value) == without_keys
    learner.distort = False
    assert min(abs(loss(1, 2) - first), abs(loss(1, 2) - without_keys)) > 1e-5
    assert loss(1, 2) == loss(1, 3)


def test_every_image_is_distorted_by_itself():
    """One drawing in every place of two tasks: no two come out alike."""
    learner, seen = Siamese(conv4((16, 16, 1), 4)), []
    embed = learner.embed
    learner.embed = lambda images, *rest: seen.append(images) or embed(images, *rest)
    drawing = np.zeros((16, 16, 1), np.float32)
    drawing[4:9, 6:13] = RNG.uniform(0.2, 1, (5, 7, 1))
    images, labels = tf.tile(drawing[None, None], [2, 4, 1, 1, 1]), tf.eye(4, batch_shape=[2])
    learner.meta_loss(Task(images, labels, images, labels, key=keys(1, 2)), STEP)
    assert seen[0].shape == (2, 8, 16, 16, 1)
    assert len(np.unique(tf.reshape(seen[0], [16, -1]), axis=0)) == 16


@pytest.mark.parametrize(
    'distance', [pytest.param(d, marks=[pytest.mark.slow] * (d != 'l1')) for d in DISTANCES]
)
def test_gradient_agrees_with_finite_differences(distance, float64):
    learner, task = (
        Siamese(conv4((16, 16, 1), 3), distance, l2=(0.01,)),
        task_of((16, 16, 1), 4, 1, 1),
    )
    for variable in learner.trainable_variables:  # away from ReLU's kink
        variable.assign(variable + RNG.normal(size=variable.shape) * 0.1)
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


def test_koch():
    """38,951,745 weights; and on the smallest images, with few filters, the loops."""
    assert make(105).count_params() == 38_951_745
    network = koch((65, 65, 1), (2, 2, 3, 2), 5)
    image = RNG.uniform(size=(1, 65, 65, 1)).astype(np.float32)
    weights, x = [np.float64(value) for value in network.get_weights()], image
    for number in range(4):
        kernel, bias = weights[2 * number : 2 * number + 2]
        x = np.maximum(oracle.conv2d_valid(x, kernel, bias), 0)
        x = oracle.max_pool2x2(x) if number < 3 else x
    expected = oracle.sigmoid(x.reshape(1, -1) @ weights[8] + weights[9])
    np.testing.assert_allclose(network(image), expected, rtol=1e-4)


def flags(**values):
    return types.SimpleNamespace(
        **{
            'algorithm': 'siamese',
            'datasource': 'omniglot',
            'siamese_network': None,
            'siamese_distance': 'l2',
            'siamese_l2': '0.1',
            'siamese_distort': False,
            'num_filters': 4,
            'transductive': None,
            **values,
        }
    )


def make(side, objective=Classification(), background=0.0, **values):
    problem = types.SimpleNamespace(
        input_shape=(side, side, 1), objective=objective, background=background
    )
    return Siamese.from_flags(flags(**values), problem)


def test_from_flags():
    small = make(28, background=1.0)
    assert small.encoder.output_shape == (None, 4) and small.distance == 'l2' and not small.distort
    assert small.l2 == (0.1,) * 5 and make(28, siamese_l2='1,2,3,4,5').l2 == (1, 2, 3, 4, 5)
    assert not small.transductive and make(28, transductive=True).transductive
    assert small.background == 1
    refused = [{'siamese_l2': text} for text in ('1,2', 'x', '-1', '1,2,3,4,nan')]
    for values in [*refused, {'siamese_network': 'koch'}]:
        with pytest.raises(ArgumentError) as error:
            make(28, **values)
        assert error.value.of_flag(FLAG_OF).startswith(f'--{list(values)[0]}')
    with pytest.raises(ArgumentError) as error:
        make(28, Regression())
    assert error.value.of_flag(FLAG_OF).startswith('--datasource=omniglot: ')
