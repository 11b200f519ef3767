"""The U-Net against a NumPy program, and meta-gradients of segmentation by finite differences."""

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.anil import ANIL
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.algorithms.optimisation.meta_sgd import MetaSGD
from maml_tf.algorithms.optimisation.reptile import Reptile
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError
from maml_tf.networks.unet import UNet
from maml_tf.objectives.pixels import Segmentation

SIDE, BANDS, WAY, TASKS = 8, 5, 3, 2
NORMS = ['None', 'batch_norm', 'layer_norm']
STEP = tf.constant(0, tf.int64)


def network(norm='batch_norm', **kwargs):
    return UNet((SIDE, SIDE, BANDS), WAY, filters=2, depth=2, norm=norm, **kwargs)


def random_weights(net, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: 0.6 * rng.normal(size=w.shape) + w for name, w in net.construct_weights(0).items()
    }


def random_task(seed=0, unlabelled=0.2):
    rng = np.random.default_rng(seed)

    def part(examples):
        x = rng.normal(size=[TASKS, examples, SIDE, SIDE, BANDS])
        y = np.eye(WAY)[rng.integers(0, WAY, x.shape[:-1])]
        y *= rng.random(x.shape[:-1])[..., None] > unlabelled
        return tf.constant(x), tf.constant(y)

    return Task(*part(3), *part(2))


# A NumPy program of one task


def convolve(x, kernel):
    around = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(around, (3, 3), (1, 2))
    return np.einsum('nhwcij,ijco->nhwo', windows, kernel)


def normalised(x, weights, block, norm):
    if norm == 'None':
        return x
    axes, epsilon = ((0, 1, 2), 1e-3) if norm == 'batch_norm' else ((1, 2, 3), 1e-12)
    x = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)
    return x * weights.get(f'norm{block}_gamma', 1) + weights[f'norm{block}_beta']


def by_hand(x, weights, norm, depth=2):
    def block(x, i):
        x = convolve(x, weights[f'conv{i}']) + weights[f'b{i}']
        return np.maximum(normalised(x, weights, i, norm), 0)

    links = []
    for level in range(depth + 1):
        if level:
            n, h, w, c = x.shape
            x = x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))
        x = block(x, level)
        links.append(x)
    for i, level in enumerate(reversed(range(depth)), start=depth + 1):
        x = block(np.concatenate([x.repeat(2, 1).repeat(2, 2), links[level]], -1), i)
    return x @ weights['head_w'] + weights['head_b']


@pytest.mark.parametrize('norm', NORMS)
def test_forward(norm):
    net = network(norm)
    alone = [random_weights(net, seed) for seed in range(TASKS)]
    x = random_task().support_x
    expected = np.stack([by_hand(images.numpy(), w, norm) for images, w in zip(x, alone)])
    stacked = {name: tf.constant(np.stack([w[name] for w in alone])) for name in alone[0]}
    np.testing.assert_allclose(net.forward(x, stacked), expected, rtol=1e-9, atol=1e-9)
    shared = {name: tf.constant(w) for name, w in alone[0].items()}
    np.testing.assert_allclose(net.forward(x, shared)[0], expected[0], rtol=1e-9, atol=1e-9)


def test_names():
    net = network('layer_norm', start='torch')
    weights = net.construct_weights(0)
    shapes = {name: w.shape for name, w in weights.items() if name.startswith('conv')}
    assert shapes == {
        'conv0': (3, 3, BANDS, 2),
        'conv1': (3, 3, 2, 4),
        'conv2': (3, 3, 4, 8),
        'conv3': (3, 3, 12, 4),
        'conv4': (3, 3, 6, 2),
    }
    assert [name for name in weights if net.is_head(name)] == ['head_w', 'head_b']
    assert weights['head_w'].shape == (2, WAY) and weights['norm3_gamma'].shape == (4,)
    assert [name for name in weights if not net.adapted(name)][:2] == ['norm0_beta', 'norm0_gamma']
    assert UNet.from_config(net.get_config()).get_config() == net.get_config()


