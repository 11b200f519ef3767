"""The network of graphs: against loops over atoms and bonds, symmetries, finite differences."""

import keras
import numpy as np
import optimisation_oracle
import pytest
import tensorflow as tf

from maml_tf.algorithms.metric.prototypical import Prototypical
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError
from maml_tf.networks.graphs.encoders import dense_encoder, encoder_of_network, graph_encoder
from maml_tf.networks.graphs.graph_network import BOND_TYPES, GraphNetwork
from maml_tf.objectives.roc_auc import RocAuc

ATOMS, FEATURES = 5, 3
SHAPE = (ATOMS, FEATURES + ATOMS)
STEP = tf.constant(0, tf.int64)


def graphs(rng, *shape, dtype=np.float64):
    """Random graphs of 2 to ATOMS atoms, [*shape, ATOMS, FEATURES + ATOMS]."""
    x = np.zeros([*shape, *SHAPE], dtype)
    for place in np.ndindex(*shape):
        atoms = rng.integers(2, ATOMS + 1)
        x[place][:atoms, 0] = 1
        x[place][:atoms, 1:FEATURES] = rng.normal(size=(atoms, FEATURES - 1))
        bonds = np.triu(rng.integers(0, BOND_TYPES + 1, (atoms, atoms)), 1)
        x[place][:atoms, FEATURES : FEATURES + atoms] = bonds + bonds.T
    return x


def network(**arguments):
    return GraphNetwork(SHAPE, 2, **{'hidden': (4, 3), 'dense': 4} | arguments)


def weights_of(net, rng, tasks=None):
    """Random weights, stacked over tasks or shared."""
    front = () if tasks is None else (tasks,)
    return {
        name: rng.normal(size=(*front, *value.shape)) / 2
        for name, value in net.construct_weights(0).items()
    }


def as_tensors(weights):
    return {name: tf.constant(value) for name, value in weights.items()}


def in_loops(net, x, weights):
    """One graph, atom by atom and bond by bond."""
    features = x[:, : x.shape[1] - len(x)]
    kinds = x[:, x.shape[1] - len(x) :]

    def finish(y, block):
        if net.norm == 'layer_norm':
            y = (y - y.mean()) / np.sqrt(y.var() + 1e-12)
            y = y * weights[f'norm{block}_gamma'] + weights[f'norm{block}_beta']
        return np.maximum(y, 0)

    h, there = features, features[:, 0] > 0
    for block in range(len(net.hidden)):
        w, b = weights[f'w{block + 1}'], weights[f'b{block + 1}']
        of_type = np.split(weights[f'e{block + 1}'], BOND_TYPES)
        rows = []
        for v in range(len(x)):
            y = h[v] @ w + b
            for u in range(len(x)):
                if kinds[v, u]:
                    y = y + h[u] @ of_type[int(kinds[v, u]) - 1]
            rows.append(finish(y, block))
        h = np.array(rows)
    y = h[there].sum(0)
    if net.readout == 'mean':
        y = y / there.sum()
    last = len(net.hidden) + 1
    y = finish(y @ weights[f'w{last}'] + weights[f'b{last}'], len(net.hidden))
    return y @ weights[f'w{last + 1}'] + weights[f'b{last + 1}']


@pytest.mark.parametrize('norm', ['None', 'layer_norm'])
@pytest.mark.parametrize('readout', ['mean', 'sum'])
def test_against_loops(norm, readout):
    rng = np.random.default_rng(0)
    net, x = network(norm=norm, readout=readout), graphs(rng, 2, 3)
    weights = weights_of(net, rng, tasks=2)
    outputs = net.forward(tf.constant(x), as_tensors(weights))
    for task, n in np.ndindex(2, 3):
        own = {name: w[task] for name, w in weights.items()}
        np.testing.assert_allclose(outputs[task, n], in_loops(net, x[task, n], own), rtol=1e-9)
    shared = weights_of(net, rng)
    outputs = net.forward(tf.constant(x), as_tensors(shared))
    np.testing.assert_allclose(outputs[1, 2], in_loops(net, x[1, 2], shared), rtol=1e-9)


