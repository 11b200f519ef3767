"""A run that is killed, at any moment and often, ends bit for bit where an undisturbed one ends."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import tensorflow as tf
from command import ROOT, run_maml

KILLS, ITERATIONS = 20, 40000
# Importing TensorFlow takes most of a short run, so one process imports it and forks the runs,
# before TensorFlow has started a thread. Every second run is killed as soon as it writes a
# checkpoint, the others anywhere.
KILLER = """
import os, pathlib, random, signal, sys, time
root, logdir, iterations, kills = sys.argv[1:5]
logdir, kills = pathlib.Path(logdir), int(kills)
sys.path.insert(0, root)
import run_maml

def start():
    child = os.fork()
    if child == 0:
        sys.argv = ['run_maml.py', '--datasource=sinusoid', '--norm=None', '--update_batch_size=10',
                    f'--logdir={logdir}', '--test_set=True', f'--metatrain_iterations={iterations}']
        try:
            run_maml.run()
        finally:
            error = sys.exc_info()[1]
            os._exit(0 if isinstance(error, SystemExit) and not error.code else 1)
    return child

def parts():
    found = set()
    try:
        for path in logdir.glob('*/.writing/*'):
            found.add((path, path.stat().st_mtime_ns))
    except FileNotFoundError:  # complete meanwhile, the file or its folder
        pass
    return found

random.seed(0)
killed = killed_writing = 0
# A machine may be fast, or too busy for this process to see a checkpoint being written.
ended = False
for kill in range(kills):
    began, child, delay = time.monotonic(), start(), random.uniform(.5, 3.)
    left = parts()  # of the run that was killed before
    while time.monotonic() < began + (20 if kill % 2 else delay):
        if kill % 2 and parts() - left:
            killed_writing += 1
            break
        ended = os.waitpid(child, os.WNOHANG)[0]
        if ended:
            break
    if ended:
        break
    killed += 1
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    latest = sorted(int(p.stem.split('-')[1]) for p in logdir.glob('*/model-*.index'))[-1:]
    print('killed', kill, 'after', latest, flush=True)
status = os.waitpid(start(), 0)[1]
print('killed:', killed, 'while writing:', killed_writing, 'status:', status)
"""


def weights(run, iteration):
    """Every value of a checkpoint."""
    reader = tf.train.load_checkpoint(str(run / f'model-{iteration}'))
    return {
        key: reader.get_tensor(key)
        for key in reader.get_variable_to_shape_map()
        if 'OBJECT_GRAPH' not in key
    }


def test_interrupted_by_the_user(tmp_path):
    command = ['--datasource=sinusoid', '--norm=None', '--metatrain_iterations=6000']
    interrupted = subprocess.Popen(
        [sys.executable, str(ROOT / 'run_maml.py'), *command, '--logdir=logs'],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob('logs/*/metrics.csv')):
        time.sleep(0.01)
        assert interrupted.poll() is None
    interrupted.send_signal(signal.SIGINT)
    assert 'interrupted' in interrupted.communicate()[1] and interrupted.returncode == 1
    (run,) = (tmp_path / 'logs').iterdir()
    reached = max(int(path.stem.split('-')[1]) for path in run.glob('model-*.index'))
    assert (
        1000 <= reached < 6000
        and 'could' not in run_maml(*command, '--logdir=logs', cwd=tmp_path).stderr
    )
    run_maml(*command, '--logdir=other', cwd=tmp_path)
    (other,) = (tmp_path / 'other').iterdir()
    ours, theirs = weights(run, 6000), weights(other, 6000)
    for key, value in ours.items():
        np.testing.assert_array_equal(value, theirs[key])


def test_killed_often_equals_never_killed(tmp_path):
    environment = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path)}
    runs = {}
    for name, kills in {'undisturbed': 0, 'killed': KILLS}.items():
        result = subprocess.run(
            [
                sys.executable,
                '-c',
                KILLER,
                str(ROOT),
                str(tmp_path / name),
                str(ITERATIONS),
                str(kills),
            ],
            text=True,
            capture_output=True,
            env=environment,
        )
        assert result.stdout.rstrip().endswith('status: 0'), (
            result.stdout[-500:] + result.stderr[-2000:]
        )
        (runs[name],) = (tmp_path / name).iterdir()
    killed, writing = (
        int(result.stdout.rpartition(f'{word}: ')[2].split()[0])
        for word in ('killed', 'while writing')
    )
    assert killed >= KILLS // 2 and writing >= killed // 5, result.stdout
    one, other = runs.values()
    assert (one / 'metrics.csv').read_text() == (other / 'metrics.csv').read_text()
    ours, theirs = weights(one, ITERATIONS), weights(other, ITERATIONS)
    for key, value in ours.items():
        np.testing.assert_array_equal(value, theirs[key])
    results = [json.loads((run / 'results.json').read_text()) for run in (one, other)]
    for content in results:
        content['flags'].pop('logdir')
    assert results[0] == results[1]
