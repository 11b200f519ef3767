"""The package's side of the sequence models' benchmark, see sequence_models.py."""

import sequence_weights
import step_time
import tensorflow as tf

from maml_tf.algorithms.model_based.mann import MANN
from maml_tf.algorithms.model_based.snail import SNAIL
from maml_tf.episodes.order import random_order, take
from maml_tf.episodes.task import Sequence
from maml_tf.networks.encoders import conv4
from maml_tf.objectives.classification import MeanClassification
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import TrainingOp
from maml_tf.training.outer_optimizers import adam

RATE = 1e-4


def encoder_of(workload):
    """The encoder, with the workload's weights."""
    encoder, weights = conv4(workload.input_shape, workload.filters), workload.weights()
    for number in range(1, 5):
        convolution, norm = (encoder.get_layer(f'{kind}{number}') for kind in ('conv', 'norm'))
        convolution.kernel.assign(weights[f'conv{number}'])
        convolution.bias.assign(weights[f'b{number}'])
        norm.beta.assign(weights[f'norm{number - 1}_beta'])
    return encoder


def snail(workload):
    """The package's learner, with the workload's weights."""
    length = workload.way * workload.shot + 1
    learner = SNAIL(encoder_of(workload), MeanClassification(), workload.way, length)
    weights = sequence_weights.of_workload('snail', workload)
    learner.network.set_weights([array for *_, arrays in weights for array in arrays])
    return learner


def mann(workload):
    """The package's learner, with the workload's weights."""
    learner = MANN(workload.input_shape, workload.way, instances=workload.shot)
    weights = sequence_weights.of_workload('mann', workload)
    *recurrence, kernel, bias = [array for *_, arrays in weights for array in arrays]
    learner.recurrence.set_weights(recurrence)
    learner.readout.set_weights([kernel, bias])
    return learner


BUILD = {'snail': snail, 'mann': mann}


def draw(workload):
    """step_time.draw, so that the package reads the support sets in the order of the workload."""
    drawn = step_time.draw(workload)

    def in_order(start, count):
        task = drawn(start, count)
        back = tf.argsort(random_order(task.support_y))
        support = {name: take(getattr(task, name), back) for name in ('support_x', 'support_y')}
        return task._replace(**support)

    return in_order


def draw_sequences(workload):
    """(start, count) -> Sequence; the workload's batches in turn."""
    arrays = [tf.constant(array) for array in sequence_weights.sequences(workload)]
    flat = [tf.reshape(array, [-1, *array.shape[2:]]) for array in arrays]
    places = lambda start, count: (start + tf.range(count, dtype=tf.int64)) % len(flat[0])
    return lambda start, count: Sequence(*(tf.gather(x, places(start, count)) for x in flat))


DRAW = {'snail': draw, 'mann': draw_sequences}


class TensorFlowSide(step_time.TensorFlowSide):
    """`ours`, see workloads.serve: another learner, whose loss is a mean; steps and reports
    alike."""

    def __init__(self, method, workload):
        learner = BUILD[method](workload)
        self._scale, self._optimizer = 1, adam(RATE)
        op = TrainingOp(learner, self._optimizer, learner.meta_gradients)
        at_once = learner.share(workload.tasks, workload)
        self._run = iterate(op, DRAW[method](workload), workload.tasks, at_once)
