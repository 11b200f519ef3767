"""The area under the ROC curve: against every pair, against scikit-learn, masked and compiled."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics

from maml_tf.errors import ArgumentError
from maml_tf.objectives.classification import Classification, MeanClassification
from maml_tf.objectives.roc_auc import RocAuc, roc_auc


def by_pairs(positive, scores):
    """The share of pairs that are in order; a tie counts half."""
    pairs = itertools.product(scores[positive], scores[~positive])
    return np.mean([(one > other) + 0.5 * (one == other) for one, other in pairs])


def drawn(seed, examples=23, levels=6):
    """Labels, of both classes, and scores with many ties."""
    rng = np.random.default_rng(seed)
    positive = rng.permutation(np.arange(examples) < rng.integers(1, examples))
    return positive, rng.integers(0, levels, examples).astype(np.float32)


@pytest.mark.parametrize('compiled', [False, True])
def test_against_every_pair_and_scikit_learn(compiled):
    cases = [drawn(seed) for seed in range(20)] + [drawn(seed, levels=10**6) for seed in range(5)]
    positive, scores = (np.stack(values) for values in zip(*cases))
    function = tf.function(roc_auc, jit_compile=compiled, autograph=False)
    areas = function(scores, positive.astype(np.float32), (~positive).astype(np.float32))
    np.testing.assert_allclose(areas, [by_pairs(*case) for case in cases], rtol=1e-6)
    np.testing.assert_allclose(areas, [metrics.roc_auc_score(*case) for case in cases], rtol=1e-6)


def test_closed_forms():
    area = lambda scores, y: float(roc_auc(tf.constant(scores), tf.constant(y), 1 - tf.constant(y)))
    assert area([1.0, 2.0, 3.0], [0.0, 0.0, 1.0]) == 1
    assert area([1.0, 2.0, 0.5], [0.0, 0.0, 1.0]) == 0
    assert area([1.0, 1.0, 1.0], [0.0, 0.0, 1.0]) == 0.5
    assert area([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]) == 0.5, 'no pair'
    assert area([-np.inf, 2.0, np.inf], [0.0, 0.0, 1.0]) == 1
    assert np.isnan(area([1.0, np.nan, 3.0], [0.0, 0.0, 1.0])), 'a diverged model has no area'


def outputs_and_labels(seed=0, entries=3, tasks=2, examples=12):
    rng = np.random.default_rng(seed)
    labels = np.eye(2, dtype=np.float32)[rng.integers(0, 2, (tasks, examples))]
    labels[:, :2] = np.eye(2)
    outputs = rng.normal(size=(entries, tasks, examples, 2)).astype(np.float32)
    return labels, outputs


def test_score_of_tasks_and_entries():
    labels, outputs = outputs_and_labels()
    scores = RocAuc().score(labels, outputs, 1)
    for entry, task in np.ndindex(3, 2):
        mine = outputs[entry, task]
        expected = metrics.roc_auc_score(labels[task, :, 1], mine[:, 1] - mine[:, 0])
        np.testing.assert_allclose(scores[entry, task], expected, rtol=1e-6)


def test_filling_examples_do_not_count():
    labels, outputs = outputs_and_labels()
    mask = np.ones(labels.shape[:2], np.float32)
    mask[0, 7:], mask[1, 9:] = 0, 0
    scores = RocAuc().score(labels, outputs, 1, mask)
    unlabelled = RocAuc().score(labels * mask[..., None], outputs, 1, mask)
    np.testing.assert_array_equal(scores, unlabelled)
    for task, there in enumerate((7, 9)):
        alone = RocAuc().score(labels[task : task + 1, :there], outputs[:, [task], :there], 1)
        np.testing.assert_allclose(scores[:, task], alone[:, 0], rtol=1e-6)
    broken = outputs.copy()
    broken[:, 0, 8] = np.nan
    np.testing.assert_array_equal(RocAuc().score(labels, broken, 1, mask), scores)


def test_the_balance_of_the_classes_changes_nothing():
    """Of queries that are drawn class by class the mean is the area over all molecules."""
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 1, 200), rng.normal(1, 1, 20)])
    positive = np.arange(220) >= 200
    drawn = [
        by_pairs(np.arange(8) >= 4, scores[[*rng.choice(200, 4), *rng.choice(range(200, 220), 4)]])
        for _ in range(4000)
    ]
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn) - by_pairs(positive, scores)) < 4 * error


def test_loss_is_the_mean_cross_entropy():
    labels, outputs = outputs_and_labels()
    for smoothing in (0.0, 0.1):
        np.testing.assert_array_equal(
            RocAuc(smoothing).loss(labels, outputs, 1),
            MeanClassification(smoothing).loss(labels, outputs, 1),
        )


def test_methods_that_average_keep_the_metric():
    averaged = RocAuc().averaged(0.1)
    assert averaged.metric.name == 'roc_auc' and averaged.smoothing == 0.1
    assert type(Classification().averaged()) is MeanClassification
    assert averaged.metric.show(0.73125) == '0.7312' and averaged.metric.higher_is_better


def test_three_classes_are_refused():
    labels = np.eye(3, dtype=np.float32)[None]
    with pytest.raises(ArgumentError, match='way=3: ROC-AUC ranks two classes'):
        RocAuc().score(labels, labels, 1)
