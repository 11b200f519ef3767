"""What holds for every registered method, on its own tiny configuration, and on regression."""

import contextlib
import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from relatives import methods

from maml_tf import algorithms
from maml_tf.algorithms.model_based.cnp_classifier import CNPClassifier
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.algorithms.optimisation.reptile import Reptile
from maml_tf.datasets.functions.channel_coding import ChannelCoding
from maml_tf.datasets.functions.sinusoid import Sinusoid
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.task import BatchSpec, EpisodeSpec, Task
from maml_tf.evaluation import evaluate
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.bits import Bits
from maml_tf.objectives.regression import Regression
from maml_tf.saving.checkpoints import LEARNER
from maml_tf.saving.exports.export import export
from maml_tf.saving.init_from import load_weights
from maml_tf.saving.run_directory import RunDirectory
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import op_of
from maml_tf.training.phases import OuterLoop

TASKS = 4
# Iterations in which a method learns an easy problem; most need less. A recurrence finds out late
# how to compare, and then all at once.
ENOUGH, OF_SLOW_ONES = 600, {'mann': 2000}
STEP = tf.constant(0, tf.int64)


def regression(method, **arguments):
    """Makes a factory of a method's learner of the sinusoid."""

    def make():
        learner = method(FullyConnected((1,), 1, (20, 20)), Regression(), **arguments)
        return learner, EpisodeSpec(1, 10, 10)

    return make


LEARNERS = {name: method.tiny for name, method in algorithms.registry().items()}
LEARNERS['cnp of classes'] = CNPClassifier.tiny
LEARNERS['maml of regression'] = regression(MAML, inner_lr=0.01)
LEARNERS['reptile of regression'] = regression(Reptile, inner_lr=0.01, evaluation_steps=8)


