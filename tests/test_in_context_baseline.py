"""Classical baselines against NumPy and scikit-learn, and the shifts of their prompts."""

import json
import re
import sys

import decoder_oracle as oracle
import numpy as np
import pytest
import tensorflow as tf
from command import run_here

from maml_tf.algorithms.baselines.from_scratch import FromScratch
from maml_tf.algorithms.baselines.regression import context_predictors
from maml_tf.algorithms.baselines.regression.in_context_baseline import InContextBaseline
from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import problem_of
from maml_tf.commands.views.compare import main as compare
from maml_tf.datasets.functions.function_families import Linear, TwoLayerNetwork
from maml_tf.datasets.functions.prompt_shifts import Shift
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.regression import Regression

DIMENSION, SPEC, TASKS = 4, EpisodeSpec(1, 7, 3), 5


@pytest.fixture(scope='module')
def task():
    return TwoLayerNetwork(DIMENSION).tasks('val', SPEC, 0)(0, TASKS)


def outputs_of(by, task, **arguments):
    """[lengths, tasks, query], after a check that the last entry is the contract's."""
    learner = InContextBaseline(DIMENSION, Regression(), by, **arguments)
    outputs = learner.query_outputs(task)
    state = learner.adapt(task.support_x, task.support_y)
    np.testing.assert_allclose(learner.predict_query(state, task.query_x), outputs[-1], atol=1e-5)
    assert outputs.shape == (SPEC.shot + 1, TASKS, SPEC.query, 1)
    return outputs.numpy()[..., 0]


def by_hand(task, fit):
    """The same of fit(x, y) -> (query -> predictions), task by task and length by length."""
    expected = np.zeros([SPEC.shot + 1, TASKS, SPEC.query])
    x, y, query = (np.array(part, float) for part in task[:3])
    for length in range(1, SPEC.shot + 1):
        for i in range(TASKS):
            predict = fit(x[i, :length], y[i, :length, 0])
            expected[length, i] = predict(query[i])
    return expected


def by_weights(weights):
    return lambda x, y: lambda query: query @ weights(x, y)


def by_neighbours(x, y):
    return lambda query: [oracle.nearest_neighbours_prediction(x, y, point) for point in query]


@pytest.mark.parametrize(
    'by, fit',
    [
        ('least_squares', by_weights(oracle.least_squares_weights)),
        ('averaging', by_weights(oracle.averaging_weights)),
        ('nearest', by_neighbours),
    ],
)
def test_by_hand(by, fit, task):
    np.testing.assert_allclose(outputs_of(by, task), by_hand(task, fit), rtol=1e-4, atol=1e-4)


def test_least_squares_knows_a_linear_function_from_as_many_points_as_dimensions():
    source = Linear(3)
    learner = InContextBaseline(3, source.objective)
    scores = learner.query_scores(source.tasks('test', EpisodeSpec(1, 5, 20), 1)(0, 200))[1]
    errors = scores.numpy().mean(1)
    # From i points the error over the variance is 1 - i / d.
    np.testing.assert_allclose(errors[:3], [1, 2 / 3, 1 / 3], rtol=0.2)
    assert errors[3:].max() < 1e-4


