"""Phases, updates with a state and other things to draw: toy learners of every family's kind.

Each toy is trained as a command line trains a method: built, run, interrupted and resumed.
"""

import csv
import dataclasses
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import algorithms
from maml_tf.commands import run_training as run_training_module
from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import build
from maml_tf.commands.run_training import run_training
from maml_tf.datasets.sources import SOURCES
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.task import Batch, BatchSpec, EpisodeSpec, Sequence, SequenceSpec, Task
from maml_tf.learner import Learner
from maml_tf.objectives.classification import MeanClassification
from maml_tf.saving.run_directory import RunDirectory
from maml_tf.training import shares
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import TrainingOp, op_of
from maml_tf.training.phases import Loss, OuterLoop, Phase, Update

SIDE, WIDTH, TRAINING_CLASSES, TASKS = 3, 4, 6, 6
SPEC = EpisodeSpec(way=3, shot=2, query=2)


def make_source():
    """Random images: six classes to train on, four to validate and four to test on."""
    images = np.random.default_rng(0).integers(0, 256, (14, 6, SIDE, SIDE, 1), dtype=np.uint8)
    splits = {'train': range(6), 'val': range(6, 10), 'test': range(10, 14)}
    return ImageClasses.from_arrays(images, {name: list(part) for name, part in splits.items()})


@pytest.fixture(scope='module')
def source():
    return make_source()


class Toy(Learner):
    """Compares a linear embedding of the queries with the means of the classes."""

    xla = False  # Toys are compiled in no time; one of them shows that XLA takes them, too.

    def __init__(self, training_classes=TRAINING_CLASSES, seed=0):
        super().__init__(MeanClassification())
        rng = np.random.default_rng(seed)
        embedding = rng.normal(size=(SIDE * SIDE, WIDTH)).astype(np.float32)
        classes = rng.normal(size=(WIDTH, training_classes)).astype(np.float32)
        make = lambda name, value: self.add_weight(
            name=name, shape=value.shape, initializer=self.starting_from(value)
        )
        self.embedding, self.classes = make('embedding', embedding), make('classes', classes)

    @classmethod
    def from_flags(cls, flags, problem):
        return cls(problem.training_classes, flags.seed)

    @property
    def example_shape(self):
        return SIDE, SIDE, 1

    def embed(self, x):
        return tf.reshape(x, [*x.shape[:-3], SIDE * SIDE]) @ self.embedding

    def adapt(self, support_x, support_y, steps=None, mask=None, key=None):
        means = tf.matmul(support_y, self.embed(support_x), transpose_a=True)
        return {'prototypes': means / tf.reduce_sum(support_y, 1)[..., None]}

    def predict_query(self, state, query_x):
        offsets = self.embed(query_x)[:, :, None] - state['prototypes'][:, None]
        return -tf.reduce_sum(tf.square(offsets), -1)


def phase_of(toy, outer, name='metatrain', iterations=None, **changes):
    """A Phase of a toy, with plain gradient descent and the settings of the command line."""
    settings = {
        'iterations': outer.metatrain_iterations if iterations is None else iterations,
        'gradients': toy.meta_gradients,
        'optimizer': keras.optimizers.SGD(0.1),
        'draws': outer.spec,
    }
    return Phase(name, **(settings | changes))


def build_toy(toy, source, logdir, *arguments):
    """Returns the Experiment of a command line that asks for a toy."""
    SOURCES['omniglot'] = dataclasses.replace(
        SOURCES['omniglot'],
        load=lambda flags: source,
        print_every=1,
        iterations_per_call=1,
        validate_every=None,
    )
    algorithms.registry()['toy'], algorithms.modules()['toy'] = toy, types.ModuleType('toy')
    flags = parsed(
        *('--algorithm=toy', '--datasource=omniglot', f'--logdir={logdir}'),
        *(f'--num_classes={SPEC.way}', f'--update_batch_size={SPEC.shot}'),
        *(f'--meta_batch_size={TASKS}', '--strategy=one_device', *arguments),
    )
    return build(flags)


@pytest.fixture
def built(source, monkeypatch, tmp_path):
    """(class of a toy, flags) -> Experiment."""
    # What build_toy changes is as it was after the test.
    monkeypatch.setitem(SOURCES, 'omniglot', SOURCES['omniglot'])
    monkeypatch.setitem(algorithms.registry(), 'toy', Toy)
    monkeypatch.setitem(algorithms.modules(), 'toy', None)
    return lambda toy, *arguments, logdir=tmp_path: build_toy(toy, source, logdir, *arguments)