def test_neither_the_order_of_atoms_nor_the_filling_matters():
    rng = np.random.default_rng(1)
    net, x = network(norm='layer_norm'), graphs(rng, 1, 4)
    weights = as_tensors(weights_of(net, rng))
    outputs = net.forward(tf.constant(x), weights)
    order = rng.permutation(ATOMS)
    shuffled = x[:, :, order]
    bonds = shuffled[..., FEATURES:][..., order]
    shuffled = np.concatenate([shuffled[..., :FEATURES], bonds], -1)
    np.testing.assert_allclose(net.forward(tf.constant(shuffled), weights), outputs, rtol=1e-9)
    wider = np.zeros([1, 4, ATOMS + 2, FEATURES + ATOMS + 2])
    wider[:, :, :ATOMS, : FEATURES + ATOMS] = x
    large = GraphNetwork(wider.shape[2:], 2, (4, 3), 4, norm='layer_norm')
    np.testing.assert_allclose(large.forward(tf.constant(wider), weights), outputs, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize('norm', ['None', 'layer_norm'])
def test_meta_gradient_by_finite_differences(float64_task, norm):
    net = network(norm=norm)
    learner = MAML(net, RocAuc(), inner_lr=0.3, inner_steps=2, dtype='float64')
    rng = np.random.default_rng(2)
    for name, variable in learner.meta_weights.items():
        # Away from the kinks: of a ReLU there is no difference quotient.
        variable.assign(rng.normal(size=variable.shape) / 2 + 0.5 * name.startswith('b'))
    names = sorted(learner.meta_weights)
    start = {name: np.array(learner.meta_weights[name]) for name in names}

    meta_loss = tf.function(lambda: learner.meta_loss(float64_task, STEP).value, autograph=False)

    def loss(values):
        for name, value in values.items():
            learner.meta_weights[name].assign(value)
        return float(meta_loss())

    expected = optimisation_oracle.finite_differences(loss, start)
    loss(start)
    update = learner.meta_gradients(float64_task, STEP)
    ours = dict(zip([v.name for v in learner.trainable_variables], update.gradients, strict=True))
    largest = max(np.abs(values).max() for values in expected.values())
    for name in names:
        np.testing.assert_allclose(ours[name], expected[name], rtol=1e-5, atol=1e-6 * largest)
    compiled = tf.function(learner.meta_gradients, jit_compile=True, autograph=False)
    for one, other in zip(compiled(float64_task, STEP).gradients, update.gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9 * largest)


@pytest.fixture
def float64_task():
    rng = np.random.default_rng(3)
    y = np.tile(np.repeat(np.eye(2), 2, 0), (2, 1, 1))
    return Task(*(tf.constant(v) for v in (graphs(rng, 2, 4), y, graphs(rng, 2, 4), y)))


def test_a_joined_vector_and_the_head():
    net = network(joined=2)
    weights = net.construct_weights(0)
    assert weights['w3'].shape == (3 + 2, 4) and weights['context'].shape == (2,)
    assert [name for name in weights if net.is_head(name)] == ['w4', 'b4']
    x = tf.constant(graphs(np.random.default_rng(0), 1, 2, dtype=np.float32))
    assert net.forward(x, as_tensors(weights)).shape == (1, 2, 2)


@pytest.mark.parametrize(
    'arguments, words',
    [
        ({'norm': 'batch_norm'}, 'norm=batch_norm: .*layer_norm or None'),
        ({'readout': 'max'}, "readout='max': one of mean, sum"),
        ({'input_shape': (8, 8)}, r'input_shape=\(8, 8\): \(atoms, features \+ atoms\)'),
    ],
)
def test_refused(arguments, words):
    with pytest.raises(ArgumentError, match=words):
        GraphNetwork(**{'input_shape': SHAPE, 'output_dim': 2} | arguments)


@pytest.mark.parametrize('kind', ['graph', 'dense'])
def test_encoders_of_metric_learners(tmp_path, kind):
    rng = np.random.default_rng(0)
    x = graphs(rng, 2, 4, dtype=np.float32) if kind == 'graph' else rng.random((2, 4, 6), 'f')
    make = {'graph': graph_encoder, 'dense': dense_encoder}[kind]
    shape = x.shape[2:]
    encoder = make(shape, seed=3)
    assert encoder.output_shape == (None, 128)
    np.testing.assert_array_equal(make(shape, seed=3)(x[0]), encoder(x[0]))
    assert np.abs(make(shape, seed=4)(x[0]) - encoder(x[0])).max() > 1e-3
    y = np.tile(np.repeat(np.eye(2, dtype=np.float32), 2, 0), (2, 1, 1))
    task = Task(*(tf.constant(v) for v in (x, y, x[:, ::-1].copy(), y)))
    learner = Prototypical(encoder, RocAuc())
    gradients = learner.meta_gradients(task, STEP).gradients
    assert len(gradients) == len(learner.trainable_variables)
    assert all(np.isfinite(g).all() for g in gradients) and np.abs(gradients[0]).max() > 0
    learner.save(tmp_path / 'learner.keras')
    loaded = keras.models.load_model(tmp_path / 'learner.keras')
    np.testing.assert_array_equal(loaded.query_outputs(task), learner.query_outputs(task))


def test_an_encoder_is_its_network():
    rng = np.random.default_rng(0)
    net, x = network(norm='layer_norm'), graphs(rng, 3, dtype=np.float32)
    expected = net.forward(tf.constant(x[None]), as_tensors(net.construct_weights(5)))[0]
    np.testing.assert_allclose(encoder_of_network(net, 5)(x), expected, rtol=1e-6)
