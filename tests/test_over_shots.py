"""Methods over the number of shots: runs are grouped, paired with the first, and drawn."""

import subprocess
import sys

import numpy as np
import pytest
from command import ROOT

from maml_tf.commands.views.compare import main
from maml_tf.errors import UserError
from maml_tf.evaluation import report
from maml_tf.evaluation.comparisons.comparison import scores
from maml_tf.evaluation.comparisons.over_shots import Run, group, table
from maml_tf.objectives.metric import ACCURACY, SQUARED_ERROR, Axis

RNG = np.random.default_rng(0)
TASKS = 400
STEPS = Axis('gradient steps', (0, 1))
PROTOCOL = {'split': 'test', 'way': 4, 'query': 5}


def write(path, algorithm, shot, gain=0.0, metric=ACCURACY, tasks=TASKS, **protocol):
    """An evaluated run, whose tasks are as hard for every method; `gain` is its own."""
    path.mkdir()
    hardness = np.random.default_rng(shot).normal(0.5 + 0.02 * shot, 0.1, tasks)
    last = hardness + gain + RNG.normal(0, 0.01, tasks)
    values = np.stack([np.full(tasks, 0.25), last], 1)
    said = PROTOCOL | {'shot': shot, 'tasks_sha256': f'{shot:016x}'} | protocol
    content = report.results(values, metric, STEPS, said, 0, 20, {'algorithm': algorithm})
    report.write(path, values, content, shot, 0.4)
    return path


@pytest.fixture
def runs(tmp_path):
    """Two methods at 1, 5 and 10 shots, the second better by 0.1; a third at 5 alone."""
    paths = [write(tmp_path / f'a{shot}', 'maml', shot) for shot in (10, 1, 5)]
    paths += [write(tmp_path / f'b{shot}', 'prototypical', shot, 0.1) for shot in (1, 5, 10)]
    return [*paths, write(tmp_path / 'c', 'reptile', 5, -0.05)]


def grouped(*paths):
    return group([Run(None, path, scores(path)) for path in paths])


def test_cells_are_means_and_paired_differences(runs):
    over_shots = grouped(*runs)
    assert over_shots.shots == [1, 5, 10]
    assert list(over_shots.methods) == ['maml', 'prototypical', 'reptile']
    first, second, third = over_shots.methods.values()
    assert list(first) == list(second) == [1, 5, 10] and list(third) == [5]
    by_name = {path.name: scores(path)[1] for path in runs}
    for shot in (1, 5, 10):
        a, b = by_name[f'a{shot}'], by_name[f'b{shot}']
        assert first[shot].difference is None
        assert first[shot].mean == pytest.approx(a.mean())
        assert first[shot].ci95 == pytest.approx(1.96 * a.std() / np.sqrt(TASKS))
        assert second[shot].difference == pytest.approx((b - a).mean())
        assert second[shot].difference_ci95 == pytest.approx(1.96 * (b - a).std() / np.sqrt(TASKS))
        assert second[shot].difference_ci95 < 0.3 * second[shot].ci95, 'not that of the two means'


def test_the_table_has_a_column_for_every_number_of_shots(runs, capsys):
    main(['--over_shots', *map(str, runs)])
    title, heading, *rows = capsys.readouterr().out.splitlines()
    assert title.startswith('accuracy over shots (1, 5, 10), 400 tasks each')
    assert heading.split() == ['method', '1-shot', '5-shot', '10-shot']
    maml, prototypical, reptile, to_first, *differences = [row.split('  ') for row in rows]
    assert (maml[0], prototypical[0]) == ('maml', 'prototypical')
    assert [cell.strip() for cell in reptile if cell.strip()][1::2] == ['–', '–']
    assert to_first[0] == 'to maml'
    cells = [cell.strip() for cell in differences[0] if cell.strip()]
    assert cells[0] == 'prototypical' and len(differences) == 2
    assert [float(cell.split('%')[0]) for cell in cells[1:]] == pytest.approx([10] * 3, abs=0.3)
    assert len({len(row.rstrip()) for row in (rows[0], rows[1])}) == 1


def test_labels_make_methods_and_steps_choose_the_entry(runs, capsys, tmp_path):
    a10, a1, a5 = runs[:3]
    arguments = [f'MAML={a1}', f'MAML={a5}', f'no steps={a1}@0', f'no steps={a10}@0']
    main(['--over_shots', *arguments, f'--picture={tmp_path / "shots.png"}'])
    *lines, said = capsys.readouterr().out.splitlines()
    assert said == f'Picture: {tmp_path / "shots.png"}'
    assert lines[3].split() == ['no', 'steps', '25.00%', '±', '0.00%', '–', '25.00%', '±', '0.00%']
    # Where the first method has no run there is no difference.
    assert lines[5].split()[-2:] == ['–', '–'] and lines[5].split()[2].startswith('-')
    assert (tmp_path / 'shots.png').read_bytes().startswith(b'\x89PNG')


def test_one_method_has_no_differences(runs):
    lines = table(grouped(*runs[:3])).splitlines()
    assert len(lines) == 3 and all('to maml' not in line for line in lines)


def test_what_cannot_be_put_together_is_refused(runs, tmp_path):
    others = {
        'a5 and .*twice: both are maml with 5 shots; name one otherwise': write(
            tmp_path / 'twice', 'maml', 5
        ),
        'a10 and .*way: not alike, way is 4 and 5': write(tmp_path / 'way', 'x', 5, way=5),
        'a10 and .*query: not alike, query is 5 and 15': write(
            tmp_path / 'query', 'x', 1, query=15
        ),
        'a10 and .*metric: not alike, metric is accuracy and loss': write(
            tmp_path / 'metric', 'x', 5, metric=SQUARED_ERROR
        ),
        'a10 and .*tasks: not alike, tasks is 400 and 300': write(
            tmp_path / 'tasks', 'x', 5, tasks=300
        ),
        'a5 and .*hash: not on the same tasks, tasks_sha256 is': write(
            tmp_path / 'hash', 'x', 5, tasks_sha256='f00'
        ),
        'length: its tasks have no shots': write(tmp_path / 'length', 'x', 5) / '.',
    }
    length = tmp_path / 'length' / 'results.json'
    length.write_text(length.read_text().replace('"shot": 5', '"length": 50'))
    for message, other in others.items():
        with pytest.raises(UserError, match=message):
            grouped(*runs[:3], other)


def test_the_command_ends_in_a_line(runs, tmp_path):
    command = [sys.executable, '-m', 'maml_tf.compare', '--over_shots', str(runs[0])]
    twice = subprocess.run([*command, str(runs[0])], cwd=ROOT, text=True, capture_output=True)
    assert twice.returncode == 1 and 'both are maml with 10 shots' in twice.stderr
    assert twice.stderr.startswith('error: ') and len(twice.stderr.splitlines()) == 1
    alone = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert alone.returncode == 0 and '10-shot' in alone.stdout
