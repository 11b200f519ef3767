"""Cells: their files, their symmetry, and the networks and encoders that are made of them."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_flagfiles import checked
from test_layers import assert_same_derivatives, derivatives

from maml_tf import algorithms
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import problem_of
from maml_tf.episodes.task import Task
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.cells.cell import OPERATIONS, Cell, from_json, read_cell
from maml_tf.networks.cells.cell_encoder import cell_encoder
from maml_tf.networks.cells.cell_net import CONVOLUTIONS, CellNet
from maml_tf.networks.reference import NORMS
from maml_tf.objectives.classification import Classification
from maml_tf.ops import layers
from maml_tf.ops.windows.depthwise import depthwise
from maml_tf.ops.windows.pooling import average_pool3x3, max_pool3x3
from maml_tf.saving.exports.export import export
from maml_tf.saving.run_name import experiment_string

RNG = np.random.default_rng(0)
SIDES = [(5, 6), (4, 3), (2, 1)]
of_sides = pytest.mark.parametrize('sides', SIDES, ids=str)
CELL = Cell(
    (
        (0, 'conv3x3', 1, 'max3x3'),
        (2, 'separable3x3', 1, 'identity'),
        (0, 'average3x3', 2, 'conv1x1'),
    )
)
STEP = tf.constant(0, tf.int64)


def of_operation(operation):
    """A cell of two blocks that use one operation throughout."""
    return Cell(((0, operation, 1, 'identity'), (2, operation, 0, operation)))


# The operations.


@of_sides
@pytest.mark.parametrize('size', [1, 3, 5])
def test_convolutions_of_any_size_and_both_derivatives(size, sides):
    assert_same_derivatives(
        layers.conv,
        lambda x, k: tf.stack([tf.nn.conv2d(x[t], k[t], 1, 'SAME') for t in range(2)]),
        RNG.normal(size=(2, 3, *sides, 6)),
        RNG.normal(size=(2, size, size, 6, 4)),
    )


@of_sides
@pytest.mark.parametrize('size', [3, 5])
def test_depthwise_convolution_and_both_derivatives(size, sides):
    def reference(x, k):
        """The formula, to be differentiated by a tape."""
        reach = size // 2
        around = tf.pad(x, [[0, 0], [0, 0], [reach, reach], [reach, reach], [0, 0]])
        return tf.add_n(
            [
                around[:, :, i : i + sides[0], j : j + sides[1]] * k[:, None, None, None, i, j]
                for i in range(size)
                for j in range(size)
            ]
        )

    x, kernel = RNG.normal(size=(2, 3, *sides, 4)), RNG.normal(size=(2, size, size, 4))
    theirs = [
        tf.nn.depthwise_conv2d(x[t], kernel[t][..., None], [1, 1, 1, 1], 'SAME') for t in range(2)
    ]
    np.testing.assert_allclose(depthwise(tf.constant(x), tf.constant(kernel)), theirs, atol=1e-12)
    assert_same_derivatives(depthwise, reference, x, kernel)


def test_a_shared_kernel_is_every_task_s():
    x, kernel = tf.constant(RNG.normal(size=(2, 3, 4, 5, 4))), RNG.normal(size=(3, 3, 4))
    stacked = tf.constant(np.stack([kernel, kernel]))
    shared = depthwise(x, tf.constant(kernel))
    np.testing.assert_allclose(shared, depthwise(x, stacked), atol=1e-12)


def brute_force(x, pool):
    """Pools 3x3 neighbours pixel by pixel."""
    out, (height, width) = np.zeros_like(x), x.shape[2:4]
    for i, j in itertools.product(range(height), range(width)):
        around = x[:, :, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
        out[:, :, i, j] = pool(around, axis=(2, 3))
    return out


@of_sides
@pytest.mark.parametrize('ours, pool', [(max_pool3x3, np.max), (average_pool3x3, np.mean)])
def test_pooling_and_both_derivatives(ours, pool, sides):
    x = RNG.normal(size=(2, 3, *sides, 4))
    np.testing.assert_allclose(ours(tf.constant(x)), brute_force(x, pool), atol=1e-12)
    theirs = tf.nn.max_pool2d if pool is np.max else tf.nn.avg_pool2d
    assert_same_derivatives(
        lambda x, scale: ours(x * scale) * scale,
        lambda x, scale: tf.stack([theirs(a * scale, 3, 1, 'SAME') for a in x]) * scale,
        x,
        RNG.normal(size=4) + 2,
    )


def test_the_first_of_equal_maxima_takes_the_gradient():
    x = tf.zeros([1, 1, 2, 2, 1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = max_pool3x3(x)
    np.testing.assert_array_equal(tape.gradient(y, x)[0, 0, ..., 0], [[4, 0], [0, 0]])


@pytest.mark.parametrize('pool', [max_pool3x3, average_pool3x3])
def test_derivatives_of_compiled_pooling(pool):
    x, scale = tf.constant(RNG.normal(size=(2, 3, 5, 4, 3))), tf.constant(RNG.normal(size=3))
    of_both = lambda x, scale: derivatives(lambda x, s: pool(x * s) * s, x, scale)
    for ours, theirs in zip(tf.function(of_both, jit_compile=True)(x, scale), of_both(x, scale)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


# The network.


def moved(network, tasks=2):
    """Weights [tasks, ...] away from where they start, in float64."""
    rng = np.random.default_rng(1)
    return {
        name: tf.constant(value + 0.2 * rng.normal(size=(tasks, *value.shape)))
        for name, value in network.construct_weights(0).items()
    }


def forward_by_hand(x, weights, cell, cells):
    """The network of one task by TensorFlow's ordinary layers, from its docstring."""

    def norm(x, name):
        centred = x - tf.reduce_mean(x, (0, 1, 2))
        variance = tf.reduce_mean(centred**2, (0, 1, 2))
        return centred / tf.sqrt(variance + 1e-3) + weights[f'norm_{name}_beta']

    def convolved(x, name, stride=1):
        return norm(tf.nn.conv2d(x, weights[name], stride, 'SAME'), name)

    def operated(x, operation, name):
        if operation == 'identity':
            return x
        if operation in ('max3x3', 'average3x3'):
            pool = {'max3x3': tf.nn.max_pool2d, 'average3x3': tf.nn.avg_pool2d}[operation]
            return pool(x, 3, 1, 'SAME')
        x = tf.nn.relu(x)
        if operation.startswith('separable'):
            kernel = weights[f'{name}_depthwise'][..., None]
            x = tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], 'SAME')
        return convolved(x, name)

    before = previous = convolved(x, 'stem', 2)
    for number in range(cells):
        images = [before, previous]
        if number:
            images = [tf.nn.max_pool2d(image, 2, 2, 'SAME') for image in images]
        before = images[1]
        for place, (a, of_a, b, of_b) in enumerate(cell.blocks):
            name = f'cell{number}_block{place}'
            images.append(
                operated(images[a], of_a, f'{name}a') + operated(images[b], of_b, f'{name}b')
            )
        ends = tf.concat([images[end] for end in cell.ends], -1)
        previous = convolved(tf.nn.relu(ends), f'cell{number}_join')
    flat = tf.reshape(tf.nn.relu(previous), [x.shape[0], -1])
    return flat @ weights['head'] + weights['head_bias']


