"""The baselines against an independent program in NumPy, finite differences and closed forms."""

import dataclasses
import json
import math

import baselines_oracle as oracle
import keras
import numpy as np
import pytest
import tensorflow as tf
from command import ROOT

from maml_tf import algorithms
from maml_tf.algorithms.baselines import fine_tuning, heads
from maml_tf.algorithms.baselines.baseline import Baseline
from maml_tf.algorithms.baselines.baseline_pp import BaselinePP
from maml_tf.algorithms.baselines.fine_tuning import FineTuning
from maml_tf.algorithms.baselines.from_scratch import FromScratch
from maml_tf.algorithms.baselines.heads import CosineHead, LinearHead, new_weights, train_head
from maml_tf.algorithms.baselines.multi_task import MultiTask
from maml_tf.algorithms.baselines.nearest_neighbour import NearestNeighbour
from maml_tf.algorithms.baselines.rules import Momentum
from maml_tf.algorithms.baselines.tuning import TunedEncoder
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.commands import command_line
from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import build, problem_of
from maml_tf.commands.run_evaluation import run_evaluation
from maml_tf.commands.run_training import run_training
from maml_tf.datasets.functions.sinusoid import AMPLITUDE, Sinusoid
from maml_tf.datasets.sources import SOURCES
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.order import minibatches
from maml_tf.episodes.task import Batch, BatchSpec, EpisodeSpec, Task
from maml_tf.errors import ArgumentError, UserError
from maml_tf.inner_loop import stack_over_tasks
from maml_tf.networks.encoders import BatchNorm, conv4
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.regression import Regression
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import op_of
from maml_tf.training.phases import OuterLoop

SIDE, FEATURES, CLASSES, WAY, TASKS = 2, 6, 7, 3, 2
STEP = tf.constant(0, tf.int64)
KEYS = tf.constant([[1, 2], [3, 4]], tf.uint32)
PRETRAINED = ('baseline', 'baseline_pp', 'nearest_neighbour', 'fine_tuning')


def linear_encoder(seed=0):
    """x E + e of images, with random weights far from zero."""
    encoder = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(FEATURES, name='dense'),
        ],
        name='encoder',
    )
    rng = np.random.default_rng(seed)
    for variable in encoder.variables:
        variable.assign(rng.normal(size=variable.shape))
    return encoder


def learner_of(cls, **arguments):
    """A learner on a linear encoder, its classifier random."""
    learner = cls(linear_encoder(), MeanClassification(), CLASSES, batch_size=5, **arguments)
    rng = np.random.default_rng(1)
    for variable in learner.classifier.values():
        variable.assign(rng.uniform(0.5, 1.5, variable.shape) * rng.choice([-1, 1], variable.shape))
    return learner


def random_task(shot=3, query=4, seed=2):
    """Random images, classes one after another."""
    rng = np.random.default_rng(seed)

    def part(each):
        x = rng.normal(size=(TASKS, WAY * each, SIDE, SIDE, 1))
        return tf.constant(x), tf.tile(tf.eye(WAY, dtype=tf.float64)[None], [TASKS, 1, 1])

    support_x, eye = part(shot)
    query_x, _ = part(query)
    labels = lambda each: tf.repeat(eye, each, axis=1)
    return Task(support_x, labels(shot), query_x, labels(query), key=KEYS)


def random_batch(seed=3, size=5):
    rng = np.random.default_rng(seed)
    labels = np.eye(CLASSES)[rng.integers(0, CLASSES, size)]
    return Batch(tf.constant(rng.normal(size=(size, SIDE, SIDE, 1))), tf.constant(labels))


def flat(x):
    return np.array(x).reshape(len(x), -1)


def encoded(learner, x):
    kernel, bias = (np.array(v) for v in learner.encoder.variables)
    return flat(x) @ kernel + bias


def close(actual, expected, tolerance=1e-10):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# Heads, and their training.


