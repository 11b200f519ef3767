"""Several workers train one run, also when some of them are killed and started again."""

import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from command import ROOT
from golden import SHARED
from killed_runs import FLAGS, ITERATIONS
from test_exact_resume import check_the_same, values

from maml_tf.training.distribution.workers import Workers

PROGRAM = 'import sys, test_workers; test_workers.be_a_worker(*sys.argv[1:])'
START = (
    'import sys; from maml_tf.commands import workers\n'
    f'sys.exit(workers.run([sys.executable, "-c", {PROGRAM!r}, *sys.argv[1:]], 2))'
)
# Which worker ends in the call that takes which iteration, and by which signal. A call has ten
# iterations, and a checkpoint is written every twenty; that of SIGTERM is in the end not among the
# last ten, which are kept.
ENDS = [(1, 45, signal.SIGTERM), (0, 85, signal.SIGKILL), (1, 125, signal.SIGKILL)]
RESUMES = [50, 80, 120]
OMNIGLOT = (
    *('--datasource=omniglot', f'--data_dir={SHARED / "tfds"}', '--update_batch_size=1'),
    *('--num_filters=8', '--meta_batch_size=5', '--metatrain_iterations=20', '--test_tasks=50'),
)
ENVIRONMENT = os.environ | {
    'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests'), *sys.path])
}


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
    result = subprocess.run(
        [sys.executable, '-c', START, str(path), *flags],
        env=ENVIRONMENT,
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
    output = run('-', *FLAGS, f'--logdir={path}')
    (directory,) = path.iterdir()
    return directory, output


@pytest.mark.slow
def test_killed_workers_end_where_undisturbed_ones_end(undisturbed, tmp_path):
    """Each is started again, the other starts itself again, and both go on from the last
    checkpoint: bit for bit to the same weights, metrics and scores."""
    marks, logs = tmp_path / 'marks', tmp_path / 'logs'
    marks.mkdir()
    output = run(marks, *FLAGS, f'--logdir={logs}')
    assert len(list(marks.iterdir())) == len(ENDS)
    for iteration in RESUMES:
        assert f'Resuming from iteration {iteration} of {ITERATIONS}' in output, output[-3000:]
    (directory,) = logs.iterdir()
    check_the_same(directory, undisturbed[0])


@pytest.mark.slow
def test_the_sinusoid_of_two_workers_and_of_one_process(undisturbed, tmp_path):
    """The chief alone prints."""
    directory, output = undisturbed
    for text in ('Training maml on sinusoid', 'Iteration 300: ', 'Pictures and results.json'):
        assert output.count(text) == 1
    check_near(directory, alone(tmp_path, *FLAGS))


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / 'tfds').exists(), reason='no Omniglot in ../shared')
def test_omniglot_of_two_workers_and_of_one_process(tmp_path):
    run('-', *OMNIGLOT, f'--logdir={tmp_path}/two')
    (directory,) = (tmp_path / 'two').iterdir()
    check_near(directory, alone(tmp_path / 'one', *OMNIGLOT))


def alone(path, *flags):
    """Trains in one process; returns the run directory."""
    program = 'import killed_runs, run_maml; killed_runs.faster(); run_maml.run()'
    subprocess.run(
        [sys.executable, '-c', program, *flags, f'--logdir={path}'], env=ENVIRONMENT, check=True
    )
    (directory,) = path.iterdir()
    return directory


def check_near(one, other):
    """The weights and scores of two runs differ by what float32 rounds, and Adam makes of it."""
    iterations = max(int(path.stem.split('-')[1]) for path in one.glob('model-*.index'))
    ours, theirs = (values(path / f'model-{iterations}') for path in (one, other))
    weights = [name for name in ours if name.startswith('learner/')]
    apart = max(np.abs(ours[name] - theirs[name]).max() for name in weights)
    print(f'after {iterations} iterations weights are at most {apart:.1e} apart')
    assert apart < 1e-3
    scores = [np.loadtxt(path / 'scores.csv', delimiter=',', skiprows=1) for path in (one, other)]
    assert np.abs(scores[0].mean(0) - scores[1].mean(0)).max() < 1e-2


class Threads(Workers):
    """Workers that are threads of this process and meet in sum()."""

    def __init__(self, number, count, barrier, given):
        self.number, self.count, self.chief = number, count, number == 0
        self._barrier, self._given = barrier, given

    def sum(self, array):
        self._given[self.number] = array
        self._barrier.wait(timeout=60)
        total = sum(self._given)
        self._barrier.wait(timeout=60)  # Nobody gives the next one before all have read this one.
        return total


@pytest.mark.parametrize('items', [1, 2, 5])
@pytest.mark.parametrize('shape', [(4,), (4, 3), (4, 3, 2)], ids=str)
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_parts_make_the_whole(items, shape, dtype):
    """Scores have a column for every entry and may have one for every metric; a worker may have no
    part, as the second of one item."""
    sequence = [np.full(shape, item, dtype) + np.arange(shape[-1]) for item in range(items)]
    count = 2
    barrier, given = threading.Barrier(count), [None] * count

    def whole(number):
        workers = Threads(number, count, barrier, given)
        return workers.whole(workers.part(sequence), items)

    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        for found in threads.map(whole, range(count)):
            np.testing.assert_array_equal(found, np.concatenate(sequence))


@pytest.mark.slow
def test_what_no_worker_can_do_ends_all(tmp_path):
    """Two workers, and one task."""
    output = run('-', *FLAGS, f'--logdir={tmp_path}', '--meta_batch_size=1', code=1)
    assert 'error: --meta_batch_size=1: at least one task for each of the 2 replicas' in output
