"""What an evaluation leaves: the screen's table, results.json and the csv files."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from command import ROOT

from maml_tf.errors import UserError
from maml_tf.evaluation import report
from maml_tf.evaluation.intervals import paired, summarise
from maml_tf.objectives.metric import ACCURACY, SQUARED_ERROR, Axis, Metric

STEPS = Axis('gradient steps', (0, 1, 2))
PROTOCOL = {'datasource': 'omniglot', 'split': 'test', 'tasks_sha256': 'ac406b10606b274c'}
SCORES = np.array([[0.2, 0.5, 0.9], [0.2, 0.7, 1.0]], np.float32)


def strict_json(text):
    """Reads JSON as other languages do: without NaN and Infinity."""

    def refuse(constant):
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


def written(folder, scores, metric=ACCURACY, axis=STEPS, flags=None):
    """Writes an evaluation; returns its results.json."""
    flags = flags or {'algorithm': 'maml'}
    content = report.results(scores, metric, axis, PROTOCOL, 3, 500, flags, 'flags/x.flags')
    report.write(folder, scores, content, 1, 0.4)
    return strict_json((folder / 'results.json').read_text('utf-8'))


def test_intervals_are_of_the_tasks():
    scores = np.full([1000, 1], 0.2, np.float32)
    means, deviations, ci95 = summarise(scores)
    # The sum of so many in float32 would be off by more.
    assert means[0] == pytest.approx(np.float32(0.2), abs=1e-12)
    assert deviations[0] < 1e-12 and ci95[0] < 1e-12
    _, deviations, ci95 = summarise(np.array([[0.0], [1.0], [1.0], [0.0]]))
    assert (deviations[0], ci95[0]) == (0.5, pytest.approx(1.96 * 0.5 / 2))


def test_paired_interval_is_of_the_differences():
    a, b = np.random.default_rng(0).normal(0.8, 0.1, (2, 400))
    b += a
    mean, half = paired(a, b)
    assert mean == pytest.approx(-0.8, abs=0.03) and half == pytest.approx(1.96 * 0.1 / 20, rel=0.1)


def test_results(tmp_path):
    content = written(tmp_path, SCORES)
    assert content['metric'] == 'accuracy' and content['unit'] == '%'
    assert content['higher_is_better'] is True
    assert content['axis'] == {'name': 'gradient steps', 'values': [0, 1, 2]}
    assert content['inner_steps'] == [0, 1, 2]
    assert content['mean'] == pytest.approx([0.2, 0.6, 0.95])
    assert content['std'] == pytest.approx([0, 0.1, 0.05])
    assert content['ci95'] == pytest.approx([0, 1.96 * 0.1 / 2**0.5, 1.96 * 0.05 / 2**0.5])
    assert [content[name] for name in ('tasks', 'split', 'seed', 'iteration', 'flagfile')] == [
        *(2, 'test', 3, 500, 'flags/x.flags')
    ]
    assert content['protocol'] == PROTOCOL and content['flags'] == {'algorithm': 'maml'}
    assert report.read(tmp_path) == content


def test_no_flagfile_is_null():
    content = report.results(SCORES, ACCURACY, STEPS, PROTOCOL, 0, None, {})
    assert content['flagfile'] is None and content['iteration'] is None


def test_csv_files(tmp_path):
    written(tmp_path, SCORES)
    header, *rows = csv.reader((tmp_path / 'scores.csv').read_text().splitlines())
    assert header == ['update0', 'update1', 'update2']
    np.testing.assert_array_equal(np.array(rows, np.float32), SCORES)
    header, *rows = csv.reader((tmp_path / 'test_ubs1_stepsize0.4.csv').read_text().splitlines())
    assert header == ['update0', 'update1', 'update2']
    np.testing.assert_allclose(np.array(rows, float), summarise(SCORES))


def test_another_axis(tmp_path):
    returns = Metric('return', 'Return', ' points', higher_is_better=True)
    axis = Axis('number of context points', (1, 5, 10))
    content = written(tmp_path, SCORES, returns, axis)
    assert 'inner_steps' not in content
    assert content['axis'] == {'name': 'number of context points', 'values': [1, 5, 10]}
    header = (tmp_path / 'scores.csv').read_text().splitlines()[0]
    assert header.split(',')[1] == 'number of context points 5'
    title, columns, *rows = report.table(SCORES, returns, axis, 'on 2 tasks').splitlines()
    assert title == 'Return on 2 tasks'
    assert columns.split('  ')[:2] == ['', 'number of context points']
    assert [row.split()[:3] for row in rows] == [
        ['1', '0.2000', 'points'],
        ['5', '0.6000', 'points'],
        ['10', '0.9500', 'points'],
    ]
    assert len({len(row) for row in (columns, *rows)}) == 1, 'columns stay in line'


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_results_are_json_whatever_the_scores(tmp_path, bad):
    scores = SCORES.copy()
    scores[1, 1:] = bad
    flags = {'meta_lr': bad, 'rates': [0.1, bad], 'seed': 0}
    content = written(tmp_path, scores, flags=flags)
    assert content['mean'][0] == pytest.approx(0.2) and content['mean'][1:] == [None, None]
    assert content['std'][1:] == content['ci95'][1:] == [None, None]
    assert content['flags'] == {'meta_lr': str(bad), 'rates': [0.1, str(bad)], 'seed': 0}
    lines = report.table(scores, ACCURACY, STEPS, 'on 2 tasks').splitlines()
    assert lines[-1].startswith('No finite score: 1 of 2 tasks.')


def test_table():
    assert report.table(SCORES, ACCURACY, STEPS, 'on 2 tasks').splitlines() == [
        'Accuracy on 2 tasks',
        '  gradient steps      mean       std    95% interval',
        '               0    20.00%     0.00%         ± 0.00%',
        '               1    60.00%    10.00%        ± 13.86%',
        '               2    95.00%     5.00%         ± 6.93%',
    ]


def test_table_without_steps_has_no_column_of_them():
    axis = Axis('gradient steps', (0,))
    lines = report.table(SCORES[:, :1], SQUARED_ERROR, axis, 'on 2 tasks').splitlines()
    assert lines == [
        'Mean squared error on 2 tasks',
        '      mean       std    95% interval',
        '    0.2000    0.0000        ± 0.0000',
    ]


@pytest.mark.parametrize('name', ['protocol', 'unit', 'axis'])
def test_what_does_not_say_what_it_is_about_is_not_read(tmp_path, name):
    content = written(tmp_path, SCORES)
    del content[name]
    (tmp_path / 'results.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match=f'results.json: does not say its {name}; evaluate'):
        report.read(tmp_path)


@pytest.mark.parametrize('text', ['{"metric"', '[1, 2]'])
def test_broken_results_are_not_read(tmp_path, text):
    (tmp_path / 'results.json').write_text(text)
    with pytest.raises(UserError, match='results.json: (broken|does not say)'):
        report.read(tmp_path)


def test_a_directory_without_results(tmp_path):
    with pytest.raises(UserError, match='no evaluated run, .*results.json is missing'):
        report.read(tmp_path)


HELP = """
import runpy, sys
sys.argv = ['maml_tf', *{arguments}]
try:
    runpy.run_module('maml_tf.{module}', run_name='__main__')
except SystemExit as end:
    assert not end.code, end.code
assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules
"""


@pytest.mark.parametrize(
    'module, arguments',
    [
        ('compare', ['--help']),
        ('results', ['--help']),
        ('results', ['record', '--help']),
        ('evaluation.report', []),
    ],
)
def test_starts_without_tensorflow(module, arguments):
    code = HELP.format(module=module, arguments=arguments)
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, text=True, capture_output=True)
    assert result.returncode == 0, result.stderr
