"""Meta Networks: fast weights against NumPy, closed forms and finite differences, in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from command import ROOT

from maml_tf.algorithms.model_based import fast_weights, support_gradients
from maml_tf.algorithms.model_based.meta_networks import MetaNetworks
from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import problem_of
from maml_tf.episodes.order import random_order
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.image_encoders.shared_blocks import SharedBlocks
from maml_tf.networks.sequence_models.weight_generators import (
    PointwiseGenerator,
    RecurrentGenerator,
)
from maml_tf.objectives import MeanClassification
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


def arrays(variables):
    return {name: np.array(variable) for name, variable in variables.items()}


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


def test_the_pointwise_generator():
    generator = PointwiseGenerator('m', dtype='float64')
    k1, b1, k2, b2, k3, b3 = weights = [RNG.normal(size=w.shape) for w in generator.weights]
    assert [w.shape for w in weights] == [(2, 20), (20,), (20, 20), (20,), (20, 1), (1,)]
    generator.set_weights(weights)
    least = np.exp(-7)
    gradients = np.array([[0.5, -2.0, 0.0], [-least / 2, least, 1e-9]])
    logarithms = np.log(np.maximum(np.abs(gradients), least)) / 7
    seen = np.stack([logarithms, np.clip(gradients / least, -1, 1)], -1)
    hidden = np.maximum(np.maximum(seen @ k1 + b1, 0) @ k2 + b2, 0)
    expected = (hidden @ k3 + b3)[..., 0]
    np.testing.assert_allclose(generator(tf.constant(gradients)), expected, rtol=1e-12)


def test_generators_start_small():
    for kind in (RecurrentGenerator, PointwiseGenerator):
        large, small = (np.std(kind('g', scale).weights[-2]) for scale in (1.0, 0.01))
        assert large > 0.1 and small < 0.01


# What the layers do.


def relu(x):
    """Of complex numbers, too."""
    return np.where(x.real > 0, x, 0)


def dense(x, slow, fast=()):
    """A network of linear layers; fast: {name: weight}, or none."""
    *_, last = slow
    for name, weight in slow.items():
        paths = [x @ weight, *([x @ fast[name]] if fast else [])]
        x = sum(paths if name == last else [relu(path) for path in paths])
    return x


def test_layers_add_up_both_paths():
    slow, fast = (
        {'linear1': RNG.normal(size=(4, 5)), 'linear2': RNG.normal(size=(5, 3))} for _ in range(2)
    )
    x = RNG.normal(size=(1, 6, 4))
    stacked = {name: tf.constant(weight[np.newaxis]) for name, weight in fast.items()}
    tensors = {name: tf.constant(weight) for name, weight in slow.items()}
    both = fast_weights.augmented(tf.constant(x), tensors, fast_weights.of_task(stacked))
    np.testing.assert_allclose(both, dense(x, slow, fast), rtol=1e-12)
    alone = fast_weights.augmented(tf.constant(x), tensors)
    np.testing.assert_allclose(alone, dense(x, slow), rtol=1e-12)


def convolutional(x, slow, fast):
    """One image: convolutions by TensorFlow, pooled, then linear layers. fast as of `dense`."""
    linear = {}
    for name, weight in slow.items():
        if not name.startswith('conv'):
            linear[name] = weight
            continue
        product = lambda w, x=x: tf.nn.relu(tf.nn.conv2d(x, w, 1, 'SAME'))
        x = product(weight) + product(fast[name])
        x = tf.nn.max_pool2d(x, 2, 2, 'SAME')
    return dense(np.reshape(x, (1, -1)), linear, fast)


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


# What the whole is.


def slope(loss, weights, name):
    """The gradient of a loss with respect to one weight, by complex steps."""
    gradient = np.zeros_like(weights[name])
    for place in np.ndindex(gradient.shape):
        moved = {**weights, name: weights[name].astype(complex)}
        moved[name][place] += 1e-40j
        gradient[place] = loss(moved).imag / 1e-40
    return gradient


def cross_entropy(outputs, labels):
    outputs = outputs - outputs.real.max(-1, keepdims=True)
    return -(labels * (outputs - np.log(np.exp(outputs).sum(-1, keepdims=True)))).sum(-1)


def test_gradients_of_the_chunks_and_of_each_example():
    """4 chunks of 6 examples: two of two, two of one."""
    learner = toy()
    task = random_task(learner)
    base, embedding, head = arrays(learner.base), arrays(learner.embedding), np.array(learner.head)
    of_each = support_gradients.of_each_example(task.support_x, task.support_y, base)
    support = task.support_x, task.support_y
    of_chunks, there = support_gradients.of_chunks(
        *support, embedding, tf.constant(head), task.key, 4
    )
    assert there is None
    order = np.array(random_order(task.support_y, task.key))
    for i in range(TASKS):
        x, y = np.array(task.support_x[i]), np.array(task.support_y[i])
        for example in range(EXAMPLES):
            one = slice(example, example + 1)
            loss = lambda w: cross_entropy(dense(x[one], w), y[one])[0]
            for name in base:
                found = of_each[name][EXAMPLES * i + example]
                np.testing.assert_allclose(found, slope(loss, base, name), atol=1e-12)
        for chunk in range(4):
            members = order[i, chunk::4]
            assert len(members) == (2 if chunk < 2 else 1)
            loss = lambda w: cross_entropy(relu(dense(x[members], w)) @ head, y[members]).mean()
            found = of_chunks['linear1'][chunk, i]
            np.testing.assert_allclose(found, slope(loss, embedding, 'linear1'), atol=1e-12)


def test_the_whole_from_its_parts():
    """One task, of linear layers: NumPy, with the learner's generators."""
    learner, tolerance = toy(hidden=(6, 5)), {'rtol': 1e-9, 'atol': 1e-9}
    task = random_task(learner, tasks=1)
    base, embedding = arrays(learner.base), arrays(learner.embedding)
    head, order = np.array(learner.head), np.array(random_order(task.support_y, task.key))[0]
    x, y, queries = (np.array(v[0]) for v in (task.support_x, task.support_y, task.query_x))
    of_task = lambda w, rows: cross_entropy(np.maximum(dense(x[rows], w), 0) @ head, y[rows]).mean()
    chunks = [order[chunk::4] for chunk in range(4)]
    fast = {}
    for name in embedding:
        slopes = [slope(lambda w, c=c: of_task(w, c), embedding, name) for c in chunks]
        fast[name] = np.array(learner.of_tasks['linear'](tf.constant(np.stack(slopes))))
    memory = {}
    for name in base:
        losses = [
            lambda w, i=i: cross_entropy(dense(x[i : i + 1], w), y[i : i + 1])[0]
            for i in range(EXAMPLES)
        ]
        slopes = np.stack([slope(loss, base, name) for loss in losses])
        memory[name] = np.array(learner.of_examples['linear'](tf.constant(slopes)))
    keys, of_query = dense(x, embedding, fast), dense(queries, embedding, fast)
    attention = np.array(fast_weights.attend(of_query[np.newaxis], keys[np.newaxis]))[0]
    expected = np.stack(
        [
            dense(query, base, {n: np.tensordot(a, m, 1) for n, m in memory.items()})
            for query, a in zip(queries, attention)
        ]
    )
    state = learner.adapt(task.support_x, task.support_y, key=task.key)
    np.testing.assert_allclose(state['keys'][0], keys, **tolerance)
    for name in base:
        np.testing.assert_allclose(state[f'memory_{name}'][0], memory[name], **tolerance)
    outputs = learner.predict_query(state, task.query_x)[0]
    np.testing.assert_allclose(outputs, expected, **tolerance)
    loss = learner.meta_loss(task, STEP)
    losses = cross_entropy(np.array(outputs), np.array(task.query_y[0]))
    np.testing.assert_allclose(loss.value, losses.sum(), rtol=1e-9)
    np.testing.assert_allclose(loss.log['post_loss'], losses.mean(), rtol=1e-9)


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
