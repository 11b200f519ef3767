"""Damaged records and results of a run: one line, or what makes sense."""

import json

import numpy as np
import pytest
from damaged import each_damaged

from maml_tf.errors import UserError
from maml_tf.evaluation import report
from maml_tf.evaluation.comparisons import comparison
from maml_tf.saving import records

ODD = 'directory', 'fifo', 'missing'
RECORDS = {
    'flags.txt': (records.flags, '# mine\n--seed=1\n--nolog\n--logdir=a=b\n'),
    'metrics.csv': (records.metrics, 'iteration,loss,val\n10,1.5,\n20,0.25,3\n'),
    'clock.json': (records.clock, '{"training_seconds": 3.5, "machine": "2 CPU cores"}\n'),
    'score.json': (records.best, '{"iteration": 20, "score": 0.5}\n'),
    'scores.json': (records.scores, '{"10": 0.25, "20": 0.5}\n'),
}


@pytest.mark.parametrize('name', RECORDS)
def test_records(tmp_path, name):
    read, content = RECORDS[name]
    path = tmp_path / name
    path.write_text(content)

    def check(value):
        if name == 'clock.json':
            assert 0 <= value['training_seconds'] < float('inf')
            assert isinstance(value['machine'], str)

    odd = 'directory', 'fifo'  # A missing one is none.
    counts = each_damaged(name, [path], lambda: read(path) or 0, [path], 60, 0.25, odd, check)
    assert counts.refused


@pytest.mark.parametrize(
    'name, content',
    [
        ('clock.json', '{"training_seconds": 1e999}'),
        ('clock.json', '{"training_seconds": NaN}'),
        ('clock.json', '{"training_seconds": -1}'),
        ('clock.json', '{"training_seconds": 1, "machine": 2}'),
        ('clock.json', f'{{"training_seconds": {"9" * 400}}}'),
        ('score.json', '{"iteration": 1.5, "score": 1}'),
        ('score.json', '{"iteration": 1, "score": NaN}'),
        ('scores.json', f'{{"{"9" * 5000}": 1}}'),
        ('scores.json', '{"1": Infinity}'),
        ('clock.json', '[' * 100_000),
    ],
)
def test_numbers_that_are_none(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=name):
        RECORDS[name][0](tmp_path / name)


def test_results(tmp_path):
    """What `compare` and the landscape read."""
    scores = np.random.default_rng(0).random((4, 2))
    results = {
        'protocol': {'split': 'test', 'way': 5},
        'axis': {'name': report.GRADIENT_STEPS, 'values': [0, 5]},
        **{'metric': 'accuracy', 'unit': '%', 'mean': [0.2, 0.5], 'ci95': [0.1, 0.1]},
        **{'tasks': 4, 'seed': 1, 'flags': {'seed': '1'}},
    }
    (tmp_path / 'results.json').write_text(json.dumps(results, indent=1))
    rows = '\n'.join(','.join(map(str, row)) for row in scores.tolist())
    (tmp_path / 'scores.csv').write_text(f'0,5\n{rows}\n')
    (tmp_path / 'metrics.csv').write_text('iteration,post_accuracy\n10,0.5\n20,\n30,0.6\n')

    def read():
        first = comparison.scores(tmp_path)
        curve = comparison.training_curve(tmp_path, 'accuracy')
        runs = [('one', first, 5), ('two', first, 5)]
        return comparison.table(comparison.compare(runs, [curve, curve]))

    assert read()
    files = [tmp_path / name for name in ('results.json', 'scores.csv', 'metrics.csv')]
    counts = each_damaged('results', files, read, [tmp_path], 150, 1, ODD)
    assert counts.refused
