"""Reptile against a NumPy program of its equations, Keras' Adam and closed forms."""

import keras
import numpy as np
import optimisation_oracle as oracle
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.reptile import Reptile
from maml_tf.episodes.order import minibatches
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.classification import Classification
from maml_tf.objectives.regression import Regression
from maml_tf.training import shares
from maml_tf.training.phases import OuterLoop

TASKS, FEATURES, WAY, SHOTS, QUERIES = 3, 3, 4, 2, 2
POOL = WAY * SHOTS
# Four mini-batches of five out of eight: two of them straddle passes, and none has a whole number
# of examples per class.
STEPS, BATCH = 4, 5
NORMS = ['None', 'batch_norm', 'layer_norm']


def random_task(rng, regression=False, tasks=TASKS, key=True):
    labels = lambda shots: np.tile(np.repeat(np.eye(WAY), shots, axis=0), (tasks, 1, 1))
    if regression:
        labels = lambda shots: rng.normal(size=(tasks, WAY * shots, WAY))
    draw = lambda shots: (rng.normal(size=(tasks, WAY * shots, FEATURES)), labels(shots))
    key = tf.constant(rng.integers(2**32, size=(tasks, 2)), tf.uint32) if key else None
    return Task(*map(tf.constant, (*draw(SHOTS), *draw(QUERIES))), key=key)


def random_learner(norm='None', regression=False, hidden=(5, 4), **kwargs):
    rng = np.random.default_rng(0)
    arguments = {'inner_lr': 0.02, 'inner_steps': STEPS, 'inner_batch': BATCH, **kwargs}
    objective = Regression() if regression else Classification()
    network = FullyConnected((FEATURES,), WAY, hidden, norm)
    learner = Reptile(network, objective, dtype='float64', **arguments)
    for variable in learner.meta_weights.values():
        variable.assign(0.5 * rng.normal(size=variable.shape))
    return learner


def values(variables):
    return {name: np.array(variable) for name, variable in variables.items()}


def orders(task, size=BATCH, steps=STEPS):
    """[tasks, steps, size], the examples of the mini-batches."""
    numbers = minibatches(task.key, POOL, size, steps)
    return np.broadcast_to(numbers, [len(task.support_x), steps, size])


def supports(task):
    """A list of (support_x, support_y), arrays."""
    return list(zip(np.array(task.support_x), np.array(task.support_y)))


def step_of(iteration):
    return tf.constant(iteration, tf.int64)


def by_name(learner, update):
    """(meta-gradient, new moments) of an Update, each {name: array}."""
    assert len(update.gradients) == len(learner.trainable_variables)
    of = {id(v): np.array(g) for v, g in zip(learner.trainable_variables, update.gradients)}
    gradients = {name: of.pop(id(v)) for name, v in learner.meta_weights.items()}
    assert not of
    moments = {k: np.array(update.state[v.name]) for k, v in learner.moments.items()}
    return gradients, moments


def apply(learner, update, rate=1.0):
    """Takes a step as the training op does: SGD of the weights, and the state."""
    for variable, gradient in zip(learner.trainable_variables, update.gradients, strict=True):
        variable.assign(variable - rate * gradient)
    states = {v.name: v for v in learner.non_trainable_variables}
    for name, value in update.state.items():
        states[name].assign(value)


def assert_alike(ours, theirs, rtol=1e-9, atol=1e-11):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        # The biases before a batch norm have gradients of rounding errors, which Adam enlarges.
        null = name in ('b1', 'b2') and 'norm0_beta' in ours and 'norm0_gamma' not in ours
        tolerance = max(atol, 1e-7) if null else atol
        np.testing.assert_allclose(value, theirs[name], rtol, tolerance, err_msg=name)


# Training


@pytest.mark.parametrize(
    'norm, regression, key',
    [(norm, regression, True) for norm in NORMS for regression in (False, True)]
    + [('None', False, False)],
)
def test_two_iterations(norm, regression, key):
    """Meta-gradients and moments, which the second iteration begins with."""
    learner, rng = random_learner(norm, regression), np.random.default_rng(1)
    assert not any(np.any(moment) for moment in learner.moments.values())
    assert learner.moments.keys() == learner.meta_weights.keys()
    shots = None if regression else BATCH / WAY
    for iteration in range(2):
        task = random_task(rng, regression, key=key)
        start = values(learner.meta_weights), values(learner.moments)
        update = learner.meta_gradients(task, step_of(iteration))
        expected = oracle.reptile(
            *start, supports(task), orders(task), 0.02, 0.999, shots, iteration * STEPS
        )
        for ours, theirs in zip(by_name(learner, update), expected, strict=True):
            assert_alike(ours, theirs)
        assert max(np.abs(gradient).max() for gradient in expected[0].values()) > 0.01
        assert_alike(values(learner.meta_weights), start[0], atol=0)  # Nothing is assigned yet.
        assert_alike(values(learner.moments), start[1], atol=0)
        apply(learner, update, rate=0.7)


