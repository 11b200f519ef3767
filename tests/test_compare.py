"""The paired difference of two runs, and the runs that cannot be compared."""

import json
import subprocess
import sys

import numpy as np
import pytest
from command import ROOT

from maml_tf.commands.views.compare import main
from maml_tf.errors import UserError
from maml_tf.evaluation import report
from maml_tf.evaluation.comparisons import comparison_plot
from maml_tf.evaluation.comparisons.comparison import compare, scores, training_curve
from maml_tf.objectives.metric import ACCURACY, SQUARED_ERROR, Axis

RNG = np.random.default_rng(0)
STEPS = Axis('gradient steps', (0, 1, 2))
PROTOCOL = {'split': 'test', 'way': 5, 'tasks_sha256': 'ac406b10606b274c'}


def run(path, values, metric=ACCURACY, axis=STEPS, **protocol):
    """An evaluated run directory with these scores [tasks, entries]."""
    path.mkdir()
    content = report.results(values, metric, axis, PROTOCOL | protocol, 0, 20, {'algorithm': 'x'})
    report.write(path, values, content, 1, 0.4)
    return path


@pytest.fixture
def pair(tmp_path):
    """Two runs on the same 400 tasks; b is better by 0.1 on each, give or take 0.01."""
    a = RNG.normal(0.5, 0.1, (400, 3))
    b = a[:, -1:] + RNG.normal(0.1, 0.01, (400, 1))
    return run(tmp_path / 'a', a), run(tmp_path / 'b', b, axis=Axis('gradient steps', (0,)))


def test_the_difference_is_paired(pair, capsys):
    main([str(path) for path in reversed(pair)])
    heading, _, first, second = capsys.readouterr().out.splitlines()
    assert heading == 'accuracy on the same 400 tasks, differences paired'
    assert first.startswith(str(pair[1])) and first.count('±') == 1
    *_, difference, _, half = second.replace('%', '').split()
    assert float(difference) == pytest.approx(-10, abs=0.3)
    half = float(half)
    assert half == pytest.approx(100 * 1.96 * 0.01 / 20, rel=0.1), 'not that of the two means, 1.4'


def test_training_curves_are_drawn_where_there_are_some(pair, tmp_path):
    a, b = pair
    (a / 'metrics.csv').write_text('iteration,post_accuracy,val\n100,0.25,\n200,0.5,0.4\n300,,\n')
    np.testing.assert_array_equal(training_curve(a, 'accuracy'), [[100, 0.25], [200, 0.5]])
    assert not len(training_curve(b, 'accuracy')) and not len(training_curve(a, 'loss'))
    sizes = []
    for curves in (None, [training_curve(path, 'accuracy') for path in pair]):
        runs = [(str(path), scores(path), scores(path)[0]['axis']['values'][-1]) for path in pair]
        comparison_plot.draw(tmp_path / 'all.png', compare(runs, curves))
        sizes.append((tmp_path / 'all.png').stat().st_size)
    assert sizes[0] < sizes[1]


def test_several_runs_with_names_and_steps_in_one_picture(pair, capsys, tmp_path):
    a, b = pair
    picture = tmp_path / 'all.png'
    main([f'MAML={a}@0', f'FOMAML={a}@2', f'{b}', f'--picture={picture}'])
    _, header, *rows, said = capsys.readouterr().out.splitlines()
    assert 'to MAML' in header and said == f'Picture: {picture}'
    assert [row.split()[:2] for row in rows] == [['MAML', '0'], ['FOMAML', '2'], [str(b), '0']]
    _, first = scores(a, 0)
    _, last = scores(a, 2)
    difference = float(rows[1].split('%')[2].split()[-1])
    assert difference == pytest.approx(100 * (last - first).mean(), abs=0.01)
    assert picture.read_bytes().startswith(b'\x89PNG')


def test_entries_are_chosen_by_their_value(pair):
    _, first = scores(pair[0], 0)
    _, last = scores(pair[0])
    _, two = scores(pair[0], 2)
    np.testing.assert_array_equal(last, two)
    assert not np.array_equal(first, two)
    with pytest.raises(UserError, match='a: evaluated at gradient steps 0, 1, 2, not 3'):
        scores(pair[0], 3)


def test_other_tasks_are_refused(tmp_path, pair):
    values = RNG.normal(0.5, 0.1, (400, 3))
    others = {
        'not on the same tasks: protocol has way 5 and 20': run(tmp_path / 'c', values, way=20),
        'protocol has tasks_sha256 .*ac406b10606b274c and f00': run(
            tmp_path / 'd', values, tasks_sha256='f00'
        ),
        'protocol has dimension None and 3': run(tmp_path / 'e', values, dimension=3),
        'not alike: tasks is 400 and 300': run(tmp_path / 'f', values[:300]),
        'not alike: metric is accuracy and loss': run(tmp_path / 'g', values, SQUARED_ERROR),
    }
    for message, other in others.items():
        with pytest.raises(UserError, match=message):
            compare([('a', scores(pair[0]), 2), ('other', scores(other), 2)])


def test_a_run_without_a_protocol_is_refused(pair):
    path = pair[0] / 'results.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | {'protocol': None}))
    with pytest.raises(UserError, match='results.json: does not say its protocol'):
        scores(pair[0])


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda text: text[: text.rindex('\n', 0, -1)] + '\n', 'has 399 tasks with 3 scores each'),
        (lambda text: text + '0.1,0.2,0.3\n', 'has 401 tasks'),
        (
            lambda text: '\n'.join(line.rpartition(',')[0] for line in text.splitlines()),
            'has 400 tasks with 2 scores each, results.json 400 tasks with 3',
        ),
        (lambda text: text[:-30], 'scores.csv: broken'),
        (lambda text: '', 'scores.csv: broken'),
        (lambda text: text.replace('\n0.', '\nnan,0.5,nan\n0.', 1)[:-1], 'has 401 tasks'),
    ],
)
def test_scores_that_are_not_those_of_the_results_are_refused(pair, change, message):
    path = pair[0] / 'scores.csv'
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message):
        scores(pair[0])


def test_scores_that_are_not_finite_have_no_difference(tmp_path):
    values = RNG.normal(0.5, 0.1, (10, 3))
    values[4, 2] = np.nan
    path = run(tmp_path / 'c', values)
    with pytest.raises(UserError, match='c: 1 of 10 tasks have no finite score'):
        scores(path)
    assert np.isfinite(scores(path, 1)[1]).all()


def test_the_command_says_what_is_missing(tmp_path):
    command = [sys.executable, '-m', 'maml_tf.compare', str(tmp_path), str(tmp_path)]
    missing = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert missing.returncode == 1 and len(missing.stderr.splitlines()) == 1
    assert missing.stderr.startswith('error: ') and 'results.json' in missing.stderr
