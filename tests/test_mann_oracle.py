"""MANN's memory, its cell and whole sequences against the equations in plain NumPy, in float64."""

import mann_oracle as oracle
import numpy as np
import pytest
import tensorflow as tf
from precision import float64

from maml_tf.algorithms.model_based.mann import MANN
from maml_tf.episodes.task import Sequence
from maml_tf.networks.sequence_models import lrua
from maml_tf.networks.sequence_models.lrua_cell import CONTROLLERS, LRUACell

TASKS, SLOTS, WIDTH, HEADS, UNITS, FEATURES, STEPS = 2, 7, 3, 2, 4, 5, 6
# Of the ways to read the equation of w^lu, ours.
READING = {'reading': 'smallest'}
RNG = np.random.default_rng(0)
# What a step computes, by the function that computes it.
PARTS = {
    'least_used': 'least_used',
    'write_weights': 'write_weights',
    'erase_least_used': 'erased',
    'write': 'memory',
    'read_weights': 'read_weights',
    'read': 'reads',
    'usage_after': 'usage',
}


def random_state():
    """One task's, with usages that all differ, far from the start of an episode."""
    return {
        'memory': RNG.normal(size=(SLOTS, WIDTH)),
        'read_weights': RNG.dirichlet(np.ones(SLOTS), HEADS),
        'usage': RNG.permutation(SLOTS) + RNG.uniform(0, 0.9, SLOTS),
        'reads': RNG.normal(size=(HEADS, WIDTH)),
        'h': RNG.normal(size=UNITS),
        'c': RNG.normal(size=UNITS),
    }


def stacked(states, name):
    return np.stack([state[name] for state in states])


def randomise(layer):
    for variable in layer.trainable_variables:
        variable.assign(0.8 * RNG.normal(size=variable.shape))


def cell_of(controller, **kwargs):
    with float64():
        cell = LRUACell(controller, UNITS, SLOTS, WIDTH, HEADS, **kwargs)
        cell.build((None, FEATURES))
    randomise(cell)
    return cell


def weights_of(cell, readout=None):
    """The oracle's weights; without a readout its logits are [h, r], what the cell puts out."""
    arrays = lambda layer: [np.array(weight) for weight in layer.weights]
    of_heads = lambda values: np.stack(np.split(values, cell.heads, axis=-1))
    key_kernel, key_bias = arrays(cell.key)
    gate_kernel, gate_bias = arrays(cell.gate)
    output_kernel, output_bias = arrays(readout) if readout else (np.eye(cell.output_size), None)
    return {
        cell.controller.name: arrays(cell.controller),
        'key_kernel': of_heads(key_kernel),
        'key_bias': of_heads(key_bias),
        'gate_kernel': gate_kernel.T,
        'gate_bias': gate_bias,
        'output_kernel': output_kernel,
        'output_bias': output_bias,
    }


def assert_close(ours, expected, message=''):
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12, err_msg=message)


def test_similarities_also_of_rows_that_are_zero_or_short():
    keys, memory = RNG.normal(size=(1, HEADS, WIDTH)), RNG.normal(size=(1, SLOTS, WIDTH))
    memory[0, 2], memory[0, 4] = 0, 1e-6
    weights, similarities = oracle.read_weights(keys[0], memory[0])
    assert (similarities[:, 2] == 0).all() and np.abs(similarities[:, 4]).min() > 0.01
    assert_close(lrua.cosine_similarity(keys, memory)[0], similarities)
    assert_close(lrua.read_weights(keys, memory)[0], weights)


@pytest.mark.parametrize('count', range(1, 5))
def test_of_equal_usages_the_first_slots_are_the_least(count):
    for usage in ([0, 0, 0, 1, 0, 0, 0], [2, 1, 1, 3, 1, 1, 0], [5.0] * SLOTS):
        usage, memory = np.array([usage], float), RNG.normal(size=(1, SLOTS, WIDTH))
        least = oracle.least_used_weights(usage[0], count, **READING)
        np.testing.assert_array_equal([lrua.least_used(usage, count)[0]] * count, least)
        erased = oracle.erased(memory[0], oracle.order_of_usage(usage[0])[0])
        np.testing.assert_array_equal(lrua.erase_least_used(memory, usage)[0], erased)