@pytest.mark.parametrize('iteration', [1, 50, 30000])
def test_later_iterations_from_any_moments(iteration):
    learner, rng = random_learner('batch_norm', beta_2=0.99), np.random.default_rng(2)
    for moment in learner.moments.values():
        moment.assign(rng.random(moment.shape))
    task = random_task(rng)
    learner.steps_taken.assign(iteration * STEPS)
    expected = oracle.reptile(
        values(learner.meta_weights),
        values(learner.moments),
        supports(task),
        orders(task),
        0.02,
        0.99,
        BATCH / WAY,
        iteration * STEPS,
    )
    ours = by_name(learner, learner.meta_gradients(task, step_of(iteration)))
    for one, other in zip(ours, expected, strict=True):
        assert_alike(one, other)


@pytest.mark.parametrize('norm', NORMS)
def test_a_meta_batch_of_one_is_the_authors_program(norm):
    """One Adam for all of training; after each task only the weights go back, or part of the way.

    Its numbers have few digits, because Keras keeps some of them in float32.
    """
    lr, beta_2 = 2.0**-6, 1 - 2.0**-10
    learner, rng = random_learner(norm, inner_lr=lr, beta_2=beta_2), np.random.default_rng(3)
    variables = {k: tf.Variable(v) for k, v in values(learner.meta_weights).items()}
    adam = keras.optimizers.Adam(lr, beta_1=0.0, beta_2=beta_2, epsilon=1e-8)
    adam.build(list(variables.values()))
    for iteration in range(3):
        task = random_task(rng, tasks=1)
        old, update = values(variables), learner.meta_gradients(task, step_of(iteration))
        for numbers in orders(task)[0]:
            x, y = (tf.gather(v[0], numbers) for v in (task.support_x, task.support_y))
            with tf.GradientTape() as tape:
                loss = differentiable_loss(variables, norm, x, y)
            adam.apply(tape.gradient(loss, list(variables.values())))
        assert_alike(by_name(learner, update)[0], {k: old[k] - v for k, v in variables.items()})
        apply(learner, update, rate=0.25)
        for name, variable in variables.items():
            variable.assign(old[name] + 0.25 * (variable - old[name]))
        assert_alike(values(learner.meta_weights), values(variables))


def differentiable_loss(weights, norm, x, y):
    for layer in (1, 2):
        x = x @ weights[f'w{layer}'] + weights[f'b{layer}']
        if norm != 'None':
            axis, epsilon = {'batch_norm': (0, 1e-3), 'layer_norm': (1, 1e-12)}[norm]
            x -= tf.reduce_mean(x, axis, keepdims=True)
            x /= tf.sqrt(tf.reduce_mean(x**2, axis, keepdims=True) + epsilon)
            x = x * weights.get(f'norm{layer - 1}_gamma', 1.0) + weights[f'norm{layer - 1}_beta']
        x = tf.nn.relu(x)
    losses = tf.nn.softmax_cross_entropy_with_logits(y, x @ weights['w3'] + weights['b3'])
    return tf.reduce_sum(losses) * WAY / BATCH


def test_the_first_step_in_closed_form():
    """From moments of zero the bias correction makes of any gradient its sign, times the rate."""
    learner = random_learner(regression=True, hidden=(), inner_lr=0.125, inner_steps=1)
    task = random_task(np.random.default_rng(4), regression=True, tasks=1)
    numbers = orders(task, steps=1)[0, 0]
    x, y = (np.array(v)[0, numbers] for v in (task.support_x, task.support_y))
    residuals = x @ np.array(learner.meta_weights['w1']) + learner.meta_weights['b1'] - y
    slopes = {'w1': 2 * x.T @ residuals / y.size, 'b1': 2 * residuals.sum(0) / y.size}
    gradients, moments = by_name(learner, learner.meta_gradients(task, step_of(0)))
    for name, slope in slopes.items():
        np.testing.assert_allclose(gradients[name], 0.125 * np.sign(slope), rtol=1e-4)
        np.testing.assert_allclose(moments[name], 0.001 * slope**2, rtol=1e-9)


