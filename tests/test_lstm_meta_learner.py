"""The LSTM meta-learner against a NumPy program of its equations, and closed forms."""

import keras
import lstm_oracle as oracle
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.learnt_update import lstm_optimiser
from maml_tf.algorithms.optimisation.learnt_update.lstm_meta_learner import LSTMMetaLearner
from maml_tf.commands import command_line
from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import problem_of
from maml_tf.episodes.order import minibatches
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.conv_net import ConvNet
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.networks.keras_network import KerasNetwork
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.regression import Regression

TASKS, WAY, SHOTS, QUERIES = 2, 3, 2, 3
EXAMPLES = WAY * SHOTS
# Two passes of two mini-batches of four out of six: they straddle the passes.
PASSES, BATCH, UPDATES = 2, 4, 4
STEP = tf.constant(0, tf.int64)


def dense(norm):
    return FullyConnected((4,), WAY, (5,), norm, scale=norm == 'batch_norm')


def images(max_pool):
    return ConvNet(
        (4, 4, 1), WAY, 2, scale=True, max_pool=max_pool, pool_padding='same', head='flatten'
    )


NETWORKS = {
    'dense': (lambda: dense('None'), oracle.fully_connected),
    'dense with batch norm': (lambda: dense('batch_norm'), oracle.fully_connected),
    'strided': (lambda: images(False), oracle.strided),
    'pooled': (lambda: images(True), oracle.pooled),
}
of_every_network = pytest.mark.parametrize('kind', NETWORKS)


def random_learner(kind='dense with batch norm', regression=False, **kwargs):
    """A learner whose every number is far from where it starts."""
    rng = np.random.default_rng(0)
    objective = Regression() if regression else MeanClassification()
    arguments = {'passes': PASSES, 'batch': BATCH, 'momentum': 0.7, **kwargs}
    learner = LSTMMetaLearner(NETWORKS[kind][0](), objective, dtype='float64', **arguments)
    for variable in learner.trainable_variables:
        variable.assign(0.6 * rng.normal(size=variable.shape))
    learner.optimiser_weights['gates_bias'].assign([1.5, -0.3])
    for name, variable in learner.meta_weights.items():
        if name.endswith('gamma'):
            variable.assign(1 + 0.3 * rng.normal(size=variable.shape))
    return learner


def random_task(learner, regression=False, tasks=TASKS, seed=1, key=True):
    rng = np.random.default_rng(seed)
    labels = lambda shots: np.tile(np.repeat(np.eye(WAY), shots, axis=0), (tasks, 1, 1))
    if regression:
        labels = lambda shots: rng.normal(size=(tasks, WAY * shots, WAY))
    draw = lambda shots: (
        rng.normal(size=(tasks, WAY * shots, *learner.example_shape)),
        labels(shots),
    )
    key = tf.constant(rng.integers(2**32, size=(tasks, 2)), tf.uint32) if key else None
    return Task(*map(tf.constant, (*draw(SHOTS), *draw(QUERIES))), key=key)


def values(variables):
    return {name: np.array(variable) for name, variable in variables.items()}


def batches_of(task, i, size=BATCH, updates=UPDATES):
    """The mini-batches [(x, y)] of task i, in the order of its key."""
    order = np.array(minibatches(task.key, EXAMPLES, size, updates))
    x, y = np.array(task.support_x[i]), np.array(task.support_y[i])
    return [(x[chosen], y[chosen]) for chosen in order[i]]


def queries_of(task, i):
    return np.array(task.query_x[i]), np.array(task.query_y[i])


# The LSTM


def test_preprocessing():
    x = np.array([np.e, -np.exp(-5), np.exp(-10) / 2, -np.exp(-11), 0.0, 1.0])
    expected = [[0.1, -0.5, -1, -1, -1, 0], [1, -1, 0.5, -np.exp(-1), 0, 1]]
    np.testing.assert_allclose(lstm_optimiser.preprocess(tf.constant(x)), expected, atol=1e-14)