def groups_of_the_last_checkpoint(experiment):
    """Returns the names of its parts: 'learner', and a name for each optimizer."""
    *_, prefix = experiment.directory.checkpoints().values()
    parts = {name.split('/')[0] for name, _ in tf.train.list_variables(prefix)}
    return parts - {'_CHECKPOINTABLE_OBJECT_GRAPH', 'iteration'}


def values(variables):
    return [np.array(variable) for variable in variables]


def by_hand(experiment, source, draws_of=lambda spec: TASKS):
    """Takes the iterations of all phases one by one, with nothing compiled; returns the logs.

    draws_of: spec -> how many of it are drawn at a time.
    """
    number, logs = itertools.count(), []
    for phase in experiment.phases:
        draw, count = source.tasks('train', phase.draws, 0), draws_of(phase.draws)
        op = op_of(experiment.learner, phase)
        for step in range(phase.iterations):
            drawn = draw(next(number) * count, count)
            logs.append(op(drawn, tf.constant(step, tf.int64)))
    return logs


def assert_trained_as_by_hand(experiment, twin, source, **kwargs):
    """`twin`: the same Experiment, built once more."""
    start = values(twin.learner.variables)
    run_training(experiment)
    by_hand(twin, source, **kwargs)
    ours, theirs = values(experiment.learner.variables), values(twin.learner.variables)
    assert any(np.abs(one - other).max() > 1e-3 for one, other in zip(start, theirs))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


# A whole op in place of gradients


class LineSearch(Toy):
    """Halves its step until the loss falls by enough, as no optimizer does (Armijo 1966)."""

    xla = True

    def phases(self, outer):
        return [phase_of(self, outer, gradients=None, optimizer=None, op=self.iteration)]

    def iteration(self, task, step):
        loss, gradients = self.loss_and_gradients(task)
        weights = [tf.convert_to_tensor(w) for w in (self.embedding, self.classes)]
        squares = tf.add_n([tf.reduce_sum(g * g) for g in gradients])
        # A start that depends on the step, so that a wrong one shows.
        start = 8.0 / tf.cast(step + 1, tf.float32)

        def take(rate):
            for variable, w, g in zip((self.embedding, self.classes), weights, gradients):
                variable.assign(w - rate * g)
            return rate, self.meta_loss(task, step).value

        rate, _ = tf.while_loop(
            lambda rate, after: after > loss - 0.5 * rate * squares,
            lambda rate, after: take(rate / 2),
            take(start),
        )
        return {'loss': loss, 'rate': rate}

    def loss_and_gradients(self, task):
        with tf.GradientTape() as tape:
            loss = self.meta_loss(task, None).value
        variables = [self.embedding.value, self.classes.value]
        return loss, tape.gradient(
            loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )


def test_a_phase_with_a_whole_op_of_its_own(built, source):
    experiment = built(LineSearch, '--metatrain_iterations=3')
    twin = built(LineSearch, '--metatrain_iterations=3')
    assert_trained_as_by_hand(experiment, twin, source)
    assert groups_of_the_last_checkpoint(experiment) == {'learner'}
    rows = experiment.directory.metrics()
    assert list(rows[0])[:3] == ['iteration', 'loss', 'rate'] and len(rows) == 3
    for row, largest in zip(rows, (8, 4, 8 / 3)):
        halvings = np.log2(largest / float(row['rate']))
        np.testing.assert_allclose(halvings, round(halvings), atol=1e-5)


def test_every_step_of_the_whole_op_lowers_the_loss(source):
    learner = LineSearch()
    (phase,) = learner.phases(OuterLoop(0, 5, 0.1, SPEC))
    draw = source.tasks('train', SPEC, 0)
    one_task = lambda start, count: draw(0, count)
    run = iterate(op_of(learner, phase), one_task, TASKS)
    losses = [float(run(i, 1)['loss']) for i in range(5)]
    assert all(after < before for before, after in zip(losses, losses[1:]))


# Phases that share an optimizer


