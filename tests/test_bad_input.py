"""Bad input gets one clear line and a non-zero exit, and destroys nothing."""

import resource

import absl.flags
import numpy as np
import pytest
import tensorflow as tf
from command import run_here, run_maml
from golden import SHARED
from PIL import Image

from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import build
from maml_tf.commands.run_training import run_training
from maml_tf.errors import UserError
from maml_tf.saving.checkpoints import LEARNER
from maml_tf.saving.run_directory import RunDirectory

SINUSOID = ['--datasource=sinusoid', '--norm=None', '--logdir=logs']
needs_omniglot = pytest.mark.skipif(
    not (SHARED / 'tfds').exists(), reason='no prepared Omniglot beside the project'
)


def refused(result, *words):
    """Standard error ends in one line with these words, and holds no stack trace."""
    assert 'Traceback' not in result.stderr
    line = [line for line in result.stderr.splitlines() if 'error' in line.lower()][-1]
    assert all(word in line for word in words), result.stderr


def refused_here(cwd, arguments, *words):
    """The program, in this process, ends in one line with these words, and leaves nothing."""
    before = sorted(cwd.rglob('*'))
    result = run_here(*arguments, cwd=cwd, expect=1)
    assert result.stderr.count('error: ') == 1
    refused(result, *words)
    assert sorted(cwd.rglob('*')) == before


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--norm=instance_norm'], ['--norm', 'batch_norm|layer_norm|None']),
        (['--log_dir=elsewhere'], ['--log_dir=elsewhere', '--logdir']),
        (['--train=False'], ['no checkpoint in logs']),
    ],
    ids=lambda value: value[0].split('=')[0] if value[0].startswith('--') else '',
)
def test_refused_at_once(tmp_path, arguments, words):
    """As a user types it: a flag that cannot be read, one that is checked, what the run finds."""
    refused(run_maml(*SINUSOID, *arguments, cwd=tmp_path, expect=1), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'argument, words',
    [
        ('--datasource=imagenet', ['--datasource', 'omniglot']),
        ('--num_updates=0', ['--num_updates']),
        ('--meta_batch_size=many', ['--meta_batch_size']),
        ('--metatrain_iteration=5', ["'metatrain_iteration'"]),
        ('--meta_lr=-1', ['--meta_lr']),
        ('--seed=4294967296', ['--seed=4294967296']),
    ],
)
def test_flags_that_cannot_be_read(argument, words):
    with pytest.raises(absl.flags.Error) as error:
        parsed(*SINUSOID, argument)
    message = str(error.value)
    assert '\n' not in message and all(word.removeprefix('--') in message for word in words)


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--export_dir=.'], ['--export_dir=.', 'exists']),
        (['--train=False', '--init_from=nowhere'], ['--init_from=nowhere', 'nowhere.index']),
        (['--datasource=omniglot', '--data_dir=nowhere'], ['--data_dir=nowhere', 'omniglot/3.0.0']),
        # No numbers.
        (['--meta_lr=nan'], ['--meta_lr=nan', 'finite']),
        (['--meta_lr=inf'], ['--meta_lr=inf', 'finite']),
        (['--update_lr=nan'], ['--update_lr=nan', 'finite']),
        (['--train_update_lr=-2'], ['--train_update_lr=-2', 'at least 0']),
        (['--train_update_batch_size=0'], ['--train_update_batch_size=0', 'at least 1']),
        (['--train_update_batch_size=-5'], ['--train_update_batch_size=-5', 'at least 1']),
        (['--meta_batch_size=5000000000'], ['--meta_batch_size=5000000000', 'at most 2147483647']),
        # Where nothing can be written, whoever asks.
        (['--export_dir=/proc/here'], ['--export_dir=/proc/here', 'nothing can be written']),
        (
            ['--datasource=omniglot', '--norm=batch_norm', '--write_tasks=/proc/here/tasks'],
            ['--write_tasks=/proc/here/tasks', 'nothing can be'],
        ),
        (['--export_dir=/dev/null/x'], ['--export_dir=/dev/null/x', 'nothing can be written']),
        ([f'--export_dir=new/{"x" * 250}'], ['--export_dir=new/x', 'nothing can be written']),
        (
            ['--datasource=omniglot', '--norm=batch_norm', '--write_tasks=.'],
            ['--write_tasks=.', 'a directory'],
        ),
        # In each other's way.
        (['--export_dir=logs'], ['--export_dir=logs', '--logdir writes']),
        (
            ['--datasource=omniglot', '--norm=batch_norm', '--algorithm=prototypical']
            + ['--export_dir=new', '--export_embedding_dir=new'],
            ['--export_embedding_dir=new', '--export_dir'],
        ),
        # What means nothing to the sinusoid.
        (['--num_classes=7'], ['--num_classes=7', '--datasource=sinusoid', 'omniglot']),
        (['--train_num_classes=3'], ['--train_num_classes=3', '--datasource=sinusoid']),
        (['--data_dir=x'], ['--data_dir=x', '--datasource=sinusoid']),
        (['--manual_dir=x'], ['--manual_dir=x', '--datasource=sinusoid']),
        (['--num_filters=32'], ['--num_filters=32', '--datasource=sinusoid']),
        (['--class_split=lake'], ['--class_split=lake', '--datasource=sinusoid']),
        # What only the sinusoid has.
        (['--datasource=omniglot', '--baseline=oracle'], ['--baseline=oracle', 'sinusoid']),
        (['--datasource=linear', '--baseline=oracle'], ['--baseline=oracle', 'sinusoid']),
        # Paths that name nothing.
        (['--data_dir='], ['--data_dir=:', 'empty']),
        (['--logdir='], ['--logdir=:', 'empty']),
        (['--export_dir='], ['--export_dir=:', 'empty']),
        (['--export_embedding_dir='], ['--export_embedding_dir=:', 'empty']),
        (['--init_from='], ['--init_from=:', 'empty']),
        (['--tasks_file='], ['--tasks_file=:', 'empty']),
        # What the method does not heed.
        (
            ['--datasource=omniglot', '--norm=batch_norm', '--algorithm=prototypical']
            + ['--num_updates=3'],
            ['--num_updates=3', '--algorithm=prototypical'],
        ),
        (['--algorithm=meta_sgd', '--update_lr=.1'], ['--update_lr=0.1', '--algorithm=meta_sgd']),
        (
            ['--algorithm=meta_sgd', '--train_update_lr=.1'],
            ['--train_update_lr=0.1', '--algorithm=meta_sgd'],
        ),
        (['--reptile_inner_batch=3'], ['--reptile_inner_batch=3', '--algorithm=maml']),
        (['--algorithm=reptile', '--meta_lr=.1'], ['--meta_lr=0.1', '--algorithm=reptile']),
        (['--algorithm=reptile', '--stop_grad'], ['--stop_grad', '--algorithm=reptile']),
        (
            ['--datasource=omniglot', '--conv=False', '--num_filters=8'],
            ['--num_filters=8', '--conv=False'],
        ),
        (
            ['--datasource=omniglot', '--norm=batch_norm', '--algorithm=matching']
            + ['--matching_steps=5'],
            ['--matching_steps=5', '--matching_fce'],
        ),
        # Metric learners compare classes.
        (
            ['--norm=batch_norm', '--algorithm=prototypical'],
            ['--datasource=sinusoid', 'Prototypical', 'regression'],
        ),
    ],
    ids=lambda value: ' '.join(value) if value[0].startswith('--') else '',
)
def test_refused_before_anything_is_done(tmp_path, arguments, words):
    refused_here(tmp_path, [*SINUSOID, *arguments], *words)


