"""MANN: labels that come one step late, accuracy by instance, and tasks read as sequences."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_flagfiles import checked
from test_outer_optimizers import check_paths, steps_in_numpy, steps_of

from maml_tf.algorithms.model_based.mann import MANN
from maml_tf.algorithms.model_based.mann_labels import STRINGS, Labels, label_strings
from maml_tf.commands.experiment import problem_of
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.order import random_order, take
from maml_tf.episodes.task import EpisodeSpec, Sequence, SequenceSpec
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.sequence_models.late_labels import instances, late, mean_by_instance
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import op_of
from maml_tf.training.outer_optimizers import OuterOptimizer
from maml_tf.training.phases import OuterLoop

WAY, INSTANCES, SIDE, TASKS = 3, 3, 4, 2
SMALL = {'units': 16, 'slots': 12, 'width': 6, 'heads': 2, 'instances': INSTANCES}
STEP = tf.constant(0, tf.int64)
KINDS = {
    f'{controller} {"with" if memory else "without"} memory, {labels}': {
        'controller': controller,
        'memory': memory,
        'labels': labels,
    }
    for controller, memory, labels in itertools.product(
        ('lstm', 'feed_forward'), (True, False), ('one_hot', 'strings')
    )
}
of_every_kind = pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)


def make(**kwargs):
    keras.utils.set_random_seed(0)
    return MANN((SIDE, SIDE, 1), WAY, **SMALL | kwargs)


def source(classes=8, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (classes, 12, SIDE, SIDE, 1), np.uint8)
    return ImageClasses.from_arrays(images, {'train': range(classes)})


def sequence_of(tasks=TASKS, seed=0):
    return source().tasks('train', SequenceSpec(WAY, WAY * INSTANCES), seed)(0, tasks)


def task_of(tasks=TASKS):
    return source().tasks('train', EpisodeSpec(WAY, 2, 2), 0)(0, tasks)


# Sequences.

# Of two sequences of five steps: at the third step of the first, class 0 comes for the second time.
CLASSES = np.array([[0, 1, 0, 0, 1], [2, 2, 1, 2, 1]])
ONE_HOT = tf.one_hot(CLASSES, 3)


def test_labels_one_step_late():
    shown = late(ONE_HOT).numpy()
    assert (shown[:, 0] == 0).all()
    np.testing.assert_array_equal(shown[:, 1:], ONE_HOT[:, :-1])


def test_numbers_by_instance():
    np.testing.assert_array_equal(instances(ONE_HOT), [[1, 1, 2, 3, 2], [1, 2, 1, 3, 2]])
    values = np.float32([[1, 0, 0, 1, 1], [0, 1, 1, 1, 0]])
    expected = [[0.5, 0.5], [0.5, 0.5], [1, 1]]
    np.testing.assert_allclose(mean_by_instance(values, ONE_HOT, 3), expected)


@of_every_kind
def test_a_label_changes_no_prediction_before_the_next_step(kind):
    learner, sequence = make(**kind), sequence_of()
    before = learner.query_outputs(sequence)[0].numpy()
    for t in range(WAY * INSTANCES - 1):
        y = sequence.y.numpy()
        y[:, t] = np.roll(y[:, t], 1, axis=-1)
        after = learner.query_outputs(sequence._replace(y=tf.constant(y)))[0].numpy()
        np.testing.assert_array_equal(after[:, : t + 1], before[:, : t + 1])
        assert (np.abs(after[:, t + 1] - before[:, t + 1]).max(-1) > 1e-6).all()


@pytest.mark.parametrize('labels', ['one_hot', 'strings'])
def test_without_memory_a_feed_forward_network_sees_the_last_label_alone(labels):
    """So nothing but chance and elimination is open to it."""
    learner = make(controller='feed_forward', memory=False, labels=labels)
    one, other = sequence_of(), sequence_of(seed=1)
    t = 5
    x, y = (
        tf.concat([b[:, : t - 1], a[:, t - 1 :]], 1)
        for a, b in ((one.x, other.x), (one.y, other.y))
    )
    outputs = learner.query_outputs(one)[0].numpy()
    mixed = learner.query_outputs(Sequence(x, y, one.key))[0].numpy()
    np.testing.assert_allclose(mixed[:, t:], outputs[:, t:], rtol=1e-5, atol=1e-6)
    for memory, controller in ((True, 'feed_forward'), (False, 'lstm')):
        learner = make(controller=controller, memory=memory, labels=labels)
        outputs = learner.query_outputs(one)[0].numpy()
        mixed = learner.query_outputs(Sequence(x, y, one.key))[0].numpy()
        assert np.abs(mixed[:, t:] - outputs[:, t:]).max() > 1e-4


@of_every_kind
def test_scores_by_instance(kind):
    learner, sequence = make(**kind), sequence_of(5)
    losses, scores = (part.numpy() for part in learner.query_scores(sequence))
    assert losses.shape == scores.shape == (INSTANCES, 5)
    assert learner.axis(len(scores)) == ('instance', (1, 2, 3))
    outputs = learner.query_outputs(sequence)[0].numpy().astype(float)
    codes = sequence.y
    if kind['labels'] == 'strings':
        codes = tf.matmul(sequence.y, label_strings(5, WAY, sequence.key, tf.float32))
    parts = 1 if kind['labels'] == 'one_hot' else 5
    codes, outputs = (np.reshape(x, (5, WAY * INSTANCES, parts, -1)) for x in (codes, outputs))
    p = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    for task, k in itertools.product(range(5), range(INSTANCES)):
        at = np.array(instances(sequence.y))[task] == k + 1
        assert at.sum() == WAY
        loss = -np.log((p * codes)[task, at].sum(-1)).sum(-1).mean()
        right = (p.argmax(-1) == codes.argmax(-1))[task, at].all(-1).mean()
        assert losses[k, task] == pytest.approx(loss, rel=1e-4)
        assert scores[k, task] == pytest.approx(right)
    # Training minimises the mean over all steps.
    logged = learner.meta_loss(sequence, STEP)
    assert float(logged.value) == pytest.approx(losses.mean(), rel=1e-5)
    assert float(logged.log['pre_accuracy']) == pytest.approx(scores[0].mean())
    assert float(logged.log['post_accuracy']) == pytest.approx(scores[-1].mean())


@pytest.mark.slow
@of_every_kind
def test_compiled_equals_uncompiled_on_sequences(kind):
    learner, sequence = make(**kind), sequence_of()

    def update(sequence):
        return learner.meta_gradients(sequence, STEP)

    compiled = tf.function(update, jit_compile=True, autograph=False)(sequence)
    for ours, theirs in zip(tf.nest.flatten(compiled), tf.nest.flatten(update(sequence))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


# Labels.


def test_strings_of_a_task_differ_and_belong_to_its_key():
    keys = tf.constant([[1, 2], [3, 4], [1, 2]], tf.uint32)
    strings = label_strings(3, 15, keys, tf.float32).numpy()
    assert strings.shape == (3, 15, 25)
    assert (strings.reshape(3, 15, 5, 5).sum(-1) == 1).all()
    assert all(len({tuple(row) for row in task}) == 15 for task in strings)
    np.testing.assert_array_equal(strings[0], strings[2])
    assert (strings[0] != strings[1]).any()
    np.testing.assert_array_equal(label_strings(1, 4, keys[1:2], tf.float32)[0], strings[1, :4])
    fixed = label_strings(2, 4, None, tf.float32).numpy()
    np.testing.assert_array_equal(fixed[0], fixed[1])
    all_of_them = label_strings(1, STRINGS, keys[:1], tf.float32).numpy()[0]
    assert len({tuple(row) for row in all_of_them}) == STRINGS


def test_a_string_is_right_when_all_letters_are():
    labels = Labels('strings', WAY)
    codes = label_strings(1, 2, None, tf.float32)
    _, right = labels.judge(codes, codes)
    assert right.numpy().tolist() == [[1, 1]]
    other = codes.numpy()
    other[0, 1, 20:] = np.roll(other[0, 1, 20:], 1)
    losses, right = labels.judge(codes, other)
    assert right.numpy().tolist() == [[1, 0]]
    sure, unsure = np.log(np.e + 4) - 1, np.log(np.e + 4)
    np.testing.assert_allclose(losses, [[5 * sure, 4 * sure + unsure]], rtol=1e-5)


def test_outputs_of_strings_are_log_probabilities_of_the_classes():
    labels = Labels('strings', WAY)
    codes = label_strings(2, 7, tf.constant([[1, 2], [3, 4]], tf.uint32), tf.float32)
    outputs = np.random.default_rng(0).normal(size=(2, 4, 25)).astype(np.float32)
    p = np.exp(outputs).reshape(2, 4, 5, 5)
    p /= p.sum(-1, keepdims=True)
    chosen = np.einsum('tqlo,tclo->tqcl', p, np.reshape(codes, (2, 7, 5, 5)))
    np.testing.assert_allclose(labels.by_class(outputs, codes), np.log(chosen.prod(-1)), rtol=1e-4)


# Tasks of a support set and queries.


@of_every_kind
def test_a_query_is_one_more_step(kind):
    """The support set in its random order and then a query are a sequence, whose last outputs are
    the query's."""
    learner, task = make(**kind), task_of()
    outputs = learner.query_outputs(task)[0].numpy()
    order = random_order(task.support_y, task.key)
    for query in range(outputs.shape[1]):
        x, y = (
            tf.concat([take(support, order), queries[:, query : query + 1]], 1)
            for support, queries in ((task.support_x, task.query_x), (task.support_y, task.query_y))
        )
        last = learner.query_outputs(Sequence(x, y, task.key))[0][:, -1:]
        if kind['labels'] == 'strings':
            codes = label_strings(TASKS, WAY, task.key, tf.float32)
            last = learner.labels.by_class(last, codes)
        np.testing.assert_allclose(outputs[:, query], last[:, 0], rtol=1e-4, atol=1e-5)


