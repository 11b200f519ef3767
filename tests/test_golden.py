"""MAML computes what the reference computes: outputs, losses, accuracies and gradients."""

import functools

import memory
import numpy as np
import pytest
import tensorflow as tf
from golden import GOLDEN_FILES, from_file, from_oracle, graph

ORACLE = {  # beyond the golden files: other ways, shots, steps, norms, nets, orders
    'layer norm': dict(norm='layer_norm'),
    'no norm': dict(norm='None', num_updates=3),
    '7-way 2-shot': dict(
        num_classes=7, update_batch_size=2, query_per_class=3, num_updates=1, update_lr=0.2
    ),
    'max-pool': dict(max_pool=True),
    'max-pool, layer norm, first order': dict(max_pool=True, norm='layer_norm', stop_grad=True),
    'fully connected': dict(conv=False),
    'fully connected, layer norm': dict(conv=False, norm='layer_norm'),
    'fully connected, no norm, first order': dict(conv=False, norm='None', stop_grad=True),
    'miniimagenet, odd side': dict(datasource='miniimagenet', side=37, update_batch_size=2),
    'miniimagenet, strided': dict(datasource='miniimagenet', max_pool=False, side=20),
    'miniimagenet, five steps': dict(
        datasource='miniimagenet', num_updates=5, test_num_updates=7, side=17
    ),
    'sinusoid, three steps': dict(datasource='sinusoid', num_updates=3),
    'sinusoid, layer norm': dict(datasource='sinusoid', norm='layer_norm', stop_grad=True),
}
STEP = tf.constant(0, tf.int64)
# They take long, and others are of the same kinds.
LONG = (
    *('dev_miniimagenet_released', 'dev_miniimagenet_5way1shot'),
    'dev_omniglot_5way1shot_stopgrad',
    *('miniimagenet, odd side', 'miniimagenet, strided', 'miniimagenet, five steps'),
    'max-pool, layer norm, first order',
)
CASES = [
    pytest.param(
        functools.partial(from_file, path),
        id=path.stem,
        marks=[pytest.mark.slow] * (path.stem in LONG),
    )
    for path in GOLDEN_FILES
]
CASES += [
    pytest.param(
        functools.partial(from_oracle, **flags), id=name, marks=[pytest.mark.slow] * (name in LONG)
    )
    for name, flags in ORACLE.items()
]


@pytest.fixture(scope='module', params=CASES)
def golden(request):
    yield request.param()
    memory.free()


def close(actual, expected):
    """1e-4 of the largest entry."""
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_outputs_losses_and_accuracies_after_every_step(golden):
    learner, task, steps = golden.learner, golden.task, golden.flags['test_num_updates']

    def evaluate(task):
        return learner.query_outputs(task, steps), *learner.query_scores(task, steps)

    outputs, *results = golden.run(evaluate)(task)
    close(outputs[1:], golden.values['outputbs'])
    losses, scores = (tf.reduce_mean(x, axis=1) for x in results)
    np.testing.assert_allclose(losses[1:], golden.values['total_losses2'], rtol=1e-4)
    if 'total_accuracies2' in golden.values:
        np.testing.assert_allclose(scores[1:], golden.values['total_accuracies2'], rtol=1e-4)


def test_support_before_adaptation(golden):
    learner, task = golden.learner, golden.task
    close(
        learner.predict_query(
            learner.adapt(task.support_x, task.support_y, steps=0), task.support_x
        ),
        golden.values['outputas'],
    )
    _, log, _ = learner.pretrain_loss(task, STEP)
    np.testing.assert_allclose(log['pre_loss'], golden.values['total_loss1'], rtol=1e-4)
    if 'total_accuracy1' in golden.values:
        np.testing.assert_allclose(log['pre_accuracy'], golden.values['total_accuracy1'], rtol=1e-4)


def test_meta_gradient(golden):
    gradients, log, _ = golden.run(golden.learner.meta_gradients)(golden.task, STEP)
    compare(golden, 'meta_grad', gradients)
    np.testing.assert_allclose(
        log['post_loss'], golden.values['total_losses2'][golden.flags['num_updates'] - 1], rtol=1e-4
    )


@pytest.mark.skipif(not GOLDEN_FILES, reason='no golden files beside the project')
def test_meta_gradient_of_a_golden_file_uncompiled():
    golden = from_file(next(path for path in GOLDEN_FILES if 'omniglot' in path.stem))
    update = graph(golden.learner.meta_gradients)(golden.task, STEP)
    compare(golden, 'meta_grad', update.gradients)


def test_pretraining_gradient(golden):
    update = golden.run(golden.learner.pretrain_gradients)(golden.task, STEP)
    compare(golden, 'pre_grad', update.gradients)


def compare(golden, prefix, gradients):
    """max|difference| <= 1e-4 of the case's largest gradient entry."""
    expected = {name: golden.weight(prefix, name) for name in golden.learner.meta_weights}
    largest = max(np.abs(g).max() for g in expected.values())
    for variable, gradient in zip(golden.learner.trainable_variables, gradients):
        assert np.abs(gradient - expected[variable.name]).max() <= 1e-4 * largest, variable.name