def test_the_first_layer_is_keras_lstm():
    """Two steps; of the loss every coordinate of a task reads the same."""
    rng = np.random.default_rng(2)
    parameters = lstm_optimiser.starting_parameters(rng)
    parameters = {name: rng.normal(size=value.shape) for name, value in parameters.items()}
    cell = keras.layers.LSTMCell(lstm_optimiser.HIDDEN, dtype='float64')
    cell.build((None, lstm_optimiser.SEEN))
    # Keras' order is input, forget, candidate, output.
    order = np.arange(80).reshape(4, 20)[[0, 1, 3, 2]].ravel()
    kernel = parameters['lstm_kernel'][order]
    cell.set_weights([kernel[:, :4].T, kernel[:, 4:].T, parameters['lstm_bias'][order]])
    weights, state = tf.constant(rng.normal(size=(2, 3))), [tf.zeros([6, 20], tf.float64)] * 2
    memory = lstm_optimiser.start(weights)
    for _ in range(2):
        gradients, losses = tf.constant(rng.normal(size=(2, 3))), tf.constant(rng.uniform(size=2))
        of_loss = lstm_optimiser.preprocess(tf.repeat(losses, 3))
        seen = tf.concat([of_loss, lstm_optimiser.preprocess(tf.reshape(gradients, [-1]))], 0)
        _, state = cell(tf.transpose(seen), state)
        weights, memory = lstm_optimiser.step(parameters, memory, weights, gradients, losses)
    for ours, theirs in zip((memory.output, memory.cell), state):
        np.testing.assert_allclose(tf.reshape(ours, [20, 6]), tf.transpose(theirs), rtol=1e-12)


@pytest.mark.parametrize('seed', [0, 1])
def test_it_begins_near_gradient_descent_with_a_small_rate(seed):
    learner = LSTMMetaLearner(
        dense('None'), Regression(), 1, EXAMPLES, divide_by_batch=False, seed=seed, dtype='float64'
    )
    task, start = random_task(learner, True), values(learner.meta_weights)
    forget, rate = 1 / (1 + np.exp(-np.array(learner.optimiser_weights['gates_bias'])))
    assert 0.982 < forget < 0.9934 and 0.0066 < rate < 0.01799
    adapted = learner.adapt(task.support_x, task.support_y)
    for i in range(TASKS):
        batch = np.array(task.support_x[i]), np.array(task.support_y[i])
        loss = lambda weights: oracle.loss(
            oracle.fully_connected(weights, batch[0])[0], batch[1], False
        )
        for name, slope in oracle.derivatives(loss, start).items():
            assert np.abs(slope).max() > 1e-3
            plain = forget * start[name] - rate * slope
            allowed = 0.02 * rate * np.abs(slope) + 4e-4 * np.abs(start[name])
            assert (np.abs(adapted[name][i] - plain) <= allowed + 1e-12).all()


def test_its_weights_are_shared_by_all_coordinates():
    """Their number does not depend on the network; what starts is a function of the seed."""
    shapes = set()
    for kind in NETWORKS:
        learner = LSTMMetaLearner(NETWORKS[kind][0](), MeanClassification(), seed=3)
        shapes.add(tuple(tuple(v.shape) for v in learner.optimiser_weights.values()))
        assert len(learner.trainable_variables) == 4 + len(learner.meta_weights)
    assert shapes == {((80, 24), (80,), (2, 22), (2,))}
    again, other = (
        values(LSTMMetaLearner(dense('None'), Regression(), seed=seed).optimiser_weights)
        for seed in (3, 4)
    )
    for name, value in values(learner.optimiser_weights).items():
        np.testing.assert_array_equal(value, again[name])
        assert (value != other[name]).any()
        assert name == 'gates_bias' or 0.005 < np.abs(value).max() <= 0.01


# Training


def episode_loss(kind, learner, task, batches, replays, regression=False):
    """Function of everything learnt: the mean query loss, by what the LSTM read before."""

    def function(everything):
        parameters = {name: everything[name] for name in learner.optimiser_weights}
        start = {name: everything[name] for name in learner.meta_weights}
        losses = [
            oracle.query_loss(
                NETWORKS[kind][1],
                parameters,
                start,
                batches[i],
                queries_of(task, i),
                replays[i],
                not regression,
            )
            for i in range(TASKS)
        ]
        return sum(losses) / TASKS

    return function