class Alternating(Toy):
    """Trains by two losses in turn; one Adam steps by both. Says when each is traced."""

    traced = []

    def phases(self, outer):
        adam = outer.optimizer()
        phase = lambda name, gradients: phase_of(
            self, outer, name, outer.metatrain_iterations, gradients=gradients, optimizer=adam
        )
        return [
            phase('compare', self.meta_gradients),
            phase('shrink', self.shrink_gradients),
        ]

    def meta_gradients(self, task, step):
        self.traced.append('compare')
        return super().meta_gradients(task, step)

    def shrink_gradients(self, task, step):
        self.traced.append('shrink')
        return self.gradients_of(self.size, task, step)

    def size(self, task, step):
        squares = tf.reduce_sum(tf.square(self.embed(task.query_x)), (1, 2))
        loss = tf.reduce_mean(squares)
        return Loss(loss, {'size': loss})


def test_two_phases_share_an_optimizer_and_are_compiled_each_by_itself(built, source):
    arguments = ('--metatrain_iterations=3', '--meta_lr=0.05')
    experiment, twin = built(Alternating, *arguments), built(Alternating, *arguments)
    first, second = experiment.phases
    assert first.optimizer is second.optimizer
    Alternating.traced.clear()
    # A phase is traced when it begins, not before, and neither holds the other.
    compiled, run_of = [], run_training_module._run_of
    with pytest.MonkeyPatch.context() as patch:

        def noted(experiment, draws, phase, phase_start):
            before = len(Alternating.traced)
            run = run_of(experiment, draws, phase, phase_start)
            compiled.append((phase.name, phase_start, set(Alternating.traced[before:])))
            return run

        patch.setattr(run_training_module, '_run_of', noted)
        assert_trained_as_by_hand(experiment, twin, source)
    assert compiled == [('compare', 0, {'compare'}), ('shrink', 3, {'shrink'})]
    assert int(first.optimizer.iterations) == 6
    # The optimizer is there once, named by its first phase.
    assert groups_of_the_last_checkpoint(experiment) == {'learner', 'compare'}


def test_a_schedule_goes_on_over_the_phases_that_share_it(built):
    experiment = built(
        Alternating, '--metatrain_iterations=3', '--meta_lr=0.08', '--meta_lr_halve_every=2'
    )
    run_training(experiment)
    optimizer = experiment.phases[0].optimizer
    np.testing.assert_allclose(optimizer.learning_rate, 0.01)  # Six steps halve it three times.


# Plain labelled batches


class Pretrained(Toy):
    """Learns its embedding by telling all training classes apart, and then by episodes."""

    drawn = []

    def phases(self, outer):
        first = phase_of(
            self, outer, 'features', 4, gradients=self.batch_gradients, draws=BatchSpec(10)
        )
        return [first, phase_of(self, outer)]

    def batch_gradients(self, batch, step):
        self.drawn.append(batch)
        return self.gradients_of(self.batch_loss, batch, step)

    def batch_loss(self, batch, step):
        logits = self.embed(batch.x) @ self.classes
        loss = self.objective.loss(batch.y, logits, None)
        return Loss(loss, {'batch_loss': loss, 'step': tf.cast(step, tf.float32)})

    def meta_gradients(self, task, step):
        self.drawn.append(task)
        return super().meta_gradients(task, step)


def test_plain_labelled_batches_before_episodes(built, source):
    experiment = built(Pretrained, '--metatrain_iterations=3')
    twin = built(Pretrained, '--metatrain_iterations=3')
    assert experiment.learner.classes.shape == (WIDTH, TRAINING_CLASSES)
    Pretrained.drawn.clear()
    # A batch is one draw, whatever the number of tasks in a meta-batch.
    count = lambda spec: 1 if isinstance(spec, BatchSpec) else TASKS
    assert_trained_as_by_hand(experiment, twin, source, draws_of=count)
    kinds = [type(drawn) for drawn in Pretrained.drawn]
    assert set(kinds) == {Batch, Task} and kinds[0] is Batch and kinds[-1] is Task
    for drawn in Pretrained.drawn:
        if isinstance(drawn, Batch):
            assert drawn.x.shape == (10, SIDE, SIDE, 1) and drawn.y.shape == (10, 6)
        else:
            assert drawn.support_x.shape[:2] == (TASKS, SPEC.way * SPEC.shot)
    steps = [row['step'] for row in experiment.directory.metrics()]
    assert [float(step) for step in steps[:4]] == [0, 1, 2, 3] and steps[4:] == [''] * 3


# A state that training assigns


