"""The best checkpoints in validation, and the mean of their predictions."""

import numpy as np
import pytest
import tensorflow as tf
from command import run_here
from test_conformance import LEARNERS, source_for

from maml_tf.evaluation.ensemble import ensemble_scores
from maml_tf.evaluation.evaluate import evaluator
from maml_tf.saving.checkpoints import LEARNER, Checkpoints


@pytest.mark.parametrize('higher_is_better', [True, False])
def test_the_best_are_kept(tmp_path, higher_is_better):
    variable = tf.Variable(0.0)
    directory = Checkpoints(tmp_path, {LEARNER: {'w': variable}})
    sign = 1 if higher_is_better else -1
    for iteration, score in [(10, 0.3), (20, 0.5), (30, 0.4), (40, 0.5), (50, 0.1)]:
        variable.assign(iteration)
        directory.save_among_best(iteration, sign * score, 3, higher_is_better)
    assert directory.among_best() == {20: sign * 0.5, 30: sign * 0.4, 40: sign * 0.5}
    files = {path.name for path in (tmp_path / 'ensemble').iterdir()}
    assert len(files) == 7, 'three checkpoints of two files, and their scores'
    for iteration in directory.among_best():
        assert directory.restore_among_best(iteration) == iteration == variable.numpy()
    assert not directory.checkpoints()


@pytest.mark.slow
def test_scores_are_of_the_mean_outputs():
    """Of two members whose mean errs less than either."""
    learner, spec = LEARNERS['maml of regression']()
    draw = source_for(learner, spec).tasks('test', spec, 0)
    start = {name: np.array(w) for name, w in learner.meta_weights.items()}

    def load(shift):
        for name, w in learner.meta_weights.items():
            w.assign(start[name] + (shift if name == 'b3' else 0))

    members = [lambda: load(0.7), lambda: load(-0.4)]
    scores = ensemble_scores(learner, members, draw, 7, chunk=4, at_once=2)
    task, outputs = draw(0, 7), []
    for member in members:
        member()
        outputs.append(np.array(learner.query_outputs(task, learner.evaluation_steps)))
    expected = np.square(np.mean(outputs, 0) - task.query_y).mean((-1, -2)).T
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    one = ensemble_scores(learner, members[1:], draw, 7, chunk=4, at_once=4)
    alone = evaluator(learner, draw, chunk=4)(7)
    np.testing.assert_allclose(one, alone, rtol=1e-5)
    assert np.abs(scores - one).max() > 1e-3


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], '--ensemble=2: the best checkpoints are chosen by validation'),
        (['--export_dir=model'], '--export_dir=model: exports one checkpoint'),
        (['--train=False', '--init_from=x'], '--init_from=x: names one checkpoint'),
    ],
)
def test_what_is_refused(tmp_path, arguments, message):
    done = run_here('--ensemble=2', f'--logdir={tmp_path}', *arguments, cwd=tmp_path, expect=1)
    assert message in done.stderr.splitlines()[-1]
