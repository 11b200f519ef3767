"""Computed in shares, some tasks at a time, a meta-batch gives what it gives all at once."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.evaluation import evaluate
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import Classification
from maml_tf.objectives.regression import Regression
from maml_tf.training import shares
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import metatrain_op
from maml_tf.training.outer_optimizers import adam

SPEC, TASKS = EpisodeSpec(way=3, shot=1, query=2), 6


def learner(network=ConvNet((9, 8, 1), SPEC.way, filters=4), **kwargs):
    return MAML(network, Classification(), inner_lr=0.1, **kwargs)


@pytest.fixture(scope='module')
def draw():
    """(start, count) -> Task, of twelve different tasks in turn."""
    rng = np.random.default_rng(0)
    images = [
        tf.constant(rng.random((12, SPEC.way * n, 9, 8, 1), np.float32))
        for n in (SPEC.shot, SPEC.query)
    ]
    labels = [
        tf.constant(np.tile(np.repeat(np.eye(SPEC.way, dtype=np.float32), n, 0), (12, 1, 1)))
        for n in (SPEC.shot, SPEC.query)
    ]
    arrays = images[0], labels[0], images[1], labels[1]
    return lambda start, count: Task(
        *(tf.gather(x, (start + tf.range(count, dtype=tf.int64)) % 12) for x in arrays)
    )


def zero():
    return tf.constant(0, tf.int64)


def test_sizes_of_shares():
    assert (
        shares.share(32, 10) == 4
    )  # six tasks of ten examples were wanted, and six do not divide 32
    assert shares.share(16, 40) == 2
    assert shares.share(4, 80) == 1
    assert shares.share(25, 20, at_most=7) == 5
    assert shares.share(7, 20, at_most=6) == 1
    assert shares.share(4, 1, at_most=100) == 4


def test_shares_of_other_sizes_are_refused(draw):
    for make in (shares.mean, shares.concatenated):
        with pytest.raises(ValueError, match='at_once=4 does not divide 6 tasks'):
            make(learner().meta_gradients, draw, TASKS, 4)


def test_which_learners_share():
    spec = EpisodeSpec(way=1, shot=10, query=10)
    light = FullyConnected((1,), 1)
    assert MAML(light, Regression()).share(25, spec) == 25
    assert MAML(light, Regression(), tasks_at_once=5).share(25, spec) == 5
    assert learner().share(32, EpisodeSpec(5, 1, 1)) == 4
    assert learner(tasks_at_once=8).share(32, EpisodeSpec(5, 1, 1)) == 8


@pytest.mark.parametrize('cores', [1, pytest.param(2, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize('at_once', [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_meta_gradient_is_the_same(draw, monkeypatch, cores, at_once):
    monkeypatch.setattr(shares, '_cores', lambda: cores)
    network = FullyConnected((9, 8, 1), SPEC.way, (16, 16), 'batch_norm')
    maml, float32 = learner(network, inner_steps=2, dtype='float64'), draw
    draw = lambda start, count: float32(start, count).cast('float64')
    whole, log, _ = maml.meta_gradients(draw(zero() + 3, TASKS), zero())
    in_shares = shares.mean(maml.meta_gradients, draw, TASKS, at_once, xla=False)
    ours, our_log, _ = in_shares(zero() + 3, zero())
    for one, other in zip(ours, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)
    for name, value in log.items():
        np.testing.assert_allclose(our_log[name], value)


@pytest.mark.slow
def test_training_is_the_same(draw):
    weights = []
    for at_once in (None, 2):
        maml = learner()
        op = metatrain_op(maml, adam(1e-3))
        log = iterate(op, draw, TASKS, at_once)(0, 4)
        weights.append([np.array(w) for w in maml.trainable_variables] + [log['post_loss']])
    for one, other in zip(*weights):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.slow
def test_evaluation_is_the_same(draw):
    maml = learner()
    whole, ours = (evaluate.evaluator(maml, draw, 3, TASKS, at_once)(10) for at_once in (None, 2))
    assert ours.shape == (10, 4)
    np.testing.assert_allclose(ours, whole, rtol=1e-5)