def source_for(learner, spec):
    """Easy tasks of the learner's kind: images of patterns, the sinusoid, or words of a code."""
    if isinstance(learner.objective, Bits):
        return ChannelCoding()
    if not learner.objective.classification:
        return Sinusoid()
    rng = np.random.default_rng(0)
    height, width, channels = learner.example_shape
    patterns = rng.integers(0, 256, (24, 1, 4, 4, channels))
    patterns = patterns.repeat(-(-height // 4), 2).repeat(-(-width // 4), 3)
    patterns = patterns[:, :, :height, :width]
    noise = rng.integers(-40, 40, (24, spec.shot + spec.query + 3, height, width, channels))
    images = np.clip(patterns + noise, 0, 255).astype(np.uint8)
    splits = {'train': range(16), 'val': range(16, 20), 'test': range(20, 24)}
    return ImageClasses.from_arrays(images, {name: list(part) for name, part in splits.items()})


def trained_phase(learner, spec):
    """The last phase that takes gradients; None: nothing is trained."""
    phases = learner.phases(OuterLoop(0, 600, 3e-3, spec))
    return next((phase for phase in reversed(phases) if phase.gradients), None)


def training_draw(source, phase):
    """(draw, how many make an iteration), as the command line draws for a phase."""
    if isinstance(phase.draws, BatchSpec):
        return source.tasks('train', BatchSpec(1), 0), phase.draws.size
    return source.tasks('train', phase.draws, 0), TASKS


class Setting:
    """A learner of one method with a meta-batch of its tasks."""

    def __init__(self, name):
        self.make, self.enough = LEARNERS[name], OF_SLOW_ONES.get(name, ENOUGH)
        self.learner, self.spec = self.make()
        self.source = source_for(self.learner, self.spec)
        self.draw = self.source.tasks('train', self.spec, seed=0)
        self.task = self.draw(0, TASKS)
        self.outputs = self.learner.query_outputs(self.task)
        self._training = None

    def training(self):
        """(a learner as it starts, run(first, count) that trains it), compiled once."""
        if self._training is None:
            learner, _ = self.make()
            phase = trained_phase(learner, self.spec)
            if phase is None:
                pytest.skip('nothing is trained')
            run = iterate(op_of(learner, phase), *training_draw(self.source, phase))
            variables = learner.variables + phase.optimizer.variables
            start = [(variable, np.array(variable)) for variable in variables]
            self._training = learner, run, start
        learner, run, start = self._training
        for variable, value in start:
            variable.assign(value)
        return learner, run

    def tasks_of(self, **sizes):
        """Four tasks of other sizes than the learner's own."""
        spec = dataclasses.replace(self.spec, **sizes)
        return self.source.tasks('train', spec, seed=1)(0, TASKS)


@pytest.fixture(scope='module', params=methods(LEARNERS))
def setting(request):
    return Setting(request.param)


def close(actual, expected, tolerance=1e-5, least=0.0):
    """Asserts that all entries are within `tolerance` of the largest one, or within `least`."""
    atol = max(tolerance * np.abs(expected).max(), least)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)


@contextlib.contextmanager
def mode(learner, transductive):
    """The learner in one batch-norm mode."""
    before, learner.transductive = learner.transductive, transductive
    try:
        yield learner
    finally:
        learner.transductive = before


def compiled(learner, function):
    """As training and evaluation compile it."""
    return tf.function(function, jit_compile=learner.xla, autograph=False)


def one_of(task, i):
    return task.map(lambda x: x[i : i + 1])


def test_contract(setting):
    learner, task = setting.learner, setting.task
    state = learner.adapt(task.support_x, task.support_y, key=task.key)
    assert all(name.isidentifier() and value.shape[0] == TASKS for name, value in state.items())
    outputs = learner.predict_query(state, task.query_x)
    assert outputs.shape[:2] == task.query_y.shape[:2]
    close(setting.outputs[-1], outputs)
    inputs = {name: getattr(task, name) for name in ('support_x', 'support_y', 'query_x')}
    assert learner(inputs).shape == outputs.shape
    assert isinstance(learner, keras.Model)
    losses, scores = learner.query_scores(task)
    assert losses.shape == scores.shape == setting.outputs.shape[:2]
    axis = learner.axis(len(scores))
    assert len(axis.values) == len(scores) and axis.name
    assert learner.example_shape == tuple(task.support_x.shape[2:])


def test_an_update_is_the_mean_over_the_tasks(setting):
    """Of gradients, log and state: so shares and replicas change nothing."""
    learner = setting.learner
    phase = trained_phase(learner, setting.spec)
    if phase is None:
        pytest.skip('nothing is trained')
    draw, count = training_draw(setting.source, phase)
    whole = phase.gradients(draw(0, count), STEP)
    assert len(whole.gradients) == len(learner.trainable_variables)
    assert {*whole.state} <= {*learner.named_variables()}
    parts = [phase.gradients(draw(i, 1), STEP) for i in range(count)]
    mean = tf.nest.map_structure(lambda *values: np.mean(values, axis=0), *parts)
    largest = max(np.abs(g).max() for g in whole.gradients)
    for ours, theirs in zip(tf.nest.flatten(whole), tf.nest.flatten(mean), strict=True):
        scale = max(np.abs(theirs).max(), largest)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-4 * scale)


@pytest.mark.parametrize('transductive', [True, False])
def test_a_batch_of_tasks_equals_batches_of_one(setting, transductive):
    with mode(setting.learner, transductive) as learner:
        together = learner.query_outputs(setting.task)
        for i in range(TASKS):
            close(learner.query_outputs(one_of(setting.task, i))[:, 0], together[:, i])


def test_evaluation_changes_no_variable(setting):
    before = [np.array(variable) for variable in setting.learner.variables]
    for transductive in (True, False):
        with mode(setting.learner, transductive) as learner:
            learner.query_outputs(setting.task)
    for old, variable in zip(before, setting.learner.variables):
        np.testing.assert_array_equal(old, variable)


def test_whether_the_order_of_the_support_set_matters(setting):
    order = np.random.default_rng(0).permutation(setting.task.support_x.shape[1])
    shuffled = setting.task._replace(
        support_x=tf.gather(setting.task.support_x, order, axis=1),
        support_y=tf.gather(setting.task.support_y, order, axis=1),
    )
    outputs = setting.learner.query_outputs(shuffled)
    if setting.learner.ordered:
        assert np.abs(outputs - setting.outputs).max() > 1e-6
    else:
        close(outputs, setting.outputs, 1e-4)


def test_compiled_equals_uncompiled(setting):
    outputs = compiled(setting.learner, setting.learner.query_outputs)(setting.task)
    close(outputs, setting.outputs, 1e-4)


