"""What training prints, and how evaluation counts."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.evaluation import evaluate
from maml_tf.objectives.metric import ACCURACY, RETURN, SQUARED_ERROR, Axis, gradient_steps
from maml_tf.terminal import progress
from maml_tf.terminal.exit import errors_as_one_line
from maml_tf.terminal.interrupts import interruption
from maml_tf.training import lines


@pytest.mark.parametrize(
    ('row', 'metric', 'text'),
    [
        (
            {'pre_loss': 4.0, 'pre_accuracy': 0.2, 'post_loss': 1.0, 'post_accuracy': 0.712},
            ACCURACY,
            'accuracy 20.00% before, 71.20% after',
        ),
        ({'pre_loss': 4, 'post_loss': 0.78871}, SQUARED_ERROR, 'loss 4.0000 before, 0.7887 after'),
        ({'post_loss': 1.0, 'post_accuracy': 0.5}, ACCURACY, 'accuracy 50.00%'),
        ({'loss': 0.78871}, SQUARED_ERROR, 'loss 0.7887'),
        ({'loss': 0.5, 'train_accuracy': 0.25}, ACCURACY, 'loss 0.5000, train_accuracy 25.00%'),
        (
            {'pre_return': -9.0, 'post_return': -4.5, 'steps': 10},
            RETURN,
            'return -9.0000 before, -4.5000 after',
        ),
    ],
)
def test_the_line_of_an_iteration(row, metric, text):
    assert lines.of_iteration('Iteration', 100, row, metric) == f'Iteration 100: {text}'


def test_the_line_of_a_validation():
    line = lines.of_validation([0.2, 0.6, 0.7], ACCURACY, gradient_steps(3))
    assert line == 'Validation results: accuracy 20.00% (gradient steps: 0), 70.00% (2)'
    line = lines.of_validation([0.2, 0.7], ACCURACY, Axis('instance', (1, 10)))
    assert line == 'Validation results: accuracy 20.00% (instance: 1), 70.00% (10)'
    line = lines.of_validation([0.25], SQUARED_ERROR, gradient_steps(1))
    assert line == 'Validation results: loss 0.2500'


def test_an_interruption_names_its_iteration():
    said = 'interrupted at iteration 70: .* goes on from there'
    with pytest.raises(SystemExit, match=said), errors_as_one_line():
        raise interruption(2, 70)


def test_evaluation_counts_tasks(monkeypatch):
    class Learner:
        evaluation_steps, xla = 0, False

        def query_scores(self, task, steps):
            return None, tf.reshape(task, [1, -1])

    bars, bar = [], progress.bar

    def noted(*arguments, **options):
        bars.append(bar(*arguments, **options))
        return bars[-1]

    monkeypatch.setattr(progress, 'bar', noted)
    draw = lambda start, count: tf.cast(start, tf.float32) + tf.range(float(count))
    scores = evaluate.evaluator(Learner(), draw, chunk=4)(14)
    np.testing.assert_array_equal(scores[:, 0], range(14))
    (seen,) = bars
    assert (seen.total, seen.n, seen.unit) == (14, 14, 'task')
