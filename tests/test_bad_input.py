"""Bad input gets one clear line and a non-zero exit, and destroys nothing."""

import resource

import numpy as np
import pytest
import tensorflow as tf
from command import run_maml
from golden import SHARED

from maml_tf.saving.checkpoints import LEARNER
from maml_tf.saving.run_directory import RunDirectory

SINUSOID = ['--datasource=sinusoid', '--norm=None', '--logdir=logs']


def refused(result, *words):
    """Standard error ends in one line with these words, and holds no stack trace."""
    assert 'Traceback' not in result.stderr
    line = [line for line in result.stderr.splitlines() if 'error' in line.lower()][-1]
    assert all(word in line for word in words), result.stderr


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--norm=instance_norm'], ['--norm', 'batch_norm|layer_norm|None']),
        (['--datasource=imagenet'], ['--datasource', 'omniglot']),
        (['--num_updates=0'], ['--num_updates']),
        (['--meta_batch_size=many'], ['--meta_batch_size']),
        (['--metatrain_iteration=5'], ["'metatrain_iteration'"]),
        (['--log_dir=elsewhere'], ['--log_dir=elsewhere', '--logdir']),
        (['--train=False'], ['no checkpoint in logs']),
        (['--train=False', '--init_from=nowhere'], ['--init_from=nowhere', 'nowhere.index']),
        (['--export_dir=.'], ['--export_dir=.', 'exists']),
        (['--datasource=omniglot', '--data_dir=nowhere'], ['--data_dir=nowhere', 'omniglot/3.0.0']),
    ],
    ids=lambda value: value[0].split('=')[0] if value[0].startswith('--') else '',
)
def test_refused_at_once(tmp_path, arguments, words):
    refused(run_maml(*SINUSOID, *arguments, cwd=tmp_path, expect=1), *words)
    assert not list(tmp_path.iterdir())


def test_stray_argument(tmp_path):
    result = run_maml(*SINUSOID, 'train', cwd=tmp_path, expect=1)
    assert "unknown argument 'train'" in result.stdout + result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    not (SHARED / 'tfds').exists(), reason='no prepared Omniglot beside the project'
)
@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--num_classes=200'], ['--num_classes=200', 'val split has 100 classes']),
        (['--update_batch_size=11'], ['--update_batch_size', '11 support + 11 query', '20']),
    ],
)
def test_more_than_the_data_give(tmp_path, arguments, words):
    refused(
        run_maml(
            '--datasource=omniglot',
            f'--data_dir={SHARED / "tfds"}',
            '--logdir=logs',
            *arguments,
            cwd=tmp_path,
            expect=1,
        ),
        *words,
    )
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_model_in_the_same_place(tmp_path):
    run_maml(
        '--datasource=sinusoid',
        '--norm=None',
        '--logdir=logs',
        '--metatrain_iterations=10',
        cwd=tmp_path,
    )
    (run,) = (tmp_path / 'logs').iterdir()
    text = (run / 'flags.txt').read_text()
    (run / 'flags.txt').write_text(text.replace('--datasource=sinusoid', '--datasource=other'))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    refused(
        run_maml(*SINUSOID, '--metatrain_iterations=20', cwd=tmp_path, expect=1),
        '--datasource=sinusoid',
        '--datasource=other',
        '--logdir',
    )
    assert before == {path.name: path.read_bytes() for path in run.iterdir()}


def test_a_loss_that_is_no_number(tmp_path):
    refused(
        run_maml(
            *SINUSOID, '--update_lr=1e30', '--metatrain_iterations=1000', cwd=tmp_path, expect=1
        ),
        'nan',
        '--update_lr',
    )


def test_weights_of_another_network(tmp_path):
    variable = tf.Variable(np.zeros([7, 7], 'float32'))
    RunDirectory(tmp_path / 'other', {LEARNER: {'w1': variable}}).save(3)
    result = run_maml(*SINUSOID, '--train=False', '--init_from=other', cwd=tmp_path, expect=1)
    refused(result, '--init_from=other', 'w1', '[7, 7]', '[1, 40]')


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
    run_maml(*SINUSOID, '--metatrain_iterations=1000', cwd=tmp_path)
    assert (run / 'model-1000.index').exists()