@pytest.mark.parametrize(
    'arguments, words',
    [
        ({'depth': 4}, 'depth=4: halves 4 times: 8x8 are no multiples of 16'),
        ({'filters': 0}, 'filters=0: at least 1'),
        ({'joined': 3}, 'joined=3: a U-Net takes no context'),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        UNet((SIDE, SIDE, BANDS), WAY, **{'filters': 2, 'depth': 2, **arguments})


# Meta-gradients


def learner(method, norm, **kwargs):
    net = network(norm)
    made = method(net, Segmentation(), inner_steps=2, dtype='float64', **kwargs)
    for name, value in random_weights(net).items():
        made.meta_weights[name].assign(value)
    return made


@pytest.mark.parametrize(
    'method, norm',
    [
        (MAML, 'batch_norm'),
        *(
            pytest.param(method, norm, marks=pytest.mark.slow)
            for method in (MAML, ANIL, MetaSGD)
            for norm in NORMS
            if (method, norm) != (MAML, 'batch_norm')
        ),
    ],
)
def test_meta_gradient(method, norm):
    made = learner(method, norm, **({} if method is MetaSGD else {'inner_lr': 0.3}))
    task, rng = random_task(), np.random.default_rng(3)
    loss = tf.function(lambda: made.meta_loss(task, STEP).value, autograph=False)
    gradients = tf.function(lambda: made.meta_gradients(task, STEP).gradients, autograph=False)()
    for variable, gradient in zip(made.trainable_variables, gradients, strict=True):
        value, direction = np.array(variable), rng.normal(size=variable.shape)
        ends = []
        for sign in (1, -1):
            variable.assign(value + sign * 1e-6 * direction)
            ends.append(loss().numpy())
        variable.assign(value)
        slope = (ends[0] - ends[1]) / 2e-6
        expected = np.sum(gradient * direction)
        np.testing.assert_allclose(expected, slope, rtol=2e-5, atol=2e-8, err_msg=variable.path)


@pytest.mark.slow
def test_first_order_is_the_gradient_at_the_adapted_weights():
    made = learner(MAML, 'batch_norm', inner_lr=0.3, stop_grad=True)
    task = random_task()
    fast = made.adapt(task.support_x, task.support_y)
    _, shared = made.weights_of_the_network()
    with tf.GradientTape() as tape:
        tape.watch(fast)
        outputs = made.network.forward(task.query_x, shared | fast)
        total = tf.reduce_sum(Segmentation().loss(task.query_y, outputs)) / TASKS
    zero = tf.UnconnectedGradients.ZERO
    slopes = tape.gradient(total, fast, unconnected_gradients=zero)
    expected = {name: tf.reduce_sum(g, 0) for name, g in slopes.items()}
    gradients = made.meta_gradients(task, STEP).gradients
    for name, variable in made.meta_weights.items():
        if name in expected:
            i = [id(v) for v in made.trainable_variables].index(id(variable))
            np.testing.assert_allclose(gradients[i], expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize('method', [MAML, Reptile])
def test_compiled_and_task_by_task(method):
    made, task = learner(method, 'batch_norm', inner_lr=0.1), random_task()
    together = made.query_outputs(task)
    compiled = tf.function(lambda: made.query_outputs(task), jit_compile=True, autograph=False)()
    np.testing.assert_allclose(compiled, together, rtol=1e-7, atol=1e-9)
    if method is MAML:  # Reptile's mini-batches go by the tasks' keys.
        alone = [made.query_outputs(task.map(lambda x: x[i : i + 1])) for i in range(TASKS)]
        np.testing.assert_allclose(tf.concat(alone, 1), together, rtol=1e-9, atol=1e-12)


def test_each_query_by_itself():
    made, task = learner(MAML, 'batch_norm', inner_lr=0.1, transductive=False), random_task()
    whole = made.query_outputs(task)
    one = made.query_outputs(task._replace(query_x=task.query_x[:, :1]))
    assert whole.shape == (3, TASKS, 2, SIDE, SIDE, WAY)
    np.testing.assert_allclose(one, whole[:, :, :1], rtol=1e-9, atol=1e-12)


def test_rematerialised():
    task = random_task()
    plain, again = (
        learner(MAML, 'batch_norm', inner_lr=0.1, rematerialise=remade) for remade in (False, True)
    )
    for one, other in zip(
        plain.meta_gradients(task, STEP).gradients, again.meta_gradients(task, STEP).gradients
    ):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-11)


def test_unlabelled_pixels_teach_nothing():
    made, task = learner(MAML, 'None', inner_lr=0.1), random_task()
    empty = task._replace(support_y=tf.zeros_like(task.support_y))
    before = made.query_outputs(task, 0)
    np.testing.assert_allclose(made.query_outputs(empty)[-1], before[0], rtol=1e-12)
