"""What the reference computes, read into this package's shapes.

Either values that the reference itself computed (../shared/golden/README.md) or those of
reference_maml.py, an independent program that was checked against them.
"""

import json
import os
import pathlib

import numpy as np
import tensorflow as tf
from reference_maml import random_case, reference_maml

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.task import Task
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import Classification
from maml_tf.objectives.regression import Regression

SHARED = pathlib.Path(
    os.environ.get('MAML_TF_SHARED', pathlib.Path(__file__).parents[2] / 'shared')
)
GOLDEN_FILES = sorted((SHARED / 'golden').glob('*.npz'))


class Golden:
    """One case: `task`, `learner` with the case's weights, the reference's `values` and `flags`.

    Cases with max-pooling are computed in float64. Where two pixels tie but for rounding, float32
    decides by chance which of them the gradient goes to, and the meta-gradient jumps: moving the
    weights by 1e-7 moves it by up to 5e-4 of its largest entry, and machines differ by more.

    run: how to run the learner's methods, `graph` or `compiled`; compiling takes most of a test's
      time.
    """

    def __init__(self, values, flags, run):
        self.values, self.flags, self.run = values, flags, run
        regression = flags['datasource'] == 'sinusoid'
        channels = 3 if flags['datasource'] == 'miniimagenet' else 1
        side = round((values['inputa'].shape[-1] / channels) ** 0.5)
        shape = (values['inputa'].shape[-1],) if regression else (side, side, channels)
        out = values['labela'].shape[-1]
        if regression or not flags['conv']:
            hidden = (40, 40) if regression else (256, 128, 64, 64)
            network = FullyConnected(shape, out, hidden, flags['norm'])
        else:
            network = ConvNet(
                shape,
                out,
                flags['num_filters'],
                flags['norm'],
                flags['max_pool'],
                'flatten' if channels == 3 else 'mean',
            )
        objective = Regression() if regression else Classification()
        pooled = not regression and flags['conv'] and flags['max_pool']
        dtype = 'float64' if pooled else 'float32'
        self.learner = MAML(
            network,
            objective,
            flags['update_lr'],
            flags['num_updates'],
            stop_grad=flags['stop_grad'],
            dtype=dtype,
        )
        for name, variable in self.learner.meta_weights.items():
            variable.assign(self.weight('weight', name))
        image = lambda key: np.reshape(values[key], [*values[key].shape[:2], *shape])
        arrays = image('inputa'), values['labela'], image('inputb'), values['labelb']
        self.task = Task(*map(tf.constant, arrays)).cast(dtype)

    def weight(self, prefix, name):
        """values['prefix/name'] by our name: norm1_beta is the second of the reference's norms,
        however numbered."""
        if name.startswith('norm'):
            block, variable = name.removeprefix('norm').split('_')
            scopes = sorted(
                {key.split('/')[1] for key in self.values if key.startswith('weight/norm')}
            )
            name = f'{scopes[int(block)]}/{variable}'
        return self.values[f'{prefix}/{name}']


def graph(function):
    return tf.function(function, autograph=False)


def compiled(function):
    return tf.function(function, jit_compile=True, autograph=False)


def from_file(path):
    """What the reference itself computed."""
    values = dict(np.load(path))
    return Golden(values, json.loads(str(values.pop('flags'))), compiled)


def from_oracle(**flags):
    """A random case with these of the reference's flags, computed in float64 by the independent
    program."""
    flags, weights, *data = random_case(seed=len(flags), **flags)
    values = {f'weight/{name}': value for name, value in weights.items()}
    values |= dict(zip(('inputa', 'labela', 'inputb', 'labelb'), data))
    return Golden(values | reference_maml(flags, weights, *data), flags, graph)