@pytest.mark.parametrize('operation', [*OPERATIONS, 'several'])
def test_forward_against_ordinary_layers(operation):
    cell = CELL if operation == 'several' else of_operation(operation)
    network = CellNet((7, 5, 2), 3, cell, filters=4, cells=2)
    weights, x = moved(network), tf.constant(RNG.normal(size=(2, 6, 7, 5, 2)))
    ours = network.forward(x, weights)
    assert ours.shape == (2, 6, 3)
    for task in range(2):
        of_task = {name: weight[task] for name, weight in weights.items()}
        theirs = forward_by_hand(x[task], of_task, cell, 2)
        np.testing.assert_allclose(ours[task], theirs, atol=1e-9)
        # Weights without a task axis are shared.
        shared = network.forward(x[task : task + 1], of_task)
        np.testing.assert_allclose(shared[0], theirs, atol=1e-9)


def test_parameters_are_counted_from_the_shapes():
    cell = Cell(((0, 'conv5x5', 1, 'separable3x3'), (2, 'max3x3', 2, 'identity')))
    network = CellNet((28, 28, 1), 5, cell, filters=8, cells=2)
    counts = {name: w.size for name, w in network.construct_weights(0).items()}
    of_a_cell = (25 * 64 + 8) + (9 * 8 + 64 + 8) + (64 + 8)
    assert sum(counts.values()) == (9 * 8 + 8) + 2 * of_a_cell + 7 * 7 * 8 * 5 + 5
    assert [name for name in counts if network.is_head(name)] == ['head', 'head_bias']
    assert all(network.adapted(name) != name.startswith('norm_') for name in counts)


