"""Conditional Neural Processes, their likelihood and the exact posterior against plain NumPy, in
float64."""

import cnp_oracle as oracle
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from maml_tf.algorithms.baselines.regression.gaussian_process import GaussianProcessPosterior
from maml_tf.algorithms.model_based.cnp import CNP
from maml_tf.datasets.functions import gaussian_process
from maml_tf.episodes.task import Task
from maml_tf.objectives.regression import GaussianLikelihood

TASKS, SUPPORT, QUERIES = 3, 6, 5
STEP = tf.constant(0, tf.int64)
RNG = np.random.default_rng(0)
# What counts: not only the first ones; in the second task all.
SUPPORT_MASK = np.array([[1, 0, 0, 1, 0, 1], [1] * 6, [0, 0, 0, 0, 1, 0]], float)
QUERY_MASK = np.array([[0, 1, 1, 0, 1], [1] * 5, [1, 0, 0, 0, 0]], float)
of_masks = pytest.mark.parametrize('masked', [False, True], ids=['all', 'masked'])


def random_task(features, out, masked):
    shapes = (SUPPORT, features), (SUPPORT, out), (QUERIES, features), (QUERIES, out)
    task = Task(*(tf.constant(RNG.normal(size=(TASKS, *shape))) for shape in shapes))
    if masked:
        masks = {'support_mask': SUPPORT_MASK, 'query_mask': QUERY_MASK}
        task = task._replace(**{name: tf.constant(mask) for name, mask in masks.items()})
    return task


def of_task(values, i):
    return None if values is None else np.array(values[i])


def parts_of(task, i):
    """(context, targets, the masks of both) of one task."""
    pairs = (task.support_x, task.support_y), (task.query_x, task.query_y)
    context, target = (tuple(of_task(part, i) for part in pair) for pair in pairs)
    return context, target, of_task(task.support_mask, i), of_task(task.query_mask, i)


def assert_close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)


@of_masks
@pytest.mark.parametrize('features, out', [(1, 1), (2, 3)])
def test_from_context_to_loss(features, out, masked):
    learner = CNP((features,), out, size=6, dtype='float64')
    for variable in learner.variables:
        variable.assign(RNG.normal(0, 0.6, variable.shape))
    encoder, decoder = (
        [tuple(map(np.array, layer.weights)) for layer in network.layers]
        for network in (learner.encoder, learner.decoder)
    )
    task = random_task(features, out, masked)
    state = learner.adapt(task.support_x, task.support_y, mask=task.support_mask)
    outputs = learner.predict_query(state, task.query_x)
    losses = learner.objective.loss(task.query_y, outputs, 1, task.query_mask)
    said = learner.objective.predictions(outputs)
    in_errors = GaussianLikelihood(metric='squared_error')
    errors = in_errors.score(task.query_y, outputs, 1, task.query_mask)
    expected_losses = []
    for i in range(TASKS):
        context, target, *masks = parts_of(task, i)
        expected = oracle.cnp(context, target, encoder, decoder, *masks)
        assert_close(state['representation'][i], expected['r'])
        assert_close(outputs[i], np.hstack([expected['mean'], expected['raw']]))
        assert_close(said['mean'][i], expected['mean'])
        assert_close(said['deviation'][i], expected['sigma'])
        assert_close(losses[i], expected['loss'])
        assert_close(errors[i], expected['squared_error'])
        expected_losses.append(expected['loss'])
    assert_close(learner.meta_loss(task, STEP).value, np.mean(expected_losses))
    _, scores = learner.query_scores(task)
    assert_close(scores[0], np.negative(expected_losses))


@of_masks
def test_the_likelihood_is_scipy_s(masked):
    """Of several entries of the tasks, as results have them."""
    entries, labels = 4, RNG.normal(size=(TASKS, QUERIES, 3))
    outputs = RNG.normal(0, 3, (entries, TASKS, QUERIES, 6))
    mask = QUERY_MASK if masked else np.ones((TASKS, QUERIES))
    objective = GaussianLikelihood()
    score = objective.score(labels, tf.constant(outputs), 1, mask if masked else None)
    assert_close(objective.loss(labels, tf.constant(outputs), 1, mask if masked else None), -score)
    mean, raw = outputs[..., :3], outputs[..., 3:]
    deviation = 0.1 + 0.9 * np.logaddexp(0, raw)
    densities = stats.norm.logpdf(labels, mean, deviation).sum(-1)
    assert_close(score, (densities * mask).sum(-1) / mask.sum(-1))
    for entry, i in np.ndindex(entries, TASKS):
        said = labels[i], mean[entry, i], deviation[entry, i]
        assert_close(oracle.log_likelihoods(*said), densities[entry, i])
        assert_close(score[entry, i], oracle.mean_log_likelihood(*said, mask[i]))


@of_masks
def test_the_exact_posterior(masked):
    """A query on a context point is a fresh observation, with noise of its own."""
    task = random_task(1, 1, masked)
    queries = np.concatenate([task.support_x[:, :1], task.query_x[:, 1:]], 1)
    task = task._replace(query_x=tf.constant(queries))
    mean, deviation = gaussian_process.posterior(*task[:3], task.support_mask)
    scores = GaussianProcessPosterior(dtype='float64').query_scores(task)[1]
    for i in range(TASKS):
        (x, y), target, there, counting = parts_of(task, i)
        chosen = slice(None) if there is None else there > 0
        context = x[chosen], y[chosen]
        expected = oracle.gp_posterior(context, target[0])
        # Noise of 0.02 makes the covariance's condition as large as 1e4.
        close = {'rtol': 1e-7, 'atol': 1e-9}
        np.testing.assert_allclose(mean[i, :, 0], expected['mean'], **close)
        np.testing.assert_allclose(deviation[i, :, 0] ** 2, expected['variance'], **close)
        value = oracle.gp_mean_log_likelihood(context, target, counting)
        np.testing.assert_allclose(scores[0, i], value, rtol=1e-7)