@pytest.mark.slow
def test_network_by_from_scratch(task):
    network = FullyConnected((DIMENSION,), 1, (100,), start='glorot')
    scratch = FromScratch(network, Regression(), inner_lr=5e-3, steps=100)
    outputs = outputs_of('network', task)
    for length in (1, 4, 7):
        weights = scratch.adapt(task.support_x[:, :length], task.support_y[:, :length], 100)
        expected = scratch.predict_query(weights, task.query_x)[..., 0]
        np.testing.assert_allclose(outputs[length], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(outputs[0], 0)


def test_lasso_is_optimal(task):
    """The gradient of the squares is within the penalty, and at it where w is not 0."""
    pytest.importorskip('sklearn')
    penalty = 0.3
    outputs = outputs_of('lasso', task, penalty=penalty)
    x, y, query = (np.array(part, float) for part in task[:3])
    support = context_predictors.Support(task.support_x, task.support_y, tf.constant([7]))
    axes = tf.constant(np.tile(np.eye(DIMENSION), [TASKS, 1, 1]), tf.float32)
    found = context_predictors.lasso(penalty)(support, axes).numpy()[:, 0, :, 0]
    np.testing.assert_allclose(outputs[-1], np.einsum('tqd,td->tq', query, found), atol=1e-4)
    assert (found == 0).any() and (found != 0).any()
    for i in range(TASKS):
        gradient = x[i].T @ (y[i, :, 0] - x[i] @ found[i]) / SPEC.shot
        assert np.abs(gradient).max() < penalty * 1.001
        np.testing.assert_allclose(
            gradient[found[i] != 0], penalty * np.sign(found[i][found[i] != 0]), rtol=1e-2
        )


def test_trees_know_what_they_saw(task):
    """A tree of depth 1 says one of two means; one that is grown to the end says the labels."""
    pytest.importorskip('sklearn')
    seen = task._replace(query_x=task.support_x[:, :3], query_y=task.support_y[:, :3])
    outputs = outputs_of('tree', seen)
    np.testing.assert_allclose(outputs[-1], seen.query_y[..., 0], atol=1e-5)
    assert np.abs(outputs[1] - task.support_y.numpy()[:, :1, 0]).max() < 1e-5, 'of one point'
    stumps = outputs_of('tree', task, depth=1)[-1]
    assert max(len({*row}) for row in stumps.round(5)) == 2
    boosted = outputs_of('boosting', seen)
    np.testing.assert_allclose(boosted[-1], seen.query_y[..., 0], atol=0.05)


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--datasource=linear', '--in_context_baseline_penalty=1'], 'only with .*_by=lasso'),
        (['--datasource=linear', '--in_context_baseline_depth=2'], 'only with .*_by=tree'),
        (['--datasource=linear', '--in_context_baseline_by=lasso', '--export_dir=x'], 'scikit'),
        (['--datasource=sinusoid', '--prompts=skewed'], '--prompts=skewed: means nothing to'),
        (['--datasource=linear', '--prompts=orthogonal', '--update_batch_size=20'], 'orthogonal'),
        (['--datasource=linear', '--x_scale=0'], '--x_scale=0.0: more than 0'),
    ],
)
def test_bad_input(arguments, words, tmp_path):
    result = run_here(
        '--algorithm=in_context_baseline', *arguments, '--logdir=logs', cwd=tmp_path, expect=1
    )
    assert len(result.stderr.strip().splitlines()) == 1
    assert re.search(words, result.stderr), result.stderr


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.linear_model', None)
    with pytest.raises(UserError, match='scikit-learn is missing'):
        InContextBaseline(2, Regression(), 'lasso')


# Shifts of the prompts.


def shifted(dimension=6, shot=4, count=400, split='test', **changes):
    source = Linear(dimension, Shift(**changes))
    return source, source.tasks(split, EpisodeSpec(1, shot, 3), 0)(0, count)


def test_training_knows_no_shift():
    changes = dict(prompts='skewed', x_scale=3.0, y_scale=2.0, label_noise=1.0)
    for split in ('train', 'trainval'):
        for one, other in zip(shifted(split=split, **changes)[1], shifted(split=split)[1]):
            if one is not None:
                np.testing.assert_array_equal(one, other)


def test_quadrants():
    _, task = shifted(prompts='quadrants')
    signs = np.sign(task.support_x)
    np.testing.assert_array_equal(signs, np.broadcast_to(signs[:, :1], signs.shape))
    assert abs(signs[:, 0].mean()) < 0.1
    _, standard = shifted()
    np.testing.assert_array_equal(np.abs(task.support_x), np.abs(standard.support_x))
    np.testing.assert_array_equal(task.query_x, standard.query_x)


def test_orthogonal():
    _, task = shifted(prompts='orthogonal')
    _, standard = shifted()
    np.testing.assert_array_equal(task.support_x, standard.support_x)
    assert np.abs(task.support_x @ tf.linalg.matrix_transpose(task.query_x)).max() < 1e-3
    lengths = [np.linalg.norm(one.query_x, axis=-1) for one in (task, standard)]
    np.testing.assert_allclose(*lengths, rtol=1e-4)