@pytest.mark.parametrize('kind', ['linear', 'cosine'])
@pytest.mark.parametrize('support', [5, 8])
def test_head_training_is_torch_s_sgd_step_by_step(kind, support):
    """Of each task, in mini-batches of which the last of an epoch may be smaller."""
    rng = np.random.default_rng(4)
    features = rng.normal(size=(TASKS, support, FEATURES))
    labels = np.eye(WAY)[rng.integers(0, WAY, (TASKS, support))]
    head = LinearHead() if kind == 'linear' else CosineHead()
    settings, epochs = (0.2, 0.8, 0.3, 0.05), 4
    start = new_weights(head, FEATURES, tf.constant(labels), KEYS)
    trained = train_head(
        head,
        *(tf.constant(part) for part in (features, labels)),
        tf.zeros([TASKS, 1, WAY], tf.float64),
        KEYS,
        Momentum(*settings),
        epochs,
        4,
    )
    order = np.array(minibatches(KEYS, support, support, epochs))
    for i in range(TASKS):
        batches = [epoch[j : j + 4] for epoch in order[i] for j in range(0, support, 4)]

        def gradients(weights, batch):
            x, y = features[i][batch], labels[i][batch]
            if kind == 'linear':
                return oracle.linear_gradients(x, y, weights)[0]
            return oracle.cosine_gradients(x, y, weights, heads.SCALE)

        begin = {name: np.array(w[i]) for name, w in start.items()}
        expected = oracle.sgd(gradients, begin, batches, *settings)
        for name, value in expected.items():
            assert np.abs(value - begin[name]).max() > 0.1
            close(trained[name][i], value)