@pytest.mark.parametrize('controller', CONTROLLERS)
def test_every_weight_vector_of_every_step(monkeypatch, controller):
    """From random states: what each function of the memory returns, the states and the output."""
    cell = cell_of(controller, decay=0.8)
    weights, states = weights_of(cell), [random_state() for _ in range(TASKS)]
    found = {}

    def recording(name, function):
        def call(*arguments):
            found[name] = function(*arguments)
            return found[name]

        return call

    for name in PARTS:
        monkeypatch.setattr(lrua, name, recording(name, getattr(lrua, name)))
    of_controller = ('h', 'c')[: cell._of_controller]
    names = (*of_controller, 'memory', 'read_weights', 'usage', 'reads')
    ours = [tf.constant(stacked(states, name).reshape(TASKS, -1)) for name in names]
    for step in range(STEPS):
        x = RNG.normal(size=(TASKS, FEATURES))
        output, ours = cell(x, ours)
        states = [
            oracle.mann_step(state, row, weights, decay=0.8, **READING)
            for state, row in zip(states, x)
        ]
        for name, part in PARTS.items():
            expected = stacked(states, part)
            if name == 'least_used':
                assert (expected == expected[:, :1]).all()
                expected = expected[:, 0]
            assert_close(found[name], expected, f'{part} of step {step}')
        for name, value in zip(names, ours):
            assert_close(value, stacked(states, name).reshape(TASKS, -1), f'{name}, step {step}')
        assert_close(output, stacked(states, 'logits'), f'output of step {step}')


def test_the_start_of_an_episode():
    first = oracle.initial_state(SLOTS, WIDTH, HEADS, UNITS)
    names = ('h', 'c', 'memory', 'read_weights', 'usage', 'reads')
    states = cell_of('lstm').get_initial_state(batch_size=TASKS)
    for name, state in zip(names, states, strict=True):
        np.testing.assert_array_equal(state, [np.ravel(first[name])] * TASKS, err_msg=name)


@pytest.mark.parametrize('controller', CONTROLLERS)
def test_whole_sequences(controller):
    """Outputs, loss and accuracy by instance of a learner, from the start of an episode."""
    way, instances, shape = 3, 3, (2, 2, 1)
    sizes = {'units': 6, 'slots': 8, 'width': 4, 'heads': 3, 'decay': 0.9}
    with float64():
        learner = MANN(shape, way, instances, controller, **sizes)
    randomise(learner)
    cell = learner.recurrence.cell
    weights = weights_of(cell, learner.readout)
    labels = np.stack([RNG.permutation(np.repeat(range(way), instances)) for _ in range(TASKS)])
    x = RNG.normal(size=(TASKS, way * instances, *shape))
    sequence = Sequence(tf.constant(x), tf.constant(np.eye(way)[labels]))
    outputs = learner.query_outputs(sequence)[0].numpy()
    losses, predictions = [], []
    for i in range(TASKS):
        inputs = oracle.with_previous_labels(x[i].reshape(len(x[i]), -1), labels[i], way)
        start = oracle.initial_state(sizes['slots'], sizes['width'], sizes['heads'], sizes['units'])
        steps = oracle.mann_sequence(start, inputs, weights, decay=0.9, **READING)
        logits = np.stack([step['logits'] for step in steps])
        assert_close(outputs[i], logits)
        losses.append(oracle.sequence_loss(logits, labels[i]))
        predictions.append(logits.argmax(-1))
    loss = learner.meta_loss(sequence, tf.constant(0, tf.int64)).value
    assert_close(loss, np.mean(losses))
    accuracies, counts = oracle.accuracy_by_instance(labels, predictions)
    assert counts == [TASKS * way] * instances
    _, scores = learner.query_scores(sequence)
    assert_close(np.mean(scores, axis=1), accuracies)
