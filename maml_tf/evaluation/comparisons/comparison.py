"""Several runs on the same tasks, each beside the first.

Imports no TensorFlow, so that commands that only read results start at once.
"""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from maml_tf.errors import UserError
from maml_tf.evaluation import report
from maml_tf.evaluation.intervals import paired, summarise
from maml_tf.serialisation.files import check_is_file
from maml_tf.terminal.text import described

# results.json of an evaluated run, and the scores [tasks] of one of its entries.
Scored = tuple[dict[str, Any], np.ndarray]


def scores(directory: pathlib.Path, steps: int | None = None) -> Scored:
    """Reads the scores of an evaluated run after `steps` inner steps.

    Args:
      steps: value on the run's axis; None: its last.
    Raises: UserError where the directory holds no whole evaluation, or the axis no such value.
    """
    results = report.read(directory)
    values, table = results['axis']['values'], _scores_csv(directory)
    if table.shape != (results['tasks'], len(values)):
        raise UserError(
            f'{directory}: scores.csv has {_size(*table.shape)}, results.json '
            f'{_size(results["tasks"], len(values))}; evaluate the run again'
        )
    steps = values[-1] if steps is None else steps
    if steps not in values:
        raise UserError(
            f'{directory}: evaluated at {results["axis"]["name"]} '
            f'{", ".join(map(str, values))}, not {steps}'
        )
    column = table[:, values.index(steps)]
    if diverged := int((~np.isfinite(column)).sum()):
        raise UserError(f'{directory}: {diverged} of {len(column)} tasks have no finite score')
    return results, column


def _scores_csv(directory: pathlib.Path) -> np.ndarray:
    """Returns [tasks, entries]."""
    path = directory / 'scores.csv'
    try:
        check_is_file(path)
        with open(path, newline='', encoding='utf-8') as file:
            header, *rows = csv.reader(file)
        return np.array(rows, float).reshape(len(rows), len(header))
    except FileNotFoundError as error:
        raise UserError(f'{directory}: no evaluated run, {error.filename} is missing') from None
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f'{path}: broken ({described(error)}); evaluate the run again') from None


def training_curve(directory: pathlib.Path, metric: str) -> np.ndarray:
    """Reads the metric on the queries of training tasks: [points, 2], iterations and values.

    There is no point where the run has no metrics.csv, or another column.
    """
    try:
        check_is_file(directory / 'metrics.csv')
        with open(directory / 'metrics.csv', newline='', encoding='utf-8') as file:
            rows = [(row['iteration'], row.get(f'post_{metric}')) for row in csv.DictReader(file)]
        return np.array([row for row in rows if row[1]], float).reshape(-1, 2)
    except (OSError, ValueError, KeyError, csv.Error):  # A picture without it says enough.
        return np.zeros([0, 2])


def _size(tasks: int, entries: int) -> str:
    return f'{tasks} tasks with {entries} scores each'


class Compared(NamedTuple):
    """A run beside the first.

    label: what it is called. results, scores: see Scored. steps: value on its axis.
    difference, ci95: its mean score minus the first run's on the same tasks, and the half-width of
      the interval; None: it is the first.
    curve: of its training, see `training_curve`.
    """

    label: str
    results: dict[str, Any]
    scores: np.ndarray
    steps: int
    difference: float | None
    ci95: float | None
    curve: np.ndarray = np.zeros([0, 2])


def compare(
    runs: Sequence[tuple[str, Scored, int]], curves: Sequence[np.ndarray] | None = None
) -> list[Compared]:
    """Compares runs with the first.

    Args:
      runs: of each (label, Scored, steps).
      curves: of each the curve of its training; None: they are not shown.
    Raises: UserError where they were not scored on the same tasks by the same metric.
    """
    (_, (first, first_scores), _), *_ = runs
    compared = []
    curves = [np.zeros([0, 2])] * len(runs) if curves is None else curves
    for (label, (results, run_scores), steps), curve in zip(runs, curves, strict=True):
        for name in ('metric', 'unit', 'tasks'):
            if results[name] != first[name]:
                raise UserError(f'not alike: {name} is {first[name]} and {results[name]}')
        for name, one, other in report.differing(first['protocol'], results['protocol']):
            raise UserError(f'not on the same tasks: protocol has {name} {one} and {other}')
        difference = paired(run_scores, first_scores) if compared else (None, None)
        compared.append(Compared(label, results, run_scores, steps, *difference, curve))
    return compared


def table(compared: Sequence[Compared]) -> str:
    """Returns the comparison as aligned text; columns are parted by two blanks or more."""
    results = compared[0].results
    show = '{:.2%}'.format if results['unit'] == '%' else '{:.4f}'.format
    rows = [('run', results['axis']['name'], 'mean', '95%', f'to {compared[0].label}', '95%')]
    for run in compared:
        means, _, halves = summarise(run.scores[:, np.newaxis])
        cells = run.label, str(run.steps), show(means[0]), f'± {show(halves[0])}'
        if run.difference is None:
            rows.append((*cells, '', ''))
        else:
            rows.append((*cells, show(run.difference), f'± {show(run.ci95)}'))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        '  '.join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
        for row in rows
    ]
    heading = f'{results["metric"]} on the same {results["tasks"]} tasks, differences paired'
    return '\n'.join([heading, *(line.rstrip() for line in lines)])
