"""SNAIL: its sizes, the order in which it reads, filling, finite differences."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from precision import float64
from test_conformance import source_for
from test_matching import with_keys
from test_prototypical import STEP, check_gradient, one_hot, random_task

from maml_tf.algorithms.model_based.snail import SNAIL
from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import problem_of
from maml_tf.episodes.order import random_order
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError
from maml_tf.evaluation import evaluate
from maml_tf.networks.encoders import conv4
from maml_tf.networks.image_encoders.snail_resnet import snail_resnet
from maml_tf.networks.sequence_models.snail_network import SnailNetwork
from maml_tf.objectives.classification import MeanClassification
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import metatrain_op
from maml_tf.training.outer_optimizers import adam

WAY = 3
SMALL = {'filters': 3, 'attentions': ((4, 2), (5, 3), (6, 4))}


def make(length=6, dtype=None, seed=0, **kwargs):
    """A learner of 16x16 images with small weights, far from zero."""
    keras.utils.set_random_seed(seed)
    encoder = conv4((16, 16, 1), 4)
    return SNAIL(encoder, MeanClassification(), WAY, length, dtype=dtype, **SMALL | kwargs)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope='module')
def network():
    """In float64, with weights so large that no softmax is even."""
    network = SnailNetwork(5, WAY, 7, **SMALL, dtype='float64')
    rng = np.random.default_rng(0)
    for variable in network.weights:
        variable.assign(0.7 * rng.normal(size=variable.shape))
    return network


def test_sizes_are_the_paper_s():
    """Inputs of every block: 64 + 5 features, and what the blocks before it append."""
    blocks = SnailNetwork(69, 5, 6).blocks
    appended = [32, 128, 128, 128, 128, 128, 128, 128, 256]
    inputs = np.cumsum([69, *appended])
    assert len(blocks) == 9
    for block, size in zip(blocks, inputs):
        assert block.weights[0].shape[-2] == size
        assert block.compute_output_shape((1, 1, size))[-1] in inputs
    assert [(block.key_size, block.value_size) for block in blocks[::4]] == [
        *((64, 32), (256, 128), (512, 256))
    ]
    head = SnailNetwork(69, 5, 6).head
    assert tuple(head.kernel.shape) == (inputs[-1], 5)


def test_convolution_is_keras_s(network):
    """The gate is Conv1D's with causal padding."""
    block = network.blocks[3]
    assert block.dilation == 4
    x = np.random.default_rng(2).normal(size=(2, 7, block.kernel.shape[1]))
    layer = keras.layers.Conv1D(
        2 * block.filters, 2, dilation_rate=4, padding='causal', dtype='float64'
    )
    layer.build(x.shape)
    layer.set_weights([np.array(block.kernel), np.array(block.bias)])
    f, g = np.split(np.array(layer(x)), 2, axis=-1)
    expected = np.concatenate([x, np.tanh(f) * sigmoid(g)], -1)
    np.testing.assert_allclose(block(x), expected, rtol=1e-10)


def test_a_first_position_has_no_past(network):
    nothing = network.read(tf.zeros([1, 3, 5], tf.float64), tf.zeros([1, 3], tf.float64))
    x = np.random.default_rng(6).normal(size=(1, 1, 5))
    np.testing.assert_allclose(network.step(x, nothing), network(x), rtol=1e-12)


def test_learner_reads_embeddings_and_labels_in_the_task_s_order():
    """From images to outputs, as a run of each whole sequence: in float64."""
    with float64():
        learner = make()
        task = with_keys(random_task(np.random.default_rng(7), np.float64))
        state = learner.adapt(task.support_x, task.support_y, key=task.key)
        outputs = learner.predict_query(state, task.query_x).numpy()
        order = random_order(task.support_y, task.key).numpy()
        assert (order[0] != order[1]).any()
        for i in range(2):
            support, queries = (learner.embed(x)[i].numpy() for x in (task.support_x, task.query_x))
            positions = np.hstack([support, task.support_y[i]])[order[i]]
            for q, query in enumerate(queries):
                sequence = np.vstack([positions, [*query, *np.zeros(WAY)]])
                expected = learner.network(sequence[None])[0, -1]
                np.testing.assert_allclose(outputs[i, q], expected, rtol=1e-9)
        assert all(value.dtype == tf.float64 for value in state.values())


