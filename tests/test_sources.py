"""Every row of the table of sources, and the command line on a user's own folder."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from command import ROOT, run_here, run_maml
from PIL import Image
from test_bad_input import refused
from test_cifar import written  # noqa: F401  (a fixture: a prepared CIFAR-100)

from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import problem_of
from maml_tf.datasets.flags import episode_specs
from maml_tf.datasets.sources import SOURCES

REGRESSION = [
    name
    for name, source in SOURCES.items()
    if not source.classification and not source.algorithms and name != 'celeba'
]


@pytest.mark.parametrize('name', REGRESSION)
def test_regression_rows(name):
    flags = parsed(f'--datasource={name}', '--update_batch_size=3')
    row, source = SOURCES[name], SOURCES[name].load(flags)
    training, _ = episode_specs(flags, row)
    task = source.tasks('train', training, 0)(0, 2)
    assert task.support_x.shape == (2, 3, *row.input_shape(flags))
    assert source.input_shape == row.input_shape(flags)
    assert task.query_y.shape == (2, 3, row.output_dim)
    problem = problem_of(flags, source)
    assert problem.input_shape == source.input_shape and problem.output_dim == row.output_dim
    assert problem.training_classes is None and not problem.objective.classification


def test_cifar_rows(written):  # noqa: F811
    data_dir, _ = written
    for name in ('cifar_fs', 'fc100'):
        flags = parsed(
            f'--datasource={name}',
            f'--data_dir={data_dir}',
            '--update_batch_size=1',
            '--train_query=2',
        )
        source = SOURCES[name].load(flags)
        _, evaluation = episode_specs(flags, SOURCES[name])
        task = source.tasks('val', evaluation, 0)(0, 2)
        assert (
            task.support_x.shape == (2, 5, 32, 32, 3) == (2, 5, *SOURCES[name].input_shape(flags))
        )
        problem = problem_of(flags, source)
        assert problem.evaluation == evaluation and problem.training.query == 2
        assert problem.training_classes == source.count_classes('train') > 5
        assert problem.objective.classification and problem.output_dim == 5


def test_sizes_of_a_task():
    flags = parsed(
        '--datasource=omniglot',
        '--num_classes=20',
        '--update_batch_size=1',
        '--train_num_classes=60',
        '--train_update_batch_size=5',
        '--train_query=7',
        '--test_query=15',
        '--train_shot_from=2',
    )
    training, evaluation = episode_specs(flags, SOURCES['omniglot'])
    assert (training.way, training.shot, training.query, training.least_shot) == (60, 5, 7, 2)
    assert (evaluation.way, evaluation.shot, evaluation.query, evaluation.varies) == (
        20,
        1,
        15,
        False,
    )


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """16 classes of 6 photos that a colour tells apart."""
    folder, rng = tmp_path_factory.mktemp('data') / 'photos', np.random.default_rng(0)
    for number, name in enumerate(
        ['äpfel', 'birnen', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p']
    ):
        (folder / name).mkdir(parents=True)
        colour = rng.integers(0, 200, 3)
        for i in range(6):
            pixels = colour + rng.integers(0, 56, (24, 20 + number, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f'{i}.jpg')
    return folder


SMALL = [
    '--datasource=directory',
    '--image_size=20',
    '--num_filters=4',
    '--update_batch_size=1',
    '--logdir=logs',
    '--metatrain_iterations=3',
    '--meta_batch_size=2',
    '--test_tasks=20',
]


@pytest.mark.slow
def test_a_folder_trains_and_lists_its_tasks(photos, tmp_path):
    printed = run_maml(*SMALL, f'--data_dir={photos}', '--write_tasks=tasks.jsonl', cwd=tmp_path)
    assert 'Accuracy on 20 directory validation tasks, 5-way 1-shot' in printed.stdout
    (run,) = (tmp_path / 'logs').iterdir()
    results = json.loads((run / 'results.json').read_text())
    header, first, *_ = map(json.loads, (tmp_path / 'tasks.jsonl').read_text('utf-8').splitlines())
    assert header['tasks_sha256'] == results['protocol']['tasks_sha256'] and header['tasks'] == 20
    assert all(
        (photos / image).exists() for row in first['support'] + first['query'] for image in row
    ), first
    # The same tasks from the file.
    again = run_maml(
        *SMALL, f'--data_dir={photos}', '--train=False', '--tasks_file=tasks.jsonl', cwd=tmp_path
    )
    table = lambda run: [line for line in run.stdout.splitlines() if '±' in line]
    assert table(again) == table(printed)
    compared = module('compare', f'a={run}@1', f'b={run}@1', cwd=tmp_path)
    assert 'on the same 20 tasks' in compared
    assert compared.splitlines()[-1].split()[-3:] == ['0.00%', '±', '0.00%']
    sheet = module(
        'contact_sheet',
        '--datasource=directory',
        f'--data_dir={photos}',
        '--image_size=20',
        '--tasks=2',
        '--update_batch_size=2',
        '--split=train',
        '--train_query=1',
        cwd=tmp_path,
    )
    assert 'Episodes to look at: episodes.png' in sheet and (tmp_path / 'episodes.png').exists()


def module(name, *arguments, cwd):
    """What `python -m maml_tf.<name>` prints."""
    environment = os.environ | {'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.run(
        [sys.executable, '-m', f'maml_tf.{name}', *arguments],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
        check=True,
    ).stdout


@pytest.mark.slow
def test_prototypical_on_a_folder(photos, tmp_path):
    """Another way in training, shots that differ by task, pictures, and both exports."""
    printed = run_maml(
        *SMALL,
        f'--data_dir={photos}',
        '--algorithm=prototypical',
        '--num_classes=3',
        '--train_num_classes=6',
        '--train_update_batch_size=2',
        '--train_shot_from=1',
        '--test_query=2',
        '--export_dir=learner',
        '--export_embedding_dir=embedding',
        cwd=tmp_path,
    )
    assert len([line for line in printed.stdout.splitlines() if '±' in line]) == 1
    (run,) = (tmp_path / 'logs').iterdir()
    assert {'embedding.png', 'results.json', 'scores.csv'} <= {path.name for path in run.iterdir()}
    assert not (run / 'adaptation_by_step.png').exists()
    for name in ('learner', 'embedding'):
        assert (tmp_path / name / 'saved_model.pb').exists() and (
            tmp_path / name / 'maml_tf.json'
        ).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    'algorithm, pictures',
    [
        ('matching', {'embedding.png', 'matches.png'}),
        ('relation', {'embedding.png'}),
        ('siamese', {'embedding.png', 'matches.png'}),
    ],
)
def test_other_metric_learners_on_a_folder(photos, tmp_path, algorithm, pictures):
    run_maml(
        *SMALL,
        '--image_size=24',
        f'--data_dir={photos}',
        f'--algorithm={algorithm}',
        '--export_dir=learner',
        '--export_embedding_dir=embedding',
        cwd=tmp_path,
    )
    (run,) = (tmp_path / 'logs').iterdir()
    assert pictures <= {path.name for path in run.iterdir()}
    assert (tmp_path / 'learner' / 'saved_model.pb').exists() and (
        tmp_path / 'embedding' / 'saved_model.pb'
    ).exists()


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--num_classes=20'], ['--num_classes=20', 'maml_tf.adapt']),
        (['--split_file=none.csv'], ['--split_file=none.csv', 'No such file']),
        (['--data_dir=nowhere'], ['nowhere']),
        (
            ['--train_num_classes=6'],
            ['--train_num_classes=6', 'one output per class', '--num_classes'],
        ),
        (['--train_shot_from=1', '--train_update_batch_size=2'], ['--train_shot_from', 'one size']),
        (['--tasks_file=none.jsonl'], ['--tasks_file=none.jsonl']),
        (
            ['--algorithm=prototypical', '--conv=False', '--num_filters=64'],
            ['--conv=False', 'prototypical'],
        ),
        (['--algorithm=prototypical', '--image_size=15'], ['--image_size=15', '16x16']),
        (['--siamese_l2=1'], ['--siamese_l2=1', '--algorithm=maml']),
        (['--rotations=per_task'], ['--rotations=per_task', 'only to omniglot']),
        (
            ['--pretrain_iterations=5', '--algorithm=siamese'],
            ['--pretrain_iterations=5', '--algorithm=siamese'],
        ),
        (['--train_on=trainval'], ['--train_on=trainval', '--test_set=True']),
        (['--export_embedding_dir=embedding'], ['--export_embedding_dir', 'maml has no embedding']),
    ],
    ids=lambda value: value[0].split('=')[0] if value[0].startswith('--') else '',
)
def test_refused(photos, tmp_path, arguments, words):
    refused(run_here(*SMALL, f'--data_dir={photos}', *arguments, cwd=tmp_path, expect=1), *words)
    assert not list(tmp_path.iterdir())