def test_tasks_are_averaged():
    learner, rng = random_learner('batch_norm'), np.random.default_rng(5)
    for moment in learner.moments.values():
        moment.assign(rng.random(moment.shape) / 100)
    task = random_task(rng)
    whole = by_name(learner, learner.meta_gradients(task, step_of(2)))
    single = [
        by_name(learner, learner.meta_gradients(task.map(lambda x: x[i : i + 1]), step_of(2)))
        for i in range(TASKS)
    ]
    for ours, theirs in zip(whole, zip(*single), strict=True):
        assert_alike(ours, oracle.mean(theirs))
    assert np.abs(single[0][0]['w1'] - single[1][0]['w1']).max() > 1e-3
    turned = by_name(learner, learner.meta_gradients(task.map(lambda x: x[::-1]), step_of(2)))
    for ours, theirs in zip(whole, turned, strict=True):
        assert_alike(ours, theirs)


def test_shares_of_a_meta_batch():
    """What the training op gets, the state included, some tasks at a time."""
    learner, task = random_learner(), random_task(np.random.default_rng(11), tasks=4)
    draw = lambda start, count: task.map(lambda x: x[start : start + count])
    whole = learner.meta_gradients(task, step_of(1))
    of_shares = shares.mean(learner.meta_gradients, draw, 4, 2, xla=False)
    ours = of_shares(step_of(0), step_of(1))
    assert ours.state.keys() == whole.state.keys() and ours.log.keys() == whole.log.keys()
    for name, value in whole.state.items():
        assert ours.state[name].dtype == value.dtype, name
        np.testing.assert_allclose(ours.state[name], value, rtol=1e-9, err_msg=name)
    assert_alike(by_name(learner, ours)[0], by_name(learner, whole)[0])


def test_compiled_it_is_the_same():
    learner = random_learner('batch_norm', hidden=(4,))
    task = random_task(np.random.default_rng(6))
    plain = by_name(learner, learner.meta_gradients(task, step_of(3)))
    compiled = tf.function(learner.meta_gradients, autograph=False, jit_compile=True)
    for ours, theirs in zip(by_name(learner, compiled(task, step_of(3))), plain, strict=True):
        assert_alike(ours, theirs, 1e-8, 1e-10)


def test_what_is_trained():
    learner = random_learner('layer_norm')
    trained = {id(v) for v in learner.trainable_variables}
    assert trained == {id(v) for v in learner.meta_weights.values()}
    assert {'norm0_beta', 'norm0_gamma', 'norm1_beta', 'norm1_gamma'} < set(learner.meta_weights)
    assert not any(moment.trainable for moment in learner.moments.values())
    for name, moment in learner.moments.items():
        assert moment.shape == learner.meta_weights[name].shape
        assert any(moment.value is v for v in learner.named_variables().values()), name


@pytest.mark.parametrize('first, last', [(1.0, 0.0), (0.5, 0.1)])
def test_the_outer_step_anneals_linearly(first, last):
    learner = random_learner(outer_step=(first, last))
    (phase,) = learner.phases(OuterLoop(0, 8, 1e-3, EpisodeSpec(WAY, SHOTS, QUERIES)))
    assert phase.iterations == 8 and isinstance(phase.optimizer, keras.optimizers.SGD)
    for iteration in range(8):
        phase.optimizer.iterations.assign(iteration)
        rate = first + (last - first) * iteration / 8
        np.testing.assert_allclose(phase.optimizer.learning_rate, rate, rtol=1e-6)


def test_the_outer_step_moves_towards_the_mean():
    learner, task = random_learner(outer_step=(0.25, 0.0)), random_task(np.random.default_rng(7))
    (phase,) = learner.phases(OuterLoop(0, 8, 1e-3, EpisodeSpec(WAY, SHOTS, QUERIES)))
    start, moments = values(learner.meta_weights), values(learner.moments)
    ends = [
        oracle.adam_trajectory(
            start, moments, [(x[i], y[i]) for i in order], 0.02, 0.999, BATCH / WAY
        )[0][-1]
        for (x, y), order in zip(supports(task), orders(task))
    ]
    phase.optimizer.apply(phase.gradients(task, step_of(0)).gradients, learner.trainable_variables)
    expected = {k: v + 0.25 * (oracle.mean(ends)[k] - v) for k, v in start.items()}
    assert_alike(values(learner.meta_weights), expected)


