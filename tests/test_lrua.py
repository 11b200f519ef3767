"""The memory of MANN: what reading and writing do to it, function by function and step by step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.errors import ArgumentError
from maml_tf.networks.sequence_models import lrua
from maml_tf.networks.sequence_models.lrua_cell import CONTROLLERS, LRUACell

TASKS, SLOTS, WIDTH, HEADS, FEATURES = 3, 7, 4, 2, 5
RNG = np.random.default_rng(0)
MEMORY = RNG.normal(size=(TASKS, SLOTS, WIDTH)).astype(np.float32)
KEYS = RNG.normal(size=(TASKS, HEADS, WIDTH)).astype(np.float32)
USAGE = np.float32([[3, 1, 4, 1.5, 9, 2, 6], [0, 0, 0, 1, 0, 0, 0], [7, 6, 5, 4, 3, 2, 1]])
LEAST = [{1, 3}, {0, 1}, {5, 6}]  # The two least used, of equal ones the first.
LEAST_OF_ALL = [1, 0, 6]


@pytest.fixture
def float64():
    before = keras.config.floatx()
    keras.config.set_floatx('float64')
    keras.config.set_dtype_policy('float64')
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)


def test_similarities_are_cosines():
    memory = MEMORY.copy()
    memory[0, 2] = 0
    memory[1] = 1e-6  # As it starts: a direction, though a short one.
    found = lrua.cosine_similarity(KEYS, memory).numpy()
    norms = np.linalg.norm(KEYS, axis=-1)[:, :, None] * np.linalg.norm(memory, axis=-1)[:, None]
    expected = np.einsum('thw,tsw->ths', KEYS, memory) / np.where(norms > 0, norms, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert (found[0, :, 2] == 0).all() and np.abs(found[1]).max() > 0.1


def test_the_gradient_at_an_erased_row_is_finite():
    memory = tf.Variable(np.zeros_like(MEMORY))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(lrua.read_weights(KEYS, memory) ** 2)
    assert np.isfinite(tape.gradient(value, memory)).all()


def test_read_weights_add_up_to_one_and_prefer_what_resembles_the_key():
    weights = lrua.read_weights(MEMORY[:, [4, 0]], MEMORY).numpy()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert (weights.argmax(-1) == [4, 0]).all() and (weights > 0).all()
    expected = np.einsum('ths,tsw->thw', weights, MEMORY)
    np.testing.assert_allclose(lrua.read(weights, MEMORY), expected, rtol=1e-4, atol=1e-5)


def test_the_least_used_are_as_many_as_are_asked_for():
    for count in (1, 2, 5):
        least = lrua.least_used(USAGE, count).numpy()
        assert (least.sum(-1) == count).all() and {*np.unique(least)} == {0, 1}
        for usage, chosen in zip(USAGE, least):
            assert usage[chosen > 0].max() <= usage[chosen == 0].min()
    assert [{*np.flatnonzero(row)} for row in lrua.least_used(USAGE, 2).numpy()] == LEAST


def test_one_row_is_erased_the_least_used():
    after = lrua.erase_least_used(MEMORY, USAGE).numpy()
    for task, row in enumerate(LEAST_OF_ALL):
        assert (after[task, row] == 0).all()
        others = np.arange(SLOTS) != row
        np.testing.assert_array_equal(after[task, others], MEMORY[task, others])


def written(gate):
    """The memory before and after a step's writing, and the read weights of the step before."""
    reading = tf.nn.softmax(RNG.normal(size=(TASKS, HEADS, SLOTS)).astype(np.float32)).numpy()
    gates = np.full((TASKS, HEADS), gate, np.float32)
    weights = lrua.write_weights(gates, reading, lrua.least_used(USAGE, HEADS))
    erased = lrua.erase_least_used(MEMORY, USAGE)
    return lrua.write(erased, weights, KEYS).numpy(), reading


def test_a_closed_gate_writes_to_the_least_used_rows_alone():
    after, _ = written(0.0)
    for task, rows in enumerate(LEAST):
        others = [row for row in range(SLOTS) if row not in rows]
        np.testing.assert_array_equal(after[task, others], MEMORY[task, others])
        for row in rows:
            kept = 0 if row == LEAST_OF_ALL[task] else MEMORY[task, row]
            np.testing.assert_allclose(after[task, row], kept + KEYS[task].sum(0), rtol=1e-5)


def test_an_open_gate_writes_where_was_read():
    after, reading = written(1.0)
    erased = lrua.erase_least_used(MEMORY, USAGE).numpy()
    expected = erased + np.einsum('ths,thw->tsw', reading, KEYS)
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)


