"""The decoder of in-context learning and its prompts against the equations in plain NumPy, in
float64."""

import decoder_oracle as oracle
import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.model_based.in_context import InContext
from maml_tf.episodes.task import Task
from maml_tf.networks.sequence_models.decoder import Decoder
from maml_tf.networks.sequence_models.prompt import Prompt
from maml_tf.objectives.regression import Regression

# The root of a head's size is exact: Keras rounds its inverse to float32.
LAYERS, HEADS, WIDTH, DIMENSION, PAIRS, TASKS = 3, 2, 8, 3, 5, 2
TOKENS = 2 * PAIRS
STEP = tf.constant(0, tf.int64)
RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(TASKS, TOKENS, WIDTH))


@pytest.fixture(scope='module')
def prompt():
    """With positions for more tokens than there are, and weights that make no attention even."""
    prompt = Prompt(
        Decoder(LAYERS, HEADS, WIDTH, TOKENS + 3, dtype='float64'), DIMENSION, 1, dtype='float64'
    )
    for variable in prompt.variables:
        noise = RNG.normal(size=variable.shape) / np.sqrt(variable.shape[0])
        variable.assign(noise + variable.path.endswith('gamma'))
    return prompt


def arrays(layer):
    return tuple(map(np.array, layer.weights))


def of_block(block):
    """Keras' heads are axes of their own, the oracle's stand beside one another."""
    attention, weights = block.attention, {}
    for name in ('query', 'key', 'value', 'output'):
        kernel, bias = arrays(getattr(attention, f'{name}_dense'))
        weights[f'{name}_kernel'] = kernel.reshape(WIDTH, WIDTH)
        weights[f'{name}_bias'] = bias.reshape(WIDTH)
    return {
        'norm_1': (np.array(block.attention_norm.gamma), np.array(block.attention_norm.beta)),
        'norm_2': (np.array(block.dense_norm.gamma), np.array(block.dense_norm.beta)),
        'attention': weights,
        'mlp': (*arrays(block.inner), *arrays(block.outer)),
    }


def weights_of(prompt):
    decoder = prompt.decoder
    return {
        'read_in': arrays(prompt.read_in),
        'positions': np.array(decoder.positions),
        'blocks': [of_block(block) for block in decoder.blocks],
        'norm': (np.array(decoder.norm.gamma), np.array(decoder.norm.beta)),
        'read_out': arrays(prompt.read_out),
    }


def assert_close(ours, expected):
    """TensorFlow rounds a constant of GELU to float32."""
    np.testing.assert_allclose(ours, expected, rtol=1e-7, atol=1e-8)


def test_causal_attention(prompt):
    """Weights and outputs, and no weight at all on what comes later."""
    block = prompt.decoder.blocks[0]
    output, weights = block.attention(
        HIDDEN, HIDDEN, use_causal_mask=True, return_attention_scores=True
    )
    for i in range(TASKS):
        expected = oracle.causal_attention(HIDDEN[i], of_block(block)['attention'], HEADS)
        assert_close(weights[i], expected['weights'])
        assert_close(output[i], expected['output'])
    np.testing.assert_array_equal(weights, np.tril(weights))


def test_blocks(prompt):
    for block in prompt.decoder.blocks:
        output, keys, values = block.read(tf.constant(HIDDEN))
        for i in range(TASKS):
            expected = oracle.decoder_block(HIDDEN[i], of_block(block), HEADS)
            assert_close(output[i], expected['output'])
            assert_close(np.reshape(keys[i], (TOKENS, WIDTH)), expected['attention']['keys'])
            assert_close(np.reshape(values[i], (TOKENS, WIDTH)), expected['attention']['values'])


def test_a_token_changes_what_comes_after_it_alone(prompt):
    before = prompt.decoder.read(tf.constant(HIDDEN))[0].numpy()
    for place in range(TOKENS):
        other = HIDDEN.copy()
        other[:, place] += RNG.normal(size=WIDTH)
        after = prompt.decoder.read(tf.constant(other))[0].numpy()
        np.testing.assert_array_equal(after[:, :place], before[:, :place])
        assert np.abs(after - before)[:, place:].max(-1).min() > 1e-6


def test_from_prompts_to_predictions_and_loss(prompt):
    """Hidden states, positions among them, keys and values of all blocks, predictions."""
    x, y = RNG.normal(size=(TASKS, PAIRS, DIMENSION)), RNG.normal(size=(TASKS, PAIRS, 1))
    weights, losses = weights_of(prompt), []
    predictions, memory = prompt.predict_all(x, y), prompt.read(x, y)
    for i in range(TASKS):
        expected = oracle.in_context(x[i], y[i, :, 0], weights, HEADS)
        assert_close(predictions[i, :, 0], expected['predictions'])
        tokens = prompt.read_in(expected['tokens'][np.newaxis])
        assert_close(prompt.decoder.read(tokens)[0][0], expected['normed'])
        for layer, block in enumerate(expected['blocks']):
            for name in ('keys', 'values'):
                ours = np.reshape(memory[name][i, layer], (TOKENS, WIDTH))
                assert_close(ours, block['attention'][name])
        losses.append(expected['loss'])
    learner = InContext(prompt, Regression(), dtype='float64')
    task = Task(*(tf.constant(part) for part in (x[:, :3], y[:, :3], x[:, 3:], y[:, 3:])))
    assert_close(learner.meta_loss(task, STEP).value, np.mean(losses))


def test_queries_after_any_number_of_pairs(prompt):
    """From the keys and values that the pairs left behind, as whole prompts that end with them."""
    x, y = RNG.normal(size=(TASKS, PAIRS, DIMENSION)), RNG.normal(size=(TASKS, PAIRS, 1))
    queries, weights = RNG.normal(size=(TASKS, 2, DIMENSION)), weights_of(prompt)
    found = prompt.predict(prompt.read(x, y), tf.constant(queries), tf.range(PAIRS + 1))
    for i in range(TASKS):
        for length in range(PAIRS + 1):
            for q, query in enumerate(queries[i]):
                whole = np.vstack([x[i, :length], query]), [*y[i, :length, 0], np.nan]
                expected = oracle.in_context(*whole, weights, HEADS)['predictions'][-1]
                assert_close(found[i, length, q, 0], expected)
