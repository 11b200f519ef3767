"""MAML++ against a NumPy program of its equations, and its schedules against closed forms."""

import context_oracle as oracle
import keras
import numpy as np
import optimisation_oracle
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.mamlpp import MAMLPlusPlus
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.regression import Regression
from maml_tf.training.phases import OuterLoop

FEATURES, WAY, STEPS = 4, 3, 3
HIDDEN = (5, 4)
ADAPTED = ['w1', 'b1', 'w2', 'b2', 'w3', 'b3']
# The authors' normalisation and nonlinearity among them.
NETWORKS = {
    'None': {'norm': 'None'},
    'batch_norm': {'norm': 'batch_norm'},
    'scaled batch_norm': {
        'norm': 'batch_norm',
        'scale': True,
        'epsilon': 1e-5,
        'negative_slope': 0.01,
    },
    'layer_norm': {'norm': 'layer_norm'},
}
SPEC = EpisodeSpec(WAY, 2, 3)


def stacked(tasks):
    return Task(*(tf.constant(np.stack(arrays)) for arrays in zip(*tasks)))


def step_of(iteration):
    return tf.constant(iteration, tf.int64)


def random_learner(norm='layer_norm', regression=False, network=None, seed=0, **kwargs):
    """A learner whose weights, rates (of either sign) and norms are far from where they start."""
    network = network or FullyConnected((FEATURES,), WAY, HIDDEN, **NETWORKS[norm])
    settings = {'inner_steps': STEPS, 'multi_step_iterations': 1500, **kwargs}
    objective = Regression() if regression else MeanClassification()
    learner = MAMLPlusPlus(network, objective, **settings, dtype='float64')
    rng = np.random.default_rng(seed)
    oracle.randomise(rng, learner.meta_weights)
    for rate in learner.rates.values():
        rate.assign(0.2 + 0.2 * rng.normal(size=rate.shape))
    return learner


def random_tasks(seed, regression=False, **kwargs):
    return oracle.random_tasks(np.random.default_rng(seed), regression=regression, **kwargs)


def program(norm, regression=False):
    options = {name: v for name, v in NETWORKS[norm].items() if name != 'scale'}
    return oracle.FullyConnected(regression=regression, **options)


def by_name(learner, update):
    """(of the weights, of the rates), each {name: array}."""
    return oracle.by_name(learner, update.gradients, learner.meta_weights, learner.rates)


def null_names(norm, learner):
    return oracle.null_biases(NETWORKS[norm]['norm'], learner.meta_weights)


def state_of(learner, inner_lr=0.1):
    """(weights, rates) as the oracle takes them."""
    rates = oracle.values(learner.rates) or oracle.constant_rates(inner_lr, ADAPTED)
    return oracle.values(learner.meta_weights), rates


# The oracle itself


@pytest.mark.parametrize('norm', ['scaled batch_norm', 'layer_norm'])
def test_gradients_of_the_oracle(norm):
    """The complex step against central differences, of weights, rates and rows."""
    learner, tasks = random_learner(norm), random_tasks(1, tasks=1)
    weights, rates = state_of(learner)
    settings = tasks, STEPS, [0.2, 0.3, 0.5]
    loss = lambda w, a: oracle.meta_loss(program(norm), w, a, *settings, step_norms=True)
    ours = oracle.meta_gradients(program(norm), weights, rates, *settings, step_norms=True)
    null = null_names(norm, learner)
    differences = (
        optimisation_oracle.finite_differences(lambda w: loss(w, rates), weights),
        optimisation_oracle.finite_differences(lambda a: loss(weights, a), rates),
    )
    for one, other in zip(ours, differences):
        oracle.assert_alike(one, other, null, rtol=1e-5, atol=1e-8)


# What is learnt


@pytest.mark.parametrize('step_norms', [False, True])
@pytest.mark.parametrize('learnt_rates', [False, True])
@pytest.mark.parametrize('norm', NETWORKS)
def test_what_is_learnt_and_how_it_starts(norm, learnt_rates, step_norms):
    network = FullyConnected((FEATURES,), WAY, HIDDEN, **NETWORKS[norm])
    switches = {'learnt_rates': learnt_rates, 'step_norms': step_norms}
    learner = MAMLPlusPlus(network, MeanClassification(), 0.3, STEPS, **switches)
    assert learner.rates.keys() == (set(ADAPTED) if learnt_rates else set())
    for rate in learner.rates.values():
        np.testing.assert_allclose(rate, np.full(STEPS, 0.3), rtol=1e-6)
    start = network.construct_weights(0)
    assert learner.meta_weights.keys() == start.keys()
    for name, variable in learner.meta_weights.items():
        expected = start[name]
        if name.startswith('norm') and step_norms:
            expected = np.tile(expected, (STEPS, 1))
            np.testing.assert_array_equal(expected, float(name.endswith('gamma')))
        np.testing.assert_array_equal(variable, expected, err_msg=name)
    learnt = [*learner.meta_weights.values(), *learner.rates.values()]
    assert {id(v) for v in learnt} == {id(v) for v in learner.trainable_variables}


