"""Faults of the disk under a run: one clear line that names the file and what to do, what was saved
stays, and the same command goes on."""

import dataclasses
import errno
import io
import os
import pathlib
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf
from command import run_here
from raw_files import truncate
from test_kills import EXPORTS, IMAGES, write_photos, write_raw

from maml_tf.algorithms.metric.prototypical import Prototypical
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.datasets.raw import memory_map
from maml_tf.datasets.sources import SOURCES
from maml_tf.errors import ArgumentError, UserError
from maml_tf.saving.checkpoint_files import ENDINGS, set_aside
from maml_tf.saving.checkpoints import Checkpoints
from maml_tf.saving.exports.saved_model import check_new_or_of, new_saved_model
from maml_tf.saving.run_directory import RunDirectory
from maml_tf.serialisation.files import replaced, write_atomically
from maml_tf.terminal.exit import errors_as_one_line

FULL = os.strerror(errno.ENOSPC)


def full(*arguments, **options):
    """Writes to a full disk."""
    raise OSError(errno.ENOSPC, FULL)


def line_of(act, *arguments):
    """The one line that the program would end with."""
    with pytest.raises(SystemExit) as end, errors_as_one_line(file='--logdir'):
        act(*arguments)
    assert '\n' not in end.value.code
    return end.value.code


@pytest.fixture
def directory(tmp_path):
    """A RunDirectory with checkpoints of iterations 10 and 20, flags and metrics."""
    directory = RunDirectory(tmp_path / 'run', {'learner': {'w': tf.Variable(tf.zeros([9]))}})
    directory.write_flags('--seed=1\n')
    for iteration in (10, 20):
        directory.append_metrics({'iteration': iteration, 'loss': 1.0})
        directory.save(iteration)
    return directory


@pytest.fixture
def without_space(monkeypatch):
    """Files can be opened, and nothing be written into them."""
    open_file = io.open

    def opened(path, mode='r', *arguments, **options):
        file = open_file(path, mode, *arguments, **options)
        if set(mode) & set('wax'):
            file.write = full
        return file

    monkeypatch.setattr(io, 'open', opened)
    monkeypatch.setattr('builtins.open', opened)


@pytest.mark.parametrize(
    'name, act',
    [
        ('flags.txt', lambda directory: directory.write_flags('--seed=1\n')),
        ('clock.json', lambda directory: directory.write_seconds(1.0)),
        ('metrics.csv', lambda directory: directory.append_metrics({'iteration': 30, 'loss': 1})),
        ('metrics.csv', lambda directory: directory.append_metrics({'iteration': 30, 'more': 1})),
        ('metrics.csv', lambda directory: directory.forget_metrics_after(10)),
    ],
)
def test_a_full_disk_names_the_file(directory, without_space, name, act):
    line = line_of(act, directory)
    assert line.startswith(f'error: {directory.path / name}: {FULL}'), line
    assert 'make room' in line and 'same command' in line, line
    assert not list(directory.path.glob('.*'))
    assert [int(row['iteration']) for row in directory.metrics()] == [10, 20]
    assert directory.flags() == {'seed': '1'} and directory.restore() == 20


def test_a_full_disk_under_a_lock(directory, monkeypatch):
    monkeypatch.setattr('maml_tf.serialisation.lock.os.write', full)
    with directory.held():  # It says who holds the lock, which is not worth ending for.
        pass


def test_a_full_disk_under_a_checkpoint(directory, monkeypatch):
    """Of TensorFlow's own files: the system refuses what goes beyond some bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(UserError) as error:
            directory.save(30)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    check_checkpoint_line(directory, str(error.value))
    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(UserError) as error:
        directory.save(30)
    check_checkpoint_line(directory, str(error.value))


def check_checkpoint_line(directory, line):
    assert line.startswith(f'{directory.path}/model-30: the checkpoint could not be written (')
    assert 'the last checkpoint stays: ' in line and line.count('\n') == 0
    assert list(directory.checkpoints()) == [10, 20] and not list(directory.path.glob('.*'))


def test_a_full_disk_under_an_export(tmp_path, without_space):
    with pytest.raises(UserError) as error, new_saved_model(tmp_path / 'export', {}) as scratch:
        scratch.mkdir()
    assert str(error.value).startswith(
        f'{tmp_path}/export: the SavedModel could not be written ({FULL})'
    )
    assert not list(tmp_path.iterdir())


def test_an_export_that_a_killed_run_left(tmp_path):
    """The same command leaves it as it is; any other overwrites nothing."""
    path, flags = tmp_path / 'export', {'seed': 1, 'export_dir': str(tmp_path / 'export')}

    def export(weights, **description):
        with new_saved_model(path, {'flags': flags, **description}) as scratch:
            (scratch / 'variables').mkdir(parents=True)
            (scratch / 'variables' / 'variables.data-00000-of-00001').write_text(weights)
            (scratch / 'saved_model.pb').write_bytes(os.urandom(9))

    export('weights', iteration=10)
    before = {file: file.read_bytes() for file in path.rglob('*') if file.is_file()}
    check_new_or_of(flags, 'export_dir')
    export('weights', iteration=10)
    for weights, description in (('others', {'iteration': 10}), ('weights', {'iteration': 20})):
        with pytest.raises(ArgumentError, match='exists already'):
            export(weights, **description)
    with pytest.raises(ArgumentError, match='^export_dir=.*exists already'):
        check_new_or_of({**flags, 'seed': 2}, 'export_dir')
    assert before == {file: file.read_bytes() for file in path.rglob('*') if file.is_file()}
    assert [file.name for file in tmp_path.iterdir()] == ['export']
    (path / 'maml_tf.json').write_text('[')
    with pytest.raises(ArgumentError, match='exists already'):
        check_new_or_of(flags, 'export_dir')


def test_a_directory_that_may_not_be_written(tmp_path, monkeypatch):
    """Root may write everywhere, so the system's answer is made up."""

    def refused(path, mode='r', *arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))

    monkeypatch.setattr(io, 'open', refused)
    line = line_of(write_atomically, tmp_path / 'results.json', '')
    # The file that is meant, not the one that was to become it.
    assert line.startswith(f'error: {tmp_path}/results.json: Permission denied'), line
    assert 'writable' in line, line


