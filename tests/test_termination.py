"""SIGTERM, as a scheduler sends it: a checkpoint is written, and the program ends soon."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from command import ROOT
from killed_runs import ITERATIONS, End, run
from test_exact_resume import check_the_same

from maml_tf.episodes.task import EpisodeSpec
from maml_tf.evaluation import evaluate
from maml_tf.objectives.metric import SQUARED_ERROR
from maml_tf.saving.run_directory import RunDirectory
from maml_tf.terminal.exit import errors_as_one_line
from maml_tf.terminal.interrupts import Interrupts, Terminated
from maml_tf.training import train
from maml_tf.training.course import Schedule
from maml_tf.training.phases import Phase

SCHEDULE = Schedule(iterations_per_call=10, print_every=20, validate_every=20, save_every=40)


def trained(path, at=None, validate=None, phases=(60,), start=0, writer=None):
    """Trains what counts its iterations, and gets SIGTERM in the call that ends with `at`; returns
    the run directory and the iterations of its checkpoints."""
    counted = tf.Variable(0, dtype=tf.int64)
    directory = RunDirectory(path, {'learner': {'counted': counted}})
    if start:
        directory.restore(start)
        directory.forget_metrics_after(start)

    def make_run(phase, phase_start):
        def run(first, count):
            counted.assign_add(count)
            if first + count == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return {'post_loss': 1.0}

        return run

    spec = EpisodeSpec(1, 1, 1)
    phases = [Phase(f'phase{i}', n, None, None, spec) for i, n in enumerate(phases)]
    train.train(phases, make_run, SCHEDULE, start, directory, SQUARED_ERROR, validate, writer)
    return directory, counted


def test_between_two_calls(tmp_path):
    with pytest.raises(Terminated):
        trained(tmp_path, at=30)
    directory, counted = trained(tmp_path, start=30)
    assert list(directory.checkpoints()) == [30, 40, 60] and int(counted) == 60


def test_in_the_last_call(tmp_path):
    """The evaluation, which may take long, is left to the next start."""
    with pytest.raises(Terminated):
        trained(tmp_path, at=60)
    assert list(RunDirectory(tmp_path, {}).checkpoints()) == [40, 60]


def test_while_it_validates(tmp_path):
    """It leaves off, and no score is made of a part."""

    def validate(leave_off):
        assert not leave_off()
        os.kill(os.getpid(), signal.SIGTERM)
        assert leave_off()
        return np.array([np.nan, np.nan])

    with pytest.raises(Terminated):
        trained(tmp_path, validate=validate)
    directory = RunDirectory(tmp_path, {})
    assert list(directory.checkpoints()) == [20] and directory.best_score(20) is None


def test_the_validation_is_made_up_for(tmp_path, capsys):
    writer, seen = tf.summary.create_noop_writer(), []

    def terminated(leave_off):
        os.kill(os.getpid(), signal.SIGTERM)
        return np.array([np.nan, np.nan])

    def validate(leave_off):
        seen.append(0)
        return np.array([2.0, 1.0 + len(seen)])

    with pytest.raises(Terminated):
        trained(tmp_path, validate=terminated, writer=writer)
    directory, _ = trained(tmp_path, validate=validate, writer=writer, start=20)
    assert len(seen) == 3  # after iterations 20, 40 and 60
    assert directory.best_score(60) == 2.0 and 'model-20.index' in os.listdir(tmp_path / 'best')
    trained(tmp_path, validate=validate, writer=writer, start=40)
    assert len(seen) == 4


def test_a_score_that_is_there_is_kept(tmp_path):
    def validate(leave_off):
        os.kill(os.getpid(), signal.SIGTERM)
        return np.array([2.0, 1.0])

    with pytest.raises(Terminated):
        trained(tmp_path, validate=validate)
    assert RunDirectory(tmp_path, {}).best_score(20) == 1.0


def test_a_phase_begins_with_a_checkpoint(tmp_path):
    """Its first call compiles, and SIGTERM ends that at once."""
    directory, _ = trained(tmp_path, phases=(30, 30))
    assert list(directory.checkpoints()) == [30, 40, 60]


def test_in_a_call_that_compiles():
    """Python would hear of the signal after it, minutes later maybe."""
    program = (
        'import os, signal; from maml_tf.terminal.interrupts import Interrupts, ended_at_once\n'
        'with Interrupts() as interrupts:\n'
        '    with ended_at_once(signal.SIGTERM): pass\n'
        '    os.kill(os.getpid(), signal.SIGTERM)\n'
        '    assert interrupts.asked == signal.SIGTERM\n'
        '    with ended_at_once(signal.SIGTERM): os.kill(os.getpid(), signal.SIGTERM)\n'
        "    print('not ended')"
    )
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    result = subprocess.run(
        [sys.executable, '-c', program], env=environment, text=True, capture_output=True
    )
    assert result.returncode == -signal.SIGTERM and not result.stdout, result


def test_an_evaluation_that_leaves_off():
    class Learner:
        evaluation_steps, xla = 0, False

        def query_scores(self, task, steps):
            return None, tf.reshape(task, [1, -1])

    draw = lambda start, count: tf.cast(start, tf.float32) + tf.range(float(count))
    evaluator = evaluate.evaluator(Learner(), draw, chunk=4)
    asked = iter([False, True])
    scores = evaluator(14, lambda: next(asked))
    assert scores[:8, 0].tolist() == list(range(8)) and np.isnan(scores[8:]).all()
    assert evaluator(14)[:, 0].tolist() == list(range(14))


def test_the_exit_code_says_so(capsys):
    with pytest.raises(SystemExit) as end, errors_as_one_line(interrupted='goes on later'):
        raise Terminated
    assert end.value.code == 143 and capsys.readouterr().err == 'goes on later\n'


def test_a_failure_after_the_signal_does_not_hide_it():
    """Of several workers, the others may be gone already."""
    with pytest.raises(Terminated), Interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        raise tf.errors.UnavailableError(None, None, 'gone')
    with pytest.raises(tf.errors.UnavailableError), Interrupts():
        raise tf.errors.UnavailableError(None, None, 'gone')


@pytest.mark.slow
def test_terminated_equals_never_terminated(tmp_path):
    runs = {
        tmp_path / 'disturbed': [End(45, by=signal.SIGTERM), None],
        tmp_path / 'undisturbed': [None],
    }
    (ended, last), _ = run(runs).values()
    assert ended['status'] == 143 and ended['checkpoints'] == [20, 40, 50], ended['output']
    assert f'Resuming from iteration 50 of {ITERATIONS}' in last['output']
    check_the_same(*(next(path.iterdir()) for path in runs))