@pytest.mark.slow
@pytest.mark.parametrize(
    'operation, norm',
    [
        *((operation, 'batch_norm') for operation in OPERATIONS),
        *(('separable3x3', norm) for norm in NORMS if norm != 'batch_norm'),
    ],
)
def test_meta_gradient_through_a_cell_agrees_with_finite_differences(operation, norm):
    """Second-order MAML in float64: the outer gradient through an inner step."""
    network = CellNet((6, 5, 1), 2, of_operation(operation), filters=3, cells=1, norm=norm)
    learner = MAML(network, Classification(), inner_lr=0.1, inner_steps=1, dtype='float64')
    rng = np.random.default_rng(2)
    for variable in learner.meta_weights.values():
        variable.assign(variable + 0.2 * rng.normal(size=variable.shape))
    labels = np.tile(np.repeat(np.eye(2), 2, axis=0), (2, 1, 1))
    images = lambda: rng.normal(size=(2, 4, 6, 5, 1))
    task = Task(*map(tf.constant, (images(), labels, images(), labels)))
    gradients = dict(
        zip(learner.meta_weights, tf.function(learner.meta_gradients)(task, STEP).gradients)
    )
    loss = tf.function(lambda: learner.meta_loss(task, STEP).value)
    slope, start = 0.0, {}
    direction = {name: rng.normal(size=v.shape) for name, v in learner.meta_weights.items()}
    for name, variable in learner.meta_weights.items():
        slope += float(tf.reduce_sum(gradients[name] * direction[name]))
        start[name] = variable.numpy()
    ends = []
    for sign in (1, -1):
        for name, variable in learner.meta_weights.items():
            variable.assign(start[name] + sign * 1e-6 * direction[name])
        ends.append(float(loss()))
    np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, slope, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize('start', ['reference', 'torch', 'he', 'glorot'])
def test_depthwise_kernels_start_by_their_own_fan(start):
    network = CellNet((8, 8, 1), 2, of_operation('separable5x5'), filters=64, start=start)
    largest = np.abs(network.construct_weights(0)['cell0_block0a_depthwise']).max()
    bound = {'torch': 1 / 25, 'he': 6 / 25}.get(start, 6 / 50) ** 0.5
    assert 0.95 * bound < largest <= bound


@pytest.mark.parametrize(
    'arguments, message',
    [
        ({'cells': 0}, 'cells=0: at least 1'),
        ({'filters': 0}, 'filters=0: at least 1'),
        ({'cells': 4}, 'cells=4: each halves the images, 8x9; take fewer, or larger images'),
    ],
)
def test_sizes_that_cannot_be(arguments, message):
    for make in (
        lambda **a: CellNet((8, 9, 1), 2, CELL, **a),
        lambda **a: cell_encoder((8, 9, 1), CELL, **a),
    ):
        with pytest.raises(ArgumentError) as error:
            make(**arguments)
        assert str(error.value) == message


# What is kept of a learner.


@pytest.mark.slow
def test_keras_file_and_export(tmp_path):
    learner = MAML(CellNet((8, 8, 1), 2, CELL, filters=4), Classification(), inner_lr=0.1)
    x = RNG.normal(size=(1, 4, 8, 8, 1)).astype('float32')
    y = np.repeat(np.eye(2, dtype='float32'), 2, axis=0)[None]
    inputs = {'support_x': x, 'support_y': y, 'query_x': x + 1}
    outputs = learner(inputs)
    learner.save(tmp_path / 'learner.keras')
    again = keras.models.load_model(tmp_path / 'learner.keras')
    assert again.network.cell == CELL and isinstance(again.network, CellNet)
    np.testing.assert_allclose(again(inputs), outputs, atol=1e-5)
    export(learner, tmp_path / 'exported', (8, 8, 1), 2, 1, {})
    served = tf.saved_model.load(str(tmp_path / 'exported')).signatures['serving_default']
    answer = served(**{name: tf.constant(value) for name, value in inputs.items()})
    np.testing.assert_allclose(answer['outputs'], outputs, atol=1e-5)


