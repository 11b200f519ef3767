"""The run directory: whole files, finite checkpoints, and what a resumed run finds."""

import json
import os
import re

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.errors import ArgumentError, UserError
from maml_tf.saving import checkpoints as checkpoints_module
from maml_tf.saving.checkpoint_files import checkpoints
from maml_tf.saving.checkpoints import LEARNER, Checkpoints
from maml_tf.saving.exports.saved_model import CARD, new_saved_model
from maml_tf.saving.run_directory import RunDirectory
from maml_tf.serialisation.files import check_new, write_atomically


def run_directory(path):
    """(a RunDirectory, its weights, a slot of its optimizer, a whole number)."""
    weights, slot = tf.Variable([1.0, 2.0]), tf.Variable([[3.0]], dtype=tf.float64)
    number = tf.Variable(5, dtype=tf.int64)
    groups = {LEARNER: {'w1': weights}, 'metatrain': {'w1_momentum': slot, 'iteration': number}}
    return RunDirectory(path, groups), weights, slot, number


def files(path):
    return {str(file.relative_to(path)) for file in path.rglob('*') if file.is_file()}


def test_save_and_restore(tmp_path):
    directory, weights, slot, number = run_directory(tmp_path / 'run')
    for iteration in (1, 20, 3):
        number.assign(iteration)
        directory.save(iteration)
    assert list(directory.checkpoints()) == [1, 3, 20]
    for variable in (weights, slot, number):
        variable.assign(tf.zeros_like(variable))
    assert directory.restore() == 20 and int(number) == 20 and slot.numpy() == 3
    assert directory.restore(3) == 3 and int(number) == 3
    np.testing.assert_array_equal(weights, [1, 2])
    assert not (directory.path / '.writing').exists()


def test_the_oldest_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints_module, 'KEPT', 2)
    directory, *_ = run_directory(tmp_path)
    for iteration in range(4):
        directory.save(iteration)
    assert files(tmp_path) == {
        f'model-{i}.{ending}' for i in (2, 3) for ending in ('index', 'data-00000-of-00001')
    }


def test_the_best_one_is_kept_apart(tmp_path):
    directory, *_ = run_directory(tmp_path)
    assert directory.best_score(100) is None
    for iteration, score in [(10, 0.5), (30, 0.75)]:
        directory.save_best(iteration, score)
    assert list(checkpoints(tmp_path / 'best')) == [30]
    assert directory.best_score(30) == 0.75 and directory.best_score(29) is None


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('which, name', [(1, 'learner/w1'), (2, 'metatrain/w1_momentum')])
def test_what_is_not_finite_is_not_saved(tmp_path, value, which, name):
    built = run_directory(tmp_path)
    directory, variable = built[0], built[which]
    fine = variable.numpy()
    variable.assign(tf.fill(variable.shape, tf.cast(value, variable.dtype)))
    for save in (directory.save, lambda iteration: directory.save_best(iteration, 1.0)):
        with pytest.raises(
            UserError, match=f'^{name} holds NaN .* 7: nothing was saved, there is no '
        ):
            save(7)
    assert not files(tmp_path)
    variable.assign(fine)
    directory.save(7)
    before = files(tmp_path)
    variable.assign(tf.fill(variable.shape, tf.cast(value, variable.dtype)))
    with pytest.raises(UserError) as error:
        directory.save(8)
    assert re.search(f'{name} .* stays: .*/model-7. Smaller learning rates', str(error.value))
    assert '\n' not in str(error.value) and files(tmp_path) == before
    assert directory.restore() == 7 and np.isfinite(variable).all()


def test_every_variable_is_counted_that_is_not_finite(tmp_path):
    directory, weights, slot, _ = run_directory(tmp_path)
    for variable in (weights, slot):
        variable.assign(variable / 0)
    with pytest.raises(UserError, match='learner/w1 and 1 more variables hold NaN'):
        directory.save(1)


def test_replicas_of_a_variable_are_checked_too(tmp_path):
    strategy = tf.distribute.MirroredStrategy(['CPU:0'])
    with strategy.scope():
        weights = tf.Variable([1.0, 2.0])
        read_alone = tf.Variable(
            1.0, aggregation=tf.VariableAggregation.MEAN,
            synchronization=tf.VariableSynchronization.ON_READ, trainable=False,
        )  # fmt: skip
    directory = Checkpoints(tmp_path, {LEARNER: {'w': weights, 'mean': read_alone}})
    directory.save(1)
    read_alone.assign(np.nan)
    with pytest.raises(UserError, match='learner/mean'):
        directory.save(2)


