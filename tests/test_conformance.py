"""What holds for every registered algorithm, on its own tiny configuration."""
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf import algorithms, evaluate, train
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.sinusoid import Sinusoid
from maml_tf.export import export
from maml_tf.init_from import load_weights
from maml_tf.objectives import Classification
from maml_tf.run_directory import LEARNER, RunDirectory

TASKS = 4


def source_for(learner, spec):
    """Easy tasks of the learner's kind: images whose classes differ by their pattern, or the sinusoid."""
    if not isinstance(learner.objective, Classification):
        return Sinusoid()
    rng = np.random.default_rng(0)
    height, width, channels = learner.network.input_shape
    patterns = rng.integers(0, 256, (24, 1, 4, 4, channels)).repeat(-(-height // 4), 2).repeat(-(-width // 4), 3)
    patterns = patterns[:, :, :height, :width]
    noise = rng.integers(-40, 40, (24, spec.shot + spec.query + 3, height, width, channels))
    images = np.clip(patterns + noise, 0, 255).astype(np.uint8)
    return ImageClasses.from_arrays(images, {'train': list(range(16)), 'val': list(range(16, 20)),
                                             'test': list(range(20, 24))})


class Setting:
    """A learner of one algorithm with a meta-batch of its tasks."""

    def __init__(self, name):
        self.make = algorithms.registry()[name].tiny
        self.learner, self.spec = self.make()
        self.source = source_for(self.learner, self.spec)
        self.draw = self.source.tasks('train', self.spec, seed=0)
        self.task = self.draw(0, TASKS)
        self.outputs = self.learner.query_outputs(self.task)


@pytest.fixture(scope='module', params=sorted(algorithms.registry()))
def setting(request):
    return Setting(request.param)


def close(actual, expected, tolerance=1e-5):
    """Within `tolerance` of the largest entry."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def compiled(function):
    return tf.function(function, jit_compile=True, autograph=False)


def test_contract(setting):
    learner, task = setting.learner, setting.task
    state = learner.adapt(task.support_x, task.support_y)
    assert all(name.isidentifier() and value.shape[0] == TASKS for name, value in state.items())
    outputs = learner.predict_query(state, task.query_x)
    assert outputs.shape == task.query_y.shape
    close(setting.outputs[-1], outputs)
    called = learner({'support_x': task.support_x, 'support_y': task.support_y, 'query_x': task.query_x})
    close(called, outputs)
    assert isinstance(learner, keras.Model)


def test_a_batch_of_tasks_equals_batches_of_one(setting):
    for i in range(TASKS):
        alone = setting.learner.query_outputs(setting.task.map(lambda x: x[i:i + 1]))
        close(alone[:, 0], setting.outputs[:, i])


def test_the_order_of_the_support_set_does_not_matter(setting):
    order = np.random.default_rng(0).permutation(setting.task.support_x.shape[1])
    shuffled = setting.task._replace(support_x=tf.gather(setting.task.support_x, order, axis=1),
                                     support_y=tf.gather(setting.task.support_y, order, axis=1))
    close(setting.learner.query_outputs(shuffled), setting.outputs, 1e-4)


def test_compiled_equals_uncompiled(setting):
    close(compiled(setting.learner.query_outputs)(setting.task), setting.outputs, 1e-4)


def test_checkpoint_round_trip(setting, tmp_path):
    RunDirectory(tmp_path, {LEARNER: setting.learner.named_variables()}).save(7)
    other, _ = setting.make()
    for variable in other.trainable_variables:
        variable.assign(variable + 1.)
    load_weights(other, tmp_path)
    np.testing.assert_array_equal(other.query_outputs(setting.task), setting.outputs)


@pytest.mark.parametrize('transductive', [True, False])
def test_saved_model_round_trip(setting, tmp_path, transductive):
    """Signatures for any number of tasks, shots and queries; adapt and predict_query equal serving_default."""
    learner, steps = setting.learner, 1
    other_spec = type(setting.spec)(setting.spec.way, setting.spec.shot + 1, setting.spec.query + 1)
    learner.transductive = transductive
    predict = lambda task: learner.predict_query(learner.adapt(task.support_x, task.support_y, steps), task.query_x)
    try:
        export(learner, tmp_path / 'model', setting.task.support_x.shape[2:], setting.task.support_y.shape[-1], steps,
               {'transductive': transductive})
        signatures = tf.saved_model.load(str(tmp_path / 'model')).signatures
        for task in (setting.task, setting.source.tasks('train', other_spec, 1)(0, 2)):
            expected = predict(task)
            served = signatures['serving_default'](
                support_x=task.support_x, support_y=task.support_y, query_x=task.query_x)['outputs']
            close(served, expected)
            state = signatures['adapt'](support_x=task.support_x, support_y=task.support_y)
            close(signatures['predict_query'](query_x=task.query_x, **state)['outputs'], expected)
        close(served, compiled(predict)(task), 1e-4)
    finally:
        learner.transductive = True
    described = json.loads((tmp_path / 'model' / 'maml_tf.json').read_text())
    assert described['transductive'] == transductive and described['inner_steps'] == steps


def test_a_query_does_not_see_the_others_unless_transductive(setting):
    learner, task = setting.learner, setting.task
    learner.transductive = False
    try:
        state = learner.adapt(task.support_x, task.support_y)
        close(learner.predict_query(state, task.query_x[:, :1]), learner.predict_query(state, task.query_x)[:, :1])
    finally:
        learner.transductive = True


def test_learns(setting):
    learner, spec = setting.make()
    score = evaluate.evaluator(learner, setting.source.tasks('test', spec, 1), steps=learner.inner_steps, chunk=20)
    before = score(60).mean(0)[-1]
    run = train.iterate(train.metatrain_op(learner, train.adam(3e-3)), setting.draw, TASKS)
    first, _, last = (float(run(start, count)['post_loss']) for start, count in [(0, 10), (10, 580), (590, 10)])
    after = score(60).mean(0)[-1]
    assert last < first
    if isinstance(learner.objective, Classification):
        assert after > 1.5 / spec.way, (before, after, first, last)
    else:
        assert after < before
