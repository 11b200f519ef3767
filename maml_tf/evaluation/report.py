"""What an evaluation leaves: a table on the screen, results.json, and scores as csv files.

Imports no TensorFlow, so that commands that only read results start at once.
"""

from __future__ import annotations

import csv
import io
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from maml_tf.errors import UserError
from maml_tf.evaluation.intervals import summarise
from maml_tf.serialisation.files import check_is_file, write_atomically
from maml_tf.terminal.text import described

if TYPE_CHECKING:
    from maml_tf.objectives.metric import Axis, Metric

# The axis of methods that adapt by gradient steps, as the reference's do.
GRADIENT_STEPS = 'gradient steps'
# What results.json has to say before anybody can compare it with another.
NEEDED = {
    **{'protocol': dict, 'metric': str, 'unit': str, 'axis': dict, 'mean': list, 'ci95': list},
    **{'tasks': int, 'seed': int, 'flags': dict},
}
# Of the columns of the screen's table.
LEAST_WIDTHS = (16, 10, 10, 16)


def table(scores: np.ndarray, metric: Metric, axis: Axis, heading: str) -> str:
    """Returns the screen's table, one row for each entry of the axis.

    Args:
      scores: [tasks, entries].
      axis: what the entries stand for; where there is one alone, its column is left out.
      heading: follows the metric's title.
    """
    rows = [(axis.name, 'mean', 'std', '95% interval')]
    for value, mean, deviation, half in zip(axis.values, *summarise(scores)):
        cells = metric.show(mean), metric.show(deviation), '± ' + metric.show(half)
        rows.append((str(value), *cells))
    first = 0 if scores.shape[1] > 1 else 1
    columns = [
        [cell.rjust(max(least, 2 + max(map(len, column)))) for cell in column]
        for column, least in list(zip(zip(*rows), LEAST_WIDTHS))[first:]
    ]
    lines = [f'{metric.title} {heading}', *map(''.join, zip(*columns))]
    if diverged := int((~np.isfinite(scores)).any(axis=1).sum()):
        lines.append(
            f'No finite score: {diverged} of {len(scores)} tasks. A row that has one of them has '
            'no mean (null in results.json).'
        )
    return '\n'.join(lines)


def results(
    scores: np.ndarray,
    metric: Metric,
    axis: Axis,
    protocol: Mapping[str, Any],
    seed: int,
    iteration: int | None,
    flags: Mapping[str, Any],
    flagfile: str | None = None,
) -> dict[str, Any]:
    """Returns the content of results.json; a metric in percent is written as a fraction.

    Args:
      scores: [tasks, entries]; a mean that is NaN or infinite becomes None, which JSON can write.
      axis: what the entries stand for.
      protocol: {name: value} that decides the tasks, among them 'split' and the tasks' hash.
      iteration: of the checkpoint; None: the weights came without.
      flags: {name: value} of the whole command line; NaN and infinity are written as text.
      flagfile: the path that the command named, if it named one.
    """
    means, deviations, ci95 = map(_or_none, summarise(scores))
    values = list(axis.values)
    return {
        'metric': metric.name,
        'unit': metric.unit,
        'higher_is_better': metric.higher_is_better,
        'axis': {'name': axis.name, 'values': values},
        # For readers of the reference's layout.
        **({'inner_steps': values} if axis.name == GRADIENT_STEPS else {}),
        'mean': means,
        'std': deviations,
        'ci95': ci95,
        'tasks': len(scores),
        'split': protocol['split'],
        'seed': seed,
        'iteration': iteration,
        'protocol': _as_json(protocol),
        'flags': _as_json(flags),
        'flagfile': flagfile,
    }


def further_results(scores: np.ndarray, metric: Metric) -> dict[str, Any]:
    """Returns what results.json says of a further metric; scores: [tasks, entries]."""
    means, deviations, ci95 = map(_or_none, summarise(scores))
    return {
        'metric': metric.name,
        'unit': metric.unit,
        'higher_is_better': metric.higher_is_better,
        'mean': means,
        'std': deviations,
        'ci95': ci95,
    }


def _or_none(values: Iterable[float]) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]


def _as_json(value: Any) -> Any:
    """Writes out as text the numbers that JSON does not have, such as those of `--meta_lr=nan`."""
    if isinstance(value, Mapping):
        return {name: _as_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def write(
    directory: pathlib.Path,
    scores: np.ndarray,
    content: Mapping[str, Any],
    update_batch_size: int,
    update_lr: float,
    further: Mapping[Metric, np.ndarray] | None = None,
) -> None:
    """Writes results.json, scores.csv and test_ubs<K>_stepsize<alpha>.csv into a run directory.

    scores.csv has each task's scores, one row a task; the last is the reference's file. Its column
    update0 is the *query* set before adaptation, where the reference put the support set.

    Args:
      scores: [tasks, entries].
      content: of `results`.
      update_batch_size, update_lr: K and alpha, for the name of the reference's file.
      further: scores by further metrics, each to a file scores_<metric>.csv.
    """
    text = json.dumps(content, indent=1, allow_nan=False) + '\n'
    write_atomically(directory / 'results.json', text)
    axis = content['axis']
    column = 'update' if axis['name'] == GRADIENT_STEPS else f'{axis["name"]} '
    header = [f'{column}{value}' for value in axis['values']]
    write_atomically(directory / 'scores.csv', _csv(header, scores))
    summary = _csv(header, summarise(scores))
    write_atomically(directory / f'test_ubs{update_batch_size}_stepsize{update_lr}.csv', summary)
    for metric, values in (further or {}).items():
        write_atomically(directory / f'scores_{metric.name}.csv', _csv(header, values))


def _csv(header: list[str], rows: Iterable[np.ndarray]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    writer.writerows(row.tolist() for row in rows)
    return text.getvalue()


def read(directory: pathlib.Path) -> dict[str, Any]:
    """Returns the results.json of an evaluated run.

    Raises UserError where there is none, or one that does not say which tasks it is about.
    """
    path = directory / 'results.json'
    try:
        check_is_file(path)
        content = json.loads(path.read_text('utf-8'))
    except FileNotFoundError as error:
        raise UserError(f'{directory}: no evaluated run, {error.filename} is missing') from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{path}: broken ({described(error)}); evaluate the run again') from None
    for name in NEEDED:
        if not isinstance(content, dict) or content.get(name) in (None, {}):
            raise UserError(f'{path}: does not say its {name}; evaluate the run again')
    for name, kind in NEEDED.items():
        if not isinstance(content[name], kind):
            raise UserError(f'{path}: its {name} makes no sense; evaluate the run again')
    axis = content['axis']
    if not isinstance(axis.get('name'), str) or not isinstance(axis.get('values'), list):
        raise UserError(f'{path}: its axis makes no sense; evaluate the run again')
    return content


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yields (name, value in `a`, value in `b`) wherever two mappings differ; None: not there."""
    for name in dict.fromkeys((*a, *b)):
        if a.get(name) != b.get(name):
            yield name, a.get(name), b.get(name)