@pytest.mark.parametrize(
    'variables, words',
    [
        ({'w2': tf.Variable([1.0, 2.0])}, 'other variables'),
        ({'w1': tf.Variable([1.0])}, 'other variables'),
        ({}, 'other variables'),
    ],
)
def test_a_checkpoint_of_other_variables(tmp_path, variables, words):
    run_directory(tmp_path)[0].save(4)
    with pytest.raises(UserError, match=words) as error:
        RunDirectory(tmp_path, {LEARNER: variables}).restore()
    assert 'model-4: ' in str(error.value) and '\n' not in str(error.value)


def test_there_is_no_such_checkpoint(tmp_path):
    directory, *_ = run_directory(tmp_path)
    with pytest.raises(UserError, match=f'no checkpoint in {tmp_path}'):
        directory.restore()
    directory.save(10)
    directory.save(20)
    with pytest.raises(
        ArgumentError, match=r'iteration=7: .* has checkpoints of iterations 10, 20'
    ):
        directory.restore(7)


def test_an_earlier_run_is_set_aside(tmp_path):
    directory, *_ = run_directory(tmp_path / 'run')
    assert directory.set_aside() is None
    for number in (1, 2):
        directory.save(1)
        assert directory.set_aside() == tmp_path / f'run.old{number}'
    assert not directory.checkpoints()


def test_metrics_flags_and_clock(tmp_path):
    directory, *_ = run_directory(tmp_path / 'run')
    assert directory.metrics() == [] and directory.flags() == {} and directory.seconds() == 0
    directory.write_flags('--seed=1\n--logdir=a=b\n')
    assert directory.flags() == {'seed': '1', 'logdir': 'a=b'}
    for iteration in (10, 20, 30):
        directory.append_metrics({'iteration': iteration, 'loss': 0.5})
    with open(directory.path / 'metrics.csv', 'a') as file:
        file.write('40,0.')  # killed while it wrote
    assert [row['iteration'] for row in directory.metrics()] == ['10', '20', '30']
    assert [row['iteration'] for row in directory.metrics(20)] == ['10', '20']
    directory.forget_metrics_after(10)
    assert (directory.path / 'metrics.csv').read_text() == 'iteration,loss\n10,0.5\n'
    directory.forget_metrics_after(5)
    assert not (directory.path / 'metrics.csv').exists()
    directory.write_seconds(12.34)
    assert directory.seconds() == 12.3
    assert 'CPU cores' in json.loads((directory.path / 'clock.json').read_text())['machine']


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / 'a.txt'
    write_atomically(path, 'old')
    monkeypatch.setattr(os, 'replace', lambda *_: (_ for _ in ()).throw(OSError('full')))
    with pytest.raises(OSError, match='full'):
        write_atomically(path, 'new')
    assert path.read_text() == 'old' and files(tmp_path) == {'a.txt'}


def test_a_saved_model_is_whole_or_not_there(tmp_path):
    path = tmp_path / 'model'
    with pytest.raises(RuntimeError), new_saved_model(path, {}) as scratch:
        scratch.mkdir()
        (scratch / 'saved_model.pb').touch()
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with new_saved_model(path, {'way': 5}) as scratch:
        scratch.mkdir()
        (scratch / 'saved_model.pb').touch()
        assert not path.exists()
    assert files(tmp_path) == {f'model/{n}' for n in ('saved_model.pb', 'maml_tf.json', CARD)}
    described = json.loads((path / 'maml_tf.json').read_text())
    empty = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'  # SHA-256 of nothing
    assert described['way'] == 5 and described['sha256'] == {'saved_model.pb': empty}
    assert f'`{empty}`' in (path / CARD).read_text()
    with pytest.raises(ArgumentError, match='^path=.*exists'), new_saved_model(path, {}):
        pytest.fail('not reached')
    with pytest.raises(ArgumentError, match='^export_dir=.*exists'):
        check_new(path, 'export_dir')