def test_filling_changes_nothing():
    """Support examples without a label, wherever they stand, as if they were not there."""
    with float64():
        learner, task = make(), random_task(np.random.default_rng(8), np.float64)
        alone = learner.summarise(learner.embed(task.support_x), task.support_y)
        places, labels = [0, 0, 1, 2, 0, 3, 4], one_hot([0, -1, 2, 1, -1, 1, 2])
        order = np.argsort(labels.max(-1) == 0, kind='stable')
        images = tf.gather(task.support_x, np.array(places)[order], axis=1)
        labels = np.tile(labels[order], (2, 1, 1)).astype(np.float64)
        filled = learner.summarise(learner.embed(images), tf.constant(labels))
        query = learner.embed(task.query_x)
        np.testing.assert_allclose(
            learner.compare(filled, query), learner.compare(alone, query), rtol=1e-10
        )


@pytest.mark.parametrize('tasks', [1, 2])
def test_gradient_agrees_with_finite_differences(tasks):
    """Of every weight, through the support's state and the queries' steps; tasks unrolled."""
    with float64():
        task = with_keys(random_task(np.random.default_rng(9), np.float64, tasks))
        check_gradient(make(), task, probes=1)


def test_unrolled_tasks_equal_a_loop():
    """Loss, gradients, what dropout draws and what batch norm leaves behind."""
    keras.utils.set_random_seed(0)
    encoder = snail_resnet((16, 16, 1), (4, 4, 4, 4), 0.3, hidden=8, features=5)
    learner = SNAIL(encoder, MeanClassification(), WAY, 6, **SMALL)
    task = with_keys(random_task(np.random.default_rng(10)))
    updates = []
    for learner.unroll_tasks in (True, False):
        updates.append(tf.nest.flatten(learner.meta_gradients(task, STEP)))
    for unrolled, loop in zip(*updates, strict=True):
        np.testing.assert_allclose(unrolled, loop, rtol=1e-4, atol=1e-6)


def test_share_is_bounded_by_the_encoder_s_activations():
    learner = make(length=101)
    at_once = lambda way, shot, query: learner.share(32, EpisodeSpec(way, shot, query))
    assert at_once(5, 1, 1) == 32
    assert 1 <= at_once(20, 200, 20) < 32 and 32 % at_once(20, 200, 20) == 0
    assert at_once(1000, 100, 100) == 1


def learner_of(*arguments):
    flags = parsed('--algorithm=snail', '--datasource=omniglot', *arguments)
    return SNAIL.from_flags(flags, problem_of(flags))


def test_length_is_of_the_longer_of_training_and_evaluation():
    levels = lambda learner: sum(block.name.startswith('tc1') for block in learner.network.blocks)
    one, five = '--update_batch_size=1', '--update_batch_size=5'
    assert levels(learner_of('--num_classes=5', one)) == 3
    assert levels(learner_of('--num_classes=5', one, '--train_update_batch_size=5')) == 5
    assert levels(learner_of('--num_classes=5', five, '--train_update_batch_size=1')) == 5


def test_bad_input():
    with pytest.raises(ArgumentError, match='length'):
        make(length=1)
    task = random_task(np.random.default_rng(11))
    with pytest.raises(ArgumentError, match='support_y.*3 classes'):
        make().adapt(task.support_x, tf.pad(task.support_y, [[0, 0], [0, 0], [0, 1]]))


@pytest.mark.slow
def test_learns_more_shots_than_it_was_trained_on():
    """An easy problem in some seconds; then the same learner with another shot."""
    keras.utils.set_random_seed(1)
    learner, spec = SNAIL.tiny()
    source = source_for(learner, dataclasses.replace(spec, shot=spec.shot + 2))
    run = iterate(metatrain_op(learner, adam(3e-3)), source.tasks('train', spec, 0), 4)
    run(0, 250)
    for shot in (spec.shot, spec.shot + 1):
        test = source.tasks('test', dataclasses.replace(spec, shot=shot), 1)
        assert evaluate.evaluator(learner, test, chunk=20)(60).mean() > 0.6
