"""MAML computes what the reference computes: outputs, losses, accuracies and gradients."""
import numpy as np
import pytest
import tensorflow as tf

from golden import CASES, Golden, reference_name

pytestmark = pytest.mark.skipif(not CASES, reason='no golden files beside the project (MAML_TF_SHARED names their parent)')


@pytest.fixture(scope='module', params=CASES, ids=lambda path: path.stem)
def golden(request):
    return Golden(request.param)


def close(actual, expected):
    """1e-4 of the largest entry."""
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize('compiled', [False, True])
def test_outputs_losses_and_accuracies_after_every_step(golden, compiled):
    learner, task, steps = golden.learner, golden.task, golden.flags['test_num_updates']
    outputs = tf.function(learner.query_outputs, jit_compile=compiled)(task, steps)
    close(outputs[1:], golden.values['outputbs'])
    losses, metrics = tf.function(learner.query_metrics, jit_compile=compiled)(task, steps)
    np.testing.assert_allclose(tf.reduce_mean(losses, 1)[1:], golden.values['total_losses2'], rtol=1e-4)
    if 'total_accuracies2' in golden.values:
        np.testing.assert_allclose(tf.reduce_mean(metrics, 1)[1:], golden.values['total_accuracies2'], rtol=1e-4)


def test_support_before_adaptation(golden):
    learner, task = golden.learner, golden.task
    close(learner.predict_query(learner.adapt(task.support_x, task.support_y, steps=0), task.support_x),
          golden.values['outputas'])
    _, log = learner.meta_loss(task)
    np.testing.assert_allclose(log['pre_loss'], golden.values['total_loss1'], rtol=1e-4)
    if 'total_accuracy1' in golden.values:
        np.testing.assert_allclose(log['pre_accuracy'], golden.values['total_accuracy1'], rtol=1e-4)


@pytest.mark.parametrize('compiled', [False, True])
@pytest.mark.parametrize('prefix', ['meta_grad', 'pre_grad'])
def test_gradients(golden, prefix, compiled):
    learner = golden.learner
    method = learner.meta_gradients if prefix == 'meta_grad' else learner.pretrain_gradients
    gradients, _ = tf.function(method, jit_compile=compiled)(golden.task)
    expected = {name: golden.values[f'{prefix}/{reference_name(name)}'] for name in learner.meta_weights}
    largest = max(np.abs(g).max() for g in expected.values())
    for variable, gradient in zip(learner.trainable_variables, gradients):
        assert np.abs(gradient - expected[variable.name]).max() <= 1e-4 * largest, variable.name