def test_stray_argument(tmp_path):
    result = run_maml(*SINUSOID, 'train', cwd=tmp_path, expect=1)
    assert "unknown argument 'train'" in result.stdout + result.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope='module')
def drawings(tmp_path_factory):
    """Flags of a folder of small images: 18 classes of 4."""
    folder, rng = tmp_path_factory.mktemp('data') / 'drawings', np.random.default_rng(0)
    for number in range(18):
        (folder / f'class{number}').mkdir(parents=True)
        pattern = rng.integers(60, 190, (4, 4, 3)).repeat(6, 0).repeat(6, 1)
        for image in range(4):
            pixels = pattern + rng.integers(-50, 50, (24, 24, 3))
            path = folder / f'class{number}' / f'{image}.png'
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return [
        *('--datasource=directory', f'--data_dir={folder}', '--image_size=24', '--num_classes=2'),
        *('--update_batch_size=1', '--train_query=1', '--logdir=logs'),
    ]


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--algorithm=siamese', '--siamese_l2=-1'], ['--siamese_l2=-1', 'from 0']),
        (['--algorithm=siamese', '--siamese_l2=.1,-.1,0,0,0'], ['--siamese_l2=0.1,-0.1', 'from 0']),
        (['--algorithm=siamese', '--siamese_l2=much'], ['--siamese_l2=much', 'numbers']),
        (['--algorithm=siamese', '--siamese_l2=1,2'], ['--siamese_l2', '2 numbers']),
        (['--algorithm=siamese', '--siamese_network=koch'], ['--siamese_network=koch', '65x65']),
        (['--algorithm=relation', '--image_size=20'], ['--image_size=20', '22x22']),
        (['--train_num_classes=3'], ['--train_num_classes=3', '--num_classes']),
        (['--train_shot_from=1', '--train_update_batch_size=2'], ['--train_shot_from', '--norm']),
        (['--num_classes=9'], ['--num_classes=9']),
        (['--update_batch_size=4'], ['--num_classes=2', '5 images or more']),
    ],
    ids=lambda value: value[-1] if value[0].startswith('--') else '',
)
def test_what_the_method_or_the_data_do_not_take(drawings, tmp_path, arguments, words):
    refused_here(tmp_path, [*drawings, *arguments], *words)