def test_checkpoint_round_trip(setting, tmp_path):
    RunDirectory(tmp_path, {LEARNER: setting.learner.named_variables()}).save(7)
    other, _ = setting.make()
    for variable in other.variables:
        variable.assign(variable + 1.0)
    load_weights(other, tmp_path)
    np.testing.assert_array_equal(other.query_outputs(setting.task), setting.outputs)


def test_keras_file_round_trip(setting, tmp_path):
    setting.learner.save(tmp_path / 'learner.keras')
    loaded = keras.models.load_model(tmp_path / 'learner.keras')
    assert type(loaded) is type(setting.learner)
    np.testing.assert_array_equal(loaded.query_outputs(setting.task), setting.outputs)


def test_the_method_s_own_optimizer_round_trip(setting, tmp_path):
    """Its rate may be one of the learner's variables, of which a file holds no copy."""
    learner, _ = setting.make()
    if not learner.trainable_variables:
        pytest.skip('nothing is trained')
    learner.compile()
    for variable in learner.optimizer.variables:
        variable.assign(variable + tf.cast(1, variable.dtype))
    learner.save(tmp_path / 'learner.keras')
    loaded = keras.models.load_model(tmp_path / 'learner.keras')
    assert type(loaded.optimizer) is type(learner.optimizer)
    np.testing.assert_array_equal(loaded.optimizer.learning_rate, learner.optimizer.learning_rate)
    for ours, theirs in zip(loaded.optimizer.variables, learner.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if hasattr(loaded, 'outer_rate'):
        loaded.outer_rate.assign(0.25)
        assert float(loaded.optimizer.learning_rate) == 0.25


@pytest.mark.parametrize('transductive', [True, False])
def test_saved_model_round_trip(setting, tmp_path, transductive):
    """Signatures for any number of tasks, shots and queries, and of classes unless the learner
    fixes them; adapt and predict_query equal serving_default."""
    spec, steps = setting.spec, 1
    fixed = setting.learner.fixed_way or not setting.learner.objective.classification
    other = dataclasses.replace(
        spec, way=spec.way + (not fixed), shot=spec.shot + 1, query=spec.query + 1
    )
    task = setting.task
    with mode(setting.learner, transductive) as learner:

        def predict(task):
            state = learner.adapt(task.support_x, task.support_y, steps)
            return learner.predict_query(state, task.query_x)

        shape, labels = task.support_x.shape[2:], task.support_y.shape[-1]
        description = {'transductive': transductive}
        export(learner, tmp_path / 'model', shape, labels, steps, description)
        signatures = tf.saved_model.load(str(tmp_path / 'model')).signatures
        for task in (setting.task, setting.source.tasks('train', other, 1)(0, 2)):
            expected = predict(task)
            served = signatures['serving_default'](
                support_x=task.support_x, support_y=task.support_y, query_x=task.query_x
            )['outputs']
            close(served, expected)
            state = signatures['adapt'](support_x=task.support_x, support_y=task.support_y)
            answer = signatures['predict_query'](query_x=task.query_x, **state)
            close(answer['outputs'], expected)
        close(served, compiled(learner, predict)(task), 1e-4)
    described = json.loads((tmp_path / 'model' / 'maml_tf.json').read_text())
    assert described['transductive'] == transductive
    takes_steps = setting.learner.inner_steps + setting.learner.evaluation_steps > 0
    assert described.get('inner_steps') == (steps if takes_steps else None)
    assert described['output_dim'] == (labels if fixed else None)


def test_a_query_does_not_see_the_others_unless_transductive(setting):
    task = setting.task
    with mode(setting.learner, False) as learner:
        state = learner.adapt(task.support_x, task.support_y)
        predictions = learner.predict_query(state, task.query_x)
        # Differences of larger numbers, which batches of other sizes round otherwise.
        close(learner.predict_query(state, task.query_x[:, :1]), predictions[:, :1], least=1e-7)


def test_any_way_shot_and_query_without_a_new_learner(setting):
    """Trained at its own sizes, a learner predicts at others; the way may be fixed."""
    spec, sizes = setting.spec, [{'shot': setting.spec.shot + 1}, {'query': 1}]
    if setting.learner.objective.classification and not setting.learner.fixed_way:
        sizes.append({'way': spec.way + 2})
    for changed in sizes:
        task = setting.tasks_of(**changed)
        outputs = setting.learner.query_outputs(task)[-1]
        assert outputs.shape[:2] == task.query_y.shape[:2] and np.isfinite(outputs).all()


@pytest.mark.parametrize('transductive', [True, False])
def test_a_task_filled_up_equals_the_task_itself(setting, transductive):
    """Outputs and loss of tasks that differ in shots and, unless it is fixed, in way."""
    spec = setting.spec
    if not setting.learner.takes_masks:
        pytest.skip('takes tasks of one size only')
    if setting.learner.ordered:
        pytest.skip('the order of a longer support set is another one')
    with mode(setting.make()[0], transductive) as learner:
        classes = learner.objective.classification
        least = {'least_way': 2} if classes and not learner.fixed_way else {}
        task = setting.tasks_of(shot=spec.shot + 1, least_shot=1, **least)
        outputs, losses = np.array(learner.query_outputs(task)), learner.query_scores(task)[0]
        # One task's outputs can be small differences of numbers as large as the others' outputs.
        rounding = 4 * np.finfo(np.float32).eps * np.abs(outputs).max()
        sizes = set()
        for i in range(TASKS):
            alone = task_without_filling(task, i, classes)
            sizes.add((alone.support_y.shape[1], alone.support_y.shape[2]))
            there = np.ones(outputs.shape[2], bool)
            if task.query_mask is not None:
                there = np.array(task.query_mask[i]) > 0
            expected = learner.query_outputs(alone)[:, 0]
            out = alone.query_y.shape[2] if classes else outputs.shape[3]
            close(outputs[:, i][:, there][..., :out], expected, 1e-4, rounding)
            np.testing.assert_allclose(
                losses[:, i], learner.query_scores(alone)[0][:, 0], rtol=1e-3
            )
        assert len(sizes) > 1
        phase = trained_phase(learner, spec)
        if phase is None or not isinstance(phase.draws, EpisodeSpec):
            return  # No task is trained on.
        learner.distort = False  # Siamese's random distortions are drawn for the filling, too.
        alone = [task_without_filling(task, i, classes) for i in range(TASKS)]
        in_training = [learner.meta_loss(one, STEP).value for one in alone]
        whole = learner.meta_loss(task, STEP).value
        np.testing.assert_allclose(whole, np.mean(in_training), rtol=1e-3)


def task_without_filling(task, i, classes):
    """Task i of a stack of masked ones, cut to its size and without masks."""
    parts = {
        name: np.array(value[i]) for name, value in task._asdict().items() if value is not None
    }
    way = int(parts['support_y'].max(0).sum()) if classes else parts['support_y'].shape[-1]
    cut = {}
    for side in ('support', 'query'):
        mask = parts.get(f'{side}_mask')
        there = slice(None) if mask is None else mask > 0
        cut[f'{side}_x'] = tf.constant(parts[f'{side}_x'][there][None])
        cut[f'{side}_y'] = tf.constant(parts[f'{side}_y'][there, :way][None])
    return Task(**cut, key=task.key[i : i + 1])


def test_training_is_resumed_exactly(setting):
    """Four iterations, and the same with a stop in the middle: the same weights bit by bit."""
    ends = []
    for calls in ([(0, 4)], [(0, 1), (1, 3)]):
        learner, run = setting.training()
        for first, count in calls:
            run(first, count)
        ends.append([np.array(variable) for variable in learner.variables])
    for one, other in zip(*ends):
        np.testing.assert_array_equal(one, other)


def test_learns(setting):
    learner, run = setting.training()
    test_tasks = setting.source.tasks('test', setting.spec, 1)
    score = evaluate.evaluator(learner, test_tasks, learner.inner_steps, chunk=20)
    better = np.greater if learner.metric.higher_is_better else np.less
    before = score(60).mean(0)[-1]
    bar = 1.5 / setting.spec.way if learner.metric.name == 'accuracy' else before
    first = run(0, 10)['post_loss']
    for start in range(10, setting.enough, 100):
        last = run(start, min(100, setting.enough - start))['post_loss']
        after = score(60).mean(0)[-1]
        if last < first and better(after, bar):
            return
    pytest.fail(f'before {before}, after {after}; loss {first}, {last}')
