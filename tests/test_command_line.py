"""run_maml.py as a user types it, each time a process of its own."""

import csv
import importlib.metadata
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from command import ROOT, run_maml
from golden import SHARED

SINUSOID = ['--datasource=sinusoid', '--norm=None', '--update_batch_size=10']
RUN = 'cls_5.mbs_25.ubs_10.numstep1.updatelr0.001nonorm'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A short training run of the sinusoid: (directory, what was printed)."""
    cwd = tmp_path_factory.mktemp('sinusoid')
    return cwd, run_maml(*SINUSOID, '--logdir=logs', '--metatrain_iterations=2500', cwd=cwd)


def test_a_run_leaves_everything_behind(trained):
    cwd, printed = trained
    assert 'Iteration 1000: ' in printed.stdout and 'Iteration 2000: ' in printed.stdout
    assert 'it/s' in printed.stderr  # the progress bar
    assert 'Traceback' not in printed.stderr and 'cuda' not in printed.stderr.lower()
    rows = [line.split() for line in printed.stdout.splitlines() if '±' in line]
    assert [int(row[0]) for row in rows] == list(range(11))
    files = {path.name for path in (cwd / 'logs' / RUN).iterdir()}
    assert {
        'flags.txt',
        'metrics.csv',
        'results.json',
        'clock.json',
        'test_ubs10_stepsize0.001.csv',
        'fits.png',
        'learning_curve.png',
        'adaptation_by_step.png',
        'model-2500.index',
        'model-1000.index',
    } <= files
    assert any(name.startswith('events.out') for name in files)
    results = json.loads((cwd / 'logs' / RUN / 'results.json').read_text())
    assert (
        results['inner_steps'] == list(range(11))
        and results['tasks'] == 600
        and results['iteration'] == 2500
    )
    assert (
        results['metric'] == 'loss'
        and results['split'] == 'val'
        and results['flags']['norm'] == 'None'
    )
    assert float(rows[1][1]) == pytest.approx(results['mean'][1], abs=1e-4)
    with open(cwd / 'logs' / RUN / 'test_ubs10_stepsize0.001.csv', newline='') as file:
        header, means, deviations, ci95 = csv.reader(file)
    assert header == [f'update{i}' for i in range(11)]
    assert [float(x) for x in means] == pytest.approx(results['mean'])
    assert float(ci95[3]) == pytest.approx(1.96 * float(deviations[3]) / 600**0.5)


def test_a_finished_run_says_so_and_evaluates(trained):
    cwd, first = trained
    again = run_maml(*SINUSOID, '--logdir=logs', '--metatrain_iterations=2500', cwd=cwd)
    assert 'Finished' in again.stdout and 'it/s' not in again.stderr
    assert [line for line in again.stdout.splitlines() if '±' in line] == [
        line for line in first.stdout.splitlines() if '±' in line
    ]


def test_evaluating_with_other_shots_on_the_test_set(trained):
    cwd, _ = trained
    command = [
        *SINUSOID,
        '--logdir=logs',
        '--train=False',
        '--test_set=True',
        '--update_batch_size=5',
        '--train_update_batch_size=10',
    ]
    assert 'test tasks, 5-shot, iteration 2500' in run_maml(*command, cwd=cwd).stdout
    assert (cwd / 'logs' / RUN / 'test_ubs5_stepsize0.001.csv').exists()
    assert 'iteration 1000' in run_maml(*command, '--test_iter=1000', cwd=cwd).stdout
    missing = run_maml(*command, '--test_iter=1234', cwd=cwd, expect=1)
    assert (
        missing.stderr.strip().splitlines()[-1].startswith('error: --test_iter=1234')
        and '1000, 2000, 2500' in missing.stderr
    )


def test_export_and_each_query_by_itself(trained):
    """Without a norm a query is predicted alike with the others and by itself."""
    cwd, first = trained
    printed = run_maml(
        *SINUSOID,
        '--logdir=logs',
        '--train=False',
        '--metatrain_iterations=2500',
        '--export_dir=learner',
        '--transductive=False',
        cwd=cwd,
    )
    means = [
        [float(line.split()[1]) for line in run.stdout.splitlines() if '±' in line]
        for run in (first, printed)
    ]
    assert means[1] == pytest.approx(means[0], rel=1e-3)
    described = json.loads((cwd / 'learner' / 'maml_tf.json').read_text())
    assert (
        described['transductive'] is False
        and described['inner_steps'] == 10
        and described['iteration'] == 2500
    )
    serve = tf.saved_model.load(str(cwd / 'learner')).signatures['serving_default']
    x = np.linspace(-5, 5, 9, dtype='float32').reshape(1, 9, 1)
    outputs = serve(support_x=x[:, ::2], support_y=np.sin(x[:, ::2]), query_x=x)['outputs']
    assert outputs.shape == (1, 9, 1) and np.isfinite(outputs).all()


def test_a_longer_run_resumes_and_equals_one_in_one_go(trained, tmp_path):
    cwd, _ = trained
    resumed = run_maml(*SINUSOID, '--logdir=logs', '--metatrain_iterations=4000', cwd=cwd)
    assert 'Resuming from iteration 2500 of 4000' in resumed.stdout
    straight = run_maml(
        f'--flagfile={cwd / "logs" / RUN / "flags.txt"}', f'--logdir={tmp_path}', cwd=tmp_path
    )
    table = lambda run: [line for line in run.stdout.splitlines() if '±' in line]
    assert table(resumed) == table(straight)
    iterations = [
        row.split(',')[0] for row in (cwd / 'logs' / RUN / 'metrics.csv').read_text().splitlines()
    ]
    assert iterations == ['iteration', '1000', '2000', '3000', '4000']


def test_starting_anew_keeps_the_earlier_run(tmp_path):
    command = [*SINUSOID, '--logdir=logs', '--metatrain_iterations=20']
    run_maml(*command, cwd=tmp_path)
    printed = run_maml(*command, '--resume=False', cwd=tmp_path)
    assert f'logs/{RUN}.old1' in printed.stdout
    assert (tmp_path / 'logs' / f'{RUN}.old1' / 'model-20.index').exists()


@pytest.mark.parametrize(
    'baseline, name', [('--baseline=oracle', 'oracle'), ('--meta_lr=0.001', '.pretrain')]
)
def test_baselines(tmp_path, baseline, name):
    printed = run_maml(
        *SINUSOID,
        '--logdir=logs',
        '--pretrain_iterations=1000',
        '--metatrain_iterations=0',
        baseline,
        cwd=tmp_path,
    )
    assert 'Pretrain Iteration 1000' in printed.stdout
    (run,) = (tmp_path / 'logs').iterdir()
    assert name in run.name
    run_maml(
        *SINUSOID,
        '--logdir=logs',
        '--pretrain_iterations=1000',
        '--metatrain_iterations=0',
        baseline,
        '--train=False',
        '--test_set=True',
        cwd=tmp_path,
    )


def test_help_shows_our_flags_and_importing_defines_none(tmp_path):
    printed = run_maml('--help', cwd=tmp_path, expect=1).stdout
    for name in (
        'algorithm',
        'datasource',
        'update_lr',
        'norm',
        'logdir',
        'test_set',
        'seed',
        'meta_batch_size',
        'train_update_lr',
        'iterations_per_call',
        'stop_grad',
        'data_dir',
    ):
        assert f'--{name}:' in printed or f'--[no]{name}:' in printed, name
    program = (
        'import pkgutil, importlib, absl.flags as f, tensorflow, tensorflow_datasets, maml_tf; '
        'before = set(f.FLAGS); '
        '[importlib.import_module(m.name) for m in pkgutil.walk_packages(maml_tf.__path__, '
        '"maml_tf.")]; '
        'print(sorted(set(f.FLAGS) - before))'
    )
    result = subprocess.run(
        [sys.executable, '-c', program], cwd=ROOT, text=True, capture_output=True, check=True
    )
    assert result.stdout.strip() == '[]'


def test_installed_package_runs_anywhere(tmp_path):
    try:
        importlib.metadata.distribution('maml_tf')
    except importlib.metadata.PackageNotFoundError:
        pytest.skip('maml_tf is not installed')
    program = (
        'import maml_tf.datasets.raw.splits as s; print(sorted({len(x) for x in '
        's.class_names("omniglot_cbfinn").'
        'values()}))'
    )
    for arguments, expected in [
        (['-c', program], '[100, 423, 1100]'),
        (['-m', 'run_maml', '--help'], '--metatrain_'),
    ]:
        result = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, text=True, capture_output=True
        )
        assert expected in result.stdout, result.stderr


@pytest.mark.skipif(
    not (SHARED / 'tfds').exists(), reason='no prepared Omniglot beside the project'
)
@pytest.mark.parametrize(
    'flags',
    [
        ['--update_batch_size=1', '--update_lr=0.4'],
        [
            '--update_batch_size=1',
            '--update_lr=0.1',
            '--num_classes=20',
            '--num_updates=5',
            '--meta_batch_size=2',
        ],
        ['--conv=False', '--update_lr=0.4'],
    ],
    ids=['5-way', '20-way', 'fully connected'],
)
def test_omniglot(tmp_path, flags):
    printed = run_maml(
        '--datasource=omniglot',
        f'--data_dir={SHARED / "tfds"}',
        '--logdir=logs',
        '--num_filters=8',
        '--metatrain_iterations=500',
        '--meta_batch_size=4',
        *flags,
        cwd=tmp_path,
    )
    assert 'Iteration 500: ' in printed.stdout and 'Validation results: ' in printed.stdout
    (run,) = (tmp_path / 'logs').iterdir()
    results = json.loads((run / 'results.json').read_text())
    assert results['metric'] == 'accuracy'
    way = results['flags']['num_classes']
    assert results['mean'][5] > 1.5 / way, 'adaptation must beat chance'
    with open(run / 'metrics.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 and rows[-1]['val_accuracy'] and not rows[0]['val_accuracy']