@pytest.mark.parametrize(
    'kind, regression, divide',
    [
        ('dense', True, True),
        ('dense with batch norm', False, True),
        ('dense with batch norm', False, False),
        ('strided', False, True),
        pytest.param('pooled', False, False, marks=pytest.mark.slow),
    ],
)
def test_meta_gradients(kind, regression, divide):
    """Of the LSTM, its gates and the initial weights, gradients and losses held constant."""
    passes = PASSES if kind.startswith('dense') else 1  # The oracle's convolutions are slow.
    learner = random_learner(kind, regression, divide_by_batch=divide, passes=passes)
    task, network = random_task(learner, regression), NETWORKS[kind][1]
    parameters, start = values(learner.optimiser_weights), values(learner.meta_weights)
    batches = [batches_of(task, i, updates=2 * passes) for i in range(TASKS)]
    replays = [
        oracle.adapt(network, parameters, start, batches[i], divide, not regression)[1]
        for i in range(TASKS)
    ]
    function = episode_loss(kind, learner, task, batches, replays, regression)
    loss = learner.meta_loss(task, STEP).value
    np.testing.assert_allclose(loss, function(parameters | start), rtol=1e-9)
    gradients = learner.meta_gradients(task, STEP).gradients
    of = {id(v): np.array(g) for v, g in zip(learner.trainable_variables, gradients, strict=True)}
    rng = np.random.default_rng(3)
    everything = parameters | start
    entries = {
        name: rng.permutation(value.size)[: 4 * passes] for name, value in everything.items()
    }
    expected = oracle.derivatives(function, everything, entries)
    for name, variable in (learner.optimiser_weights | learner.meta_weights).items():
        ours = of.pop(id(variable)).ravel()[entries[name]]
        # A batch norm takes the biases before it away.
        hidden = ('b1',) if kind.startswith('dense') else ('b1', 'b2', 'b3', 'b4')
        taken_away = 'norm0_beta' in start and name in hidden
        assert taken_away or np.abs(expected[name]).max() > 1e-5, name
        np.testing.assert_allclose(ours, expected[name], rtol=1e-6, atol=1e-9, err_msg=name)
    assert not of


def test_what_the_lstm_reads_is_constant():
    """The derivative of the whole path is another one."""
    learner = random_learner('dense', True)
    task = random_task(learner, True)
    parameters, start = values(learner.optimiser_weights), values(learner.meta_weights)
    batches = [batches_of(task, i) for i in range(TASKS)]

    def whole(moved, replays=None):
        if replays is None:
            replays = [
                oracle.adapt(oracle.fully_connected, parameters, moved, part, True, False)[1]
                for part in batches
            ]
        loss = episode_loss('dense', learner, task, batches, replays, True)
        return loss(parameters | moved), replays

    rng, size = np.random.default_rng(4), 1e-6
    direction = {name: rng.normal(size=value.shape) for name, value in start.items()}
    ends = [
        {name: start[name] + sign * size * direction[name] for name in start} for sign in (1, -1)
    ]
    _, replays = whole(start)
    along = [
        (whole(ends[0], kept)[0] - whole(ends[1], kept)[0]) / (2 * size) for kept in (replays, None)
    ]
    gradients = learner.meta_gradients(task, STEP).gradients
    ours = sum(
        np.sum(np.array(gradient) * direction[name])
        for variable, gradient in zip(learner.trainable_variables, gradients)
        for name, weight in learner.meta_weights.items()
        if weight is variable
    )
    np.testing.assert_allclose(ours, along[0], rtol=1e-6)
    assert abs(along[1] - along[0]) > 1e-2 * abs(along[0])


def test_the_clip_bounds_the_norm_of_all_gradients():
    learner = random_learner(clip=0.01)
    gradients = learner.meta_gradients(random_task(learner), STEP).gradients
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients))
    assert norm > 0.02
    for clipped, gradient in zip(learner.clip_gradients(gradients), gradients, strict=True):
        np.testing.assert_allclose(clipped, gradient * 0.01 / norm, rtol=1e-9)
    small = [g / 1e4 for g in gradients]
    for clipped, gradient in zip(learner.clip_gradients(small), small):
        np.testing.assert_allclose(clipped, gradient, rtol=1e-9)
    assert random_learner(clip=None).clip_gradients(gradients) is gradients


def test_shares_are_bounded_by_the_coordinates():
    spec = EpisodeSpec(WAY, SHOTS, QUERIES)
    large = FullyConnected((10,), WAY, (1000,), 'None')  # 14,003 coordinates
    assert random_learner('dense').share(24, spec) == 24
    assert LSTMMetaLearner(large, MeanClassification()).share(24, spec) == 2
    assert LSTMMetaLearner(large, MeanClassification(), tasks_at_once=8).share(24, spec) == 8


# Evaluation


@pytest.mark.parametrize('transductive', [False, True])
@of_every_network
def test_query_outputs_after_every_pass(kind, transductive):
    """By the running statistics of the episode; transductive by those of the queries."""
    learner = random_learner(kind, transductive=transductive)
    task, network = random_task(learner), NETWORKS[kind][1]
    ours = learner.query_outputs(task)
    assert ours.shape[0] == PASSES + 1 and learner.axis(3) == ('passes', (0, 1, 2))
    parameters, start = values(learner.optimiser_weights), values(learner.meta_weights)
    for i in range(TASKS):
        batches = batches_of(task, i)
        path, _ = oracle.adapt(network, parameters, start, batches)
        history = oracle.running_statistics(network, path, batches, 0.7)
        for entry, updates in enumerate(range(0, UPDATES + 1, 2)):
            given = None if transductive else history[updates]
            expected, _ = network(path[updates], queries_of(task, i)[0], given)
            np.testing.assert_allclose(ours[entry, i], expected, rtol=1e-7, atol=1e-10)


