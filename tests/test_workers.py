"""Several workers train one run, also when some of them are killed and started again."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from command import ROOT
from killed_runs import FLAGS, ITERATIONS
from test_exact_resume import check_the_same, values

PROGRAM = 'import sys, test_workers; test_workers.be_a_worker(*sys.argv[1:])'
START = (
    'import sys; from maml_tf.commands import workers\n'
    f'sys.exit(workers.run([sys.executable, "-c", {PROGRAM!r}, *sys.argv[1:]], 2))'
)
# Which worker ends in the call that takes which iteration, and by which signal. A call has ten
# iterations, and a checkpoint is written every twenty.
ENDS = [(1, 45, signal.SIGKILL), (0, 105, signal.SIGKILL), (1, 165, signal.SIGTERM)]
RESUMES = [40, 100, 170]


def be_a_worker(path, *flags):
    """Runs run_maml.py, and ends as ENDS says where `path`, a directory for marks, is not '-'."""
    import killed_runs

    import run_maml

    killed_runs.faster()
    if path != '-':
        _end_sometimes(pathlib.Path(path))
    sys.argv = ['run_maml.py', *flags, '--strategy=multi_worker']
    run_maml.run()


def _end_sometimes(path):
    from maml_tf.commands import run_training

    make_run, worker = run_training._run_of, json.loads(os.environ['TF_CONFIG'])['task']['index']

    def run_of(*arguments):
        run = make_run(*arguments)

        def ending(first, count):
            log = run(first, count)
            for number, (who, at, by) in enumerate(ENDS):
                mark = path / str(number)
                if who == worker and first < at <= first + count and not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), by)
            return log

        return ending

    run_training._run_of = run_of


def run(path, *flags, code=0):
    """Runs two workers; returns what they print."""
    path_of_modules = os.pathsep.join([str(ROOT), str(ROOT / 'tests'), *sys.path])
    result = subprocess.run(
        [sys.executable, '-c', START, str(path), *FLAGS, *flags],
        env=os.environ | {'PYTHONPATH': path_of_modules},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert result.returncode == code, result.stdout[-3000:]
    return result.stdout


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """(the run directory of two workers that nothing disturbs, what they printed)."""
    path = tmp_path_factory.mktemp('undisturbed')
    output = run('-', f'--logdir={path}')
    (directory,) = path.iterdir()
    return directory, output


@pytest.mark.slow
def test_killed_workers_end_where_undisturbed_ones_end(undisturbed, tmp_path):
    """Each is started again, the other starts itself again, and both go on from the last
    checkpoint: bit for bit to the same weights, metrics and scores."""
    marks, logs = tmp_path / 'marks', tmp_path / 'logs'
    marks.mkdir()
    output = run(marks, f'--logdir={logs}')
    assert len(list(marks.iterdir())) == len(ENDS)
    for iteration in RESUMES:
        assert f'Resuming from iteration {iteration} of {ITERATIONS}' in output
    (directory,) = logs.iterdir()
    check_the_same(directory, undisturbed[0])


@pytest.mark.slow
def test_two_workers_and_one_process(undisturbed, tmp_path):
    """The chief alone prints, and the weights and scores are those of one process: float32's
    rounding, over 300 steps of Adam, moves weights of about 1 by less than 1e-3."""
    directory, output = undisturbed
    for text in ('Training maml on sinusoid', 'Iteration 300: ', 'Pictures and results.json'):
        assert output.count(text) == 1
    alone = subprocess.run(
        [
            *(sys.executable, '-c'),
            'import sys, killed_runs, run_maml; killed_runs.faster(); run_maml.run()',
            *(*FLAGS, f'--logdir={tmp_path}'),
        ],
        env=os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')])},
    )
    assert alone.returncode == 0
    (one,) = tmp_path.iterdir()
    ours, theirs = (values(path / f'model-{ITERATIONS}') for path in (directory, one))
    weights = [name for name in ours if name.startswith('learner/')]
    apart = max(np.abs(ours[name] - theirs[name]).max() for name in weights)
    print(f'weights of two workers and of one process: at most {apart:.1e} apart')
    assert apart < 1e-3
    scores = [
        np.loadtxt(path / 'scores.csv', delimiter=',', skiprows=1) for path in (directory, one)
    ]
    np.testing.assert_allclose(*scores, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_an_error_of_all_is_one_of_the_program(tmp_path):
    """More workers than tasks."""
    output = run('-', f'--logdir={tmp_path}', '--meta_batch_size=1', code=1)
    assert 'error: --meta_batch_size=1: at least one task for each of the 2 replicas' in output
