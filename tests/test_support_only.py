"""The classifier of a support set alone: against scikit-learn and brute force."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.ensemble import RandomForestClassifier
from test_bad_input import refused_here

from maml_tf.algorithms.baselines.support_only import SupportOnly
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError
from maml_tf.objectives.roc_auc import RocAuc


def task(rng, tasks=2, shot=3, query=5, bits=20):
    y = lambda n: tf.constant(np.tile(np.repeat(np.eye(2, dtype='f'), n, 0), (tasks, 1, 1)))
    x = lambda n: tf.constant(rng.integers(0, 2, (tasks, 2 * n, bits)).astype('f'))
    key = tf.constant(rng.integers(0, 2**32, (tasks, 2)), tf.uint32)
    return Task(x(shot), y(shot), x(query), y(query), key=key)


def test_a_forest_is_scikit_learn_s():
    drawn = task(np.random.default_rng(0))
    learner = SupportOnly((20,), RocAuc(), trees=11)
    outputs = learner.query_outputs(drawn)[0]
    for i in range(2):
        forest = RandomForestClassifier(11, random_state=int(drawn.key[i, 0]))
        forest.fit(drawn.support_x[i], np.argmax(drawn.support_y[i], -1))
        shares = forest.predict_proba(drawn.query_x[i])
        np.testing.assert_allclose(outputs[i], np.log(np.maximum(shares, 1e-6)), rtol=1e-6)
    np.testing.assert_array_equal(learner.query_outputs(drawn)[0], outputs)
    alone = learner.query_outputs(drawn.map(lambda x: x[1:]))[0]
    np.testing.assert_array_equal(alone[0], outputs[1])
    other = learner.query_outputs(drawn._replace(key=drawn.key + 1))[0]
    assert not np.array_equal(other, outputs), 'it draws by the key'
    scores = learner.query_scores(drawn)[1]
    assert scores.shape == (1, 2) and not learner.xla


def test_filling_and_absent_classes():
    drawn = task(np.random.default_rng(1))
    mask = np.ones([2, 6], 'f')
    mask[0, 3:] = 0  # A task of one class.
    filled = drawn._replace(support_y=drawn.support_y * mask[..., None])
    for by in ('forest', 'similarity'):
        outputs = SupportOnly((20,), RocAuc(), by).query_outputs(filled)[0].numpy()
        assert np.isfinite(outputs).all() and (outputs[0, :, 0] > outputs[0, :, 1]).all()
        whole = SupportOnly((20,), RocAuc(), by).query_outputs(drawn)[0]
        np.testing.assert_allclose(outputs[1], whole[1])


def test_similarity_by_brute_force():
    rng = np.random.default_rng(2)
    drawn = task(rng)
    empty = drawn.query_x.numpy()
    empty[0, 0] = 0
    support = drawn.support_x.numpy()
    support[0, 0] = 0
    drawn = drawn._replace(query_x=tf.constant(empty), support_x=tf.constant(support))
    outputs = SupportOnly((20,), RocAuc(), 'similarity').query_outputs(drawn)[0]
    for i, q, c in np.ndindex(2, 10, 2):
        bits = {*np.flatnonzero(empty[i, q])}
        others = [{*np.flatnonzero(row)} for row in support[i, 3 * c : 3 * c + 3]]
        alike = [len(bits & o) / len(bits | o) if bits | o else 1 for o in others]
        np.testing.assert_allclose(outputs[i, q, c], max(alike), rtol=1e-6)


def test_refused(tmp_path):
    with pytest.raises(ArgumentError, match="by='tree': one of forest, similarity"):
        SupportOnly((4,), RocAuc(), 'tree')
    method = '--algorithm=support_only'
    for arguments, words in (
        ([method], '--datasource=sinusoid: support_only tells classes apart'),
        ([method, '--datasource=tox21', '--featurise=graph'], '--featurise=graph: support_only'),
        ([method, '--datasource=tox21', '--export_dir=model'], '--export_dir=model: a forest is'),
        (
            [
                method,
                '--datasource=tox21',
                '--support_only_by=similarity',
                '--support_only_trees=9',
            ],
            '--support_only_trees=9: only with --support_only_by=forest',
        ),
        ([method, '--datasource=tox21', '--meta_lr=0.1'], '--meta_lr=0.1: means nothing to'),
    ):
        refused_here(tmp_path, arguments, words)
