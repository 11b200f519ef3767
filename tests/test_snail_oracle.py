"""SNAIL's blocks and its whole network against the equations in plain NumPy, in float64."""

import numpy as np
import pytest
import snail_oracle as oracle
import tensorflow as tf
from precision import float64

from maml_tf.algorithms.model_based.snail import SNAIL
from maml_tf.networks.encoders import conv4
from maml_tf.networks.sequence_models import causal_blocks
from maml_tf.networks.sequence_models.snail_network import SnailNetwork
from maml_tf.objectives.classification import MeanClassification

INPUTS, WAY, LENGTH, FILTERS = 5, 3, 7, 3
SMALL = {'filters': FILTERS, 'attentions': ((4, 2), (5, 3), (6, 4))}
SEQUENCES = np.random.default_rng(1).normal(size=(2, LENGTH, INPUTS))


def randomise(layer, seed=0):
    """Makes weights so large that no softmax is even."""
    rng = np.random.default_rng(seed)
    for variable in layer.weights:
        variable.assign(0.7 * rng.normal(size=variable.shape))
    return layer


@pytest.fixture(scope='module')
def network():
    return randomise(SnailNetwork(INPUTS, WAY, LENGTH, **SMALL, dtype='float64'))


def of_dense_block(block):
    """The filter's weights come first in the kernel, then the gate's."""
    (filter_kernel, gate_kernel), (filter_bias, gate_bias) = (
        np.split(np.array(weight), 2, axis=-1) for weight in (block.kernel, block.bias)
    )
    return {
        'filter_kernel': filter_kernel,
        'filter_bias': filter_bias,
        'gate_kernel': gate_kernel,
        'gate_bias': gate_bias,
    }


def of_attention(block):
    weights = {}
    for name, layer in (('query', block.query), ('key', block.keys), ('value', block.values)):
        weights[f'{name}_kernel'], weights[f'{name}_bias'] = map(np.array, layer.weights)
    return weights


def run(network, sequence):
    """The oracle's whole network on one sequence, with the weights of ours."""
    blocks = []
    for block in network.blocks:
        if isinstance(block, causal_blocks.CausalAttention):
            blocks.append(('attention', of_attention(block)))
            continue
        if blocks[-1][0] == 'attention':
            blocks.append(('tc', []))
        blocks[-1][1].append(of_dense_block(block))
    assert [kind for kind, _ in blocks] == ['attention', 'tc', 'attention', 'tc', 'attention']
    return oracle.temporal_net(sequence, blocks, *map(np.array, network.head.weights))


def assert_close(ours, expected):
    np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('dilation', [1, 2, 4, 9])
def test_a_dense_block_is_two_causal_convolutions(dilation):
    """Also where it looks back further than the sequence is long."""
    block = causal_blocks.DenseBlock(FILTERS, dilation, 'dense', dtype='float64')
    block.build((None, None, INPUTS))
    weights = of_dense_block(randomise(block))
    for sequence, output in zip(SEQUENCES, block(SEQUENCES)):
        assert_close(output, oracle.dense_block(sequence, weights, dilation)['output'])


@pytest.mark.parametrize('length', [2, 4, 5, 7, 9])
def test_a_tc_block(length):
    blocks = causal_blocks.tc_block(length, FILTERS, 'tc', dtype='float64')
    assert [block.dilation for block in blocks] == oracle.dilations(length)
    x = tf.constant(SEQUENCES)
    for number, block in enumerate(blocks):
        block.build(x.shape)
        x = randomise(block, number)(x)
    weights = [of_dense_block(block) for block in blocks]
    for sequence, output in zip(SEQUENCES, x):
        assert_close(output, oracle.tc_block(sequence, weights, length)['output'])


def test_dilations_of_every_length():
    for length in (*range(2, 18), 101, 128, 129):
        dilations = [block.dilation for block in causal_blocks.tc_block(length, 1, 'tc')]
        assert dilations == oracle.dilations(length) and sum(dilations) >= length - 1


def test_an_attention_block():
    block = causal_blocks.CausalAttention(4, 2, 'attention', dtype='float64')
    block.build((None, None, INPUTS))
    weights = of_attention(randomise(block))
    for sequence, output in zip(SEQUENCES, block(SEQUENCES)):
        expected = oracle.attention_block(sequence, weights)
        assert_close(output, expected['output'])
        parts = (tf.constant(expected[name][np.newaxis]) for name in ('queries', 'keys', 'values'))
        assert_close(causal_blocks.causal_attention(*parts)[0], expected['read'])


def test_the_whole_network(network):
    for sequence, outputs in zip(SEQUENCES, network(SEQUENCES)):
        assert_close(outputs, run(network, sequence)['logits'])


@pytest.mark.parametrize('place', range(LENGTH))
def test_a_change_alters_nothing_before_it_and_something_wherever_it_is_seen(network, place):
    for layer in (network, *network.blocks):
        x = np.random.default_rng(2).normal(size=(1, LENGTH, layer.weights[0].shape[-2]))
        other = x.copy()
        other[:, place] += 0.1
        changed = np.any(layer(other)[0] != layer(x)[0], axis=-1)
        dense = isinstance(layer, causal_blocks.DenseBlock)
        expected = [place, place + layer.dilation] if dense else range(place, LENGTH)
        assert [*np.flatnonzero(changed)] == [t for t in expected if t < LENGTH]


def test_steps_equal_whole_sequences(network):
    """Each of four positions after sequences of five, of which the second ends with filling."""
    rng = np.random.default_rng(5)
    x, queries = rng.normal(size=(2, 5, INPUTS)), rng.normal(size=(2, 4, INPUTS))
    lengths, there = (5, 3), np.ones((2, 5))
    there[1, 3:] = 0
    outputs = network.step(queries, network.read(tf.constant(x), tf.constant(there))).numpy()
    for i, length in enumerate(lengths):
        for q in range(4):
            sequence = np.concatenate([x[i, :length], queries[i, q : q + 1]])
            assert_close(outputs[i, q], network(sequence[np.newaxis])[0, -1])
            assert_close(outputs[i, q], run(network, sequence)['last'])


def test_queries_after_embedded_support_sets():
    """Logits and loss of a learner, from embeddings and labels."""
    with float64():
        learner = SNAIL(conv4((16, 16, 1), 4), MeanClassification(), WAY, 6, **SMALL)
    randomise(learner.network)
    rng, labels, query_labels = np.random.default_rng(7), [2, 0, 1, 1, 0], [1, 2, 2]
    features = learner.encoder.output_shape[-1]
    support, queries = rng.normal(size=(2, 5, features)), rng.normal(size=(2, 3, features))
    one_hot = lambda classes: tf.constant([np.eye(WAY)[classes]] * 2)
    state = learner.summarise(tf.constant(support), one_hot(labels))
    logits = learner.compare(state, tf.constant(queries)).numpy()
    losses = learner.objective.loss(one_hot(query_labels), logits, 1)
    for i in range(2):
        of_queries = []
        for query, label, ours in zip(queries[i], query_labels, logits[i]):
            sequence = oracle.sequence([*support[i], query], labels, WAY)
            expected = run(learner.network, sequence)
            assert_close(ours, expected['last'])
            of_queries.append(oracle.last_step_loss(expected['logits'], label))
        assert_close(losses[i], np.mean(of_queries))
