"""Results beside flagfiles, and the README's table from them."""

import json
import pathlib

import numpy as np
import pytest

from maml_tf.commands import results

ROOT = pathlib.Path(__file__).parents[1]


def run_directory(path, seed, mean, ci95, iteration=20, shot=5):
    path.mkdir()
    (path / 'results.json').write_text(
        json.dumps(
            {
                'metric': 'loss',
                'inner_steps': [0, 1],
                'mean': mean,
                'ci95': ci95,
                'tasks': 600,
                'split': 'test',
                'seed': seed,
                'iteration': iteration,
                'flags': {
                    'update_batch_size': shot,
                    'pretrain_iterations': 0,
                    'metatrain_iterations': 40,
                },
            }
        )
    )
    (path / 'clock.json').write_text(json.dumps({'training_seconds': 1800, 'machine': 'two cores'}))
    return path


@pytest.fixture
def project(tmp_path):
    folder = tmp_path / 'flags' / 'maml'
    folder.mkdir(parents=True)
    paper = {'source': 'A paper', 'metric': 'loss', 'steps': [1], 'mean': [0.67], 'ci95': None}
    for name in ('a', 'b'):
        (folder / f'{name}.json').write_text(
            json.dumps({'title': f'Task {name}', 'paper': paper, 'ours': None})
        )
    (tmp_path / 'README.md').write_text(f'before\n{results.BEGIN}\nold\n{results.END}\nafter\n')
    return tmp_path


def test_record_and_table(project):
    runs = [
        run_directory(project / f'run{seed}', seed, [3.0, m], [0.2, c])
        for seed, m, c in [(0, 0.5, 0.03), (1, 0.7, 0.04)]
    ]
    results.record(project / 'flags/maml/a.flags', runs)
    ours = json.loads((project / 'flags/maml/a.json').read_text())['ours']
    assert ours['mean'] == [0.6] and ours['ci95'] == [
        pytest.approx(np.sqrt((0.03**2 + 0.04**2) / 2), abs=1e-4)
    ]
    assert (ours['seeds'], ours['iterations'], ours['of_iterations'], ours['hours']) == (
        [0, 1],
        20,
        40,
        1.0,
    )
    results.table(project / 'README.md')
    text = (project / 'README.md').read_text()
    assert text.startswith('before\n') and text.endswith('\nafter\n') and 'old' not in text
    assert (
        '[Task a](flags/maml/a.flags) | 1 step | 0.67 | 0.60 ± 0.04 | 2 | 20 of 40 | 1 | two '
        'cores | A paper' in text
    )
    assert '[Task b](flags/maml/b.flags) | 1 step | 0.67 | not run' in text


def test_runs_of_different_kinds_are_not_pooled(project):
    runs = [
        run_directory(project / f'run{seed}', seed, [3.0, 1.0], [0.1, 0.1], shot=shot)
        for seed, shot in [(0, 5), (1, 10)]
    ]
    with pytest.raises(ValueError, match='differ in more than the seed'):
        results.record(project / 'flags/maml/a.flags', runs)


def test_the_readme_s_table_is_up_to_date(tmp_path):
    text = (ROOT / 'README.md').read_text('utf-8')
    (tmp_path / 'flags').symlink_to(ROOT / 'flags')
    (tmp_path / 'README.md').write_text(text, 'utf-8')
    results.table(tmp_path / 'README.md')
    assert (tmp_path / 'README.md').read_text('utf-8') == text