def test_encoder_is_the_network_before_its_last_layer():
    """With the weights of one task, and that task's statistics."""
    network = CellNet((7, 5, 2), 3, CELL, filters=4, cells=2)
    encoder = cell_encoder((7, 5, 2), CELL, filters=4, cells=2)
    weights = moved(network, tasks=1)
    for layer in encoder.layers:
        name = layer.name
        if name.endswith('_norm'):
            layer.beta.assign(weights[f'norm_{name[:-5]}_beta'][0])
            layer.epsilon = network.epsilon
        elif name in weights:
            value = weights[name][0]
            layer.kernel.assign(value[..., None] if name.endswith('_depthwise') else value)
    eye = tf.eye(encoder.output_shape[-1], batch_shape=[1], dtype=tf.float64)
    weights |= {'head': eye, 'head_bias': tf.zeros([1, eye.shape[-1]], tf.float64)}
    x = RNG.normal(size=(6, 7, 5, 2))
    theirs = encoder(tf.constant(x, tf.float32), training=True)
    ours = network.forward(tf.constant(x[None]), weights)[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


# What a cell is.


def test_symmetric_cells_are_one():
    swapped = Cell(((1, 'max3x3', 0, 'conv3x3'), *CELL.blocks[1:]))
    # The second and the third block, of which neither takes the other, change places.
    reordered = Cell((CELL.blocks[0], *CELL.blocks[:0:-1]))
    other = Cell(((0, 'conv5x5', 1, 'max3x3'), *CELL.blocks[1:]))
    assert swapped.canonical() == reordered.canonical() == CELL.canonical()
    assert swapped.fingerprint() == reordered.fingerprint() == CELL.fingerprint()
    assert other.canonical() != CELL.canonical() and other.fingerprint() != CELL.fingerprint()
    assert CELL.ends == [3, 4] and CELL.canonical().canonical() == CELL.canonical()


def test_canonical_forms_compute_the_same():
    """Random cells with their blocks renamed by hand, and their sides exchanged."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        blocks = []
        for number in range(4):
            a, b = (int(i) for i in rng.integers(2 + number, size=2))
            blocks.append((a, *rng.choice(OPERATIONS, 1), b, *rng.choice(OPERATIONS, 1)))
        blocks = [(a, str(of_a), b, str(of_b)) for a, of_a, b, of_b in blocks]
        order = next(
            order
            for order in itertools.permutations(rng.permutation(4))
            if all(
                order.index(block[place] - 2) < order.index(i)
                for i, block in enumerate(blocks)
                for place in (0, 2)
                if block[place] >= 2
            )
        )
        new = {0: 0, 1: 1} | {2 + int(old): 2 + i for i, old in enumerate(order)}
        renamed = tuple(
            (new[blocks[i][2]], blocks[i][3], new[blocks[i][0]], blocks[i][1]) for i in order
        )
        assert Cell(renamed).canonical() == Cell(tuple(blocks)).canonical()


def test_file(tmp_path):
    path = tmp_path / 'cell.json'
    path.write_text(json.dumps({**CELL.to_json(), 'note': 'by hand'}))
    assert read_cell(path) == CELL == from_json(CELL.to_json())
    assert str(CELL).startswith('0 conv3x3 + 1 max3x3 | 2 separable3x3')


ONE = {'inputs': [0, 1], 'operations': ['conv3x3', 'identity']}


@pytest.mark.parametrize(
    'text, message',
    [
        ('{', 'no JSON ('),
        ('[]', 'holds no list of "blocks"'),
        ('{"blocks": []}', 'has 0 blocks; 1 to 7'),
        (json.dumps({'blocks': [ONE] * 8}), 'has 8 blocks; 1 to 7'),
        ('{"blocks": [3]}', 'block 0 has not two "inputs" and two "operations"'),
        (
            json.dumps({'blocks': [ONE, ONE | {'inputs': [0]}]}),
            'block 1 has not two "inputs" and two "operations"',
        ),
        (
            json.dumps({'blocks': [ONE | {'inputs': [0, 2]}]}),
            'block 0 takes input 2; a number from 0 to 1, of which 2 is block 0',
        ),
        (
            json.dumps({'blocks': [ONE | {'inputs': [True, '1']}]}),
            'block 0 takes input True; a number from 0 to 1, of which 2 is block 0',
        ),
        (
            json.dumps({'blocks': [ONE | {'operations': ['conv7x7', []]}]}),
            f"block 0 has operation 'conv7x7'; one of {', '.join(OPERATIONS)}",
        ),
        (json.dumps({'blocks': [ONE | {'op': 1}]}), "block 0 has an entry 'op'"),
        (
            json.dumps({'blocks': [ONE], 'filters': 3}),
            'has an entry \'filters\'; "blocks" and maybe "note" alone',
        ),
        (None, 'cannot be read (No such file or directory)'),
    ],
)
def test_bad_file(tmp_path, text, message):
    path = tmp_path / 'cell.json'
    if text is not None:
        path.write_text(text)
    with pytest.raises(ArgumentError) as error:
        read_cell(path)
    assert str(error.value).startswith(f'cell={path}: {message}')


# The command line.


@pytest.fixture
def path(tmp_path):
    path = tmp_path / 'cell.json'
    path.write_text(json.dumps(CELL.to_json()))
    return path


@pytest.mark.parametrize('method', ['maml', 'anil', 'reptile', 'cavia', 'imaml', 'meta_sgd'])
def test_gradient_methods_take_a_network_of_cells(path, method):
    norm = ['--norm=layer_norm'] if method == 'cavia' else []
    flags = checked(
        '--datasource=omniglot',
        f'--algorithm={method}',
        '--network=cell',
        f'--cell={path}',
        '--cells=1',
        '--num_filters=8',
        *norm,
    )
    learner = algorithms.registry()[method].from_flags(flags, problem_of(flags))
    network = learner.network
    assert isinstance(network, CellNet) and network.cell == CELL
    assert (network.cells, network.filters) == (1, 8)
    name = experiment_string(flags, learner)
    assert name.endswith(f'.network_cell.cells_1.{CELL.fingerprint()}')


@pytest.mark.parametrize('method', ['prototypical', 'matching', 'r2d2', 'baseline'])
def test_encoder_of_cells(path, method):
    flags = checked(
        '--datasource=omniglot',
        f'--algorithm={method}',
        '--encoder=cell',
        f'--cell={path}',
        '--num_filters=8',
    )
    learner = algorithms.registry()[method].from_flags(flags, problem_of(flags))
    assert learner.encoder.output_shape == (None, 7 * 7 * 8)
    assert experiment_string(flags, learner).endswith(f'.encoder_cell.{CELL.fingerprint()}')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--network=cell'], '--network=cell: name the file of the cell, --cell=my_cell.json'),
        (
            ['--algorithm=prototypical', '--encoder=cell'],
            '--encoder=cell: name the file of the cell, --cell=my_cell.json',
        ),
        (['--cell=x.json'], '--cell=x.json: only with --network=cell or --encoder=cell'),
        (['--cells=3'], '--cells=3: only with --network=cell or --encoder=cell'),
        (
            ['--network=cell', '--cell=x.json', '--max_pool=True'],
            '--max_pool=True: means nothing with --network=cell',
        ),
        (
            ['--network=cell', '--cell=x.json', '--conv=False'],
            '--conv=False: means nothing with --network=cell',
        ),
        (
            ['--algorithm=prototypical', '--network=cell', '--cell=x.json'],
            '--network=cell: means nothing to --algorithm=prototypical',
        ),
        (
            ['--datasource=sinusoid', '--network=cell', '--cell=x.json'],
            '--cell=x.json: means nothing to --datasource=sinusoid, only to',
        ),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(UserError) as error:
        checked('--datasource=omniglot', *arguments)
    assert str(error.value).startswith(message)


def test_a_file_of_no_cell_is_named_by_its_flag(tmp_path):
    flags = parsed('--datasource=omniglot', '--network=cell', f'--cell={tmp_path}/none.json')
    with pytest.raises(ArgumentError) as error:
        problem_of(flags).network()
    assert error.value.of_flag({}).startswith(f'--cell={tmp_path}/none.json: cannot be read')


def test_every_operation_is_known_to_the_network():
    pools = {'max3x3', 'average3x3', 'identity'}
    assert {*OPERATIONS} == {*CONVOLUTIONS} | pools