# Plain gradient descent, the last step alone, examples held out for it


def by_hand(learner, task, order_of_task, batches):
    """(theta - theta_k, the last step alone), means over tasks, by plain gradient descent.

    batches: (number of the task, its order [steps, size]) -> examples of each step.
    """
    start, moves = values(learner.meta_weights), []
    for number, (x, y) in enumerate(supports(task)):
        weights, last = start, None
        for chosen in batches(number, order_of_task[number]):
            gradient = oracle.gradient(weights, x[chosen], y[chosen], BATCH / WAY)
            last = weights
            weights = {name: w - 0.02 * gradient[name] for name, w in weights.items()}
        moves.append(
            ({n: start[n] - weights[n] for n in start}, {n: last[n] - weights[n] for n in start})
        )
    mean = lambda which: {n: np.mean([move[which][n] for move in moves], 0) for n in start}
    return mean(0), mean(1)


@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('gradients', ['all', 'last'])
def test_plain_gradient_descent(norm, gradients):
    learner = random_learner(norm, inner_optimizer='sgd', gradients=gradients)
    task = random_task(np.random.default_rng(4))
    update = learner.meta_gradients(task, step_of(3))
    assert not update.state and not learner.moments
    ours, _ = by_name(learner, update)
    whole, last = by_hand(learner, task, orders(task), lambda _, order: order)
    assert_alike(ours, whole if gradients == 'all' else last)
    assert np.abs(whole['w2'] - last['w2']).max() > 1e-3


@pytest.mark.parametrize('gradients', ['all', 'last'])
def test_shots_held_out_for_the_last_step(gradients):
    """One of two shots of each class: the pool is the first ones, the last step sees the others."""
    learner = random_learner(inner_optimizer='sgd', gradients=gradients, tail_shots=1)
    task = random_task(np.random.default_rng(5))
    pool, held_out = np.arange(POOL)[::2], np.arange(POOL)[1::2]
    numbers = np.array(minibatches(task.key, len(pool), BATCH, STEPS - 1))
    batches = lambda _, order: [*pool[order], held_out]
    expected = by_hand(learner, task, numbers, batches)
    ours, _ = by_name(learner, learner.meta_gradients(task, step_of(0)))
    assert_alike(ours, expected[0 if gradients == 'all' else 1])


