"""Damaged checkpoints, run directories and SavedModels: one line, or what they held before."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from damaged import each_damaged
from test_damaged_runs import Weights, run_directory
from test_fuzz_records import RECORDS

from maml_tf import algorithms
from maml_tf.commands import command_line
from maml_tf.commands.experiment import problem_of
from maml_tf.commands.folders import trained
from maml_tf.datasets.raw.image_files import Preparation
from maml_tf.errors import UserError
from maml_tf.saving.checkpoints import LEARNER
from maml_tf.saving.exports.export import export
from maml_tf.saving.init_from import load_weights
from maml_tf.saving.run_directory import RunDirectory

ODD = 'directory', 'fifo', 'missing'


@pytest.fixture
def saved(tmp_path):
    """(a RunDirectory with checkpoints of iterations 10 and 20 and all records, its weights)."""
    directory, weights = run_directory(tmp_path / 'run')
    for iteration in (10, 20):
        weights.assign(tf.fill([20, 20], float(iteration)))
        directory.save(iteration)
        directory.save_best(iteration, iteration / 40)
        directory.save_among_best(iteration, iteration / 40, 2, True)
    for name in ('flags.txt', 'metrics.csv', 'clock.json'):
        (directory.path / name).write_text(RECORDS[name][1])
    weights.assign(tf.zeros([20, 20]))
    return directory, weights


def test_a_run_to_go_on_with(saved):
    directory, weights = saved

    def read():
        weights.assign(tf.zeros([20, 20]))
        directory.check()
        return directory.restore_to_go_on(), directory.among_best()

    def check(value):
        iteration, _ = value
        assert iteration in (10, 20)
        np.testing.assert_array_equal(weights, np.full([20, 20], iteration))

    files = [path for path in directory.path.rglob('*') if path.is_file()]
    counts = each_damaged(
        'runs to go on with', files, read, [directory.path], 100, 0.5, ODD, check, tidy=True
    )
    assert counts.refused and counts.whole


def test_checkpoints_to_start_from(saved):
    directory, weights = saved
    files = sorted(directory.path.glob('model-20.*'))

    def read():
        weights.assign(tf.zeros([20, 20]))
        load_weights(Weights(weights), directory.path)
        return weights.numpy()

    def check(values):
        assert (values == values[0, 0]).all() and values[0, 0] in (10, 20)

    counts = each_damaged(
        'checkpoints to start from', files, read, [directory.path], 60, 0.5, ODD, check
    )
    assert counts.refused


def test_members_of_an_ensemble(saved):
    directory, weights = saved
    files = sorted((directory.path / 'ensemble').iterdir())

    def read():
        weights.assign(tf.zeros([20, 20]))
        return [
            (directory.restore_among_best(number), float(weights[0, 0]))
            for number in directory.among_best()
        ]

    def check(pairs):
        assert all(number == value for number, value in pairs)

    counts = each_damaged('ensembles', files, read, [directory.path], 60, 0.25, ODD, check)
    assert counts.refused


FLAGS = (
    '--algorithm=prototypical\n--datasource=omniglot\n--num_filters=4\n--num_classes=3\n'
    '--image_size=20\n--meta_batch_size=2\n'
)


@pytest.fixture(scope='module')
def learner(tmp_path_factory):
    """(a learner, the flags it was made by)."""
    path = tmp_path_factory.mktemp('flags') / 'flags.txt'
    path.write_text(FLAGS)
    flags = command_line.parsed(f'--flagfile={path}')
    return algorithms.registry()['prototypical'].from_flags(flags, problem_of(flags))


def answer(loaded):
    """What a Trained learner says of one task."""
    rng = np.random.default_rng(0)
    images = lambda n: tf.constant(rng.random((1, n, 20, 20, 1)), tf.float32)
    state = loaded.adapt(images(3), tf.eye(3)[tf.newaxis])
    return loaded.predict_query(state, images(2))['outputs'].numpy()


def test_a_run_directory_to_adapt(learner, tmp_path):
    directory = RunDirectory(tmp_path / 'run', {LEARNER: learner.named_variables()})
    directory.save(10)
    directory.write_flags(FLAGS)
    expected = answer(trained.load(directory.path))

    def check(loaded):
        if (directory.path / 'flags.txt').read_text() == FLAGS:
            np.testing.assert_array_equal(answer(loaded), expected)

    files = [path for path in directory.path.iterdir() if path.is_file()]
    counts = each_damaged(
        'run directories to adapt',
        *(files, lambda: trained.load(directory.path), [directory.path], 12, 0.1, ODD, check),
    )
    assert counts.refused


@pytest.fixture(scope='module')
def exported(learner, tmp_path_factory):
    path = tmp_path_factory.mktemp('exported') / 'model'
    about = {'flags': {'datasource': 'omniglot'}, 'inputs': 'ink', 'transductive': False}
    export(learner, path, (20, 20, 1), 3, 0, about, Preparation(20, 1))
    return path


def test_saved_models(exported, tmp_path):
    path = shutil.copytree(exported, tmp_path / 'model')
    expected = answer(trained.load(path))
    read = lambda: trained.load(path)

    def check(loaded):
        assert loaded.input_shape == (20, 20, 1)
        assert (loaded.preparation.side, loaded.preparation.channels) == (20, 1)
        np.testing.assert_array_equal(answer(loaded), expected)

    files = [
        *(entry for entry in path.rglob('*') if entry.is_file()),
        *[path / 'saved_model.pb'] * 3,
        *[path / 'maml_tf.json'] * 3,
    ]
    counts = each_damaged('SavedModels', files, read, [path], 40, 0.25, ODD, check)
    assert counts.refused


@pytest.mark.parametrize(
    'change',
    [
        {'preparation': {'side': 21, 'channels': 1}},
        {'preparation': {'side': '20', 'channels': 1}},
        {'preparation': {'side': 20, 'channels': 3}},
        {'preparation': {'side': 20, 'channels': 1, 'drawn': 'x'}},
        {'preparation': {'side': 20, 'channels': 1, 'square': []}},
        {'input_shape': [28, 28, 1]},
        {'input_shape': None},
        {'inner_steps': 'many'},
        {'transductive': 'no'},
        {'inputs': 7},
        {'flags': 7, 'preparation': None},
    ],
)
def test_a_description_of_another_model(exported, tmp_path, change):
    path = shutil.copytree(exported, tmp_path / 'model')
    content = json.loads((path / 'maml_tf.json').read_text())
    (path / 'maml_tf.json').write_text(json.dumps(content | change))
    with pytest.raises(UserError, match=f'^init_from={path}: '):
        trained.load(path)


def test_a_saved_model_without_checksums_is_read(exported, tmp_path):
    """Earlier versions wrote none."""
    path = shutil.copytree(exported, tmp_path / 'model')
    content = json.loads((path / 'maml_tf.json').read_text())
    del content['sha256']
    (path / 'maml_tf.json').write_text(json.dumps(content))
    np.testing.assert_array_equal(answer(trained.load(path)), answer(trained.load(exported)))
    (path / 'saved_model.pb').write_bytes(b'\xff' * 99)
    with pytest.raises(UserError, match=f'^init_from={path}: '):
        trained.load(path)
