"""A run that is killed, at any moment and often, ends bit for bit where an undisturbed one ends."""

import json
import random
import signal

import numpy as np
import pytest
import tensorflow as tf
from killed_runs import ITERATIONS, End, run

DATA, BEST = 'model-*.data-00000-of-00001', 'best/model-*'
# How each run ends, the iteration that the one after it resumes from, and what it was about to do.
# A checkpoint is written every 20 iterations, a row of metrics every 10; the best is kept by a
# validation every 40.
ENDS = [
    (End(45, by=signal.SIGINT), 50, 'interrupted by the user'),
    (End(DATA, torn=True), 50, 'half of a checkpoint is written'),
    (End(DATA, after=True), 50, 'the data are there, the index is not'),
    (End('model-60.index', after=True), 60, 'the checkpoint is there, nothing that follows it'),
    (End(15), 60, 'between two checkpoints, after a row of metrics'),
    (End('metrics.csv'), 60, 'half of a row of metrics is written'),
    (End(f'best/{DATA}', after=True), 60, 'the data of the best are there, the index is not'),
    (End('best/score.json'), 60, 'the best is there, its score is not'),
    (End(f'{BEST}.index', removed=True, after=True), 60, 'the best before is half removed'),
    (End('norm/model-*.index', removed=True, after=True), 200, 'the oldest is half removed'),
    (End('results.json'), ITERATIONS, 'the evaluation is written'),
]


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """(the reports of runs that end as ENDS say and then of one to the end, its run directory, that
    of a run which nothing disturbs)."""
    path = tmp_path_factory.mktemp('runs')
    disturbed, undisturbed = path / 'disturbed', path / 'undisturbed'
    ends = [end for end, *_ in ENDS]
    reports = run({disturbed: [*ends, None], undisturbed: [None]})
    return reports[disturbed], *(next(logdir.iterdir()) for logdir in (disturbed, undisturbed))


def check_the_same(one, other):
    """Every file of two runs that says what was learnt or measured holds the same."""
    for name in ('metrics.csv', 'scores.csv', 'best/score.json'):
        assert (one / name).read_text() == (other / name).read_text()
    best = json.loads((one / 'best/score.json').read_text())['iteration']
    for name in (f'model-{ITERATIONS}', f'best/model-{best}'):
        ours, theirs = values(one / name), values(other / name)
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            np.testing.assert_array_equal(value, theirs[key])
    results = [json.loads((directory / 'results.json').read_text()) for directory in (one, other)]
    for content in results:
        content['flags'].pop('logdir')
    assert results[0] == results[1]
    files = [{p.name for p in run.rglob('*') if 'events' not in p.name} for run in (one, other)]
    assert files[0] == files[1]  # Nothing is left of what was half done.


def values(prefix):
    """Every value of a checkpoint."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {
        key: reader.get_tensor(key)
        for key in reader.get_variable_to_shape_map()
        if 'OBJECT_GRAPH' not in key
    }


@pytest.mark.slow
def test_interrupted_by_the_user(runs):
    """The iterations under way are finished and saved."""
    (interrupted, *_), *_ = runs
    assert interrupted['status'] == 1 and interrupted['checkpoints'] == [20, 40, 50]
    assert interrupted['output'].rstrip().splitlines()[-1] == (
        'interrupted at iteration 50: the same command goes on from there'
    )


@pytest.mark.slow
def test_every_kill_hits_its_moment(runs):
    (_, *killed, last), *_ = runs
    for (_, resumes, what), report, following in zip(ENDS[1:], killed, [*killed[1:], last]):
        assert report['status'] == -signal.SIGKILL, (what, report['output'])
        assert report['checkpoints'][-1] == resumes, what
        if resumes < ITERATIONS:
            assert f'Resuming from iteration {resumes} of {ITERATIONS}' in following['output'], what
    assert last['status'] == 0 and 'Finished' in last['output'], last['output']


def test_killed_at_every_moment_equals_never_killed(runs):
    _, disturbed, undisturbed = runs
    check_the_same(disturbed, undisturbed)


@pytest.mark.slow
def test_killed_often_equals_never_killed(tmp_path):
    """Anywhere and often: in the next iterations, or at the next files that are written."""
    rng, ends = random.Random(0), []
    for number in range(40):
        name = rng.choice([DATA, 'model-*.index', 'clock.json', 'metrics.csv', 'best/score.json'])
        after = rng.random() < 0.5
        file = End(name, after, torn=not after, times=rng.randint(1, 2))
        ends.append(file if number % 2 else End(rng.randint(1, 40)))
    reports = run({tmp_path / 'killed': [*ends, None], tmp_path / 'undisturbed': [None]})
    *killed, last = reports[tmp_path / 'killed']
    statuses = [report['status'] for report in killed]
    # A run may come to its end before a file is written so often.
    assert {*statuses} <= {-signal.SIGKILL, 0} and statuses.count(-signal.SIGKILL) >= 20, statuses
    assert last['status'] == 0, last['output']
    check_the_same(*(next((tmp_path / name).iterdir()) for name in ('killed', 'undisturbed')))
