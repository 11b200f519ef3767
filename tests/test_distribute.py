"""One and two replicas learn the same. Two logical CPU devices stand for two GPUs; they must be
made before TensorFlow starts, so each check is a process of its own."""

import os
import shutil
import subprocess
import sys

import pytest
from command import ROOT, run_maml

from maml_tf import algorithms

TWO_DEVICES = """
import sys
import tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices('CPU')[0],
                                           [tf.config.LogicalDeviceConfiguration()] * 2)
"""
PROGRAM = (
    TWO_DEVICES
    + """
import numpy as np
import keras
keras.config.set_floatx('float64')  # float32 keeps six digits of a sum, whatever adds it up
from maml_tf import algorithms
from maml_tf.training import distribute, train
from test_conformance import source_for

name, tasks = sys.argv[1], int(sys.argv[2])
results = {}
for strategy_name in ('one_device', 'mirrored'):
    strategy = distribute.make_strategy(strategy_name)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        learner, spec = algorithms.registry()[name].tiny()
        # A step of plain gradient descent shows the gradient; Adam's would hide its size.
        op = train.metatrain_op(learner, keras.optimizers.SGD(1.))
    draw_float32 = source_for(learner, spec).tasks('train', spec, seed=0)
    draw = lambda first, count: draw_float32(first, count).map(lambda x: tf.cast(x, 'float64'))
    before = [np.array(v) for v in learner.trainable_variables]
    replicas = strategy.num_replicas_in_sync
    at_once = 1 if name == 'maml' else None  # in shares, too
    run = (train.iterate(op, draw, tasks, at_once) if replicas == 1 else
           distribute.iterate(strategy, op, draw, tasks, at_once))
    log = {key: float(value) for key, value in run(3, 1).items()}
    moved = [old - np.array(v) for v, old in zip(learner.trainable_variables, before)]
    results[replicas] = moved, log
largest = max(np.abs(g).max() for g in results[1][0])
for one, two in zip(results[1][0], results[2][0]):
    assert np.abs(one - two).max() <= 1e-6 * largest, (np.abs(one - two).max(), largest)
for key, value in results[1][1].items():
    assert abs(value - results[2][1][key]) <= 1e-6 * abs(value), key
print('same')
"""
)


@pytest.mark.parametrize('name', sorted(algorithms.registry()))
def test_two_replicas_give_the_same_meta_gradient(name):
    """Five tasks: three on the one, two on the other."""
    result = run(PROGRAM, name, '5', cwd=ROOT / 'tests')
    assert result.stdout.strip() == 'same', result.stderr[-3000:]


def run(program, *arguments, cwd):
    environment = os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(
        [sys.executable, '-c', program, *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
    )


def test_command_line(tmp_path):
    """--strategy=mirrored trains on both devices, and a run of one device is resumed on two."""
    command = ['--datasource=sinusoid', '--norm=None', '--meta_batch_size=5', '--logdir=logs']
    alone = run_maml(*command, '--metatrain_iterations=2000', cwd=tmp_path).stdout
    shutil.move(tmp_path / 'logs', tmp_path / 'alone')
    run_maml(*command, '--metatrain_iterations=1000', cwd=tmp_path)
    two = run(
        TWO_DEVICES + 'import run_maml; run_maml.run()',
        *command,
        '--metatrain_iterations=2000',
        '--strategy=mirrored',
        cwd=tmp_path,
    )
    assert 'Resuming from iteration 1000 of 2000' in two.stdout, two.stderr[-3000:]
    means = [
        [float(line.split()[1]) for line in output.splitlines() if '±' in line]
        for output in (alone, two.stdout)
    ]
    assert means[1] == pytest.approx(means[0], rel=1e-2) and len(means[0]) == 11
