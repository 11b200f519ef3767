"""Images completed from some of their pixels: the picture of a run, and of several runs."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from command import ROOT, run_here
from test_image_completion import prepared  # noqa: F401  (a fixture: a prepared CelebA)

from maml_tf.algorithms.model_based.cnp import CNP
from maml_tf.algorithms.optimisation.cavia import CAVIA
from maml_tf.commands.views import completed
from maml_tf.episodes.image_completion import ImageCompletion
from maml_tf.episodes.images import ImageClasses
from maml_tf.episodes.task import EpisodeSpec
from maml_tf.evaluation import figures
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.regression import Regression

HEIGHT, WIDTH = 6, 5


def source_of(channels=3):
    shape = (1, 7, HEIGHT, WIDTH, channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return ImageCompletion(ImageClasses.from_arrays(images, {'test': [0]}))


@pytest.fixture
def canvas(monkeypatch):
    """() -> (the pixels, the labels of the rows and of the columns) of what was drawn last."""
    kept, save = [], figures.save

    def keep(figure, *arguments, **kwargs):
        kept.append(figure)
        save(figure, *arguments, **kwargs)

    def last():
        (axes,) = kept[-1].axes
        labels = [
            [label.get_text() for label in axis.get_ticklabels()]
            for axis in (axes.yaxis, axes.xaxis)
        ]
        return np.array(axes.images[0].get_array()), *labels

    monkeypatch.setattr(figures, 'save', keep)
    return last


def cell(pixels, row, column, numbers):
    """An image of the canvas."""
    top = row * (HEIGHT + completed.GAP)
    image, number = divmod(column, numbers)
    left = column * (WIDTH + completed.GAP) + image * completed.WIDE_GAP
    return pixels[top : top + HEIGHT, left : left + WIDTH]


def test_the_tasks_are_those_of_the_evaluation():
    """Fewer pixels are the first of more, and those of a task with as many."""
    source = source_of()
    tasks = completed.tasks_of(source, 'test', 1, 3, (4, 10, 1000))
    assert tasks.given == (4, 10, 30) and tasks.shape == (HEIGHT, WIDTH, 3)
    assert tasks.task.query_y.shape == (3, 30, 3) and tasks.task.support_x.shape == (3, 30, 2)
    for number in (4, 10):
        scored = source.tasks('test', EpisodeSpec(1, number, 30), 1)(0, 3)
        np.testing.assert_array_equal(tasks.task.support_x[:, :number], scored.support_x)
        np.testing.assert_array_equal(tasks.task.support_y[:, :number], scored.support_y)
        np.testing.assert_array_equal(tasks.task.query_y, scored.query_y)


@pytest.mark.parametrize('channels', [1, 3])
def test_rows_and_columns(tmp_path, canvas, channels):
    tasks = completed.tasks_of(source_of(channels), 'test', 1, 2, (3, 10))
    learners = {
        'CNP': CNP((2,), channels, size=8),
        'CAVIA': CAVIA(FullyConnected((2,), channels, (8,), joined=4), Regression(), inner_lr=0.5),
    }
    made = {label: completed.complete(learner, tasks) for label, learner in learners.items()}
    assert made['CAVIA'].deviation is None and made['CNP'].deviation.min() >= 0.1
    completed.draw(tmp_path / 'a.png', tasks, made)
    assert (tmp_path / 'a.png').read_bytes().startswith(b'\x89PNG')
    pixels, rows, columns = canvas()
    assert [row.split('\n')[0] for row in rows] == [
        *('given pixels', 'CNP', 'CNP: deviation', 'CAVIA', 'truth')
    ]
    assert columns == ['3', '10', '3', '10']
    task = tasks.task
    for column in range(4):
        image, number = divmod(column, 2)
        truth = task.query_y.numpy()[image].reshape(HEIGHT, WIDTH, channels)
        truth = np.broadcast_to(truth, (HEIGHT, WIDTH, 3))
        np.testing.assert_allclose(cell(pixels, 4, column, 2), truth, atol=1e-6)
        given = cell(pixels, 0, column, 2)
        shown = np.abs(given - completed.NOT_GIVEN).max(-1) > 1e-6
        assert shown.sum() == (3, 10)[number]
        np.testing.assert_allclose(given[shown], truth[shown], atol=1e-6)
        for row, label in ((1, 'CNP'), (3, 'CAVIA')):
            mean = made[label].mean[number, image].reshape(HEIGHT, WIDTH, channels)
            expected = np.broadcast_to(np.clip(mean, 0, 1), (HEIGHT, WIDTH, 3))
            np.testing.assert_allclose(cell(pixels, row, column, 2), expected, atol=1e-6)


def test_completions_are_the_learner_s_own_after_its_steps():
    tasks = completed.tasks_of(source_of(), 'test', 1, 2, (3, 10))
    network = FullyConnected((2,), 3, (8,), joined=4)
    learner = CAVIA(network, Regression(), inner_lr=0.5, evaluation_steps=3)
    task = tasks.task
    for steps in (None, 0, 1):
        taken = 3 if steps is None else steps
        made = completed.complete(learner, tasks, steps).mean
        for number, given in enumerate(tasks.given):
            state = learner.adapt(task.support_x[:, :given], task.support_y[:, :given], taken)
            expected = learner.predict_query(state, task.query_x)
            np.testing.assert_allclose(made[number], expected, atol=1e-5)
    assert tf.is_tensor(expected) and made.shape == (2, 2, 30, 3)


def completions(cwd, *arguments):
    command = [sys.executable, '-m', 'maml_tf.completions', *arguments]
    return subprocess.run(
        command, cwd=cwd, text=True, capture_output=True, env={'PYTHONPATH': str(ROOT)}
    )


@pytest.mark.slow
def test_several_runs_on_the_same_images(tmp_path, prepared):  # noqa: F811
    """Trained and evaluated by the command line; MAML and CAVIA after their steps."""
    settings = ['--datasource=celeba', f'--data_dir={prepared[1]}', '--image_size=8']
    settings += ['--update_batch_size=10', '--train_query=64', '--test_query=64']
    settings += ['--meta_batch_size=2', '--metatrain_iterations=2', '--test_tasks=4']
    own = {
        'cnp': ['--cnp_metric=squared_error', '--train_shot_from=2'],
        'maml': ['--norm=None'],
        'cavia': ['--norm=None', '--num_updates=2'],
    }
    runs, scores = [], []
    for method, flags in own.items():
        logdir = tmp_path / method
        arguments = (f'--algorithm={method}', *settings, *flags, f'--logdir={logdir}')
        said = run_here(*arguments, '--test_set', cwd=tmp_path)
        scores.append('Mean squared error on 4 celeba test tasks' in said.stdout)
        (path,) = logdir.iterdir()
        assert (path / 'completions.png').read_bytes().startswith(b'\x89PNG')
        runs.append(f'{method.upper()}={path}')
    assert all(scores)
    runs[2] += '@1'
    result = completions(tmp_path, *runs, '--pixels', '10', '40', '--picture=all.png')
    assert result.returncode == 0 and result.stdout == 'Picture: all.png\n', result.stderr
    sizes = [(tmp_path / 'all.png').stat().st_size, path.joinpath('completions.png').stat().st_size]
    assert sizes[0] > sizes[1], 'five rows of pictures, and three'
    refused = completions(tmp_path, str(tmp_path))
    assert refused.returncode == 1 and refused.stderr.count('\n') == 1
    assert refused.stderr.startswith('error: ') and 'flags.txt is missing' in refused.stderr