# The gradients


@pytest.mark.parametrize('stop_grad', [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize('regression', [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize('norm', NETWORKS)
def test_meta_gradients(norm, regression, stop_grad):
    """Of the weights, of every rate and of every row of the norms, at all multi-step weights."""
    tasks = random_tasks(2, regression, tasks=2)
    learners = [
        random_learner(norm, regression, stop_grad=stop_grad, rematerialise=rematerialise)
        for rematerialise in (False, True)
    ]
    state, null = state_of(learners[0]), null_names(norm, learners[0])
    for iteration in (0, 1200, 1500):  # The first and third epoch, and after them.
        shares = oracle.multi_step_weights(STEPS, iteration, 1500)
        arguments = program(norm, regression), *state, tasks, STEPS, shares
        settings = {'stop_grad': stop_grad, 'step_norms': True}
        expected = oracle.meta_gradients(*arguments, **settings)
        for name in (n for n in state[0] if n.startswith('norm')):
            # First-order, a row acts on a query loss only where that is weighted.
            rows = np.abs(expected[0][name]).max(1)
            assert ((rows > 1e-8) | (stop_grad and iteration == 1500)).all(), name
        for learner in learners:
            update = learner.meta_gradients(stacked(tasks), step_of(iteration))
            for ours, theirs in zip(by_name(learner, update), expected):
                oracle.assert_alike(ours, theirs, null)
            loss = learner.meta_loss(stacked(tasks), step_of(iteration)).value
            np.testing.assert_allclose(loss, oracle.meta_loss(*arguments, **settings), rtol=1e-12)


@pytest.mark.parametrize('stop_grad', [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize('learnt_rates, step_norms', [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize('norm', ['scaled batch_norm', 'layer_norm'])
def test_meta_gradients_without_a_switch(norm, learnt_rates, step_norms, stop_grad):
    tasks = random_tasks(3, tasks=2)
    settings = {'stop_grad': stop_grad, 'step_norms': step_norms}
    learners = [
        random_learner(
            norm,
            inner_lr=0.3,
            learnt_rates=learnt_rates,
            rematerialise=rematerialise,
            **settings,
        )
        for rematerialise in (False, True)
    ]
    state, null = state_of(learners[0], 0.3), null_names(norm, learners[0])
    for iteration in (700, 1600):
        shares = oracle.multi_step_weights(STEPS, iteration, 1500)
        of_weights, of_rates = oracle.meta_gradients(
            program(norm), *state, tasks, STEPS, shares, **settings
        )
        for learner in learners:
            assert bool(learner.rates) == learnt_rates
            update = learner.meta_gradients(stacked(tasks), step_of(iteration))
            ours = by_name(learner, update)
            oracle.assert_alike(ours[0], of_weights, null)
            oracle.assert_alike(ours[1], of_rates if learnt_rates else {}, null)


def test_one_step_and_no_multi_step_loss():
    """With horizon 0 the last loss counts alone from the start; a step has all the weight."""
    tasks = random_tasks(4)
    for steps, horizon in ((1, 1500), (STEPS, 0)):
        learner = random_learner(inner_steps=steps, multi_step_iterations=horizon)
        expected = oracle.meta_gradients(
            program('layer_norm'), *state_of(learner), tasks, steps, step_norms=True
        )
        update = learner.meta_gradients(stacked(tasks), step_of(0))
        for ours, theirs in zip(by_name(learner, update), expected):
            oracle.assert_alike(ours, theirs)


@pytest.mark.slow
def test_a_convolutional_network():
    """An entry of every variable, by central differences of a program with einsum."""
    network = ConvNet((10, 10, 2), WAY, 3, 'batch_norm', True, pool_padding='same', scale=True)
    learner = random_learner(network=network, inner_steps=2, seed=1)
    # The program's inner gradients are slow: only the last layer takes steps.
    for name, rate in learner.rates.items():
        rate.assign((0.1 if name in ('w5', 'b5') else 0.0) * rate)
    weights, rates = state_of(learner)
    (task,) = random_tasks(5, tasks=1, shape=(10, 10, 2))
    shares = oracle.multi_step_weights(2, 600, 1500)
    head = {name: rates[name] for name in ('w5', 'b5')}
    loss = lambda values: oracle.meta_loss(
        oracle.ConvNet('batch_norm', True),
        {name: values[name] for name in weights},
        {name: values[f'rate_{name}'] for name in head},
        [task],
        2,
        shares,
        step_norms=True,
    )
    values = weights | {f'rate_{name}': rate for name, rate in head.items()}
    differences = oracle.few_differences(loss, values, np.random.default_rng(6), entries=2)
    update = learner.meta_gradients(stacked([task]), step_of(600))
    of_weights, of_rates = by_name(learner, update)
    ours = of_weights | {f'rate_{name}': of_rates[name] for name in head}
    oracle.assert_few_alike(ours, differences, oracle.null_biases('batch_norm', weights))


# The multi-step loss


def multi_step_weights(learner, iterations, steps):
    """Solves for the weights of the query losses after every step, from tasks of their own.

    Returns them for each iteration, [steps].
    """
    tasks = random_tasks(7, tasks=steps + 1)
    rates = oracle.values(learner.rates)
    losses = np.array(
        [
            oracle.query_losses(
                program('None'), oracle.values(learner.meta_weights), rates, task, steps
            )
            for task in tasks
        ]
    )
    for iteration in iterations:
        sums = [learner.meta_loss(stacked([task]), step_of(iteration)).value for task in tasks]
        weights, residual, rank, _ = np.linalg.lstsq(losses, np.array(sums), rcond=1e-8)
        assert rank == steps and residual.max() < 1e-16
        yield weights


@pytest.mark.parametrize('steps, horizon', [(3, 1500), (2, 5000), (4, 20000), (3, 1250)])
def test_multi_step_weights(steps, horizon):
    """Epoch by epoch from 1/S each to the last step alone, a sum of 1 throughout."""
    network = FullyConnected((FEATURES,), WAY, ())
    learner = random_learner(network=network, inner_steps=steps, multi_step_iterations=horizon)
    iterations = [0, 499, 500, 1000, horizon // 2, horizon - 1, horizon, 10 * horizon]
    weights = list(multi_step_weights(learner, iterations, steps))
    for iteration, ours in zip(iterations, weights):
        e, epochs = iteration // 500, horizon / 500
        expected = np.full(steps, max(1 / steps - e / (steps * epochs), 0.03 / steps))
        expected[-1] = min(
            1 / steps + e * (steps - 1) / (steps * epochs), 1 - 0.03 * (steps - 1) / steps
        )
        if iteration >= horizon:
            expected = np.eye(steps)[-1]
        np.testing.assert_allclose(ours, expected, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(ours.sum(), 1, rtol=1e-8)
    np.testing.assert_allclose(weights[0], np.full(steps, 1 / steps), rtol=1e-7)
    if horizon == 20000:  # The last of its forty epochs is at the lower bound.
        np.testing.assert_allclose(weights[-3][:-1], 0.03 / steps, rtol=1e-6)


# The phases


def training(learner, iterations, meta_lr=1e-3):
    """The phases of training that take iterations, each with the iteration it starts at."""
    phases = learner.phases(OuterLoop(0, iterations, meta_lr, SPEC))
    phases = [phase for phase in phases if phase.iterations]
    starts = np.cumsum([0] + [phase.iterations for phase in phases])
    assert starts[-1] == iterations
    return list(zip(starts.tolist(), phases))


@pytest.mark.parametrize(
    'multi_step, first_order, iterations, starts',
    [
        (1500, 0, 4000, [0, 1500]),
        (1500, 700, 4000, [0, 700, 1500]),
        (1500, 1500, 4000, [0, 1500]),
        (1500, 1800, 4000, [0, 1500, 1800]),
        (1500, 700, 600, [0]),
        (1500, 700, 1200, [0, 700]),
        (1500, 4000, 4000, [0, 1500]),
        (0, 700, 4000, [0, 700]),
        (0, 0, 4000, [0]),
    ],
)
def test_phases(multi_step, first_order, iterations, starts):
    """Where they begin, and that each computes its loss to its order, by the iteration of all."""
    learner = random_learner(
        'scaled batch_norm', multi_step_iterations=multi_step, first_order_iterations=first_order
    )
    phases = training(learner, iterations)
    assert [start for start, _ in phases] == starts
    assert len({id(phase.optimizer) for _, phase in phases}) == 1
    assert isinstance(phases[0][1].optimizer, keras.optimizers.Adam)
    assert all(phase.draws == SPEC for _, phase in phases)
    tasks, null = random_tasks(8, tasks=1), null_names('scaled batch_norm', learner)
    for start, phase in phases:
        for step in (0, phase.iterations - 1):
            expected = oracle.meta_gradients(
                program('scaled batch_norm'),
                *state_of(learner),
                *(tasks, STEPS, oracle.multi_step_weights(STEPS, start + step, multi_step)),
                stop_grad=start + step < first_order,
                step_norms=True,
            )
            update = phase.gradients(stacked(tasks), step_of(step))
            for ours, theirs in zip(by_name(learner, update), expected):
                oracle.assert_alike(ours, theirs, null)


def test_always_first_order():
    """stop_grad holds in all phases."""
    learner = random_learner(stop_grad=True, first_order_iterations=700)
    tasks = random_tasks(9, tasks=1)
    for start, phase in training(learner, 4000):
        expected = oracle.meta_gradients(
            program('layer_norm'),
            *state_of(learner),
            *(tasks, STEPS, oracle.multi_step_weights(STEPS, start, 1500)),
            stop_grad=True,
            step_norms=True,
        )
        update = phase.gradients(stacked(tasks), step_of(0))
        for ours, theirs in zip(by_name(learner, update), expected):
            # Row 0 of the norms, for one, is without gradient in the last phase.
            oracle.assert_alike(ours, theirs)


@pytest.mark.parametrize('meta_lr, meta_lr_end', [(1e-3, 1e-5), (0.02, 0.004), (1e-3, 1e-3)])
def test_the_outer_rate_falls_by_a_cosine(meta_lr, meta_lr_end):
    """From the first to the last iteration of all phases, whatever their number."""
    learner = random_learner(first_order_iterations=700, meta_lr_end=meta_lr_end)
    phases = training(learner, 4000, meta_lr)
    assert len(phases) == 3
    optimizer = phases[0][1].optimizer
    for iteration in (0, 1, 699, 1000, 2000, 3000, 3999, 4000):
        optimizer.iterations.assign(iteration)
        share = 0.5 * (1 + np.cos(np.pi * iteration / 4000))
        expected = meta_lr_end + share * (meta_lr - meta_lr_end)
        np.testing.assert_allclose(optimizer.learning_rate, expected, rtol=1e-5)
    for iteration, rate in ((0, meta_lr), (2000, (meta_lr + meta_lr_end) / 2), (4000, meta_lr_end)):
        optimizer.iterations.assign(iteration)
        np.testing.assert_allclose(optimizer.learning_rate, rate, rtol=1e-5)


# Evaluation


@pytest.mark.parametrize(
    'learnt_rates, step_norms', [(True, True), (False, False), (False, True), (True, False)]
)
@pytest.mark.parametrize('norm', NETWORKS)
def test_query_outputs_after_every_step(norm, learnt_rates, step_norms):
    """Two steps more than in training: they take the last rate and the last row."""
    learner = random_learner(norm, inner_lr=0.3, learnt_rates=learnt_rates, step_norms=step_norms)
    tasks, steps = random_tasks(10), STEPS + 2
    task = stacked(tasks)
    ours = learner.query_outputs(task, steps)
    for i, one in enumerate(tasks):
        expected = oracle.query_outputs(
            program(norm), *state_of(learner, 0.3), one, steps, step_norms
        )
        assert np.abs(np.diff(expected, axis=0)).max((1, 2)).min() > 1e-4
        np.testing.assert_allclose(ours[:, i], expected, rtol=1e-9, atol=1e-11)
    for taken in (None, 0, 1, 2, STEPS, STEPS + 2):
        state = learner.adapt(task.support_x, task.support_y, taken)
        expected = ours[STEPS if taken is None else taken]
        np.testing.assert_allclose(
            learner.predict_query(state, task.query_x), expected, rtol=1e-9, atol=1e-11
        )


def test_queries_one_by_one():
    """Not transductive: each beside the support set, with the same rows."""
    learner = random_learner('batch_norm', transductive=False)
    tasks, steps, network = random_tasks(11, tasks=2), STEPS + 1, program('batch_norm')
    task = stacked(tasks)
    ours = learner.query_outputs(task, steps)
    for i, one in enumerate(tasks):
        path = oracle.reads(network, *state_of(learner), one, steps, step_norms=True)
        for taken, weights in enumerate(path):
            expected = [network.outputs(weights, np.vstack([one[0], [q]]))[-1] for q in one[2]]
            np.testing.assert_allclose(ours[taken, i], expected, rtol=1e-9, atol=1e-11)
    for taken in (0, 2, steps):
        state = learner.adapt(task.support_x, task.support_y, taken)
        np.testing.assert_allclose(
            learner.predict_query(state, task.query_x), ours[taken], rtol=1e-9, atol=1e-11
        )


def test_norms_do_not_adapt():
    learner, task = random_learner('scaled batch_norm'), stacked(random_tasks(12))
    before = oracle.values(learner.meta_weights), oracle.values(learner.rates)
    state = learner.adapt(task.support_x, task.support_y)
    assert set(ADAPTED) <= state.keys()
    for name in state.keys() - {*ADAPTED}:  # What else it may hold are the rows to read now.
        rows = np.broadcast_to(before[0][name][-1], state[name].shape)
        np.testing.assert_array_equal(state[name], rows)
    after = oracle.values(learner.meta_weights), oracle.values(learner.rates)
    for one, other in zip(after, before):
        oracle.assert_alike(one, other, rtol=0, atol=0)