@pytest.mark.parametrize(
    'prompts, spectrum', [('half_subspace', [2, 2, 2, 0, 0, 0]), ('skewed', 0)]
)
def test_covariances(prompts, spectrum):
    """Many points of a task: the eigenvalues of their covariance."""
    if prompts == 'skewed':
        spectrum = 1 / np.arange(1, 7.0) ** 2
        spectrum *= 6 / spectrum.sum()
    _, task = shifted(shot=4000, count=3, prompts=prompts)
    axes = []
    for x in task.support_x.numpy():
        values, vectors = np.linalg.eigh(x.T @ x / len(x))
        np.testing.assert_allclose(values[::-1], spectrum, rtol=0.12, atol=1e-5)
        axes.append(vectors[:, -1])
    assert np.abs(axes[0] @ axes[1]) < 0.999, 'each task has axes of its own'


def test_scales_and_noise():
    _, standard = shifted()
    for name, x_factor, y_factor in (('x_scale', 3, 3), ('y_scale', 1, 3)):
        source, task = shifted(**{name: 3.0})
        np.testing.assert_allclose(task.query_x, x_factor * standard.query_x, rtol=1e-6)
        np.testing.assert_allclose(task.query_y, y_factor * standard.query_y, rtol=1e-4, atol=1e-5)
    source, task = shifted(label_noise=2.0, count=4000)
    (weights,) = source.parameters('test', 0, 0, 4000)
    noise = task.query_y * np.sqrt((6 + 4) / 6) - task.query_x @ weights
    np.testing.assert_allclose(np.std(noise), 2.0, rtol=0.05)
    np.testing.assert_allclose(np.var(task.query_y), 6.0, rtol=0.1)
    np.testing.assert_array_equal(task.query_x, shifted(count=4000)[1].query_x)


@pytest.mark.slow
def test_the_command_line(tmp_path, capsys):
    """Transformer and baselines on the same tasks along the same axis, in a table and a picture."""
    common = (
        *('--datasource=linear', '--dimension=6', '--update_batch_size=8', '--train_query=1'),
        *('--test_query=2', '--test_tasks=30', '--test_set=True', '--log=False'),
        *('--metatrain_iterations=5', '--meta_batch_size=4'),
    )
    transformer = ('--algorithm=in_context', '--in_context_size=tiny', '--in_context_curriculum=2')
    baseline = ('--algorithm=in_context_baseline', '--in_context_baseline_by')
    runs = {
        'transformer': transformer,
        'OLS': (baseline[0], f'{baseline[1]}=least_squares'),
        '3-NN': (baseline[0], f'{baseline[1]}=nearest'),
    }
    found = []
    for label, arguments in runs.items():
        run_here(*arguments, *common, f'--logdir={label}', cwd=tmp_path)
        (path,) = (tmp_path / label).glob('*/results.json')
        results = json.loads(path.read_text())
        assert results['axis'] == {'name': 'context points', 'values': list(range(9))}
        assert results['metric'] == 'normalised_loss' and len(results['mean']) == 9
        found.append(f'{label}={path.parent}')
    compare([*found, f'--picture={tmp_path / "picture.png"}'])
    table = capsys.readouterr().out
    assert 'context points' in table and 'normalised_loss' in table and 'OLS' in table
    assert (tmp_path / 'picture.png').stat().st_size > 10_000
    # A shift is another protocol, and no other run.
    shift = ('--train=False', '--prompts=quadrants')
    run_here(*runs['OLS'], *common, *shift, '--logdir=OLS', cwd=tmp_path)
    with pytest.raises(SystemExit, match='prompts standard and quadrants'):
        compare(found)


def test_images_are_refused():
    flags = parsed('--algorithm=in_context_baseline', '--datasource=omniglot')
    with pytest.raises(ArgumentError, match='in_context_baseline is for functions'):
        InContextBaseline.from_flags(flags, problem_of(flags))


def test_an_unknown_method():
    with pytest.raises(ArgumentError, match='by='):
        InContextBaseline(2, Regression(), 'magic')
