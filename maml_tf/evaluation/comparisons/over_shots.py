"""Runs of several methods over the number of shots, each beside the first method.

Imports no TensorFlow, so that commands that only read results start at once.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from maml_tf.errors import UserError
from maml_tf.evaluation import report
from maml_tf.evaluation.comparisons.comparison import Scored
from maml_tf.evaluation.intervals import paired, summarise
from maml_tf.terminal.text import listed

# Of the protocol, what may differ between tasks of different shots.
OF_SHOTS = ('shot', 'tasks_sha256')


class Run(NamedTuple):
    """An evaluated run. method: what it is called, None: its algorithm. scored: see `scores`."""

    method: str | None
    directory: pathlib.Path
    scored: Scored


class Cell(NamedTuple):
    """A method at a number of shots.

    mean, ci95: of its scores, and the half-width of their interval.
    difference, difference_ci95: to the first method on the same tasks; None: it is the first, or
      that has no run of these shots.
    """

    mean: float
    ci95: float
    difference: float | None = None
    difference_ci95: float | None = None


class OverShots(NamedTuple):
    """Methods over shots.

    results: the results.json of the first run. shots: in order. methods: in the order of the runs,
    {method: {shots: Cell}}.
    """

    results: dict[str, Any]
    shots: list[int]
    methods: dict[str, dict[int, Cell]]


def group(runs: Sequence[Run]) -> OverShots:
    """Groups runs by method and shots.

    Raises: UserError where they were not scored alike (tasks of the same shots: on the same tasks),
      a run has no shots, or two are of one method and one number of shots.
    """
    first = runs[0].scored[0]
    cells: dict[str, dict[int, Run]] = {}
    for run in runs:
        results = run.scored[0]
        protocol = results['protocol']
        if not isinstance(protocol.get('shot'), int):
            raise UserError(f'{run.directory}: its tasks have no shots')
        _check_alike(run, runs[0])
        of_method = cells.setdefault(_method(run), {})
        if twice := of_method.get(protocol['shot']):
            raise UserError(
                f'{twice.directory} and {run.directory}: both are {_method(run)} with '
                f'{protocol["shot"]} shots; name one otherwise, as in LABEL={run.directory}'
            )
        of_method[protocol['shot']] = run
    shots = sorted({number for of_method in cells.values() for number in of_method})
    (_, reference), *_ = cells.items()
    methods = {
        method: {shot: _cell(of_method[shot], reference.get(shot)) for shot in sorted(of_method)}
        for method, of_method in cells.items()
    }
    for shot in shots:
        _check_same_tasks([of_method[shot] for of_method in cells.values() if shot in of_method])
    return OverShots(first, shots, methods)


def _method(run: Run) -> str:
    return run.method or run.scored[0]['flags'].get('algorithm', str(run.directory))


def _check_alike(run: Run, first: Run) -> None:
    """Raises UserError for another metric, or tasks that differ in more than their shots."""
    (results, _), (of_first, _) = run.scored, first.scored
    said = [(name, of_first[name], results[name]) for name in ('metric', 'unit', 'tasks')]
    kept = [
        {name: value for name, value in content['protocol'].items() if name not in OF_SHOTS}
        for content in (of_first, results)
    ]
    for name, one, other in (*said, *report.differing(*kept)):
        if one != other:
            raise UserError(
                f'{first.directory} and {run.directory}: not alike, {name} is {one} and {other}'
            )


def _check_same_tasks(runs: Sequence[Run]) -> None:
    for run in runs[1:]:
        protocols = [one.scored[0]['protocol'] for one in (runs[0], run)]
        for name, one, other in report.differing(*protocols):
            raise UserError(
                f'{runs[0].directory} and {run.directory}: not on the same tasks, {name} is {one} '
                f'and {other}'
            )


def _cell(run: Run, reference: Run | None) -> Cell:
    scores = run.scored[1]
    means, _, halves = summarise(scores[:, np.newaxis])
    own = float(means[0]), float(halves[0])
    if reference is None or reference is run:
        return Cell(*own)
    return Cell(*own, *paired(scores, reference.scored[1]))


def table(over_shots: OverShots) -> str:
    """Returns the methods over the shots as aligned text, and below them their differences to the
    first; columns are parted by two blanks or more, – stands where there is no run."""
    results, shots, methods = over_shots
    show = '{:.2%}'.format if results['unit'] == '%' else '{:.4f}'.format
    first = next(iter(methods))
    heading = [f'{number}-shot' for number in shots]
    rows = [('method', *heading)]
    rows += [
        (method, *(_shown(show, cells, shot, ('mean', 'ci95')) for shot in shots))
        for method, cells in methods.items()
    ]
    if len(methods) > 1:
        rows.append((f'to {first}', *heading))
        names = 'difference', 'difference_ci95'
        rows += [
            (method, *(_shown(show, cells, shot, names) for shot in shots))
            for method, cells in methods.items()
            if method != first
        ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = [
        '  '.join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))])
        for row in rows
    ]
    title = (
        f'{results["metric"]} over shots ({listed(shots)}), {results["tasks"]} tasks each, 95% '
        'intervals, differences paired'
    )
    return '\n'.join([title, *(line.rstrip() for line in lines)])


def _shown(show, cells, shot, names):
    values = [None] if shot not in cells else [getattr(cells[shot], name) for name in names]
    return '–' if values[0] is None else f'{show(values[0])} ± {show(values[1])}'