def test_gradients_of_the_oracle_by_finite_differences():
    """The derivatives that were written down by hand."""
    rng = np.random.default_rng(5)
    features, labels = rng.normal(size=(5, FEATURES)), np.eye(WAY)[[0, 1, 2, 0, 1]]
    weights = {
        'direction': rng.normal(size=(FEATURES, WAY)),
        'norm': rng.uniform(0.5, 2, WAY),
    }
    gradients = oracle.cosine_gradients(features, labels, weights, 2.0)
    for name, w in weights.items():
        for place in np.ndindex(w.shape):
            values = []
            for sign in (1, -1):
                moved = {key: value.copy() for key, value in weights.items()}
                moved[name][place] += sign * 1e-6
                values.append(oracle.cross_entropy(oracle.cosine(features, moved, 2.0), labels))
            assert gradients[name][place] == pytest.approx(
                (values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-9
            )


@pytest.mark.parametrize('cls', [Baseline, BaselinePP])
def test_a_task_of_the_baselines(float64, cls):
    """A new head on frozen features, with the authors' settings; then the queries."""
    learner, task = learner_of(cls, epochs=6), random_task()
    outputs = learner.query_outputs(task)[-1]
    order = np.array(minibatches(KEYS, 9, 9, 6))
    start = new_weights(cls.head, FEATURES, task.support_y, KEYS)
    for i in range(TASKS):
        support, query = (encoded(learner, x[i]) for x in (task.support_x, task.query_x))
        labels = np.array(task.support_y[i])
        batches = [epoch[j : j + 4] for epoch in order[i] for j in (0, 4, 8)]

        def gradients(weights, batch):
            x, y = support[batch], labels[batch]
            if cls is Baseline:
                return oracle.linear_gradients(x, y, weights)[0]
            return oracle.cosine_gradients(x, y, weights, 2.0)

        begin = {name: np.array(w[i]) for name, w in start.items()}
        weights = oracle.sgd(gradients, begin, batches, 0.01, 0.9, 0.9, 1e-3)
        logits = oracle.linear if cls is Baseline else lambda f, w: oracle.cosine(f, w, 2.0)
        close(outputs[i], logits(query, weights), 1e-9)
        assert np.abs(outputs[i] - logits(query, begin)).max() > 1e-3


def test_new_weights_are_the_key_s():
    """PyTorch's bounds; a class's weights do not depend on how many there are."""
    labels = lambda way: tf.zeros([TASKS, 1, way], tf.float64)
    few, many = (new_weights(LinearHead(), 400, labels(way), KEYS) for way in (3, 5))
    for name, value in few.items():
        np.testing.assert_array_equal(value, many[name][..., :3])
        assert np.abs(value).max() <= 1 / 20
        assert (np.array(value[0]) != np.array(value[1])).all()
    assert np.std(few['kernel']) == pytest.approx(1 / 20 / math.sqrt(3), rel=0.05)
    alone = new_weights(LinearHead(), 400, labels(3)[1:], KEYS[1:])
    np.testing.assert_array_equal(alone['kernel'][0], few['kernel'][1])
    fixed = new_weights(LinearHead(), 400, labels(3), None)['kernel']
    np.testing.assert_array_equal(fixed[0], fixed[1])
    cosine = new_weights(CosineHead(), 400, labels(3), KEYS)
    close(cosine['norm'], np.linalg.norm(cosine['direction'], axis=1))


@pytest.mark.parametrize('classes, scale', [(200, 2.0), (201, 10.0)])
def test_the_cosine_head_scales_by_its_classes(classes, scale):
    rng = np.random.default_rng(6)
    features = rng.normal(size=(1, 4, FEATURES))
    weights = {
        'direction': rng.normal(size=(FEATURES, classes)),
        'norm': rng.uniform(0.5, 2, classes),
    }
    stacked = {name: tf.constant(w) for name, w in weights.items()}
    outputs = CosineHead().outputs(tf.constant(features), stacked)
    close(outputs[0], oracle.cosine(features[0], weights, scale))
    # Features of zeros are not torn apart.
    assert not np.any(CosineHead().outputs(tf.zeros([1, 1, FEATURES], tf.float64), stacked))


def test_a_class_without_support_plays_no_part(float64):
    task = random_task()
    wider = tf.pad(task.support_y, [[0, 0], [0, 0], [0, 1]])
    for cls, arguments in {
        Baseline: {'epochs': 2},
        NearestNeighbour: {},
        FineTuning: {'rate': 0.1, 'updates': 2},
    }.items():
        learner = learner_of(cls, **arguments)
        state = learner.adapt(task.support_x, task.support_y, key=KEYS)
        of_wider = learner.adapt(task.support_x, wider, key=KEYS)
        outputs = learner.predict_query(of_wider, task.query_x)
        close(outputs[..., :WAY], learner.predict_query(state, task.query_x), 1e-9)
        assert (outputs[..., WAY] < -1e8).numpy().all()


# Pretraining.


@pytest.mark.parametrize('cls', [Baseline, BaselinePP])
def test_pretraining_s_gradient_by_finite_differences(float64, cls):
    """Of encoder and classifier, through batch norm by the batch's statistics."""
    layers = [
        keras.Input((4, 4, 1)),
        keras.layers.Conv2D(3, 3, name='conv'),
        BatchNorm(name='norm'),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
    ]
    learner = cls(keras.Sequential(layers, name='encoder'), MeanClassification(), CLASSES)
    rng = np.random.default_rng(7)
    for variable in learner.trainable_variables:
        variable.assign(rng.uniform(0.3, 1.0, variable.shape) * rng.choice([-1, 1], variable.shape))
    x = tf.constant(rng.normal(size=(6, 4, 4, 1)))
    batch = Batch(x, tf.one_hot([0, 1, 2, 3, 4, 0], CLASSES, dtype=tf.float64))
    update = learner.meta_gradients(batch, STEP)
    # The bias of a convolution is taken away by the norm: its gradient is zero.
    for variable, gradient in zip(learner.trainable_variables, update.gradients, strict=True):
        value, gradient = np.array(variable), np.array(gradient)
        for number in rng.choice(value.size, min(4, value.size), replace=False):
            place, losses = np.unravel_index(number, value.shape), []
            for sign in (1, -1):
                moved = value.copy()
                moved[place] += sign * 1e-6
                variable.assign(moved)
                losses.append(float(learner.meta_loss(batch, STEP).value))
            variable.assign(value)
            numeric = (losses[0] - losses[1]) / 2e-6
            assert gradient[place] == pytest.approx(numeric, rel=1e-5, abs=1e-8)
        assert 'conv_bias' in variable.path.replace('/', '_') or np.abs(gradient).max() > 1e-4


def test_pretraining_against_the_oracle(float64):
    """Adam on plain batches, encoder and classifier; what is logged; a step with other data."""
    learner = learner_of(Baseline)
    batches = [random_batch(seed) for seed in range(3)]
    (phase,) = learner.phases(OuterLoop(0, 3, 0.05, EpisodeSpec(WAY, 1, 1)))
    assert phase.draws == BatchSpec(5) and phase.iterations == 3
    encoder, offset = (np.array(v) for v in learner.encoder.variables)
    start = {'encoder': encoder, 'offset': offset}
    start |= {name: np.array(v) for name, v in learner.classifier.items()}
    op = op_of(learner, phase)
    logs = [op(batch, STEP + i) for i, batch in enumerate(batches)]
    gradients = lambda w, b: oracle.with_linear_encoder(flat(b.x), np.array(b.y), w)
    expected = oracle.adam(gradients, start, batches, 0.05)
    values = dict(zip(('encoder', 'offset'), learner.encoder.variables)) | learner.classifier
    for name, variable in values.items():
        close(variable, expected[name], 3e-6)  # Keras has the rate in float32.
    features = flat(batches[0].x) @ encoder + offset
    logits, labels = oracle.linear(features, start), np.array(batches[0].y)
    close(logs[0]['post_loss'], oracle.cross_entropy(logits, labels))
    close(logs[0]['post_accuracy'], np.mean(logits.argmax(1) == labels.argmax(1)))


def test_pretraining_moves_the_running_averages_that_tasks_use():
    layers = [keras.Input((SIDE, SIDE, 1)), BatchNorm(name='norm'), keras.layers.Flatten()]
    learner = NearestNeighbour(
        keras.Sequential(layers, name='encoder'), MeanClassification(), CLASSES
    )
    batch = Batch(*(tf.cast(part, tf.float32) for part in random_batch()))
    state = learner.meta_gradients(batch, STEP).state
    x = np.array(batch.x)
    mean, variance = (state[f'encoder_norm_moving_{name}'] for name in ('mean', 'variance'))
    np.testing.assert_allclose(mean, [0.1 * x.mean()], rtol=1e-5)
    np.testing.assert_allclose(variance, [0.9 + 0.1 * x.var(ddof=1)], rtol=1e-5)
    for name, value in state.items():
        learner.named_variables()[name].assign(value)
    expected = (x - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(learner.embed(batch.x[None])[0], flat(expected), rtol=1e-4)


def images():
    """Random images: seven classes to train on, three to validate and three to test on."""
    pixels = np.random.default_rng(8).integers(0, 256, (13, 6, SIDE, SIDE, 1), np.uint8)
    splits = {'train': range(7), 'val': range(7, 10), 'test': range(10, 13)}
    return ImageClasses.from_arrays(pixels, {name: list(part) for name, part in splits.items()})


def test_fit_trains_as_the_command_line_does():
    fitted, learner, source = learner_of(Baseline), learner_of(Baseline), images()
    fitted.compile(keras.optimizers.SGD(0.1))
    fitted.fit(source.dataset(BatchSpec(5), 1), steps_per_epoch=2, verbose=0)
    (phase,) = learner.phases(OuterLoop(0, 4, 0.1, EpisodeSpec(WAY, 1, 1)))
    op = op_of(learner, phase.__class__(**vars(phase) | {'optimizer': keras.optimizers.SGD(0.1)}))
    before = [np.array(v) for v in learner.trainable_variables]
    iterate(op, source.tasks('train', BatchSpec(1), 0), 5)(0, 2)
    for one, other, old in zip(fitted.variables, learner.variables, before):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        assert np.abs(np.array(one) - old).max() > 1e-4


# What becomes of a task.


def test_the_nearest_neighbour_by_brute_force(float64):
    learner, task = learner_of(NearestNeighbour), random_task(shot=2, query=20)
    outputs = np.array(learner.query_outputs(task)[-1])
    for i in range(TASKS):
        support, query = (encoded(learner, x[i]) for x in (task.support_x, task.query_x))
        expected = oracle.nearest(support, np.array(task.support_y[i]), query)
        assert outputs[i].argmax(1).tolist() == expected and len({*expected}) == WAY
    state = learner.adapt(task.support_x, task.support_y)
    cosines = np.array(learner.resemblance(state, task.query_x))
    assert cosines.shape == (TASKS, 20 * WAY, 2 * WAY) and np.abs(cosines).max() <= 1 + 1e-12
    np.testing.assert_array_equal(outputs[..., 0], cosines[..., :2].max(-1))


@pytest.mark.parametrize('layers', ['all', 'last'])
def test_fine_tuning_s_updates(float64, layers):
    """A new last layer; the whole network, or that layer alone, with a rate that falls."""
    learner = learner_of(FineTuning, layers=layers, updates=5, rate=0.2, decay=0.5)
    task = random_task()
    outputs = learner.query_outputs(task)[-1]
    start = new_weights(LinearHead(), FEATURES, task.support_y, KEYS)
    encoder, offset = (np.array(v) for v in learner.encoder.variables)
    for i in range(TASKS):
        x, labels = flat(task.support_x[i]), np.array(task.support_y[i])
        weights = {name: np.array(w[i]) for name, w in start.items()}
        weights |= {'encoder': encoder, 'offset': offset}

        def gradients(weights):
            found = oracle.with_linear_encoder(x, labels, weights)
            if layers == 'last':
                found |= {name: 0 * found[name] for name in ('encoder', 'offset')}
            return found

        tuned = oracle.decaying(gradients, weights, 5, 0.2, 0.5)
        features = flat(task.query_x[i]) @ tuned['encoder'] + tuned['offset']
        close(outputs[i], oracle.linear(features, tuned), 1e-9)
        moved = np.abs(tuned['encoder'] - encoder).max()
        assert moved > 1e-3 if layers == 'all' else moved == 0
    np.testing.assert_array_equal(learner.encoder.variables[0], encoder)


def test_a_tuned_encoder_keeps_its_weights_in_order():
    """Of more than ten, whose names as text have another order."""
    encoder = conv4((16, 16, 1), 4)
    rng = np.random.default_rng(11)
    for variable in encoder.variables:
        variable.assign(np.abs(rng.normal(size=variable.shape)))
    x = tf.constant(rng.normal(size=(TASKS, 5, 16, 16, 1)), tf.float32)
    tuned = TunedEncoder(encoder, by_batch=False)
    weights = stack_over_tasks(tuned.weights(), TASKS)
    assert len(weights) > 10
    expected = [encoder(x[i], training=False) for i in range(TASKS)]
    np.testing.assert_allclose(tuned.features(weights, x, None), expected, rtol=1e-4)
    by_batch = TunedEncoder(encoder, by_batch=True).features(weights, x, None)
    mask = tf.constant([[1.0, 1, 1, 1, 0]] * TASKS)
    masked = TunedEncoder(encoder, by_batch=True).features(weights, x, mask)
    alone = TunedEncoder(encoder, by_batch=True).features(weights, x[:, :4], None)
    np.testing.assert_allclose(masked[:, :4], alone, rtol=1e-4, atol=1e-5)
    assert not np.any(masked[:, 4]) and np.abs(by_batch - expected).max() > 0.1


def test_fine_tuning_chooses_rate_and_decay_on_validation_tasks(monkeypatch):
    """The pair with the best score on all tasks that were drawn since the phase began."""
    grid = ((1e-5, 1.0), (0.3, 0.1), (0.05, 0.0))
    monkeypatch.setattr(fine_tuning, 'GRID', grid)
    learner, source, spec = learner_of(FineTuning, updates=1), images(), EpisodeSpec(WAY, 2, 3)
    pretraining, phase = learner.phases(OuterLoop(0, 2, 0.1, spec))
    assert phase.split == 'val' and phase.draws == spec
    longer = learner.phases(OuterLoop(0, 9, 0.1, spec))
    assert [one.iterations for one in longer] == [5, 4], 'four of them choose'
    assert pretraining.gradients(random_float32(), STEP).state == {}, 'a choice moves by itself'
    draw = source.tasks('val', spec, 0)
    op = op_of(learner, phase)
    scores = []
    for i in range(2):
        task, of_pairs = draw(3 * i, 3), []
        for rate, decay in grid:
            given = learner_of(FineTuning, updates=1, rate=rate, decay=decay)
            of_pairs.append(np.mean(given.query_scores(task)[1]))
            assert len(given.phases(OuterLoop(0, 2, 0.1, spec))) == 1
        scores.append(np.array(of_pairs))
        log = op(task, STEP + i)
        np.testing.assert_allclose(learner.choice['scores'], np.sum(scores, 0), rtol=1e-5)
        best = int(np.sum(scores, 0).argmax())
        assert best and float(log['post_accuracy']) == pytest.approx(np.mean(scores, 0)[best])
        chosen = [float(learner.choice[name].value) for name in ('rate', 'decay')]
        assert chosen == pytest.approx(grid[best])
    given = learner_of(FineTuning, updates=1, rate=chosen[0], decay=chosen[1])
    np.testing.assert_allclose(learner.query_outputs(task), given.query_outputs(task), rtol=1e-5)
    op(draw(0, 3), STEP)
    np.testing.assert_allclose(learner.choice['scores'], scores[0], rtol=1e-5)


def random_float32():
    return Batch(*(tf.cast(part, tf.float32) for part in random_batch()))


def test_from_scratch_is_adam_on_the_support_set(float64):
    """Full batches, from the same weights in all tasks; only the tasks' own weights move."""
    network = FullyConnected((3,), 2, (), start='glorot')
    learner = FromScratch(network, Regression(), inner_lr=0.1, steps=7, seed=3)
    rng = np.random.default_rng(9)
    parts = [tf.constant(rng.normal(size=(TASKS, n, size))) for n in (5, 4) for size in (3, 2)]
    outputs = learner.query_outputs(Task(*parts))
    assert outputs.shape[0] == 1 and learner.axis(1).values == (7,)
    start = {name: np.array(w) for name, w in learner.meta_weights.items()}
    for i in range(TASKS):
        x, y, query, _ = (np.array(part[i]) for part in parts)

        def gradients(weights, _):
            d = 2 * (x @ weights['w1'] + weights['b1'] - y) / y.size
            return {'w1': x.T @ d, 'b1': d.sum(0)}

        weights = oracle.adam(gradients, start, range(7), 0.1)
        close(outputs[0, i], query @ weights['w1'] + weights['b1'], 1e-7)
    assert not learner.trainable_variables
    (phase,) = learner.phases(OuterLoop(0, 15000, 1e-3, EpisodeSpec(1, 5, 4)))
    assert phase.iterations == 1
    log = op_of(learner, phase)(Task(*parts), STEP)
    close(log['post_loss'], np.mean((outputs[0] - parts[3]) ** 2))
    for name, value in start.items():
        np.testing.assert_array_equal(learner.meta_weights[name], value)


def test_from_scratch_by_gradient_descent_is_maml_s_inner_loop():
    make = lambda: FullyConnected((1,), 1, (8,), start='glorot')
    task = Sinusoid().tasks('train', EpisodeSpec(1, 10, 5), 0)(0, 3)
    maml = MAML(make(), Regression(), inner_lr=0.02)
    scratch = FromScratch(make(), Regression(), inner_lr=0.02, steps=6, optimizer='sgd')
    np.testing.assert_allclose(
        scratch.query_outputs(task)[0], maml.query_outputs(task, 6)[-1], rtol=1e-5, atol=1e-6
    )


def test_multi_task_tends_to_the_mean_of_the_family(float64):
    """Of the sinusoid: -(2 / pi) 2.55 cos x, with a mean squared error of 3.01.

    A linear network of cos x: its loss is a quadratic, whose minimum three gradients tell.
    """
    learner = MultiTask(FullyConnected((1,), 1, ()), Regression())
    task = Sinusoid().tasks('train', EpisodeSpec(1, 10, 10), 0)(0, 4000).cast('float64')
    task = task._replace(support_x=tf.cos(task.support_x), query_x=tf.cos(task.query_x))
    weight, bias = (learner.meta_weights[name] for name in ('w1', 'b1'))

    def at(w, b):
        weight.assign([[w]])
        bias.assign([b])
        update = learner.meta_gradients(task, STEP)
        return np.array([np.array(g).item() for g in update.gradients]), update.log['post_loss']

    origin = at(0.0, 0.0)[0]
    hessian = np.stack([at(1.0, 0.0)[0] - origin, at(0.0, 1.0)[0] - origin], 1)
    w, b = np.linalg.solve(hessian, -origin)
    gradients, loss = at(w, b)
    np.testing.assert_allclose(gradients, 0, atol=1e-12)
    mean_amplitude = sum(AMPLITUDE) / 2
    assert w == pytest.approx(-2 / math.pi * mean_amplitude, abs=0.08) and abs(b) < 0.08
    low, high = AMPLITUDE
    of_squares = (high**3 - low**3) / (3 * (high - low))
    # E[A^2] / 2 less the mean's own square, (2 / pi E[A])^2 E[cos^2 x], of x in [-5, 5].
    cos_squared = 0.5 + math.sin(10) / 20
    floor = of_squares / 2 - (2 / math.pi * mean_amplitude) ** 2 * cos_squared
    assert floor == pytest.approx(3.01, abs=0.01)
    assert float(loss) == pytest.approx(floor, abs=0.15)
    # It does not look at the support set.
    prediction = learner.query_outputs(task)[-1]
    close(prediction, w * np.array(task.query_x) + b)


def test_multi_task_is_maml_before_any_step():
    make = lambda: FullyConnected((1,), 1, (8, 8), 'layer_norm')
    multi, maml = MultiTask(make(), Regression(), seed=4), MAML(make(), Regression(), seed=4)
    task = Sinusoid().tasks('train', EpisodeSpec(1, 6, 9), 0)(0, 4)
    union = task._replace(
        support_x=tf.concat([task.support_x, task.query_x], 1),
        support_y=tf.concat([task.support_y, task.query_y], 1),
    )
    ours, theirs = multi.meta_gradients(task, STEP), maml.pretrain_gradients(union, STEP)
    for one, other in zip(ours.gradients, theirs.gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(multi.query_outputs(task)[0], maml.query_outputs(task)[0])
    assert multi.inner_steps == multi.evaluation_steps == 0


# The command line, and bad input.


@pytest.mark.slow
@pytest.mark.parametrize('method', PRETRAINED)
def test_pretraining_and_evaluation_by_the_command_line(method, monkeypatch, tmp_path):
    """On images whose classes differ by brightness, each rotation a class in training."""
    rng = np.random.default_rng(10)
    levels = rng.integers(0, 200, (13, 1, 4, 4, 1)).repeat(4, 2).repeat(4, 3)
    pixels = (levels + rng.integers(0, 50, (13, 6, 16, 16, 1))).astype(np.uint8)
    splits = {'train': [*range(7)], 'val': [7, 8, 9], 'test': [10, 11, 12]}
    rotations = {'train': 'classes', 'val': 'none', 'test': 'none'}
    source = ImageClasses.from_arrays(pixels, splits, rotations)
    row = dataclasses.replace(SOURCES['omniglot'], load=lambda flags: source)
    monkeypatch.setitem(SOURCES, 'omniglot', row)
    own = ['--fine_tuning_rate=0.01'] if method == 'fine_tuning' else []
    flags = parsed(
        *(f'--algorithm={method}', '--datasource=omniglot', f'--logdir={tmp_path}'),
        *('--num_classes=3', '--update_batch_size=1', '--num_filters=8', f'--{method}_batch=8'),
        *('--metatrain_iterations=60', '--test_tasks=30', '--test_set=True', *own),
    )
    experiment = build(flags)
    assert experiment.learner.classifier[next(iter(experiment.learner.classifier))].shape[-1] == 28
    run_training(experiment)
    run_evaluation(experiment)
    results = json.loads((experiment.directory.path / 'results.json').read_text('utf-8'))
    assert results['mean'][-1] > 0.45  # a guess: 0.33


def made(*arguments):
    """The learner of a command line."""
    flags = parsed(*arguments)
    # absl's own, which every program has.
    command_line.check(flags)
    return algorithms.registry()[flags.algorithm].from_flags(flags, problem_of(flags))


@pytest.mark.parametrize('method', PRETRAINED)
def test_flags_of_the_pretrained(method):
    learner = made(f'--algorithm={method}', '--datasource=omniglot', '--num_filters=8')
    assert learner.batch_size == (16 if method.startswith('baseline') else 64)
    assert learner.features == 8 and not learner.transductive
    learner = made(f'--algorithm={method}', '--datasource=omniglot', f'--{method}_batch=7')
    assert learner.phases(OuterLoop(0, 9, 1e-3, EpisodeSpec(5, 1, 1)))[0].draws == BatchSpec(7)


def test_flags_of_fine_tuning():
    own = ('--fine_tuning_layers=last', '--fine_tuning_updates=3', '--fine_tuning_rate=0.1')
    learner = made('--algorithm=fine_tuning', '--datasource=omniglot', *own)
    assert (learner.trained_layers, learner.updates, learner.given) == ('last', 3, (0.1, 0.0))
    assert len(fine_tuning.GRID) == 42 and not learner.choice and not learner.scheduled
    chooses = made('--algorithm=fine_tuning', '--datasource=omniglot')
    assert chooses.choice['scores'].shape == (42,) and chooses.scheduled
    with pytest.raises(UserError, match='before the last iterations, which choose the rate'):
        chooses.check_ready()
    chooses.choice['scores'].assign(np.ones(42))
    chooses.check_ready()
    learner.check_ready()
    with pytest.raises(UserError, match='--ensemble=3: its checkpoints are from before'):
        made('--algorithm=fine_tuning', '--datasource=omniglot', '--ensemble=3')


@pytest.mark.parametrize(
    'flag', ['--train_num_classes=9', '--train_query=3', '--meta_batch_size=3']
)
def test_flags_of_training_tasks_are_refused_where_none_are_drawn(flag):
    with pytest.raises(UserError, match=f'{flag}: means nothing to --algorithm=baseline_pp'):
        made('--algorithm=baseline_pp', '--datasource=omniglot', flag)


def test_flags_of_from_scratch():
    learner = made('--algorithm=from_scratch', '--test_num_updates=9', '--update_lr=0.5')
    assert (learner.evaluation_steps, learner.inner_lr) == (9, 0.5)
    with pytest.raises(UserError, match=r'--test_num_updates=0: at least 1'):
        made('--algorithm=from_scratch', '--test_num_updates=0')


@pytest.mark.parametrize('method', PRETRAINED)
def test_pretraining_is_of_classes(method):
    with pytest.raises(UserError, match=rf'sinusoid: {method} is trained to tell classes apart'):
        made(f'--algorithm={method}', '--datasource=sinusoid')


def test_multi_task_is_of_regression():
    assert made('--algorithm=multi_task', '--datasource=sinusoid')
    with pytest.raises(UserError, match='omniglot: .* multi_task is for regression'):
        made('--algorithm=multi_task', '--datasource=omniglot')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (
            ['baseline', '--meta_batch_size=4'],
            r'--meta_batch_size=4: means nothing .* --baseline_b',
        ),
        (['baseline', '--baseline_pp_batch=4'], r'--baseline_pp_batch=4: means nothing'),
        (['fine_tuning', '--fine_tuning_decay=1'], r'--fine_tuning_decay=1.0: only with'),
        (['fine_tuning', '--train_on=trainval'], r'--train_on=trainval: leaves no validation'),
        (['nearest_neighbour', '--update_lr=1'], r'--update_lr=1.0: means nothing'),
        (['from_scratch', '--meta_lr=1'], r'--meta_lr=1.0: means nothing'),
    ],
)
def test_flags_that_are_refused(arguments, message):
    method, flag = arguments
    with pytest.raises(UserError, match=message):
        made(f'--algorithm={method}', '--datasource=omniglot', flag)


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: learner_of(Baseline, epochs=0), 'epochs=0: at least 1'),
        (lambda: Baseline(linear_encoder(), MeanClassification(), 0), 'classes=0: at least 1'),
        (lambda: learner_of(FineTuning, layers='first'), "layers='first': one of all, last"),
        (lambda: learner_of(FineTuning, updates=-1), 'updates=-1: at least 0'),
        (lambda: learner_of(FineTuning, decay=0.1), 'decay=0.1: only with a rate'),
        (
            lambda: FromScratch(FullyConnected((1,), 1), Regression(), optimizer='lion'),
            "optimizer='lion': one of adam, sgd",
        ),
        (
            lambda: Baseline(
                keras.Sequential([keras.Input((4, 4, 1)), BatchNorm()]), MeanClassification(), 3
            ),
            r'its features are not flat',
        ),
    ],
)
def test_arguments_that_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_mini_batches_take_no_filling():
    task = random_task()
    with pytest.raises(ArgumentError, match='mask: tasks of one size only'):
        learner_of(Baseline).adapt(task.support_x, task.support_y, mask=tf.ones([TASKS, 9]))


def test_flagfiles_name_the_papers_batches():
    for method, batch in {'baseline': 16, 'nearest_neighbour': 64}.items():
        for flagfile in (ROOT / 'flags' / method).glob('*.flags'):
            flags = parsed(f'--flagfile={flagfile}')
            assert flags[f'{method}_batch'].value == batch