@of_every_kind
def test_examples_that_do_not_count_change_nothing(kind):
    learner, task = make(**kind), task_of()
    filled = task._replace(
        support_x=tf.concat([task.support_x, 0 * task.support_x[:, :2] + 1], 1),
        support_y=tf.concat([task.support_y, 0 * task.support_y[:, :2]], 1),
    )
    expected = learner.query_outputs(task)
    np.testing.assert_allclose(learner.query_outputs(filled), expected, rtol=1e-5, atol=1e-6)


def test_strings_take_any_number_of_classes():
    learner = make(labels='strings')
    assert not learner.fixed_way and make().fixed_way
    task = source().tasks('train', EpisodeSpec(6, 1, 2), 0)(0, TASKS)
    assert learner.query_outputs(task).shape == (1, TASKS, 12, 6)


# What is trained and evaluated.


def test_protocols():
    spec, outer = EpisodeSpec(4, 1, 2), OuterLoop(0, 5, 1e-3, EpisodeSpec(WAY, 1, 3))
    sequences, episodes = make(), make(protocol='episodes')
    assert sequences.evaluation_draws(spec) == SequenceSpec(4, 4 * INSTANCES)
    assert sequences.phases(outer)[0].draws == SequenceSpec(WAY, WAY * INSTANCES)
    assert episodes.evaluation_draws(spec) == spec
    assert episodes.phases(outer)[0].draws == outer.spec
    assert len(episodes.axis(1).values) == 1


