"""The inner loop in the memory of one step: what it computes, and that it does not grow."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.task import Task
from maml_tf.inner_loop import InnerProblem, adapt_in_graph, inner_loop
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.keras_network import KerasNetwork
from maml_tf.objectives.classification import Classification
from maml_tf.objectives.regression import Regression
from maml_tf.rematerialise import rematerialised_inner_loop
from maml_tf.update_rules import (
    AdamWithoutMomentum,
    GradientDescent,
    LearntRates,
    UpdateRule,
)

RNG = np.random.default_rng(0)
ALPHA, TASKS, SIZE, STEPS = 0.1, 3, 4, 3
STEP = tf.constant(0, tf.int64)


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
        problem = InnerProblem(loss, weights, GradientDescent(ALPHA), others)
        adapted = rematerialised_inner_loop(problem, STEPS, stop_grad)[0]['w']
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


class LearntMomentum(UpdateRule):
    """A velocity with a learnt decay, and a learnt rate for every step."""

    def __init__(self, decay=0.6, rates=(0.1, 0.2, 0.05)):
        self._decay, self._rates = np.float64(decay), np.array(rates)

    def parameters(self):
        return {'decay': tf.constant(self._decay), 'rates': tf.constant(self._rates)}

    def start(self, weights):
        return {name: tf.zeros_like(w) for name, w in weights.items()}

    def __call__(self, weights, gradients, slots, parameters, step):
        rate = tf.gather(parameters['rates'], step)
        slots = {name: parameters['decay'] * slots[name] + g for name, g in gradients.items()}
        return {name: w - rate * slots[name] for name, w in weights.items()}, slots


def learnt_rates():
    rng = np.random.default_rng(2)
    shapes = {'w': (SIZE,), 'u': (2, SIZE)}
    return LearntRates({name: tf.Variable(rng.uniform(-0.1, 0.3, s)) for name, s in shapes.items()})


RULES = {
    'gradient descent': lambda: GradientDescent(ALPHA),
    'learnt rates': learnt_rates,
    'learnt momentum': LearntMomentum,
    'Adam': lambda: AdamWithoutMomentum(ALPHA, beta_2=0.7, steps_before=2.0),
}


def curved_problem(rule, slots='given'):
    """Losses whose curvature differs by task and step and depends on everything."""
    rng = np.random.default_rng(3)
    shapes = {'w': (TASKS, SIZE), 'u': (TASKS, 2, SIZE)}
    draw = lambda **kinds: {name: tf.constant(rng.normal(size=s)) for name, s in kinds.items()}
    x = tf.constant(rng.normal(size=(TASKS, 5, SIZE)))
    weights, others = draw(**shapes), draw(c=(SIZE,), scale=(TASKS, 1))

    def loss(weights, step, others):
        hidden = tf.tanh(tf.einsum('tnd,thd->tnh', x, weights['u']))
        outputs = tf.einsum('tnd,td->tn', x, weights['w'] - others['c'])
        outputs += tf.reduce_prod(hidden, -1) * others['scale']
        losses = tf.reduce_mean(tf.math.softplus(outputs) + tf.square(outputs) / 4, -1)
        return losses * (1 + tf.cast(step, tf.float64) / 2), outputs

    start = {name: tf.abs(s) + 0.1 for name, s in draw(**shapes).items()}
    given = start if slots == 'given' and rule.start(weights) else None
    return InnerProblem(loss, weights, rule, others, rule.parameters(), given)


def lookup_problem(rule):
    """Losses that read rows of the weights and of the others, whose gradients are sparse."""
    rng = np.random.default_rng(4)
    rows = tf.constant([0, 2, 2])
    table, shared = rng.normal(size=(5, TASKS)), rng.normal(size=(4, TASKS))

    def loss(weights, step, others):
        outputs = tf.gather(weights['w'], rows) * tf.gather(others['c'], rows)
        return tf.reduce_sum(tf.sin(outputs), 0), outputs

    weights, others = {'w': tf.constant(table)}, {'c': tf.constant(shared)}
    return InnerProblem(loss, weights, rule, others, rule.parameters())


def end_of(problem, loop, stop_grad=False):
    """A number that all of the weights and slots at the end of a loop go into."""
    end = loop(problem, STEPS, stop_grad)
    last = end if isinstance(end, tuple) and len(end) == 2 else (end.fast_weights[-1], end.slots)
    return tf.add_n([tf.reduce_sum(tf.sin(v + i)) for i, v in enumerate(tf.nest.flatten(last))])


def inputs_of(problem):
    """{what of a problem derivatives reach: {name: tensor}}."""
    given = {
        'weights': problem.weights,
        'slots': problem.slots or {},
        'others': problem.others,
        'parameters': problem.parameters,
    }
    return {kind: values for kind, values in given.items() if values}


def derivatives(problem, loop, stop_grad=False):
    """As `inputs_of`, of `end_of`."""
    inputs = inputs_of(problem)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        end = end_of(problem, loop, stop_grad)
    gradients = tape.gradient(end, inputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    dense = {
        kind: {name: tf.convert_to_tensor(g) for name, g in of_kind.items()}
        for kind, of_kind in gradients.items()
    }
    return end, dense


@pytest.mark.parametrize('slots', ['given', 'as the rule starts them'])
@pytest.mark.parametrize('stop_grad', [False, True])
@pytest.mark.parametrize('rule', RULES)
def test_derivatives_reach_all_that_the_problem_holds(rule, stop_grad, slots):
    """Weights, slots, others and parameters: as through the plain loop, which a tape sees."""
    problem = curved_problem(RULES[rule](), slots)
    ours, our_gradients = derivatives(problem, rematerialised_inner_loop, stop_grad)
    theirs, their_gradients = derivatives(problem, inner_loop, stop_grad)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    tf.nest.assert_same_structure(our_gradients, their_gradients)
    for kind, gradients in their_gradients.items():
        for name, expected in gradients.items():
            # The loss and its first derivatives alone see `others`, and stop_grad stops these.
            if not (stop_grad and kind == 'others'):
                assert np.abs(expected).max() > 1e-3, (kind, name)
            np.testing.assert_allclose(
                our_gradients[kind][name], expected, rtol=1e-9, atol=1e-12, err_msg=name
            )


@pytest.mark.parametrize('rule', [GradientDescent(ALPHA), LearntMomentum()])
def test_derivatives_of_lookups(rule):
    ours, theirs = (
        derivatives(lookup_problem(rule), loop)[1]
        for loop in (rematerialised_inner_loop, inner_loop)
    )
    for kind, gradients in theirs.items():
        for name, expected in gradients.items():
            assert np.abs(expected).max() > 1e-3
            np.testing.assert_allclose(ours[kind][name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('rule', RULES)
def test_derivatives_are_finite_differences(rule):
    problem = curved_problem(RULES[rule]())
    _, gradients = derivatives(problem, rematerialised_inner_loop)
    inputs = inputs_of(problem)

    @tf.function(autograph=False)
    def end_with(inputs):
        moved = {kind: dict(values) for kind, values in inputs.items()}
        return end_of(problem._replace(**moved), inner_loop)

    for kind, values in inputs.items():
        for name, value in values.items():
            difference = np.empty(value.shape)
            for place in np.ndindex(*value.shape):
                shift = np.zeros(value.shape)
                shift[place] = 1e-6
                ends = [
                    end_with(inputs | {kind: values | {name: value + sign * shift}})
                    for sign in (1, -1)
                ]
                difference[place] = (ends[0] - ends[1]) / 2e-6
            np.testing.assert_allclose(
                gradients[kind][name], difference, rtol=1e-6, atol=1e-7, err_msg=f'{kind} {name}'
            )


@pytest.mark.parametrize('rule', RULES)
def test_every_loop_ends_in_the_same_place(rule):
    problem = curved_problem(RULES[rule]())
    plain = inner_loop(problem, STEPS)
    expected = plain.fast_weights[-1], plain.slots
    for loop in (rematerialised_inner_loop, adapt_in_graph):
        for run in (loop, tf.function(loop, autograph=False)):
            weights, slots = run(problem, STEPS)
            for ours, theirs in zip((weights, slots), expected, strict=True):
                assert ours.keys() == theirs.keys()
                for name, value in ours.items():
                    np.testing.assert_allclose(value, theirs[name], rtol=1e-12)


def test_no_steps_at_all():
    problem = curved_problem(LearntMomentum())
    weights, slots = rematerialised_inner_loop(problem, 0)
    for ours, theirs in ((weights, problem.weights), (slots, problem.slots)):
        for name, value in ours.items():
            np.testing.assert_array_equal(value, theirs[name])


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
    (ours, log, _), (theirs, their_log, _) = (
        learner.meta_gradients(task, STEP)
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


def test_the_meta_gradient_of_maml_with_a_rule_that_remembers():
    gradients = []
    for rematerialise in (True, False):
        learner, task = learner_and_task(rematerialise, network='fully connected')
        learner.update_rule = LearntMomentum()
        gradients.append(learner.meta_gradients(task, STEP).gradients)
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-10)
    learner.update_rule = GradientDescent(0.1)
    plain = learner.meta_gradients(task, STEP).gradients
    assert max(np.abs(one - other).max() for one, other in zip(plain, gradients[0])) > 1e-3


def test_a_frozen_layer_may_stay():
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
        ).meta_gradients(task, STEP)
        for rematerialise in (True, False)
    )
    for one, other in zip(ours.gradients, theirs.gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_compiled_it_is_the_same():
    learner, task = learner_and_task(True)
    compiled = tf.function(learner.meta_gradients, jit_compile=True, autograph=False)
    ours = compiled(task, STEP).gradients
    for one, other in zip(ours, learner.meta_gradients(task, STEP).gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-10)


def test_the_program_does_not_grow_with_the_steps():
    def operations(rematerialise, steps):
        learner, task = learner_and_task(rematerialise, steps=steps)
        traced = tf.function(learner.meta_gradients, autograph=False)
        graph = traced.get_concrete_function(task, STEP).graph.as_graph_def()
        return len(graph.node) + sum(len(function.node_def) for function in graph.library.function)

    assert operations(True, 2) == operations(True, 6) < operations(False, 6)


@pytest.mark.slow
def test_bfloat16_is_near_and_its_weights_stay_float32():
    (_, task), gradients = learner_and_task(False), []
    task = task.cast('float32')
    for dtype in (None, tf.bfloat16):
        learner = MAML(
            ConvNet((18, 17, 2), 3, 4, 'None', max_pool=True, head='flatten', product_dtype=dtype),
            Classification(),
            0.05,
            STEPS,
        )
        update = learner.meta_gradients(task, STEP)
        gradients.append(np.concatenate([np.ravel(g) for g in update.gradients]))
        assert gradients[-1].dtype == np.float32 and {
            w.dtype for w in learner.trainable_variables
        } == {'float32'}
    distance = np.linalg.norm(gradients[1] - gradients[0]) / np.linalg.norm(gradients[0])
    assert 1e-4 < distance < 0.2, distance