def test_a_file_that_is_not_read(tmp_path):
    """What a reader misses, it is told as before."""
    line = line_of(lambda: open(tmp_path / 'missing'))
    assert line == f'error: {tmp_path}/missing: No such file or directory'
    with pytest.raises(OSError) as error, replaced(tmp_path / 'a'):
        open(tmp_path / 'missing')
    assert error.value.filename == str(tmp_path / 'missing')


@pytest.mark.parametrize('remade', [False, True])
@pytest.mark.parametrize(
    'act',
    [
        lambda directory: directory.save(30),
        lambda directory: directory.save_best(30, 1.0),
        lambda directory: directory.append_metrics({'iteration': 30, 'loss': 1}),
        lambda directory: directory.write_seconds(1.0),
    ],
)
def test_a_run_directory_that_is_removed(directory, act, remade):
    """It is not made again with a part of what it held."""
    shutil.rmtree(directory.path)
    if remade:
        directory.path.mkdir()
        (directory.path / 'mine').write_text('')
    with pytest.raises(UserError) as error:
        act(directory)
    message = str(error.value)
    assert message.startswith(f'{directory.path}: ') and 'removed or renamed' in message
    assert 'same command' in message and '\n' not in message
    left = [path.name for path in directory.path.rglob('*')] if directory.path.exists() else []
    assert left == ['mine'] * remade
    again = RunDirectory(directory.path, {'learner': {'w': tf.Variable(tf.zeros([9]))}})
    again.write_flags('--seed=1\n')
    again.save(10)
    assert list(again.checkpoints()) == [10]


def test_a_kill_while_a_checkpoint_is_set_aside(directory, monkeypatch, capsys):
    """The data, which nothing finds without an index, go first."""
    rename = pathlib.Path.rename
    for ending in ENDINGS:
        path = directory.path / f'model-20.{ending}'
        path.write_bytes(path.read_bytes()[:-9])

    def killed(path, target):
        monkeypatch.undo()
        rename(path, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, 'rename', killed)
    with pytest.raises(KeyboardInterrupt):
        set_aside(directory.path, 20)
    assert directory.restore_to_go_on() == 10
    names = sorted(path.name for path in directory.path.glob('*model-20*'))
    assert names == [f'damaged-model-20.{ending}' for ending in reversed(ENDINGS)]


def test_what_a_kill_left_of_a_finished_run(directory):
    """It was killed after its last checkpoint, before what follows it."""
    (directory.path / '.clock.json.new').write_text('')
    (directory.path / 'model-3.data-00000-of-00001').write_text('')
    (directory.path / 'best' / '.writing').mkdir(parents=True)
    (directory.path / 'best' / '.score.json.new').write_text('')
    (directory.path / '.mine').write_text('')
    directory.tidy()
    hidden = sorted(path.name for path in directory.path.rglob('.*'))
    assert hidden == ['.mine'] and not (directory.path / 'model-3.data-00000-of-00001').exists()
    assert list(directory.checkpoints()) == [10, 20]


def test_a_file_that_a_killed_process_left(tmp_path):
    """It is removed at once; that of a process which writes stays."""
    path, pixels = tmp_path / 'a.npy', np.zeros([2, 3, 2, 3], np.uint8)
    left = tmp_path / 'a.npy.1.unfinished'
    left.write_bytes(b'half')

    def overtaken():
        yield 0, pixels[0]
        (writing,) = tmp_path.glob('*.unfinished')
        memory_map.memory_mapped(path, 2, (3, 2, 3), enumerate(pixels))
        assert writing.exists()
        yield 1, pixels[1]

    memory_map.memory_mapped(path, 2, (3, 2, 3), overtaken())
    assert [path.name for path in tmp_path.iterdir()] == ['a.npy']


