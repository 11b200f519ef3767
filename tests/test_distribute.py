"""One and two replicas learn the same. Two logical CPU devices stand for two GPUs; they must be made before
TensorFlow starts, so each check is a process of its own."""
import pathlib
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices('CPU')[0],
                                           [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
keras.config.set_floatx('float64')  # float32 keeps six digits of a sum, whatever adds it up
from maml_tf import algorithms, distribute, train
from test_conformance import source_for

name, tasks = sys.argv[1], int(sys.argv[2])
results = {}
for strategy_name in ('one_device', 'mirrored'):
    strategy = distribute.make_strategy(strategy_name)
    with strategy.scope():
        learner, spec = algorithms.registry()[name].tiny()
        # A step of plain gradient descent shows the gradient; Adam's would hide its size.
        op = train.metatrain_op(learner, keras.optimizers.SGD(1.), clip=1e3)
    draw_float32 = source_for(learner, spec).tasks('train', spec, seed=0)
    draw = lambda first, count: type(draw_float32(0, 1))(*(tf.cast(x, 'float64') for x in draw_float32(first, count)))
    before = [np.array(v) for v in learner.trainable_variables]
    replicas = strategy.num_replicas_in_sync
    run = (train.iterate(op, draw, tasks) if replicas == 1 else distribute.iterate(strategy, op, draw, tasks))
    log = {key: float(value) for key, value in run(3, 1).items()}
    results[replicas] = [old - np.array(v) for v, old in zip(learner.trainable_variables, before)], log
largest = max(np.abs(g).max() for g in results[1][0])
for one, two in zip(results[1][0], results[2][0]):
    assert np.abs(one - two).max() <= 1e-6 * largest, (np.abs(one - two).max(), largest)
for key, value in results[1][1].items():
    assert abs(value - results[2][1][key]) <= 1e-6 * abs(value), key
print('same')
"""


@pytest.mark.parametrize('tasks', [4, 5], ids=['even', 'uneven'])
def test_two_replicas_give_the_same_meta_gradient(tasks):
    result = subprocess.run([sys.executable, '-c', PROGRAM, 'maml', str(tasks)], cwd=pathlib.Path(__file__).parent,
                            env=None, text=True, capture_output=True)
    assert result.stdout.strip() == 'same', result.stderr[-3000:]