def test_the_last_step_with_adam():
    """Adam's moments are kept as ever; the weights move by the last step alone."""
    task = random_task(np.random.default_rng(6))
    whole = random_learner().meta_gradients(task, step_of(0))
    last = random_learner(gradients='last').meta_gradients(task, step_of(0))
    before = random_learner(inner_steps=STEPS - 1).meta_gradients(task, step_of(0))
    for all_steps, one, others in zip(whole.gradients, last.gradients, before.gradients):
        np.testing.assert_allclose(one, all_steps - others, atol=1e-12)
    assert whole.state.keys() == last.state.keys()
    for name, value in whole.state.items():
        np.testing.assert_array_equal(value, last.state[name])


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({'inner_optimizer': 'rmsprop'}, "inner_optimizer='rmsprop': one of adam, sgd"),
        ({'gradients': 'first'}, "gradients='first': one of all, last"),
        ({'tail_shots': 2}, 'tail_shots=2: fewer than the 2 support examples'),
    ],
)
def test_what_cannot_be(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        learner = random_learner(**arguments)
        learner.meta_gradients(random_task(np.random.default_rng(7)), step_of(0))


# Evaluation


def trained_learner(norm, **kwargs):
    """A learner after two iterations."""
    learner, rng = random_learner(norm, **kwargs), np.random.default_rng(8)
    for iteration in range(2):
        apply(learner, learner.meta_gradients(random_task(rng), step_of(iteration)))
    return learner


def evaluated(learner, task, batch, steps):
    """For each task the weights before and after every step, by the oracle."""
    start, moments = values(learner.meta_weights), values(learner.moments)
    return [
        oracle.adam_trajectory(
            start, moments, [(x[i], y[i]) for i in order], 0.02, 0.999, BATCH / WAY, 2 * STEPS
        )[0]
        for (x, y), order in zip(supports(task), orders(task, batch, steps))
    ]


@pytest.mark.parametrize(
    'norm, transductive', [(norm, True) for norm in NORMS] + [('batch_norm', False)]
)
def test_query_outputs_after_every_step(norm, transductive):
    """The moments of training are where each task begins. Not transductive: a query is normalised
    with the support set and without the other queries."""
    learner = trained_learner(norm, transductive=transductive, evaluation_batch=4)
    task, steps = random_task(np.random.default_rng(9)), 6
    before = [np.array(v) for v in learner.variables]
    outputs = learner.query_outputs(task, steps)
    for variable, value in zip(learner.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    for i, trajectory in enumerate(evaluated(learner, task, 4, steps)):
        support, queries = np.array(task.support_x[i]), np.array(task.query_x[i])
        for s, weights in enumerate(trajectory):
            if transductive:
                expected = oracle.outputs(weights, queries)
            else:
                expected = np.array(
                    [oracle.outputs(weights, np.vstack([support, [q]]))[-1] for q in queries]
                )
            np.testing.assert_allclose(outputs[s, i], expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('transductive', [True, False])
def test_adapted_weights(transductive):
    settings = {'evaluation_batch': 4, 'evaluation_steps': 5, 'transductive': transductive}
    learner, task = (
        trained_learner('batch_norm', **settings),
        random_task(np.random.default_rng(10)),
    )
    outputs = learner.query_outputs(task, 5)
    for steps in (0, 5, None):
        state = learner.adapt(task.support_x, task.support_y, steps, key=task.key)
        expected = outputs[STEPS if steps is None else steps]  # None: as many as in training.
        np.testing.assert_allclose(
            learner.predict_query(state, task.query_x), expected, rtol=1e-8, atol=1e-10
        )


# Mini-batches


def keys(tasks, seed=0):
    return tf.constant(np.random.default_rng(seed).integers(2**32, size=(tasks, 2)), tf.uint32)


@pytest.mark.parametrize('examples, size, steps', [(9, 5, 7), (5, 5, 3), (4, 10, 3), (1, 2, 2)])
def test_no_example_twice_in_a_pass(examples, size, steps):
    numbers = np.array(minibatches(keys(6), examples, size, steps))
    assert numbers.shape == (6, steps, size) and numbers.dtype == np.int32
    for row in numbers.reshape(6, -1):
        for start in range(0, len(row), examples):
            one_pass = row[start : start + examples]
            assert len(set(one_pass)) == len(one_pass)
            assert set(one_pass) <= set(range(examples))


def test_every_pass_is_shuffled_anew_and_every_task_for_itself():
    numbers = np.array(minibatches(keys(200), 6, 4, 3)).reshape(200, 2, 6)
    assert (numbers[:, 0] != numbers[:, 1]).any(axis=1).mean() > 0.98
    assert len(np.unique(numbers.reshape(200, 12), axis=0)) == 200
    together = minibatches(keys(200), 6, 4, 3)
    alone = minibatches(keys(200)[17:18], 6, 4, 3)
    np.testing.assert_array_equal(together[17:18], alone)


def test_every_order_is_as_likely():
    """Chi-squared statistics of example against place, and of the passes against each other."""
    numbers = np.array(minibatches(keys(6000, seed=1), 4, 4, 2))
    assert numbers.shape == (6000, 2, 4)
    for one_pass in (numbers[:, 0], numbers[:, 1]):
        places = np.stack([np.bincount(one_pass[:, i], minlength=4) for i in range(4)])
        assert ((places - 1500.0) ** 2 / 1500).sum() < 35  # Of 9 degrees of freedom.
        permutations = np.unique(one_pass, axis=0, return_counts=True)[1]
        assert len(permutations) == 24
        assert ((permutations - 250.0) ** 2 / 250).sum() < 60  # Of 23.
    pairs = np.bincount(numbers[:, 0, 0] * 4 + numbers[:, 1, 0], minlength=16)
    assert ((pairs - 375.0) ** 2 / 375).sum() < 50  # Of 15.


def test_without_a_key_it_is_fixed():
    numbers = np.array(minibatches(None, 9, 5, 4))
    np.testing.assert_array_equal(numbers, minibatches(None, 9, 5, 4))
    assert sorted(numbers.reshape(-1)[:9]) == list(range(9))
    assert list(numbers.reshape(-1)[:9]) != list(range(9))
