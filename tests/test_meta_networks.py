"""Meta Networks: convolutions against TensorFlow, closed forms, finite differences, in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from command import ROOT

from maml_tf.algorithms.model_based import fast_weights, support_gradients
from maml_tf.algorithms.model_based.meta_networks import MetaNetworks
from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import problem_of
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.image_encoders.shared_blocks import SharedBlocks
from maml_tf.networks.sequence_models.weight_generators import (
    PointwiseGenerator,
    RecurrentGenerator,
)
from maml_tf.objectives.classification import MeanClassification
from maml_tf.ops.log_and_sign import log_and_sign

TASKS, WAY, SHOTS, QUERIES = 2, 3, 2, 2
EXAMPLES = WAY * SHOTS
STEP = tf.constant(0, tf.int64)
RNG = np.random.default_rng(0)


def toy(shape=(4,), filters=(), hidden=(5,), shared=(), chunks=4, seed=0):
    """A learner in float64 whose every number is far from where it starts."""
    rng = np.random.default_rng(seed)
    learner = MetaNetworks(
        shape, WAY, MeanClassification(), filters, hidden, shared, chunks, dtype='float64'
    )
    for variable in learner.trainable_variables:
        variable.assign(0.7 * rng.normal(size=variable.shape))
    learner.head.assign(rng.normal(size=learner.head.shape))
    return learner


def random_task(learner, tasks=TASKS, seed=1):
    rng = np.random.default_rng(seed)
    labels = lambda shots: np.tile(np.repeat(np.eye(WAY), shots, axis=0), (tasks, 1, 1))
    images = lambda shots: rng.normal(size=(tasks, WAY * shots, *learner.example_shape))
    key = tf.constant(rng.integers(2**32, size=(tasks, 2)), tf.uint32)
    return Task(
        *map(tf.constant, (images(SHOTS), labels(SHOTS), images(QUERIES), labels(QUERIES))), key=key
    )


# What the generators are.


def test_the_recurrent_generator_is_keras_lstm():
    generator = RecurrentGenerator('d', dtype='float64')
    weights = [RNG.normal(size=weight.shape) for weight in generator.weights]
    generator.set_weights(weights)
    cell = keras.layers.LSTMCell(20, dtype='float64')
    cell.build((None, 2))
    cell.set_weights(weights[:3])
    gradients = RNG.normal(size=(3, 2, 4)) * np.exp(RNG.uniform(-12, 2, (3, 2, 4)))
    state = [tf.zeros([8, 20], tf.float64)] * 2
    for gradient in gradients:
        _, state = cell(tf.reshape(log_and_sign(tf.constant(gradient), 7.0, -1), [8, 2]), state)
    expected = np.reshape(state[0] @ weights[3] + weights[4], (2, 4))
    np.testing.assert_allclose(generator(tf.constant(gradients)), expected, rtol=1e-12)
    more = np.concatenate([gradients, RNG.normal(size=(1, 2, 4))])
    passed_over = generator(tf.constant(more), tf.constant([True, True, True, False]))
    np.testing.assert_allclose(passed_over, expected, rtol=1e-12)


def test_generators_start_small():
    for kind in (RecurrentGenerator, PointwiseGenerator):
        large, small = (np.std(kind('g', scale).weights[-2]) for scale in (1.0, 0.01))
        assert large > 0.1 and small < 0.01


# What the layers do.


def convolutional(x, slow, fast):
    """One image: convolutions by TensorFlow, pooled, then linear layers."""
    *_, last = slow
    for name, weight in slow.items():
        if name.startswith('conv'):
            paths = [tf.nn.conv2d(x, w, 1, 'SAME') for w in (weight, fast[name])]
            x = tf.nn.max_pool2d(tf.add_n([tf.nn.relu(path) for path in paths]), 2, 2, 'SAME')
            continue
        x = np.reshape(x, (1, -1))
        paths = [x @ w for w in (weight, fast[name])]
        x = sum(paths if name == last else [np.maximum(path, 0) for path in paths])
    return x


def test_each_query_reads_weights_of_its_own():
    """Of convolutions and of linear layers, where products are added up and not weights."""
    shapes = {'conv1': (3, 3, 2, 3), 'conv2': (3, 3, 3, 4), 'linear1': (16, 5), 'linear2': (5, 3)}
    slow = {name: RNG.normal(size=shape) for name, shape in shapes.items()}
    memory = {name: RNG.normal(size=(TASKS, 4, *shape)) for name, shape in shapes.items()}
    x = RNG.normal(size=(TASKS, 3, 5, 6, 2))
    attention = RNG.dirichlet(np.ones(4), (TASKS, 3))
    path = fast_weights.read_from({n: tf.constant(m) for n, m in memory.items()}, attention)
    outputs = fast_weights.augmented(
        tf.constant(x), {n: tf.constant(w) for n, w in slow.items()}, path
    )
    for task in range(TASKS):
        for query in range(3):
            own = {n: np.tensordot(attention[task, query], m[task], 1) for n, m in memory.items()}
            expected = convolutional(x[task, query][np.newaxis], slow, own)
            np.testing.assert_allclose(outputs[task, query], expected[0], rtol=1e-9)


def test_five_blocks_make_one_pixel_of_omniglot_and_nine_of_miniimagenet():
    values = [
        parsed(f'--flagfile={ROOT}/flags/meta_networks/{source}_5way_1shot.flags')
        for source in ('omniglot', 'miniimagenet')
    ]
    omniglot, mini = (MetaNetworks.from_flags(flags, problem_of(flags)) for flags in values)
    assert [tuple(w.shape) for w in omniglot.base.values()] == [
        *((3, 3, 1, 64), *((3, 3, 64, 64),) * 4),
        *((64, 64), (64, 5)),
    ]
    assert [tuple(w.shape) for w in mini.base.values()] == [
        *((3, 3, 32, 32),) * 2,
        *((288, 288), (288, 5)),
    ]
    assert [len(part.kernels) for part in mini.shared] == [3, 3] and not omniglot.shared
    assert (omniglot.clip, omniglot.chunks) == (10, 5)


def test_attention_is_a_softmax_of_cosines():
    query, keys = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 5, 4))
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    cosines = unit(query) @ unit(keys).transpose(0, 2, 1)
    expected = np.exp(cosines) / np.exp(cosines).sum(-1, keepdims=True)
    np.testing.assert_allclose(fast_weights.attend(query, keys), expected, atol=1e-6)


# What is learnt.


@pytest.mark.parametrize(
    'arguments',
    [
        pytest.param({}, id='linear'),
        pytest.param(
            {'shape': (6, 5, 1), 'filters': (3,), 'hidden': (4,), 'shared': (2,)},
            id='images',
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_meta_gradient(monkeypatch, arguments):
    """Along random directions, by differences of a loss whose generators read what they read at the
    point itself. Every weight that is trained has a gradient."""
    learner = toy(**arguments)
    task = random_task(learner)
    frozen = []
    plain = support_gradients.gradients_of_each

    def record(*arguments):
        frozen.append(plain(*arguments))
        return frozen[-1]

    monkeypatch.setattr(support_gradients, 'gradients_of_each', record)
    update = learner.meta_gradients(task, STEP)
    recorded = {len(g): g for g in frozen}
    assert len(recorded) == 2  # of the base learner, which has a layer more, and of the embedding
    again = lambda losses, weights, copies: recorded[len(weights)]
    monkeypatch.setattr(support_gradients, 'gradients_of_each', again)
    loss = tf.function(lambda: learner.meta_loss(task, STEP).value, autograph=False)
    variables = learner.trainable_variables
    start = [np.array(variable) for variable in variables]
    rng = np.random.default_rng(3)
    for number, (variable, gradient) in enumerate(zip(variables, update.gradients, strict=True)):
        assert np.abs(gradient).max() > 1e-8, variable.path
        direction = rng.normal(size=variable.shape)
        ends = []
        for step in (1e-6, -1e-6):
            variable.assign(start[number] + step * direction)
            ends.append(float(loss()))
        variable.assign(start[number])
        expected = (ends[0] - ends[1]) / 2e-6
        found = float(np.sum(direction * np.array(gradient)))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=variable.path)


def test_the_embedding_s_softmax_layer_is_not_trained():
    learner = toy()
    assert learner.head.path not in [v.path for v in learner.trainable_variables]
    assert learner.head.path in [v.path for v in learner.variables]


def test_chunks():
    labels = tf.constant(np.tile(np.eye(WAY), (1, 2, 1)))
    places, weights = support_gradients.chunks(labels, None, 4)
    there = np.array(weights) > 0
    assert sorted(np.array(places)[0][there]) == list(range(6))
    np.testing.assert_allclose(weights, [[0.5, 0.5], [0.5, 0.5], [1, 0], [1, 0]])
    *_, weights = support_gradients.chunks(labels[:, :3], None, 4)
    np.testing.assert_array_equal(weights, np.ones((3, 1)))  # no more than examples
    keys = [tf.constant([[number, 0]], tf.uint32) for number in range(4)]
    drawn = {str(np.array(support_gradients.chunks(labels, key, 4)[0])) for key in keys}
    assert len(drawn) > 1


def test_of_unknown_size_few_examples_make_as_few_chunks():
    """A support set smaller than the chunks, in a graph that does not know its size."""
    learner = toy(chunks=4)
    task = random_task(learner)
    x, y = task.support_x[:, ::2], task.support_y[:, ::2]
    spec = lambda value: tf.TensorSpec([None, None, *value.shape[2:]], value.dtype)
    adapt = tf.function(learner.adapt, [spec(x), spec(y)], autograph=False)
    for name, value in learner.adapt(x, y).items():
        np.testing.assert_allclose(adapt(x, y)[name], value, rtol=1e-9, atol=1e-12)


def test_no_more_chunks_than_told():
    """One chunk: the order of the support set does not matter. Else it does."""
    for chunks, alike in ((1, True), (3, False)):
        learner = toy(chunks=chunks)
        task = random_task(learner)
        state, turned = (
            learner.adapt(task.support_x[:, ::way], task.support_y[:, ::way], key=task.key)
            for way in (1, -1)
        )
        same = np.allclose(state['embedding_linear1'], turned['embedding_linear1'], rtol=1e-9)
        assert same is alike


# Ordinary blocks, clipping, bad input.


def test_running_averages_are_those_of_the_support_set_and_then_of_the_queries():
    learner = toy((6, 5, 1), (3,), (4,), (2,))
    task = random_task(learner)
    kernel = np.array(learner.shared[0].kernels[0])
    mean, variance = np.zeros(2), np.ones(2)
    for x in (task.support_x, task.query_x):
        z = np.stack([tf.nn.conv2d(images, kernel, 1, 'SAME') for images in x])
        mean = 0.9 * mean + 0.1 * z.mean((0, 1, 2, 3))
        variance = 0.9 * variance + 0.1 * z.var((1, 2, 3), ddof=1).mean(0)
    state = learner.meta_loss(task, STEP).state
    np.testing.assert_allclose(state['base_shared_norm1_mean'], mean, rtol=1e-9)
    np.testing.assert_allclose(state['base_shared_norm1_variance'], variance, rtol=1e-9)
    assert len(state) == 4
    names = learner.named_variables()
    names['base_shared_norm1_mean'].assign(mean)
    names['base_shared_norm1_variance'].assign(variance)
    gamma, beta = map(np.array, learner.shared[0].norms[0])
    features, left = learner.shared[0](task.query_x)
    normalised = gamma * (z - mean) / np.sqrt(variance + 2e-5) + beta
    expected = [tf.nn.max_pool2d(tf.nn.relu(tf.constant(one)), 2, 2, 'SAME') for one in normalised]
    np.testing.assert_allclose(features, expected, rtol=1e-9)
    assert left == []


def test_shared_blocks_start_from_ones_and_zeros():
    blocks = SharedBlocks(1, (2, 3))
    assert [tuple(kernel.shape) for kernel in blocks.kernels] == [(3, 3, 1, 2), (3, 3, 2, 3)]
    assert len(blocks.trainable_variables) == 6 and len(blocks.non_trainable_variables) == 4


def test_the_norm_of_the_whole_gradient_is_clipped():
    learner = toy()
    gradients = [tf.fill([2, 2], 10.0), tf.fill([5], -20.0)]
    clipped = learner.clip_gradients(gradients)
    np.testing.assert_allclose(tf.linalg.global_norm(clipped), 10, rtol=1e-6)
    learner.clip = None
    assert learner.clip_gradients(gradients) is gradients


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        ({'way': 0}, 'way'),
        ({'chunks': 0}, 'chunks'),
        ({'hidden': ()}, 'hidden'),
        ({'filters': (0,)}, 'filters'),
        ({'shared': (8,)}, 'input_shape'),
    ],
)
def test_bad_arguments(changes, named):
    arguments = {'input_shape': (4,), 'way': 2, 'filters': (), 'hidden': (3,)} | changes
    with pytest.raises(ArgumentError) as error:
        MetaNetworks(objective=MeanClassification(), **arguments)
    assert error.value.argument == named


def test_it_is_refused_in_regression():
    flags = parsed('--algorithm=meta_networks', '--datasource=sinusoid')
    with pytest.raises(UserError, match='sinusoid'):
        MetaNetworks.from_flags(flags, problem_of(flags))