def test_the_paper_s_optimizer():
    assert MANN.outer == OuterOptimizer(1e-4, kind='rmsprop', momentum=0.9)

    def with_momentum(g, slots, rate, t):
        square, moved = slots
        square = 0.9 * square + 0.1 * g**2
        moved = 0.9 * moved + rate * g / np.sqrt(square + 1e-10)
        return moved, (square, moved)

    optimizer = OuterOptimizer(0.01, kind='rmsprop', momentum=0.9)
    expected = steps_in_numpy(with_momentum, (0.0, 0.0), lambda t: 0.01, 0.0, 10)
    check_paths(steps_of(optimizer, 10), expected)


def symbols(classes):
    """Classes that are told apart at a glance: one bright pixel each."""
    images = np.eye(classes, dtype=np.uint8).reshape(classes, 1, 1, classes, 1)
    return ImageClasses.from_arrays(255 * images.repeat(12, 1), {'train': range(classes)})


def trained(classes, way, iterations, rate, **kwargs):
    """Accuracy by instance after some training, of 300 sequences, and of chance."""
    keras.utils.set_random_seed(0)
    learner = MANN((1, classes, 1), way, **SMALL | kwargs)
    (phase,) = learner.phases(OuterLoop(0, iterations, rate, EpisodeSpec(way, 1, 1)))
    drawn = symbols(classes).tasks('train', phase.draws, 0)
    iterate(op_of(learner, phase), drawn, 16)(0, iterations)
    later = symbols(classes).tasks('train', phase.draws, 1)(0, 300)
    return learner.query_scores(later)[1].numpy().mean(-1)