@of_every_network
def test_adapted_weights_predict_the_same(kind):
    learner = random_learner(kind)
    task = random_task(learner)
    outputs = learner.query_outputs(task, 3)
    for steps in (0, 1, 3):
        state = learner.adapt(task.support_x, task.support_y, steps, key=task.key)
        np.testing.assert_allclose(
            learner.predict_query(state, task.query_x), outputs[steps], rtol=1e-9, atol=1e-12
        )
    one = learner.predict_query(state, task.query_x[:, 2:3])
    np.testing.assert_allclose(one[:, 0], outputs[3][:, 2], rtol=1e-9, atol=1e-12)


def test_the_key_decides_the_mini_batches():
    learner = random_learner()
    task = random_task(learner)
    first, again = (learner.query_outputs(task) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = learner.query_outputs(task._replace(key=task.key + 1))
    np.testing.assert_array_equal(first[0], other[0])
    assert np.abs(first[-1] - other[-1]).max() > 1e-3
    bare = task._replace(key=None)
    np.testing.assert_array_equal(learner.query_outputs(bare), learner.query_outputs(bare))


def test_a_mini_batch_holds_the_whole_support_set_at_most():
    """Then a pass is one step, and the order does not matter."""
    whole, larger = random_learner(batch=EXAMPLES), random_learner(batch=100)
    task = random_task(whole)
    outputs = whole.query_outputs(task)
    np.testing.assert_array_equal(outputs, larger.query_outputs(task))
    other = task._replace(key=task.key + 1)
    np.testing.assert_allclose(outputs, whole.query_outputs(other), rtol=1e-7, atol=1e-9)


# The command line


def learner_of(*arguments):
    flags = parsed('--algorithm=lstm_meta_learner', *arguments)
    command_line.check(flags)
    return LSTMMetaLearner.from_flags(flags, problem_of(flags))


def test_settings_are_the_released_ones_by_shots():
    for shots, expected in ((1, (12, 5, 0.9)), (5, (8, 25, 0.95))):
        learner = learner_of(
            *('--datasource=miniimagenet', f'--update_batch_size={shots}', '--max_pool'),
            '--num_filters=32',
        )
        assert (learner.inner_steps, learner.batch, learner.momentum) == expected
        assert learner.evaluation_steps == expected[0] and not learner.transductive
        assert learner.clip == 0.25 and learner.divide_by_batch
        # Four convolutions with their biases, four batch norms, a linear layer on 800.
        coordinates = sum(np.size(value) for value in learner.meta_weights.values())
        assert coordinates == 864 + 3 * 9216 + 4 * 32 + 4 * 64 + 800 * 5 + 5
        assert isinstance(learner.objective, MeanClassification)
    own = ['--lstm_meta_learner_passes=3', '--lstm_meta_learner_batch=7', '--transductive']
    own += ['--nolstm_meta_learner_divide_by_batch']
    learner = learner_of('--datasource=omniglot', *own)
    assert (learner.inner_steps, learner.batch) == (3, 7)
    assert learner.transductive and not learner.divide_by_batch
    # Training says the shots.
    learner = learner_of('--datasource=omniglot', '--train_update_batch_size=1')
    assert learner.inner_steps == 12


@pytest.mark.parametrize(
    'flag', ['update_lr=0.1', 'num_updates=3', 'test_num_updates=3', 'clip=1', 'stop_grad']
)
def test_flags_that_mean_nothing_to_it(flag):
    with pytest.raises(UserError, match=f'--{flag.split("=")[0]}=.* means nothing'):
        learner_of('--datasource=omniglot', f'--{flag}')


@pytest.mark.parametrize(
    'flag',
    ['passes=3', 'batch=3', 'divide_by_batch=False'],
)
def test_its_flags_mean_nothing_to_others(flag):
    flags = parsed('--datasource=omniglot', f'--lstm_meta_learner_{flag}')
    with pytest.raises(UserError, match='means nothing to --algorithm=maml'):
        command_line.check(flags)


@pytest.mark.parametrize(
    'arguments', [{'passes': 0}, {'batch': 0}, {'momentum': 0.0}, {'momentum': 1.5}]
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ArgumentError, match=next(iter(arguments))):
        LSTMMetaLearner(dense('None'), MeanClassification(), **arguments)


def test_a_network_that_does_not_tell_its_statistics():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(WAY)])
    with pytest.raises(ArgumentError, match='network=KerasNetwork: .*statistics'):
        LSTMMetaLearner(KerasNetwork(model), MeanClassification())