def test_a_mapped_file_that_is_cut_short(tmp_path):
    """Its pages would end the process without a word."""
    from maml_tf.episodes.class_images import ClassImages

    pixels = np.arange(40 * 4096, dtype=np.uint8).reshape(40, 64, 64, 1)
    path = tmp_path / 'a.npy'
    mapped = memory_map.memory_mapped(path, 40, (64, 64, 1), enumerate(pixels))
    classes = ClassImages(mapped, np.array([20, 20]))
    numbers = np.array([[39, 0], [7, 7]], np.int32)
    np.testing.assert_array_equal(classes.gather(tf.constant(numbers)), pixels[numbers])
    os.truncate(path, path.stat().st_size // 2)
    np.testing.assert_array_equal(classes.gather(tf.constant([3])), pixels[[3]])
    with pytest.raises(UserError, match=f'^{path}: ends before image 39'):
        classes.gather(tf.constant(numbers))
    line = line_of(tf.function(lambda: classes.gather(tf.constant(numbers))))
    assert line.startswith(f'error: {path}: ends before image 39') and 'remove it' in line, line


SINUSOID = (
    *('--datasource=sinusoid', '--norm=None', '--logdir=logs', '--test_tasks=4'),
    *('--meta_batch_size=2', '--num_updates=1', '--metatrain_iterations=20'),
)


@pytest.fixture
def often(monkeypatch):
    for name in ('sinusoid', 'directory', 'miniimagenet'):
        row = dataclasses.replace(
            SOURCES[name], save_every=10, print_every=10, iterations_per_call=10
        )
        monkeypatch.setitem(SOURCES, name, row)
    for method in (MAML, Prototypical):
        monkeypatch.setattr(method, 'xla', False)


@pytest.mark.slow
def test_a_run_whose_directory_is_removed(often, tmp_path, monkeypatch):
    save = Checkpoints.save

    def saving(self, iteration):
        save(self, iteration)
        if iteration == 10:
            shutil.rmtree(self.path)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, 'save', saving)
        result = run_here(*SINUSOID, cwd=tmp_path, expect=1)
    (line,) = [line for line in result.stderr.splitlines() if 'error: ' in line]
    assert 'removed or renamed' in line
    assert not any(tmp_path.joinpath('logs').glob('*')) and 'Traceback' not in result.stderr
    run_here(*SINUSOID, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('size', [100, 3000, 20_000])
def test_a_run_on_a_full_disk(often, tmp_path, size):
    """No file may grow beyond some bytes, whoever writes it: events, metrics, checkpoints."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    command = [*SINUSOID, '--export_dir=export']
    try:
        result = run_here(*command, cwd=tmp_path, expect=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert 'Traceback' not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if 'error: ' in line]
    assert 'logs' in line and os.strerror(errno.EFBIG) in line, line
    run_here(*command, cwd=tmp_path)


@pytest.mark.slow
def test_data_under_a_run(often, tmp_path, monkeypatch):
    """Files of a folder and TFRecords that are cut short or cannot be written."""
    write_raw(tmp_path / 'raw')
    write_photos(tmp_path / 'photos')
    arguments = [flag.format(out=tmp_path / 'out') for flag in (*IMAGES, *EXPORTS)]
    prepared = [*arguments, '--datasource=miniimagenet', '--data_dir=data', '--manual_dir=raw']
    prepared.append('--logdir=logs')

    def one_line(command, *words):
        result = run_here(*command, cwd=tmp_path, expect=1)
        assert 'Traceback' not in result.stderr
        (line,) = [line for line in result.stderr.splitlines() if 'error: ' in line]
        assert all(word in line for word in words), line
        assert '{{' not in line

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        one_line(prepared, 'data/mini_imagenet', os.strerror(errno.EFBIG), 'make room')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not any(tmp_path.joinpath('data').rglob('*incomplete*'))
    run_here(*prepared, cwd=tmp_path)
    (records,) = tmp_path.glob('data/*/*/*train.tfrecord*')
    truncate(records)
    one_line(prepared, 'data/mini_imagenet', 'is damaged', 'prepare it anew')

    # A mapped folder's file is cut short after the first checkpoint.
    monkeypatch.setattr(memory_map, 'IN_MEMORY', 0)
    save = Checkpoints.save

    def saving(self, iteration):
        save(self, iteration)
        for path in tmp_path.glob('photos/.maml_tf/train*.npy'):
            os.truncate(path, 200)

    monkeypatch.setattr(Checkpoints, 'save', saving)
    shutil.rmtree(tmp_path / 'out')
    mapped = [*arguments, '--datasource=directory', '--data_dir=photos', '--image_size=28']
    mapped += ['--metatrain_iterations=30', '--logdir=logs']
    one_line(mapped, 'photos/.maml_tf/train', 'ends before', 'remove it')
    monkeypatch.setattr(Checkpoints, 'save', save)
    for path in tmp_path.glob('photos/.maml_tf/train*.npy'):
        path.unlink()
    result = run_here(*mapped, cwd=tmp_path)
    assert 'Resuming from iteration 10 of 30' in result.stdout