def test_the_feed_forward_baseline_stays_at_chance():
    """It knows the label before, so it may name another: one of the 6 of 8 that are left, half."""
    scores = trained(6, WAY, 100, 1e-2, controller='feed_forward', memory=False)
    assert scores.mean() < 3 / 8 + 0.04


@pytest.mark.slow
def test_learns_the_second_instance():
    """From what the first was labelled: elimination alone gives no more than 0.8 here."""
    scores = trained(2, 2, 200, 1e-2, units=32, slots=16, width=8)
    assert scores[1] > 0.95 and scores[2] > 0.95 and scores[0] < 0.85


# Flags and arguments.

SEQUENCES = ('--algorithm=mann', '--datasource=omniglot', '--image_size=20', '--num_classes=5')


def test_flags_make_the_learner():
    flags = checked(*SEQUENCES, '--mann_instances=4', '--mann_memory=False')
    learner = MANN.from_flags(flags, problem_of(flags))
    assert learner.example_shape == (20, 20, 1) and learner.instances == 4
    assert isinstance(learner.recurrence.cell, keras.layers.LSTMCell)
    paper = checked(*SEQUENCES)
    cell = MANN.from_flags(paper, problem_of(paper)).recurrence.cell
    assert cell.controller.units == 200 and cell.decay == 0.95
    assert (cell.slots, cell.width, cell.heads) == (128, 40, 4)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (
            ['--mann_protocol=episodes', '--mann_instances=3'],
            '--mann_instances=3: means nothing with --mann_protocol=episodes',
        ),
        (['--num_filters=32'], '--num_filters=32: means nothing to --algorithm=mann'),
    ],
)
def test_flags_that_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        checked(*SEQUENCES, *arguments)


def test_regression_is_refused():
    flags = checked('--algorithm=mann', '--datasource=sinusoid')
    with pytest.raises(ArgumentError, match='datasource=sinusoid: MANN tells classes apart'):
        MANN.from_flags(flags, problem_of(flags))


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({'labels': 'words'}, "labels='words': one of one_hot, strings"),
        ({'protocol': 'tasks'}, "protocol='tasks': one of sequences, episodes"),
        ({'controller': 'gru'}, "controller='gru': one of lstm, feed_forward"),
        ({'instances': 0}, 'instances=0: at least 1'),
        ({'heads': 13}, 'heads=13: from 1 to the 12 slots'),
    ],
)
def test_arguments_that_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        make(**arguments)