def test_a_gate_half_open_writes_to_both():
    (closed, _), (half, reading) = written(0.0), written(0.5)
    opened = np.einsum('ths,thw->tsw', reading, KEYS)
    erased = lrua.erase_least_used(MEMORY, USAGE).numpy()
    expected = (closed - erased + opened) / 2 + erased
    np.testing.assert_allclose(half, expected, rtol=1e-4, atol=1e-5)


def cell_of(controller='lstm', **kwargs):
    keras.utils.set_random_seed(0)
    cell = LRUACell(controller, units=6, slots=SLOTS, width=WIDTH, heads=HEADS, **kwargs)
    cell.build((None, FEATURES))
    return cell


def test_the_start_of_an_episode():
    *controller, memory, reading, usage, reads = cell_of().get_initial_state(batch_size=TASKS)
    assert all((state.numpy() == 0).all() for state in (*controller, reads))
    np.testing.assert_allclose(memory, np.full((TASKS, SLOTS * WIDTH), 1e-6))
    first = np.eye(SLOTS)[0]
    np.testing.assert_array_equal(np.reshape(reading, (-1, SLOTS)), [first] * TASKS * HEADS)
    np.testing.assert_array_equal(usage, [first] * TASKS)


@pytest.mark.parametrize('controller', CONTROLLERS)
def test_steps_of_a_cell(controller):
    """Usage is a recursion over read and write weights; the output is the controller's and what
    was read."""
    cell = cell_of(controller, decay=0.9)
    states = cell.get_initial_state(batch_size=TASKS)
    for _ in range(6):
        x = RNG.normal(size=(TASKS, FEATURES)).astype(np.float32)
        *before, memory, reading, usage, reads = states
        h, _ = cell.controller(tf.concat([x, reads], -1), before)
        output, states = cell(x, states)
        after, new_reading, new_usage, new_reads = states[-4:]
        gate = cell.gate(h).numpy()[..., None]
        assert gate.min() > 0 and gate.max() < 1
        least = lrua.least_used(usage, HEADS).numpy()[:, None]
        reading, new_reading = (
            np.reshape(r, (TASKS, HEADS, SLOTS)) for r in (reading, new_reading)
        )
        writing = gate * reading + (1 - gate) * least
        expected = 0.9 * usage.numpy() + (new_reading + writing).sum(1)
        np.testing.assert_allclose(new_usage, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(new_reading.sum(-1), 1, rtol=1e-5)
        # Each step adds one read and one write of each head.
        total = 0.9 * usage.numpy().sum(-1) + HEADS + writing.sum((1, 2))
        np.testing.assert_allclose(new_usage.numpy().sum(-1), total, rtol=1e-5)
        memory, after = (np.reshape(m, (TASKS, SLOTS, WIDTH)) for m in (memory, after))
        read = np.einsum('ths,tsw->thw', new_reading, after).reshape(TASKS, -1)
        np.testing.assert_allclose(new_reads, read, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(output, np.concatenate([h, read], -1), rtol=1e-4, atol=1e-6)
        keys = np.reshape(cell.key(h), (TASKS, HEADS, WIDTH))
        kept = 1 - np.eye(SLOTS)[usage.numpy().argmin(-1)][..., None]
        added = np.einsum('ths,thw->tsw', writing, keys)
        np.testing.assert_allclose(after, memory * kept + added, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('controller', CONTROLLERS)
def test_gradients_through_time(float64, controller):
    """Against finite differences. Which rows are the least used is constant for them."""
    cell = cell_of(controller)
    rnn = keras.layers.RNN(cell, return_sequences=True)
    x = tf.constant(RNG.normal(size=(TASKS, 4, FEATURES)))
    loss = lambda: tf.reduce_mean(tf.square(rnn(x)[:, -1] - 0.3))
    with tf.GradientTape() as tape:
        value = loss()
    gradients = tape.gradient(value, [v.value for v in cell.trainable_variables])
    for variable, gradient in zip(cell.trainable_variables, gradients):
        start, direction = np.array(variable), RNG.normal(size=variable.shape)
        ends = []
        for sign in (1, -1):
            variable.assign(start + sign * 1e-6 * direction)
            ends.append(float(loss()))
        variable.assign(start)
        slope = (ends[0] - ends[1]) / 2e-6
        along = float(np.sum(gradient * direction))
        assert along == pytest.approx(slope, rel=1e-4, abs=1e-8), variable.path


def test_more_heads_than_slots_are_refused():
    with pytest.raises(ArgumentError, match='heads=4: from 1 to the 3 slots'):
        LRUACell(slots=3)
    with pytest.raises(ArgumentError, match="controller='gru': one of lstm, feed_forward"):
        LRUACell('gru')
