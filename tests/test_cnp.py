"""Conditional Neural Processes: order, masks and gradients, the classifier; and the exact posterior
beside them."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from command import run_here
from test_bad_input import refused_here

from maml_tf.algorithms.baselines.regression.gaussian_process import GaussianProcessPosterior
from maml_tf.algorithms.model_based.cnp import CNP
from maml_tf.algorithms.model_based.cnp_classifier import CNPClassifier
from maml_tf.commands.command_line import parsed
from maml_tf.commands.views.compare import main as compare
from maml_tf.datasets.flags import episode_specs
from maml_tf.datasets.functions import gaussian_process
from maml_tf.datasets.functions.gaussian_process import GaussianProcess
from maml_tf.datasets.sources import SOURCES
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import UserError
from maml_tf.evaluation import figures, pictures, report, results_tables
from maml_tf.evaluation.comparisons import comparison_plot
from maml_tf.evaluation.comparisons.comparison import Compared
from maml_tf.networks.encoders import conv4
from maml_tf.objectives.classification import MeanClassification
from maml_tf.objectives.metric import LOG_LIKELIHOOD, SQUARED_ERROR
from maml_tf.objectives.regression import GaussianLikelihood
from maml_tf.ops.masking import NEVER

STEP = tf.constant(0, tf.int64)
RECIPE = ('--datasource=gaussian_process', '--update_batch_size=10', '--train_update_batch_size=9')
RECIPE += ('--train_shot_from=3', '--train_query=9', '--train_query_from=2')
RECIPE += ('--query_contains_support', '--test_query_contains_support=False', '--test_query=30')


def random_task(rng, support, query, features=2, out=1, tasks=3):
    """A Task of any numbers, in float64."""
    sizes = ((support, features), (support, out), (query, features), (query, out))
    return Task(*(tf.constant(rng.normal(size=(tasks, *size))) for size in sizes))


def learner_of(features=2, out=1, **kwargs):
    """A learner in float64 whose weights, biases among them, are all away from zero."""
    learner = CNP((features,), out, size=6, dtype='float64', **kwargs)
    rng = np.random.default_rng(1)
    for variable in learner.variables:
        variable.assign(rng.normal(0, 0.6, variable.shape))
    return learner


# The likelihood


def test_what_the_likelihood_says():
    assert GaussianLikelihood().metric == LOG_LIKELIHOOD and LOG_LIKELIHOOD.higher_is_better
    outputs = tf.constant(np.random.default_rng(0).normal(0, 20, (2, 5, 4)))
    for least in (0.0, 0.1):
        said = GaussianLikelihood(least).predictions(outputs)
        np.testing.assert_array_equal(said['outputs'], outputs)
        np.testing.assert_array_equal(said['mean'], outputs[..., :2])
        assert (said['deviation'].numpy() >= least).all() and said['deviation'].shape == (2, 5, 2)
    there = tf.constant([0.021, 0.5, 1.0], tf.float64)
    for least in (0.0, 0.02):
        objective = GaussianLikelihood(least)
        np.testing.assert_allclose(
            objective.moments(objective.outputs_of(there, there)), [there] * 2
        )
    in_errors = GaussianLikelihood(metric='squared_error')
    labels = tf.ones([2, 5, 2], tf.float64)
    expected = np.square(outputs[..., :2] - 1).mean((1, 2))
    np.testing.assert_allclose(in_errors.score(labels, outputs, 1), expected)
    assert in_errors.metric == SQUARED_ERROR
    np.testing.assert_array_equal(
        in_errors.loss(labels, outputs, 1), GaussianLikelihood().loss(labels, outputs, 1)
    )
    for arguments in ({'least': 1.0}, {'least': -0.1}, {'metric': 'mse'}):
        with pytest.raises(UserError, match=next(iter(arguments))):
            GaussianLikelihood(**arguments)


# Functions


def test_the_networks_of_the_official_code():
    learner = CNP((1,), 1)
    assert learner.count_params() == 83_330
    for network, activations in ((learner.encoder, 'rrrl'), (learner.decoder, 'rrl')):
        names = [layer.activation.__name__[0] for layer in network.layers]
        assert ''.join(names) == activations
    assert learner.encoder.output_shape[-1] == 128 and learner.decoder.output_shape[-1] == 2
    with pytest.raises(UserError, match='input_shape'):
        CNP((28, 28, 1), 1)


def test_the_order_of_the_context_does_not_matter():
    learner, task = learner_of(), random_task(np.random.default_rng(3), 7, 4)
    expected = learner.query_outputs(task)
    order = np.random.default_rng(4).permutation(7)
    shuffled = task._replace(
        support_x=tf.gather(task.support_x, order, axis=1),
        support_y=tf.gather(task.support_y, order, axis=1),
    )
    np.testing.assert_allclose(learner.query_outputs(shuffled), expected, rtol=1e-12)
    other = task._replace(support_y=tf.gather(task.support_y, order, axis=1))
    assert np.abs(learner.query_outputs(other) - expected).max() > 1e-3, 'y goes with its x'


def test_masks_equal_smaller_tasks():
    """Whatever stands where nothing counts, in the predictions, the loss and the gradients."""
    learner, task = learner_of(), random_task(np.random.default_rng(5), 6, 5, tasks=2)
    counts, targets = (2, 6), (4, 1)
    mask = lambda numbers, most: tf.constant(
        [[float(i < n) for i in range(most)] for n in numbers], tf.float64
    )
    masked = task._replace(support_mask=mask(counts, 6), query_mask=mask(targets, 5))
    update, alone = learner.meta_gradients(masked, STEP), []
    for i in range(2):
        one = Task(
            *(part[i : i + 1, : counts[i]] for part in task[:2]),
            *(part[i : i + 1, : targets[i]] for part in task[2:4]),
        )
        outputs = learner.query_outputs(masked)[0, i, : targets[i]]
        np.testing.assert_allclose(outputs, learner.query_outputs(one)[0, 0], rtol=1e-12)
        alone.append(learner.meta_gradients(one, STEP))
    for whole, *parts in zip(update.gradients, *(one.gradients for one in alone)):
        np.testing.assert_allclose(whole, np.mean(parts, axis=0), rtol=1e-9, atol=1e-13)


def test_gradients_reach_every_weight():
    learner, task = learner_of(), random_task(np.random.default_rng(6), 6, 5)
    update, rng = learner.meta_gradients(task, STEP), np.random.default_rng(7)
    for variable, gradient in zip(learner.trainable_variables, update.gradients, strict=True):
        assert np.abs(gradient).max() > 1e-6
        value, direction = variable.numpy(), rng.normal(size=variable.shape)
        ends = []
        for side in (1, -1):
            variable.assign(value + side * 1e-6 * direction)
            ends.append(float(learner.meta_loss(task, STEP).value))
        variable.assign(value)
        expected = (ends[0] - ends[1]) / 2e-6
        assert np.sum(gradient * direction) == pytest.approx(expected, rel=1e-4, abs=1e-7)


# Classes


def classifier(way=3, **kwargs):
    """A classifier of 16x16 images with a task of its own: (learner, task)."""
    keras.utils.set_random_seed(0)
    learner = CNPClassifier(conv4((16, 16, 1), 4), way, MeanClassification(), size=16, **kwargs)
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 16, 16, 1), np.uint8)
    source = ImageClasses.from_arrays(images, {'train': range(8)})
    return learner, source.tasks('train', EpisodeSpec(way, 2, 3), 0)(0, 4)


def test_logits_of_classes_by_hand():
    learner, task = classifier()
    support, query = (learner.encoder(x[1], training=False) for x in (task.support_x, task.query_x))
    labels = np.argmax(task.support_y[1], -1)
    means = [np.mean(support.numpy()[labels == k], axis=0) for k in range(3)]
    x = np.array([np.concatenate([*means, q]) for q in query.numpy()])
    for layer in learner.decoder.layers:
        kernel, bias = layer.get_weights()
        x = x @ kernel + bias
        x = np.maximum(x, 0) if layer.name != 'fc3' else x
    np.testing.assert_allclose(learner.query_outputs(task)[0, 1], x, rtol=1e-4, atol=1e-5)
    assert learner.fixed_way and learner.decoder.input_shape == (None, 4 * support.shape[-1])


def test_training_numbers_the_classes_anew():
    """Of two classes an order is as drawn or the other way round."""
    learner, task = classifier(way=2, orders=12)
    support, query = learner.embed(task.support_x), learner.embed(task.query_x)
    state = learner.summarise(support, task.support_y)
    swapped = learner.summarise(support, task.support_y[..., ::-1])
    as_drawn, turned = learner.compare(state, query), learner.compare(swapped, query)[..., ::-1]
    assert np.abs(as_drawn - turned).max() > 1e-3
    outputs, seen = learner._in_orders(state, query, task.key), np.zeros(2, int)
    assert outputs.shape == (12, *task.query_y.shape)
    for order, i in np.ndindex(*outputs.shape[:2]):
        distances = [np.abs(outputs[order, i] - each[i]).max() for each in (as_drawn, turned)]
        assert min(distances) < 1e-5
        seen[np.argmin(distances)] += 1
    assert seen.min() > 8, 'each of the two, of 48'
    every_task_alike = (np.array(outputs) == np.array(outputs)[:, :1]).all()
    assert not every_task_alike


def test_the_loss_is_a_mean_over_the_orders():
    losses = []
    for orders in (1, 2, 300):
        learner, task = classifier(way=2, orders=orders)
        losses.append(float(learner.meta_loss(task, STEP).value))
    learner, task = classifier(way=2, orders=300)
    turned = task._replace(support_y=task.support_y[..., ::-1], query_y=task.query_y[..., ::-1])
    other = float(learner.meta_loss(turned, STEP).value)
    assert other == pytest.approx(losses[-1], rel=0.02), 'which class is first hardly matters'
    for gradient in learner.meta_gradients(task, STEP).gradients[-6:]:
        assert np.abs(gradient).max() > 0


def test_a_class_without_support_is_never_chosen():
    learner, task = classifier()
    labels = task.support_y * tf.constant([1.0, 0.0, 1.0])
    outputs = np.array(learner.predict_query(learner.adapt(task.support_x, labels), task.query_x))
    assert np.isfinite(outputs).all() and (outputs[..., 1] < NEVER / 2).all()


# The exact posterior


def test_the_posterior_is_that_of_the_tasks():
    """Errors over deviations are standard normal; so the likelihood is as high as it can be."""
    spec = EpisodeSpec(1, 8, 5, least_shot=2)
    task = GaussianProcess().tasks('test', spec, 3)(0, 2000)
    mean, deviation = gaussian_process.posterior(
        task.support_x, task.support_y, task.query_x, task.support_mask
    )
    errors = ((tf.cast(task.query_y, tf.float64) - mean) / deviation).numpy()
    squares = np.square(errors).mean((1, 2))
    assert abs(squares.mean() - 1) < 5 * squares.std() / math.sqrt(2000)
    assert abs(errors.mean()) < 5 * errors.mean((1, 2)).std() / math.sqrt(2000)
    learner = GaussianProcessPosterior()
    said = learner.objective.predictions(learner.query_outputs(task)[0])
    np.testing.assert_allclose(said['mean'], mean, atol=1e-5)
    np.testing.assert_allclose(said['deviation'], deviation, rtol=1e-4)
    scores = learner.query_scores(task)[1]
    expected = [-np.log(d * np.sqrt(2 * np.pi)) - e**2 / 2 for d, e in zip(deviation, errors)]
    np.testing.assert_allclose(scores[0], np.mean(expected, axis=(1, 2)), rtol=1e-3, atol=1e-3)
    untrained = CNP((1,), 1).query_scores(task)[1]
    assert np.mean(scores) > np.mean(untrained)


# The command line


def test_the_recipe_draws_as_the_official_code():
    flags = parsed('--algorithm=cnp', *RECIPE)
    row = SOURCES['gaussian_process']
    (training, evaluation), source = episode_specs(flags, row), row.load(flags)
    task = source.tasks('train', training, 0)(0, 2000)
    contexts, targets = (mask.numpy().sum(1) for mask in (task.support_mask, task.query_mask))
    assert set(contexts) == {*range(3, 10)} and set(targets - contexts) == {*range(2, 10)}
    np.testing.assert_array_equal(task.query_x[:, :9], task.support_x)
    for split in ('val', 'test'):
        task = source.tasks(split, evaluation, 1)(0, 5)
        assert task.support_mask is None and task.query_mask is None
        assert task.support_x.shape == (5, 10, 1) and task.query_x.shape == (5, 30, 1)
        assert not np.intersect1d(task.query_x, task.support_x).size
    plain = SOURCES['gaussian_process'].load(parsed(*RECIPE[:1]))
    held_out = plain.tasks('test', evaluation, 1)(0, 5)
    np.testing.assert_array_equal(task.query_y, held_out.query_y)


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--algorithm=cnp', *RECIPE, '--encoder=r2d2'], ['--encoder=r2d2', 'classification']),
        (['--algorithm=gaussian_process', '--datasource=sinusoid'], ['sinusoid', 'has the kernel']),
        (
            ['--algorithm=reptile', '--norm=None', *RECIPE],
            ['--train_query_from: reptile', 'one size'],
        ),
        (['--algorithm=cnp', *RECIPE, '--train_query_from=10'], ['--train_query_from=10: at', '9']),
        (
            ['--algorithm=cnp', '--test_query_contains_support'],
            ['nothing to --datasource=sinusoid'],
        ),
    ],
    ids=lambda value: value[-1],
)
def test_flags_that_are_refused(tmp_path, arguments, words):
    refused_here(tmp_path, arguments, *words)


def test_images_of_classes_have_as_many_queries_as_they_say():
    images = ImageClasses.from_arrays(np.zeros([4, 6, 8, 8, 1], np.uint8), {'train': range(4)})
    with pytest.raises(UserError, match='^least_query=2: only for regression'):
        images.tasks('train', EpisodeSpec(2, 2, 3, least_query=2), 0)


@pytest.mark.slow
def test_runs_stand_in_one_table_with_the_posterior(tmp_path, capsys):
    """Also where training differs; and the pictures of both have their band."""
    runs = {}
    for name, arguments in {
        'cnp': (*RECIPE, '--meta_lr=0.001'),
        'gaussian_process': [f for f in RECIPE if f.endswith(('process', 'size=10', 'query=30'))],
    }.items():
        common = ['--metatrain_iterations=1000', '--test_tasks=60', f'--logdir={tmp_path / name}']
        said = run_here(f'--algorithm={name}', *arguments, *common, '--test_set', cwd=tmp_path)
        assert 'Log-likelihood per point on 60' in said.stdout
        (runs[name],) = (tmp_path / name).iterdir()
    compare([f'{label}={path}' for label, path in runs.items()] + [f'--picture={tmp_path}/a.png'])
    heading, _, of_cnp, exact = capsys.readouterr().out.splitlines()[:4]
    assert heading.startswith('log_likelihood on the same 60 tasks')
    assert float(of_cnp.split()[2]) < float(exact.split()[2])
    assert float(exact.split('±')[1].split()[1]) > 0, 'the posterior is better'
    files = [*(path / 'fits.png' for path in runs.values()), tmp_path / 'a.png']
    assert all(path.read_bytes().startswith(b'\x89PNG') for path in files)


# What shows the metric


def keep(monkeypatch):
    """{file name: figure} of what is saved from now on."""
    kept, save = {}, figures.save

    def and_keep(figure, path, *arguments):
        kept[path.name] = figure
        save(figure, path, *arguments)

    monkeypatch.setattr(figures, 'save', and_keep)
    return kept


def test_the_band_of_two_deviations(tmp_path, monkeypatch):
    drawn, learner = keep(monkeypatch), CNP((1,), 1, size=8)
    task = GaussianProcess().curves('test', EpisodeSpec(1, 5, 5), 0, 2, 40)
    pictures.of_curves(tmp_path, learner, task, 0, 'a title')
    moments = learner.objective.moments(learner.query_outputs(task)[0])
    for axes, mean, deviation in zip(drawn['fits.png'].axes, *moments):
        (band,) = axes.collections
        assert band.get_label() == '± 2 deviations'
        heights = band.get_paths()[0].vertices[:, 1]
        for edge in (mean + 2 * deviation, mean - 2 * deviation):
            assert np.abs(heights[:, None] - np.array(edge)[:, 0]).min(0).max() < 1e-5
    assert (tmp_path / 'fits.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize('values', [[0.2, 0.9], [-1.5, 0.4]])
def test_a_likelihood_has_no_logarithmic_axis(tmp_path, monkeypatch, values):
    drawn = keep(monkeypatch)
    scores = np.random.default_rng(0).normal(values[-1], 0.01, (40, 1))
    axis = CNP((1,), 1, size=4).axis(1)
    content = report.results(scores, LOG_LIKELIHOOD, axis, {'split': 'test'}, 0, 1, {})
    assert content['higher_is_better'] and content['mean'][0] == pytest.approx(scores.mean())
    curve = np.array([[1, values[0]], [2, values[1]]])
    run = Compared('a', content, scores[:, 0], 0, None, None, curve)
    comparison_plot.draw(tmp_path / 'runs.png', [run, run._replace(difference=0.1, ci95=0.01)])
    assert {axes.get_yscale() for axes in drawn['runs.png'].axes} == {'linear'}
    rows = [{'iteration': str(i), 'post_log_likelihood': str(v)} for i, v in enumerate(values)]
    pictures.of_scores(tmp_path, scores, axis, LOG_LIKELIHOOD, rows, '')
    assert drawn['learning_curve.png'].axes[0].get_yscale() == 'linear'
    text = report.table(np.full([5, 1], -0.51), LOG_LIKELIHOOD, axis, 'on 5 tasks')
    assert text.splitlines()[0] == 'Log-likelihood per point on 5 tasks' and '-0.5100' in text


def test_a_likelihood_in_the_tables_of_results():
    paper = {
        'source': 's',
        'metric': 'log_likelihood',
        'steps': [0],
        'mean': [-0.5],
        'ci95': [0.02],
    }
    cells = results_tables.row('x/y.json', {'title': 'T', 'paper': paper})
    assert cells['paper'] == '-0.500 ± 0.020 nats'
