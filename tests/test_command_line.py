"""run_maml.py as a user types it, each time a process of its own."""

import csv
import importlib.metadata
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from command import ROOT, run_here, run_maml
from golden import SHARED

from maml_tf import algorithms
from maml_tf.algorithms.metric.metric_learner import MetricLearner
from maml_tf.commands.command_line import parsed
from maml_tf.saving.run_name import experiment_string

SINUSOID = ['--datasource=sinusoid', '--norm=None', '--update_batch_size=10']
RUN = 'cls_5.mbs_25.ubs_10.numstep1.updatelr0.001nonorm'


def table(run):
    """The lines of the printed results."""
    return [line for line in run.stdout.splitlines() if '±' in line]


def weights(run, iteration):
    """Every value of a checkpoint in a run directory."""
    reader = tf.train.load_checkpoint(str(run / f'model-{iteration}'))
    names = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name in names if 'OBJECT_GRAPH' not in name}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A short training run of the sinusoid, as a user types it: (directory, what was printed)."""
    cwd = tmp_path_factory.mktemp('sinusoid')
    return cwd, run_maml(*SINUSOID, '--logdir=logs', '--metatrain_iterations=2500', cwd=cwd)


def test_a_run_leaves_everything_behind(trained):
    cwd, printed = trained
    assert 'Iteration 1000: ' in printed.stdout and 'Iteration 2000: ' in printed.stdout
    assert 'it/s' in printed.stderr  # the progress bar
    assert 'Traceback' not in printed.stderr and 'cuda' not in printed.stderr.lower()
    rows = [line.split() for line in table(printed)]
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
    again = run_here(*SINUSOID, '--logdir=logs', '--metatrain_iterations=2500', cwd=cwd)
    assert 'Finished' in again.stdout and 'it/s' not in again.stderr
    assert table(again) == table(first)


@pytest.mark.slow
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
    assert 'test tasks, 5-shot, iteration 2500' in run_here(*command, cwd=cwd).stdout
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
    printed = run_here(
        *SINUSOID,
        '--logdir=logs',
        '--train=False',
        '--metatrain_iterations=2500',
        '--export_dir=learner',
        '--transductive=False',
        cwd=cwd,
    )
    means = [[float(line.split()[1]) for line in table(run)] for run in (first, printed)]
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


@pytest.mark.slow
def test_a_longer_run_resumes_and_equals_one_in_one_go(trained, tmp_path):
    cwd, _ = trained
    resumed = run_here(*SINUSOID, '--logdir=logs', '--metatrain_iterations=4000', cwd=cwd)
    assert 'Resuming from iteration 2500 of 4000' in resumed.stdout
    straight = run_maml(
        f'--flagfile={cwd / "logs" / RUN / "flags.txt"}', f'--logdir={tmp_path}', cwd=tmp_path
    )
    assert table(resumed) == table(straight)
    iterations = [
        row.split(',')[0] for row in (cwd / 'logs' / RUN / 'metrics.csv').read_text().splitlines()
    ]
    assert iterations == ['iteration', '1000', '2000', '3000', '4000']


@pytest.mark.slow
def test_starting_anew_keeps_the_earlier_run(tmp_path):
    command = [*SINUSOID, '--logdir=logs', '--metatrain_iterations=20', '--test_tasks=20']
    run_here(*command, cwd=tmp_path)
    printed = run_here(*command, '--resume=False', cwd=tmp_path)
    assert f'logs/{RUN}.old1' in printed.stdout
    assert (tmp_path / 'logs' / f'{RUN}.old1' / 'model-20.index').exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    'baseline, name', [('--baseline=oracle', 'oracle'), ('--meta_lr=0.001', '.pretrain')]
)
def test_baselines(tmp_path, baseline, name):
    command = [
        *(*SINUSOID, '--logdir=logs', '--pretrain_iterations=1000', '--metatrain_iterations=0'),
        *(baseline, '--test_tasks=100'),
    ]
    printed = run_here(*command, cwd=tmp_path)
    assert 'Pretrain Iteration 1000' in printed.stdout
    (run,) = (tmp_path / 'logs').iterdir()
    assert name in run.name
    evaluated = run_here(*command, '--train=False', '--test_set=True', cwd=tmp_path)
    assert '100 sinusoid test tasks' in evaluated.stdout and len(table(evaluated)) == 11


@pytest.mark.slow
def test_training_has_an_inner_rate_of_its_own(tmp_path):
    """--train_update_lr=X --update_lr=Y trains what --update_lr=X trains, resumed too, and
    evaluates it at Y."""
    command = [*SINUSOID, '--test_tasks=50']
    train_at, evaluate_at = ['--train_update_lr=0.05'], ['--update_lr=0.01']
    both = [*command, *train_at, *evaluate_at, '--logdir=both']
    run_here(*both, '--metatrain_iterations=50', cwd=tmp_path)
    resumed = run_here(*both, '--metatrain_iterations=100', cwd=tmp_path)
    one = [*command, '--update_lr=0.05', '--metatrain_iterations=100', '--logdir=one']
    straight = run_here(*one, cwd=tmp_path)
    ours, theirs = (next((tmp_path / name).iterdir()) for name in ('both', 'one'))
    assert ours.name == theirs.name == 'cls_5.mbs_25.ubs_10.numstep1.updatelr0.05nonorm'
    values = weights(ours, 100)
    assert values.keys() == weights(theirs, 100).keys()
    for name, value in weights(theirs, 100).items():
        np.testing.assert_array_equal(values[name], value)
    start = ['--train=False', f'--init_from={theirs}', '--logdir=evaluated']
    evaluated = run_here(*command, *evaluate_at, *start, cwd=tmp_path)
    assert table(evaluated) == table(resumed) != table(straight)
    assert (ours / 'test_ubs10_stepsize0.01.csv').exists()


def test_names_of_runs_say_what_the_method_heeds():
    names = {
        name: experiment_string(
            parsed('--datasource=omniglot', f'--algorithm={name}'), cls.tiny()[0]
        )
        for name, cls in algorithms.registry().items()
    }
    assert names['maml'] == 'cls_5.mbs_25.ubs_5.numstep1.updatelr0.1batchnorm'
    assert names['meta_sgd'] == 'cls_5.mbs_25.ubs_5.numstep1batchnorm.meta_sgd'
    for name, cls in algorithms.registry().items():
        if issubclass(cls, MetricLearner) and 'num_updates' not in cls.heeds:
            assert names[name] == f'cls_5.mbs_25.ubs_5.{name}'
    assert len({*names.values()}) == len(names)


@pytest.mark.slow
def test_meta_sgd(tmp_path):
    """Trains and evaluates, and in shares of the meta-batch to the same weights."""
    command = [*SINUSOID, '--algorithm=meta_sgd', '--metatrain_iterations=300', '--test_tasks=100']
    runs = {}
    for logdir, shares in {'whole': [], 'shares': ['--tasks_at_once=5']}.items():
        printed = run_here(*command, f'--logdir={logdir}', *shares, cwd=tmp_path)
        (runs[logdir],) = (tmp_path / logdir).iterdir()
        assert runs[logdir].name == 'cls_5.mbs_25.ubs_10.numstep1nonorm.meta_sgd'
        means = [float(line.split()[1]) for line in table(printed)]
        assert means[1] < means[0], means
    values = {name: weights(run, 300) for name, run in runs.items()}
    learnt = [name for name in values['whole'] if name.startswith('learner/')]
    assert any('rate_w1' in name for name in learnt)
    for name in learnt:
        np.testing.assert_allclose(
            values['shares'][name], values['whole'][name], rtol=1e-4, atol=1e-5
        )


RELATIVES = {
    'anil': '.numstep1.updatelr0.001nonorm.anil',
    'alpha_maml': '.numstep1.updatelr0.001nonorm.alpha_maml',
    'bias_transformation': '.numstep1.updatelr0.001nonorm.bias_transformation',
    'cavia': '.numstep1.updatelr1.0nonorm.cavia',
    'imaml': '.numstep64.updatelr0.002nonorm.imaml',
    'mamlpp': '.numstep5.updatelr0.1nonorm.mamlpp.of40',
}


@pytest.mark.slow
@pytest.mark.parametrize('method', RELATIVES)
def test_relatives_of_maml(tmp_path, method):
    """Each trains with its own defaults, and resumes."""
    command = [*SINUSOID, f'--algorithm={method}', '--test_tasks=48', '--logdir=logs']
    for iterations in (20, 40):
        printed = run_here(*command, f'--metatrain_iterations={iterations}', cwd=tmp_path)
    *_, run = sorted((tmp_path / 'logs').iterdir())
    assert run.name == f'cls_5.mbs_25.ubs_10{RELATIVES[method]}'
    results = json.loads((run / 'results.json').read_text())
    assert results['iteration'] == 40 and np.isfinite(results['mean']).all()
    assert len(table(printed)) == len(results['mean'])


@pytest.mark.slow
def test_reptile(tmp_path):
    printed = run_here(
        *(*SINUSOID, '--algorithm=reptile', '--metatrain_iterations=300', '--test_tasks=100'),
        *('--update_lr=0.02', '--num_updates=5', '--logdir=logs'),
        cwd=tmp_path,
    )
    (run,) = (tmp_path / 'logs').iterdir()
    assert run.name == 'cls_5.mbs_25.ubs_10.numstep5.updatelr0.02nonorm.reptile.of300'
    means = [float(line.split()[1]) for line in table(printed)]
    assert len(means) == 51 and means[-1] < means[0], means
    # The second moments persist over training, and are saved with the weights.
    values = weights(run, 300)
    moments = {name: value for name, value in values.items() if 'learner/moment_' in name}
    assert len(moments) == 6 and all((value > 0).any() for value in moments.values())
    (taken,) = (value for name, value in values.items() if 'learner/steps_taken' in name)
    assert taken == 300 * 5


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
        'import maml_tf.datasets.raw.splits as s, runpy, sys; '
        'print(sorted({len(x) for x in s.class_names("omniglot_cbfinn").values()}), flush=True); '
        'sys.argv = ["run_maml", "--help"]; runpy.run_module("run_maml", run_name="__main__")'
    )
    result = subprocess.run(
        [sys.executable, '-c', program], cwd=tmp_path, text=True, capture_output=True
    )
    for expected in ('[100, 423, 1100]', '--metatrain_'):
        assert expected in result.stdout, result.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    not (SHARED / 'tfds').exists(), reason='no prepared Omniglot beside the project'
)
@pytest.mark.parametrize(
    'flags',
    [
        ['--num_filters=8', '--update_batch_size=1', '--update_lr=0.4'],
        pytest.param(
            [
                *('--update_batch_size=1', '--update_lr=0.1', '--num_classes=20'),
                *('--num_updates=5', '--meta_batch_size=2', '--num_filters=8'),
            ],
            marks=pytest.mark.slow,
        ),
        pytest.param(['--conv=False', '--update_lr=0.4'], marks=pytest.mark.slow),
    ],
    ids=['5-way', '20-way', 'fully connected'],
)
def test_omniglot(tmp_path, flags):
    printed = run_here(
        '--datasource=omniglot',
        f'--data_dir={SHARED / "tfds"}',
        '--logdir=logs',
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
