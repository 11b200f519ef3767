"""Damaged files in a run directory: one clear line, and no whole checkpoint is given up."""

import dataclasses
import random
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from command import run_here

from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.datasets.sources import SOURCES
from maml_tf.errors import ArgumentError, UserError
from maml_tf.saving import records
from maml_tf.saving.checkpoint_files import checkpoints, damage, remove_all_but
from maml_tf.saving.checkpoints import LEARNER
from maml_tf.saving.init_from import load_weights
from maml_tf.saving.run_directory import RunDirectory
from maml_tf.serialisation.tensorflow_errors import reason

DATA, INDEX = 'model-20.data-00000-of-00001', 'model-20.index'


def flipped(content, at, bit=4):
    at %= len(content)
    return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


def rewritten(name, change):
    """A damage: the file's bytes go through `change`."""

    def act(path):
        (path / name).write_bytes(change((path / name).read_bytes()))

    return act


DAMAGES = {
    'data truncated': rewritten(DATA, lambda content: content[: len(content) // 2]),
    'data empty': rewritten(DATA, lambda content: b''),
    'data with a flipped bit': rewritten(DATA, lambda content: flipped(content, 1000)),
    'index alone': lambda path: (path / DATA).unlink(),
    'index truncated': rewritten(INDEX, lambda content: content[: len(content) // 2]),
    'index empty': rewritten(INDEX, lambda content: b''),
    'index with a flipped bit': rewritten(INDEX, lambda content: flipped(content, 60)),
    'garbage': rewritten(INDEX, lambda content: b'garbage' * 99),
    'a directory': lambda path: ((path / INDEX).unlink(), (path / INDEX).mkdir()),
}


def run_directory(path):
    """(a RunDirectory, its weights)."""
    weights = tf.Variable(np.zeros([20, 20], np.float32))
    slot = tf.Variable(np.zeros([20], np.float32))
    return RunDirectory(path, {LEARNER: {'w1': weights}, 'metatrain': {'slot': slot}}), weights


@pytest.fixture
def saved(tmp_path):
    """(a RunDirectory with checkpoints of iterations 10 and 20, its weights, which are at 0)."""
    directory, weights = run_directory(tmp_path / 'run')
    for iteration in (10, 20):
        weights.assign(tf.fill([20, 20], float(iteration)))
        directory.save(iteration)
    weights.assign(tf.zeros([20, 20]))
    return directory, weights


class Weights:
    """As much of a learner as load_weights asks for."""

    def __init__(self, weights):
        self.named_variables = lambda: {'w1': weights}


@pytest.mark.parametrize('act', DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint(saved, act, capsys):
    directory, weights = saved
    act(directory.path)
    # To evaluate it: a line that says which is whole.
    with pytest.raises(ArgumentError, match=r'^iteration: .*/model-20 cannot be read \(') as error:
        directory.restore()
    assert str(error.value).endswith('iteration 10 is whole') and '\n' not in str(error.value)
    # To start from it.
    prefix = directory.path / 'model-20'
    for path in (directory.path, prefix) if (directory.path / INDEX).is_file() else ():
        with pytest.raises(ArgumentError, match='^init_from=.*model-20 cannot be read') as error:
            load_weights(Weights(weights), path)
        assert str(error.value).endswith('iteration 10 is whole')
    assert not np.any(weights)
    # To go on: the one before it, and a line.
    assert directory.restore_to_go_on() == 10
    np.testing.assert_array_equal(weights, np.full([20, 20], 10))
    said = capsys.readouterr().out
    assert said.count('\n') == 1 and 'kept as damaged-model-20, going on from iteration 10' in said
    assert list(directory.checkpoints()) == [10]
    assert (directory.path / 'damaged-model-20.index').exists()
    assert directory.restore() == 10 and not capsys.readouterr().out
    directory.save(20)
    assert directory.restore() == 20


def test_no_whole_checkpoint(saved):
    directory, _ = saved
    for iteration in (10, 20):
        (directory.path / f'model-{iteration}.index').write_bytes(b'')
    before = sorted(directory.path.iterdir())
    with pytest.raises(UserError, match='model-20 cannot be read .* no other .* whole; start anew'):
        directory.restore_to_go_on()
    with pytest.raises(ArgumentError, match='no other is whole$'):
        directory.restore()
    assert sorted(directory.path.iterdir()) == before


def test_every_flipped_bit_is_found_or_changes_nothing(saved):
    """Some bytes of an index are padding."""
    directory, weights = saved
    rng, whole = random.Random(0), {}
    for name in (DATA, INDEX):
        whole[name] = (directory.path / name).read_bytes()
    found = 0
    for _ in range(300):
        name = rng.choice((DATA, INDEX))
        content = flipped(whole[name], rng.randrange(10**6), 1 << rng.randrange(8))
        (directory.path / name).write_bytes(content)
        if damage(directory.path / 'model-20'):
            found += 1
        else:
            assert directory.restore() == 20
            np.testing.assert_array_equal(weights, np.full([20, 20], 20))
        (directory.path / name).write_bytes(whole[name])
    assert found > 250


def test_files_of_other_names(saved):
    """They are not counted, and stay."""
    directory, _ = saved
    others = [
        directory.path / f'{stem}.{ending}'
        for stem in ('model-final', 'model-007', 'model--1', 'model-1_0', 'model-²')
        for ending in ('index', 'data-00000-of-00001')
    ]
    for path in others:
        path.write_text('mine')
    assert list(directory.checkpoints()) == [10, 20] and directory.restore() == 20
    remove_all_but(directory.path, [20])
    assert list(checkpoints(directory.path)) == [20]
    assert all(path.exists() for path in others)


def test_flags_that_a_person_edited(tmp_path):
    path = tmp_path / 'flags.txt'
    assert records.flags(path) == {}
    path.write_text('# mine\n\n--seed=1\n -logdir=a=b \n// more\n--nolog\n--conv\n--norm=None\n')
    said = {'seed': '1', 'logdir': 'a=b', 'log': 'False', 'conv': 'True', 'norm': 'None'}
    assert records.flags(path) == said


@pytest.mark.parametrize(
    'name, read, content, words',
    [
        ('flags.txt', records.flags, b'--seed=1\nhello\n', "line 2 is no flag, 'hello'"),
        ('flags.txt', records.flags, b'--=1\n', 'line 1 is no flag'),
        ('flags.txt', records.flags, b'--a=\xff\n', 'no text in UTF-8'),
        ('metrics.csv', records.metrics, b'hello world\n', 'line 1'),
        ('metrics.csv', records.metrics, b'iteration,loss\n10,1\nhello\n', "line 3 .*'hello'"),
        ('metrics.csv', records.metrics, b'iteration,loss\n10,1,2\n', 'line 2'),
        ('metrics.csv', records.metrics, b'iteration,loss\n10,much\n', 'line 2'),
        ('metrics.csv', records.metrics, b'iteration,loss\nten,1\n', 'line 2'),
        ('metrics.csv', records.metrics, b'iteration,loss\n\n', 'line 2'),
        ('metrics.csv', records.metrics, b'iteration,iteration\n', 'line 1'),
        ('metrics.csv', records.metrics, b'\xff\x00\n', 'no text in UTF-8'),
        ('clock.json', records.clock, b'', 'training_seconds'),
        ('clock.json', records.clock, b'[]', 'training_seconds'),
        ('clock.json', records.clock, b'{"training_seconds": "long"}', 'training_seconds'),
        ('clock.json', records.clock, b'\xff', 'training_seconds'),
        ('score.json', records.best, b'', 'iteration and score'),
        ('score.json', records.best, b'{"iteration": 3}', 'iteration and score'),
        ('scores.json', records.scores, b'', 'score for each'),
        ('scores.json', records.scores, b'{"a": 1}', 'score for each'),
    ],
)
def test_other_files(tmp_path, name, read, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=f'^{re.escape(str(path))}: .*{words}') as error:
        read(path)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'message, said',
    [
        (
            '{{function_node __wrapped__SaveV2_dtypes_35_device_/job:localhost/CPU:0}} '
            'logs/.writing/model_temp/part-00000; No space left on device [Op:SaveV2] name: ',
            'No space left on device',
        ),
        (
            'TensorBundle at logs/model-20 shard 0 (160 bytes): Checksum does not match: stored 1',
            'Checksum does not match: stored 1',
        ),
    ],
)
def test_errors_of_tensorflow_in_words(message, said):
    assert reason(tf.errors.ResourceExhaustedError(None, None, message)) == said


SINUSOID = [
    *('--datasource=sinusoid', '--norm=None', '--logdir=logs', '--test_tasks=4'),
    '--meta_batch_size=2',
]


@pytest.fixture(scope='module', autouse=True)
def often():
    """Checkpoints and metrics every 10 iterations, of runs too short to be worth compiling."""
    row = dataclasses.replace(
        SOURCES['sinusoid'], save_every=10, print_every=10, iterations_per_call=10
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SOURCES, 'sinusoid', row)
        patch.setattr(MAML, 'xla', False)
        yield


@pytest.fixture(scope='module')
def trained(tmp_path_factory, often):
    """A directory with a run of 20 iterations in logs/."""
    path = tmp_path_factory.mktemp('trained')
    run_here(*SINUSOID, '--metatrain_iterations=20', cwd=path)
    return path


@pytest.fixture
def run(trained, tmp_path):
    """A run directory like it, in logs/ of its own."""
    shutil.copytree(trained / 'logs', tmp_path / 'logs')
    return next((tmp_path / 'logs').iterdir())


def one_line(result, *words):
    assert result.stderr.count('error: ') == 1 and 'Traceback' not in result.stderr
    line = next(line for line in result.stderr.splitlines() if 'error: ' in line)
    assert all(word in line for word in words), result.stderr


@pytest.mark.slow
def test_a_run_goes_on_from_the_checkpoint_before(run, tmp_path):
    DAMAGES['data with a flipped bit'](run)
    (run / 'model-final.index').write_text('mine')
    command = [*SINUSOID, '--metatrain_iterations=20']
    result = run_here(*command, '--train=False', cwd=tmp_path, expect=1)
    one_line(result, '--test_iter: ', 'model-20 cannot be read', 'iteration 10 is whole')
    whole = run_here(*command, '--train=False', '--test_iter=10', cwd=tmp_path)
    assert 'iteration 10 of 20' in whole.stdout
    undisturbed = (run / 'metrics.csv').read_text()
    result = run_here(*command, cwd=tmp_path)
    assert 'going on from iteration 10' in result.stdout
    assert 'Resuming from iteration 10 of 20' in result.stdout
    assert (run / 'metrics.csv').read_text() == undisturbed  # No row is lost or doubled.


@pytest.mark.slow
@pytest.mark.parametrize('name', ['flags.txt', 'metrics.csv', 'clock.json'])
def test_before_anything_is_done(run, tmp_path, name):
    with open(run / name, 'a') as file:
        file.write('hello\n')
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    for more in (['--metatrain_iterations=30'], ['--metatrain_iterations=20', '--train=False']):
        one_line(run_here(*SINUSOID, *more, cwd=tmp_path, expect=1), f'{run.name}/{name}: ')
    assert before == {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


@pytest.mark.slow
def test_edited_flags_are_the_same_flags(run, tmp_path):
    path = run / 'flags.txt'
    text = path.read_text().replace('--conv=True\n', '--conv\n').replace('--max_pool=False\n', '')
    path.write_text(f'# mine\n\n{text}--nomax_pool\n')
    result = run_here(*SINUSOID, '--metatrain_iterations=30', cwd=tmp_path)
    assert 'Resuming from iteration 20 of 30' in result.stdout


@pytest.mark.slow
def test_the_weights_of_another_method(run, tmp_path):
    """Training from them says whose they are; they are neither evaluated nor exported as another
    method's."""
    start = [f'--init_from={run}', '--algorithm=anil', '--metatrain_iterations=10']
    for path in (run, run / 'model-20'):
        result = run_here(
            *[*SINUSOID, f'--init_from={path}', '--algorithm=anil', '--metatrain_iterations=10'],
            *('--train=False', '--export_dir=exported'),
            cwd=tmp_path,
            expect=1,
        )
        one_line(result, f'--init_from={path}', '--algorithm=maml', '--algorithm=anil')
    assert not (tmp_path / 'exported').exists()
    result = run_here(*SINUSOID, *start, cwd=tmp_path)
    assert f'Starting from the weights of {run}, which --algorithm=maml learnt' in result.stdout
