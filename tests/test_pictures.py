"""The pictures of a run: what is on their axes, and that each kind of learner gets its own."""

import numpy as np
import pytest

from maml_tf.algorithms import registry
from maml_tf.algorithms.metric.metric_learner import MetricLearner
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.datasets.functions.sinusoid import Sinusoid
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.evaluation import figures, pictures, plots
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.metric import ACCURACY, SQUARED_ERROR, Axis, Metric
from maml_tf.objectives.regression import Regression

LIKELIHOOD = Metric('nll', 'Negative log-likelihood', 'nats', higher_is_better=False)
STEPS = Axis('gradient steps', (0, 1, 5))


@pytest.fixture
def drawn(monkeypatch):
    """{file name: figure} of what is saved, which is saved all the same."""
    kept = {}
    save = figures.save

    def keep(figure, path, *arguments):
        kept[path.name] = figure
        save(figure, path, *arguments)

    monkeypatch.setattr(figures, 'save', keep)
    return kept


def rows(metric, values):
    return [
        {'iteration': str(100 * i), f'post_{metric.name}': str(value), f'val_{metric.name}': ''}
        for i, value in enumerate(values, start=1)
    ]


@pytest.mark.parametrize(
    'metric, values, label, scale',
    [
        (ACCURACY, [0.2, 0.9], 'Accuracy (%)', 'linear'),
        (SQUARED_ERROR, [4.0, 0.1], 'Mean squared error', 'log'),
        (SQUARED_ERROR, [4.0, float('nan')], 'Mean squared error', 'log'),
        (LIKELIHOOD, [1.0, -0.5], 'Negative log-likelihood (nats)', 'linear'),
        (LIKELIHOOD, [1.0, 0.5], 'Negative log-likelihood (nats)', 'log'),
    ],
)
def test_learning_curve(tmp_path, drawn, metric, values, label, scale):
    plots.learning_curve(tmp_path / 'curve.png', rows(metric, values), metric)
    (axes,) = drawn['curve.png'].axes
    assert axes.get_ylabel() == label and axes.get_yscale() == scale
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_xydata(), np.transpose([[100, 200], values]))
    assert line.get_label() == 'training query, after'
    assert (tmp_path / 'curve.png').read_bytes().startswith(b'\x89PNG')


def test_nothing_to_draw(tmp_path):
    plots.learning_curve(tmp_path / 'curve.png', [], ACCURACY)
    plots.learning_curve(tmp_path / 'curve.png', rows(SQUARED_ERROR, [1.0]), ACCURACY)
    assert not list(tmp_path.iterdir())


def test_scores_of_a_learner_with_steps(tmp_path, drawn):
    scores = np.array([[0.2, 0.4, 0.7], [0.2, 0.6, 0.8]])
    pictures.of_scores(tmp_path, scores, STEPS, ACCURACY, rows(ACCURACY, [0.5]), 'a title')
    (axes,) = drawn['adaptation_by_step.png'].axes
    assert axes.get_xlabel() == 'gradient steps' and axes.get_ylabel().startswith('Accuracy (%)')
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0, 0.2], [1, 0.5], [5, 0.75]])
    assert axes.yaxis.get_major_formatter()(0.75, None) == '75'
    assert axes.get_title() == 'a title' and 'learning_curve.png' in drawn


def test_scores_along_another_axis(tmp_path, drawn):
    axis = Axis('instance', (1, 2))
    pictures.of_scores(tmp_path, np.array([[0.2, 0.4], [0.4, 0.8]]), axis, ACCURACY, [], 'a title')
    (axes,) = drawn['by_instance.png'].axes
    assert axes.get_xlabel() == 'instance'
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 0.3], [2, 0.6]])


def test_scores_of_a_learner_without_steps(tmp_path, drawn):
    one = Axis('gradient steps', (0,))
    pictures.of_scores(tmp_path, np.ones([3, 1]), one, ACCURACY, rows(ACCURACY, [0.5]), '')
    assert list(drawn) == ['learning_curve.png']


@pytest.mark.parametrize(
    'steps, labels',
    [
        (0, ['prediction']),
        (1, ['before adaptation', 'after 1 gradient step']),
        (3, ['before adaptation', 'after 1 gradient step', 'after 3 gradient steps']),
    ],
)
def test_curves(tmp_path, drawn, steps, labels):
    source = Sinusoid()
    learner = MAML(FullyConnected((1,), 1, (8,), 'None'), Regression())
    task = source.curves('val', EpisodeSpec(way=1, shot=5, query=5), 0, 2, 50)
    pictures.of_curves(tmp_path, learner, task, steps, 'a title')
    for axes in drawn['fits.png'].axes:
        assert [line.get_label() for line in axes.lines] == [
            'true function',
            *labels,
            'support points',
        ]
        assert all(len(line.get_xdata()) == 50 for line in axes.lines[:-1])


NAMES = ['$a_b', '犬', 'c' * 50, 'd']


@pytest.mark.parametrize('name', sorted(registry()))
def test_an_image_task(tmp_path, drawn, name):
    learner, _ = registry()[name].tiny()
    sides = learner.example_shape if isinstance(learner, MetricLearner) else (16, 16, 1)
    images = np.random.default_rng(0).integers(0, 256, (4, 6, *sides), np.uint8)
    source = ImageClasses.from_arrays(images, {'test': range(4)}, 'per_class')
    tasks = source.tasks('test', EpisodeSpec(way=3, shot=2, query=3), 0)
    tasks.classes = tasks.classes._replace(class_names=NAMES)
    pictures.of_image_task(tmp_path, learner, tasks, 'a title')
    if not isinstance(learner, MetricLearner):
        assert not drawn
        return
    legend = [text.get_text() for text in drawn['embedding.png'].axes[0].get_legend().get_texts()]
    classes, turns = (part[0] for part in tasks.pick(0, 1)[:2])
    chosen = [f'{NAMES[c]} {90 * t}°' if t else NAMES[c] for c, t in zip(classes, turns)]
    assert [text[:4] for text in legend[-3:]] == [text[:4] for text in chosen]
    compares = name in ('matching', 'nearest_neighbour', 'siamese')
    assert ('matches.png' in drawn) == compares
    if compares:
        assert drawn['matches.png'].axes[0].images[0].get_array().shape == (9, 6)