@needs_omniglot
@pytest.mark.parametrize(
    'argument, words',
    [
        ('--num_classes=200', ['--num_classes=200', 'val split has 100 classes']),
        ('--update_batch_size=11', ['--update_batch_size', '11 support + 11 query', '20']),
    ],
)
def test_more_than_the_data_give(tmp_path, argument, words):
    omniglot = ['--datasource=omniglot', f'--data_dir={SHARED / "tfds"}', '--logdir=logs']
    refused_here(tmp_path, [*omniglot, argument], *words)
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_model_in_the_same_place(tmp_path):
    run_here(*SINUSOID, '--metatrain_iterations=10', '--test_tasks=20', cwd=tmp_path)
    (run,) = (tmp_path / 'logs').iterdir()
    text = (run / 'flags.txt').read_text()
    (run / 'flags.txt').write_text(text.replace('--datasource=sinusoid', '--datasource=other'))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    refused_here(
        tmp_path,
        [*SINUSOID, '--metatrain_iterations=20'],
        *('--datasource=sinusoid', '--datasource=other', '--logdir'),
    )
    assert before == {path.name: path.read_bytes() for path in run.iterdir()}


def test_a_loss_that_is_no_number(tmp_path):
    command = [*SINUSOID, '--update_lr=1e30', '--metatrain_iterations=1000']
    result = run_here(*command, cwd=tmp_path, expect=1)
    refused(result, 'nan', 'learning rates', 'there is no checkpoint yet')
    assert not list(tmp_path.rglob('model-*'))


@pytest.mark.slow
def test_weights_that_overflow_in_the_last_step(tmp_path):
    """The loss before it is a number, and there is none after it."""
    command = [*SINUSOID, '--meta_lr=1e39', '--metatrain_iterations=1']
    refused(run_maml(*command, cwd=tmp_path, expect=1), 'iteration 1', 'nothing was saved')
    assert not list(tmp_path.rglob('model-*')) and not list(tmp_path.rglob('results.json'))


@pytest.mark.parametrize('algorithm', ['prototypical', 'matching', 'relation', 'siamese'])
def test_metric_learners_that_overflow_in_the_last_step(drawings, tmp_path, algorithm):
    command = [*drawings, f'--algorithm={algorithm}', '--num_filters=4', '--meta_batch_size=2']
    command += ['--meta_lr=1e39', '--metatrain_iterations=1']
    result = run_here(*command, cwd=tmp_path, expect=1)
    refused(result, 'iteration 1', 'nothing was saved')
    assert not list(tmp_path.rglob('model-*')) and not list(tmp_path.rglob('results.json'))


@pytest.mark.parametrize('name', ['encoder_conv2_kernel', 'encoder_norm4_moving_mean'])
def test_metric_learners_with_nan(drawings, tmp_path, monkeypatch, name):
    """In a weight, and in a running average, which no loss of training sees."""
    monkeypatch.chdir(tmp_path)
    command = [*drawings, '--algorithm=prototypical', '--num_filters=4', '--meta_batch_size=2']
    experiment = build(parsed(*command, '--metatrain_iterations=1'))
    variable = experiment.learner.named_variables()[name]
    variable.assign(np.full(variable.shape, np.nan))
    with pytest.raises(UserError, match='(?i)nan') as error:
        run_training(experiment)
    assert '\n' not in str(error.value) and 'there is no checkpoint yet' in str(error.value)
    assert not list(tmp_path.rglob('model-*'))


def test_weights_of_another_network(tmp_path):
    variable = tf.Variable(np.zeros([7, 7], 'float32'))
    RunDirectory(tmp_path / 'other', {LEARNER: {'w1': variable}}).save(3)
    command = [*SINUSOID, '--train=False', '--init_from=other']
    refused_here(tmp_path, command, '--init_from=other', 'w1', '[7, 7]', '[1, 40]')


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    """A limit on the size of a file stands for it: the first checkpoint fits, one grown log file
    does not."""
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    result = run_maml(
        *SINUSOID, '--metatrain_iterations=1000', cwd=tmp_path, expect=1, preexec_fn=small
    )
    refused(result, 'could not be written')
    (run,) = (tmp_path / 'logs').iterdir()
    assert not list(run.glob('model-*')) and not (run / '.writing').exists()
    run_here(*SINUSOID, '--metatrain_iterations=1000', '--test_tasks=20', cwd=tmp_path)
    assert (run / 'model-1000.index').exists()
