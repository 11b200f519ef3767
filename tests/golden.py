"""Golden values that the reference computed, read into this package's shapes; see ../shared/golden/README.md."""
import json
import os
import pathlib

import numpy as np
import tensorflow as tf

from maml_tf.algorithms.maml import MAML
from maml_tf.episodes.task import Task
from maml_tf.networks import ConvNet, FullyConnected
from maml_tf.objectives import Classification, Regression

SHARED = pathlib.Path(os.environ.get('MAML_TF_SHARED', pathlib.Path(__file__).parents[2] / 'shared'))
CASES = sorted((SHARED / 'golden').glob('*.npz'))


class Golden:
    """One case: `task`, `learner` with the case's weights, the reference's `values`, its `flags`."""

    def __init__(self, path):
        self.values = dict(np.load(path))
        self.flags = flags = json.loads(str(self.values['flags']))
        sinusoid = flags['datasource'] == 'sinusoid'
        channels = 3 if flags['datasource'] == 'miniimagenet' else 1
        side = 1 if sinusoid else int((self.values['inputa'].shape[-1] / channels) ** .5)
        shape = (self.values['inputa'].shape[-1],) if sinusoid else (side, side, channels)
        out = self.values['labela'].shape[-1]
        if sinusoid or not flags['conv']:
            hidden = (40, 40) if sinusoid else (256, 128, 64, 64)
            network = FullyConnected(shape, out, hidden, flags['norm'])
        else:
            network = ConvNet(shape, out, flags['num_filters'], flags['norm'], flags['max_pool'],
                              'flatten' if channels == 3 else 'mean')
        objective = Regression() if sinusoid else Classification()
        self.learner = MAML(network, objective, flags['update_lr'], flags['num_updates'], flags['stop_grad'])
        for key, variable in self.learner.meta_weights.items():
            variable.assign(self.values['weight/' + reference_name(key)])
        image = lambda x: tf.reshape(x, [*x.shape[:2], *shape])
        self.task = Task(image(self.values['inputa']), tf.constant(self.values['labela']),
                         image(self.values['inputb']), tf.constant(self.values['labelb']))


def reference_name(name):
    """norm0_beta -> norm0/beta"""
    return name.replace('_', '/')
