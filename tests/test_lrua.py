"""The memory of MANN: what reading and writing do to it by hand, and gradients through time."""

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


def test_a_closed_gate_writes_to_the_least_used_rows_alone():
    reading = RNG.dirichlet(np.ones(SLOTS), (TASKS, HEADS)).astype(np.float32)
    closed = np.zeros((TASKS, HEADS), np.float32)
    weights = lrua.write_weights(closed, reading, lrua.least_used(USAGE, HEADS))
    after = lrua.write(lrua.erase_least_used(MEMORY, USAGE), weights, KEYS).numpy()
    for task, rows in enumerate(LEAST):
        others = [row for row in range(SLOTS) if row not in rows]
        np.testing.assert_array_equal(after[task, others], MEMORY[task, others])
        for row in rows:
            kept = 0 if row == LEAST_OF_ALL[task] else MEMORY[task, row]
            np.testing.assert_allclose(after[task, row], kept + KEYS[task].sum(0), rtol=1e-5)


@pytest.mark.parametrize('controller', CONTROLLERS)
def test_gradients_through_time(float64, controller):
    """Against finite differences. Which rows are the least used is constant for them."""
    keras.utils.set_random_seed(0)
    cell = LRUACell(controller, units=6, slots=SLOTS, width=WIDTH, heads=HEADS)
    cell.build((None, FEATURES))
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
