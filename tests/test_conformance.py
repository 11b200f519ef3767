"""What holds for every registered algorithm, on its own tiny configuration."""

import contextlib
import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import algorithms
from maml_tf.datasets.sinusoid import Sinusoid
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.task import Task
from maml_tf.evaluation import evaluate
from maml_tf.objectives import Classification
from maml_tf.saving.export import export
from maml_tf.saving.init_from import load_weights
from maml_tf.saving.run_directory import LEARNER, RunDirectory
from maml_tf.training import train

TASKS = 4


def input_shape(learner):
    """Of one image."""
    return (
        learner.network.input_shape
        if hasattr(learner, 'network')
        else learner.encoder.input_shape[1:]
    )


def source_for(learner, spec):
    """Easy tasks of the learner's kind: images whose classes differ by their pattern, or the
    sinusoid."""
    if not isinstance(learner.objective, Classification):
        return Sinusoid()
    rng = np.random.default_rng(0)
    height, width, channels = input_shape(learner)
    patterns = (
        rng.integers(0, 256, (24, 1, 4, 4, channels))
        .repeat(-(-height // 4), 2)
        .repeat(-(-width // 4), 3)
    )
    patterns = patterns[:, :, :height, :width]
    noise = rng.integers(-40, 40, (24, spec.shot + spec.query + 3, height, width, channels))
    images = np.clip(patterns + noise, 0, 255).astype(np.uint8)
    return ImageClasses.from_arrays(
        images, {'train': list(range(16)), 'val': list(range(16, 20)), 'test': list(range(20, 24))}
    )


class Setting:
    """A learner of one algorithm with a meta-batch of its tasks."""

    def __init__(self, name):
        self.make = algorithms.registry()[name].tiny
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
            optimizer = train.adam(3e-3)
            run = train.iterate(train.metatrain_op(learner, optimizer), self.draw, TASKS)
            variables = learner.variables + optimizer.variables
            self._training = (
                learner,
                run,
                [(variable, np.array(variable)) for variable in variables],
            )
        learner, run, start = self._training
        for variable, value in start:
            variable.assign(value)
        return learner, run

    def tasks_of(self, **sizes):
        """Four tasks of other sizes than the learner's own."""
        return self.source.tasks('train', dataclasses.replace(self.spec, **sizes), seed=1)(0, TASKS)


@pytest.fixture(scope='module', params=sorted(algorithms.registry()))
def setting(request):
    return Setting(request.param)


def close(actual, expected, tolerance=1e-5):
    """Within `tolerance` of the largest entry."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


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


def test_contract(setting):
    learner, task = setting.learner, setting.task
    state = learner.adapt(task.support_x, task.support_y)
    assert all(name.isidentifier() and value.shape[0] == TASKS for name, value in state.items())
    outputs = learner.predict_query(state, task.query_x)
    assert outputs.shape == task.query_y.shape
    close(setting.outputs[-1], outputs)
    called = learner(
        {'support_x': task.support_x, 'support_y': task.support_y, 'query_x': task.query_x}
    )
    close(called, outputs)
    assert isinstance(learner, keras.Model)


@pytest.mark.parametrize('transductive', [True, False])
def test_a_batch_of_tasks_equals_batches_of_one(setting, transductive):
    with mode(setting.learner, transductive) as learner:
        together = learner.query_outputs(setting.task)
        for i in range(TASKS):
            close(
                learner.query_outputs(setting.task.map(lambda x: x[i : i + 1]))[:, 0],
                together[:, i],
            )


def test_evaluation_changes_no_variable(setting):
    before = [np.array(variable) for variable in setting.learner.variables]
    for transductive in (True, False):
        with mode(setting.learner, transductive) as learner:
            learner.query_outputs(setting.task)
    for old, variable in zip(before, setting.learner.variables):
        np.testing.assert_array_equal(old, variable)


def test_the_order_of_the_support_set_does_not_matter(setting):
    order = np.random.default_rng(0).permutation(setting.task.support_x.shape[1])
    shuffled = setting.task._replace(
        support_x=tf.gather(setting.task.support_x, order, axis=1),
        support_y=tf.gather(setting.task.support_y, order, axis=1),
    )
    close(setting.learner.query_outputs(shuffled), setting.outputs, 1e-4)


def test_compiled_equals_uncompiled(setting):
    close(
        compiled(setting.learner, setting.learner.query_outputs)(setting.task),
        setting.outputs,
        1e-4,
    )


def test_checkpoint_round_trip(setting, tmp_path):
    RunDirectory(tmp_path, {LEARNER: setting.learner.named_variables()}).save(7)
    other, _ = setting.make()
    for variable in other.variables:
        variable.assign(variable + 1.0)
    load_weights(other, tmp_path)
    np.testing.assert_array_equal(other.query_outputs(setting.task), setting.outputs)


@pytest.mark.parametrize('transductive', [True, False])
def test_saved_model_round_trip(setting, tmp_path, transductive):
    """Signatures for any number of tasks, shots and queries, and of classes unless the learner
    fixes them; adapt and predict_query equal serving_default."""
    spec, steps = setting.spec, 1
    other = dataclasses.replace(
        spec,
        way=spec.way + (not setting.learner.fixed_way),
        shot=spec.shot + 1,
        query=spec.query + 1,
    )
    task = setting.task
    with mode(setting.learner, transductive) as learner:
        predict = lambda task: learner.predict_query(
            learner.adapt(task.support_x, task.support_y, steps), task.query_x
        )
        export(
            learner,
            tmp_path / 'model',
            task.support_x.shape[2:],
            task.support_y.shape[-1],
            steps,
            {'transductive': transductive},
        )
        signatures = tf.saved_model.load(str(tmp_path / 'model')).signatures
        for task in (setting.task, setting.source.tasks('train', other, 1)(0, 2)):
            expected = predict(task)
            served = signatures['serving_default'](
                support_x=task.support_x, support_y=task.support_y, query_x=task.query_x
            )['outputs']
            close(served, expected)
            state = signatures['adapt'](support_x=task.support_x, support_y=task.support_y)
            close(signatures['predict_query'](query_x=task.query_x, **state)['outputs'], expected)
        close(served, compiled(learner, predict)(task), 1e-4)
    described = json.loads((tmp_path / 'model' / 'maml_tf.json').read_text())
    assert described['transductive'] == transductive and described['inner_steps'] == steps
    assert described['output_dim'] == (
        setting.task.support_y.shape[-1] if learner.fixed_way else None
    )


def test_a_query_does_not_see_the_others_unless_transductive(setting):
    task = setting.task
    with mode(setting.learner, False) as learner:
        state = learner.adapt(task.support_x, task.support_y)
        predictions = learner.predict_query(state, task.query_x)
        scale = np.abs(
            predictions
        ).max()  # differences of larger numbers, which batches of other sizes round otherwise
        np.testing.assert_allclose(
            learner.predict_query(state, task.query_x[:, :1]),
            predictions[:, :1],
            rtol=0,
            atol=max(1e-5 * scale, 1e-7),
        )


def test_any_way_shot_and_query_without_a_new_learner(setting):
    """Trained at its own sizes, a learner predicts at others; the way may be fixed."""
    way = setting.spec.way + (0 if setting.learner.fixed_way else 2)
    for sizes in ({'way': way}, {'shot': setting.spec.shot + 1}, {'query': 1}):
        task = setting.tasks_of(**sizes)
        outputs = setting.learner.query_outputs(task)[-1]
        assert outputs.shape == task.query_y.shape and np.isfinite(outputs).all()


@pytest.mark.parametrize('transductive', [True, False])
def test_a_task_filled_up_equals_the_task_itself(setting, transductive):
    """Outputs and loss of tasks that differ in their shots and, unless it is fixed, in their
    way."""
    spec = setting.spec
    if not setting.learner.takes_masks:
        pytest.skip('takes tasks of one size only')
    with mode(setting.make()[0], transductive) as learner:
        task = setting.tasks_of(
            shot=spec.shot + 1, least_shot=1, **({} if learner.fixed_way else {'least_way': 2})
        )
        outputs, losses = np.array(learner.query_outputs(task)), learner.query_metrics(task)[0]
        sizes = set()
        for i in range(TASKS):
            alone = task_without_filling(task, i)
            sizes.add((alone.support_y.shape[1], alone.support_y.shape[2]))
            there = np.array(task.query_mask[i]) > 0
            expected = learner.query_outputs(alone)[:, 0]
            close(outputs[:, i][:, there][..., : alone.query_y.shape[2]], expected, 1e-4)
            np.testing.assert_allclose(
                losses[:, i], learner.query_metrics(alone)[0][:, 0], rtol=1e-3
            )
        assert len(sizes) > 1
        learner.distort = False  # Siamese's random distortions are drawn from the filling too.
        in_training = [learner.meta_loss(task_without_filling(task, i))[0] for i in range(TASKS)]
        np.testing.assert_allclose(learner.meta_loss(task)[0], np.mean(in_training), rtol=1e-3)


def task_without_filling(task, i):
    """Task i of a stack of masked ones, cut to its size and without masks."""
    support_x, support_y, query_x, query_y, support, query = (np.array(part[i]) for part in task)
    support, query, way = support > 0, query > 0, int(support_y.max(0).sum())
    return Task(
        *(
            tf.constant(part[None])
            for part in (
                support_x[support],
                support_y[support, :way],
                query_x[query],
                query_y[query, :way],
            )
        )
    )


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
    """In at most 600 iterations; most need less."""
    learner, run = setting.training()
    classification, way = isinstance(learner.objective, Classification), setting.spec.way
    score = evaluate.evaluator(
        learner,
        setting.source.tasks('test', setting.spec, 1),
        steps=getattr(learner, 'inner_steps', 0),
        chunk=20,
    )
    before = score(60).mean(0)[-1]
    first = run(0, 10)['post_loss']
    for start in range(10, 600, 100):
        last = run(start, 100)['post_loss']
        after = score(60).mean(0)[-1]
        if last < first and (after > 1.5 / way if classification else after < before):
            return
    pytest.fail(f'before {before}, after {after}; loss {first}, {last}')