class Averaging(Toy):
    """Keeps running means of the embedding, which no gradient goes to."""

    def __init__(self, training_classes=TRAINING_CLASSES, seed=0):
        super().__init__(training_classes, seed)
        self.mean = self.add_state('mean', np.zeros(WIDTH, np.float32))
        self.seen = self.add_state('seen', np.zeros([], np.float32))

    def phases(self, outer):
        return [phase_of(self, outer)]

    def meta_loss(self, task, step):
        loss = super().meta_loss(task, step)
        # A lookup, whose gradient TensorFlow gives as slices.
        size = tf.reduce_mean(tf.square(tf.gather(self.classes.value, [1, 1])))
        means = tf.reduce_mean(self.embed(task.support_x), (0, 1))
        seen = tf.cast(step, tf.float32) + 1
        state = {'mean': 0.75 * self.mean + 0.25 * means, 'seen': seen}
        log = loss.log | {'mean': tf.reduce_sum(means)}
        return Loss(loss.value + size, log, state)


@pytest.mark.parametrize('at_once', [None, 1, 2, 3])
def test_a_state_is_averaged_over_shares_and_assigned(source, at_once, monkeypatch):
    monkeypatch.setattr(shares, '_cores', lambda: 2)
    learner = Averaging()
    start, mean = np.array(learner.embedding), np.zeros(WIDTH)
    op = TrainingOp(learner, keras.optimizers.SGD(0.0), learner.meta_gradients)
    draw = source.tasks('train', SPEC, 0)
    log = iterate(op, draw, TASKS, at_once)(0, 3)
    sums = []
    for i in range(3):
        x = np.reshape(draw(i * TASKS, TASKS).support_x, [-1, SIDE * SIDE])
        mean, sums = 0.75 * mean + 0.25 * (x @ start).mean(0), [*sums, (x @ start).mean(0).sum()]
    np.testing.assert_allclose(learner.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(log['mean'], np.mean(sums), rtol=1e-5)
    assert float(learner.seen) == 3
    np.testing.assert_array_equal(learner.embedding, start)
    assert {v.name for v in learner.trainable_variables} == {'embedding', 'classes'}


def test_a_state_is_saved_with_the_weights_and_trained_as_by_hand(built, source):
    experiment = built(Averaging, '--metatrain_iterations=3')
    twin = built(Averaging, '--metatrain_iterations=3')
    assert_trained_as_by_hand(experiment, twin, source)
    again = built(Averaging, '--metatrain_iterations=3')
    assert again.directory.restore() == 3
    np.testing.assert_array_equal(again.learner.mean, experiment.learner.mean)
    assert np.abs(again.learner.mean).max() > 0.01 and float(again.learner.seen) == 3


def test_a_state_of_an_unknown_name_is_refused(source):
    learner = Averaging()

    def gradients(task, step):
        update = learner.meta_gradients(task, step)
        return Update(update.gradients, update.log, {'typo': tf.zeros([])})

    op = TrainingOp(learner, keras.optimizers.SGD(0.1), gradients)
    with pytest.raises(KeyError, match='typo'):
        iterate(op, source.tasks('train', SPEC, 0), TASKS)


# Sequences


class Remembering(Toy):
    """Looks up what it saw before in a sequence; each label is shown one step late."""

    xla = True
    length = 8

    def phases(self, outer):
        draws = SequenceSpec(outer.spec.way, self.length)
        return [phase_of(self, outer, gradients=self.sequence_gradients, draws=draws)]

    def sequence_gradients(self, sequence, step):
        return self.gradients_of(self.sequence_loss, sequence, step)

    def sequence_loss(self, sequence, step):
        assert isinstance(sequence, Sequence)
        z = self.embed(sequence.x)  # [tasks, length, width]
        written = tf.cumsum(sequence.y[..., None] * z[:, :, None], 1, exclusive=True)
        logits = tf.einsum('tlw,tlcw->tlc', z, written)
        losses = self.objective.loss(sequence.y, logits, None)
        later = sequence.y * tf.cast(tf.range(self.length) > 0, tf.float32)[:, None]
        seen = tf.reduce_sum(tf.cumsum(sequence.y, 1, exclusive=True) * later, (1, 2))
        return Loss(tf.reduce_mean(losses), {'seen': tf.reduce_mean(seen)})


def test_a_learner_that_draws_sequences(built, source):
    experiment = built(Remembering, '--metatrain_iterations=3')
    twin = built(Remembering, '--metatrain_iterations=3')
    (phase,) = experiment.phases
    sequence = source.tasks('train', phase.draws, 0)(0, TASKS)
    assert sequence.x.shape == (TASKS, 8, SIDE, SIDE, 1) and sequence.y.shape == (TASKS, 8, 3)
    assert_trained_as_by_hand(experiment, twin, source)
    # What a label is for is known only after it was shown: the first of a class is a guess.
    first = float(experiment.directory.metrics()[0]['seen'])
    counts = np.array(sequence.y).sum(1)
    np.testing.assert_allclose(first, (counts * (counts - 1) / 2).sum() / TASKS, rtol=1e-5)


# The course of the phases


class ThreePhases(Averaging):
    """Two gradient phases that share an optimizer, and a whole op between them."""

    def phases(self, outer):
        shared = {'optimizer': outer.optimizer()}
        whole = {'gradients': None, 'optimizer': None, 'op': self.halve, 'draws': BatchSpec(5)}
        return [
            phase_of(
                self, outer, 'first', 3, gradients=self.first_gradients, title='First', **shared
            ),
            phase_of(self, outer, 'none', 0),
            phase_of(self, outer, 'second', 4, **whole),
            phase_of(self, outer, gradients=self.third_gradients, **shared),
        ]

    def first_gradients(self, task, step):
        return self.logging('first_step', self.meta_gradients(task, step), step)

    def third_gradients(self, task, step):
        return self.logging('third_step', self.meta_gradients(task, step), step)

    def logging(self, name, update, step):
        log = {name: tf.cast(step, tf.float32), 'loss': update.log['post_loss']}
        return update._replace(log=log)

    def halve(self, batch, step):
        self.classes.assign(self.classes / 2 + tf.reduce_mean(batch.x))
        return {'second_step': tf.cast(step, tf.float32)}


ITERATIONS = 3 + 4 + 5


def lines(experiment):
    return (experiment.directory.path / 'metrics.csv').read_text()


@pytest.fixture
def undisturbed(built, tmp_path):
    experiment = built(ThreePhases, '--metatrain_iterations=5', logdir=tmp_path / 'undisturbed')
    run_training(experiment)
    return experiment


def test_iterations_add_up_and_steps_count_within_each_phase(undisturbed, capsys):
    assert undisturbed.iterations == ITERATIONS
    # Of the beginning of each phase, which SIGTERM may cut short, and of the end.
    assert list(undisturbed.directory.checkpoints()) == [3, 7, ITERATIONS]
    rows = undisturbed.directory.metrics()
    assert [int(row['iteration']) for row in rows] == list(range(1, ITERATIONS + 1))
    steps = {
        name: [float(row[f'{name}_step']) for row in rows if row[f'{name}_step']]
        for name in ('first', 'second', 'third')
    }
    assert steps == {'first': [0, 1, 2], 'second': [0, 1, 2, 3], 'third': [0, 1, 2, 3, 4]}
    # Eight steps of the shared optimizer: the whole op takes none.
    assert int(undisturbed.phases[0].optimizer.iterations) == 8
    # 'seen' counts the steps of the last phase.
    assert float(undisturbed.learner.seen) == 5


def test_what_is_printed_counts_within_each_phase(built, capsys):
    run_training(built(ThreePhases, '--metatrain_iterations=2'))
    printed = capsys.readouterr().out.splitlines()
    numbers = [line.split(':')[0] for line in printed if ' ' in line.split(':')[0]]
    counted = [name for name in numbers if name.split()[0] in ('First', 'Iteration')]
    assert counted == [
        *(f'First {i}' for i in (1, 2, 3)),
        *(f'Iteration {i}' for i in (1, 2, 3, 4)),
        *(f'Iteration {i}' for i in (1, 2)),
    ]


@pytest.mark.parametrize(
    'stops',
    [
        [3],
        [2, 4, 6, 8, 11],
        *(pytest.param([stop], marks=pytest.mark.slow) for stop in (1, 5, 7, 9)),
    ],
    ids=str,
)
def test_a_run_resumes_in_the_middle_of_any_phase(built, undisturbed, stops, monkeypatch):
    """The user interrupts after these iterations: the end is bit for bit the undisturbed one."""
    run_of = run_training_module._run_of
    for stop in [*stops, None]:

        def interrupted(*arguments, stop=stop):
            run = run_of(*arguments)

            def noting(first, count):
                log = run(first, count)
                if first + count == stop:
                    os.kill(os.getpid(), signal.SIGINT)
                return log

            return noting

        monkeypatch.setattr(run_training_module, '_run_of', interrupted)
        experiment = built(ThreePhases, '--metatrain_iterations=5')
        if stop is None:
            run_training(experiment)
        else:
            with pytest.raises(KeyboardInterrupt):
                run_training(experiment)
            assert max(experiment.directory.checkpoints()) == stop
    variables = lambda e: e.learner.variables + e.phases[0].optimizer.variables
    ours, theirs = values(variables(experiment)), values(variables(undisturbed))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    assert lines(experiment) == lines(undisturbed)


def test_a_finished_run_takes_no_further_iteration(built, undisturbed, tmp_path, capsys):
    again = built(ThreePhases, '--metatrain_iterations=5', logdir=tmp_path / 'undisturbed')
    before = lines(undisturbed)
    run_training(again)
    assert 'Finished' in capsys.readouterr().out and lines(again) == before
    for one, other in zip(again.learner.variables, undisturbed.learner.variables):
        np.testing.assert_array_equal(one, other)


# Replicas

TWO_DEVICES = """
import sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import test_phases
print('farthest', test_phases.distance_of_strategies(sys.argv[1]))
"""


def distance_of_strategies(logdir):
    """Returns how far apart the weights and states of one and two replicas end, of any toy."""
    farthest = 0
    for toy in (Averaging, Remembering, LineSearch, Pretrained, ThreePhases):
        ends = []
        for strategy in ('one_device', 'mirrored'):
            arguments = f'--strategy={strategy}', '--metatrain_iterations=2'
            place = f'{logdir}/{toy.__name__}/{strategy}'
            experiment = build_toy(toy, make_source(), place, *arguments)
            assert experiment.strategy.num_replicas_in_sync == 1 + (strategy == 'mirrored')
            start = values(experiment.learner.variables)
            run_training(experiment)
            ends.append(values(experiment.learner.variables))
            moved = max(np.abs(a - b).max() for a, b in zip(start, ends[-1]))
            assert moved > 1e-3
        farthest = max(farthest, *(np.abs(a - b).max() for a, b in zip(*ends, strict=True)))
    return farthest


@pytest.mark.slow
def test_two_replicas_learn_what_one_learns(tmp_path):
    """States, batches, sequences and whole ops; in a process that has two devices."""
    here = pathlib.Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *sys.path])
    result = subprocess.run(
        [sys.executable, '-c', TWO_DEVICES, str(tmp_path)],
        env=os.environ | {'PYTHONPATH': path},
        text=True,
        capture_output=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert float(result.stdout.rpartition('farthest ')[2]) < 1e-5


# metrics.csv


def test_columns_of_metrics_where_phases_log_different_names(undisturbed):
    """Every row has every column, and a number stands under its own name."""
    with open(undisturbed.directory.path / 'metrics.csv', encoding='utf-8') as file:
        header, *rows = csv.reader(file)
    assert header == [
        *('iteration', 'first_step', 'loss', 'val_accuracy_before', 'val_accuracy'),
        *('second_step', 'third_step'),
    ]
    assert {len(row) for row in rows} == {len(header)}
    names = ['first_step'] * 3 + ['second_step'] * 4 + ['third_step'] * 5
    for row, name in zip(rows, names, strict=True):
        steps = dict(zip(header, row))
        there = [key for key in header if key.endswith('_step') and steps[key]]
        assert there == [name] and bool(steps['loss']) == (name != 'second_step')


def test_a_new_column_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    directory = RunDirectory(tmp_path, {})
    directory.append_metrics({'iteration': 1, 'a': 0.5})
    directory.append_metrics({'iteration': 2})
    path = tmp_path / 'metrics.csv'
    with open(path, 'a') as file:
        file.write('3,0.')  # killed while it wrote
    before = path.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', lambda *_: (_ for _ in ()).throw(OSError('full')))
        with pytest.raises(OSError, match='full'):
            directory.append_metrics({'iteration': 3, 'b': 1.5})
    assert path.read_text() == before and list(tmp_path.iterdir()) == [path]
    directory.append_metrics({'iteration': 3, 'b': 1.5, 'a': 2.5})
    directory.append_metrics({'b': 2, 'iteration': 4})
    assert path.read_text() == 'iteration,a,b\n1,0.5,\n2,,\n3,2.5,1.5\n4,,2\n'
    directory.forget_metrics_after(2)
    assert path.read_text() == 'iteration,a,b\n1,0.5,\n2,,\n'
