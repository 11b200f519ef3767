"""The inner loop in the memory of one step: what it computes, and that it does not grow."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.task import Task
from maml_tf.networks.keras_network import KerasNetwork
from maml_tf.networks.reference import ConvNet, FullyConnected
from maml_tf.objectives import Classification, Regression
from maml_tf.rematerialise import rematerialised_inner_loop
from maml_tf.update_rules import gradient_descent

RNG = np.random.default_rng(0)
ALPHA, TASKS, SIZE, STEPS = 0.1, 3, 4, 3


@pytest.mark.parametrize('stop_grad', [False, True])
def test_quadratics_in_closed_form(stop_grad):
    """Losses (w - c)'H(w - c) / 2 of tasks that share c: w_S - c = (I - alpha H)^S (w_0 - c)."""
    roots = RNG.normal(size=(TASKS, SIZE, SIZE))
    hessians = roots @ roots.transpose(0, 2, 1)
    start, centre, goal = (RNG.normal(size=(SIZE,)) for _ in range(3))
    weights, others = {'w': tf.constant(np.tile(start, (TASKS, 1)))}, {'c': tf.constant(centre)}

    def loss(weights, step, others):
        offset = weights['w'] - others['c']
        return tf.einsum('ti,tij,tj->t', offset, hessians, offset) / 2, offset

    with tf.GradientTape() as tape:
        tape.watch([weights, others])
        adapted = rematerialised_inner_loop(
            loss, weights, others, gradient_descent(ALPHA), STEPS, stop_grad
        )['w']
        total = tf.reduce_sum((adapted - goal) ** 2) / 2
    to_weights, to_others = tape.gradient(
        total, [weights['w'], others['c']], unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    expected_to_others = np.zeros(SIZE)
    for t in range(TASKS):
        shrink = np.linalg.matrix_power(np.eye(SIZE) - ALPHA * hessians[t], STEPS)
        end = centre + shrink @ (start - centre)
        np.testing.assert_allclose(adapted[t], end)
        through = np.eye(SIZE) if stop_grad else shrink
        np.testing.assert_allclose(to_weights[t], through @ (end - goal))
        expected_to_others += (np.eye(SIZE) - through) @ (end - goal)
    np.testing.assert_allclose(to_others, expected_to_others, atol=1e-12)


def learner_and_task(rematerialise, stop_grad=False, steps=STEPS, network='conv'):
    rng = np.random.default_rng(1)
    if network == 'conv':
        net, objective, shape = (
            ConvNet((18, 17, 2), 3, 4, max_pool=True, head='flatten'),
            Classification(),
            (18, 17, 2),
        )
        labels = [np.eye(3)[rng.integers(3, size=(2, n))] for n in (3, 6)]
    else:
        net, objective, shape = FullyConnected((1,), 1, (8, 8), 'layer_norm'), Regression(), (1,)
        labels = [rng.normal(size=(2, n, 1)) for n in (3, 6)]
    learner = MAML(
        net, objective, 0.05, steps, stop_grad, rematerialise=rematerialise, dtype='float64'
    )
    arrays = rng.random((2, 3, *shape)), labels[0], rng.random((2, 6, *shape)), labels[1]
    return learner, Task(*map(tf.constant, arrays))


@pytest.mark.parametrize('network', ['conv', 'fully connected'])
@pytest.mark.parametrize('stop_grad', [False, True])
def test_the_meta_gradient_of_maml(stop_grad, network):
    """Normalisation variables, which all tasks share, included."""
    (ours, log), (theirs, their_log) = (
        learner.meta_gradients(task)
        for learner, task in (
            learner_and_task(rematerialise, stop_grad, network=network)
            for rematerialise in (True, False)
        )
    )
    assert max(np.abs(g).max() for g in ours) > 0.01
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-10)
    assert log.keys() == their_log.keys()
    for name in log:
        np.testing.assert_allclose(log[name], their_log[name])


def test_a_frozen_layer_may_stay_and_slots_may_not():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(3)])
    model.layers[0].trainable = False
    rng = np.random.default_rng(0)
    task = Task(
        *(
            tf.constant(x, tf.float32)
            for x in (
                rng.normal(size=(2, 3, 4)),
                np.tile(np.eye(3), (2, 1, 1)),
                rng.normal(size=(2, 3, 4)),
                np.tile(np.eye(3), (2, 1, 1)),
            )
        )
    )
    ours, theirs = (
        MAML(
            KerasNetwork(model), Classification(), 0.1, 2, rematerialise=rematerialise
        ).meta_gradients(task)
        for rematerialise in (True, False)
    )
    for one, other in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    learner, task = learner_and_task(True)
    learner.update_rule = lambda weights, gradients, slots, step: (weights, {'momentum': gradients})
    with pytest.raises(ValueError, match='slots'):
        learner.meta_gradients(task)


def test_compiled_it_is_the_same():
    learner, task = learner_and_task(True)
    compiled = tf.function(learner.meta_gradients, jit_compile=True)(task)[0]
    for one, other in zip(compiled, learner.meta_gradients(task)[0]):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-10)


def test_the_program_does_not_grow_with_the_steps():
    def operations(rematerialise, steps):
        learner, task = learner_and_task(rematerialise, steps=steps)
        graph = tf.function(learner.meta_gradients).get_concrete_function(task).graph.as_graph_def()
        return len(graph.node) + sum(len(function.node_def) for function in graph.library.function)

    assert operations(True, 2) == operations(True, 6) < operations(False, 6)


def test_bfloat16_is_near_and_its_weights_stay_float32():
    (_, task), gradients = learner_and_task(False), []
    task = task.map(lambda x: tf.cast(x, tf.float32))
    for dtype in (None, tf.bfloat16):
        learner = MAML(
            ConvNet((18, 17, 2), 3, 4, 'None', max_pool=True, head='flatten', product_dtype=dtype),
            Classification(),
            0.05,
            STEPS,
        )
        gradients.append(np.concatenate([np.ravel(g) for g in learner.meta_gradients(task)[0]]))
        assert gradients[-1].dtype == np.float32 and {
            w.dtype for w in learner.trainable_variables
        } == {'float32'}
    distance = np.linalg.norm(gradients[1] - gradients[0]) / np.linalg.norm(gradients[0])
    assert 1e-4 < distance < 0.2, distance
