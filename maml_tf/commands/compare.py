"""Says by how much one method is better than another on the same tasks.

The two are compared task by task: the interval of their paired difference is much narrower than
those of the two means.

    python -m maml_tf.compare RUN_DIRECTORY_A RUN_DIRECTORY_B [--steps_a=3] [--steps_b=0]
"""

import argparse
import csv
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from maml_tf.errors import UserError
from maml_tf.evaluation import report
from maml_tf.evaluation.intervals import paired
from maml_tf.terminal.exit import errors_as_one_line

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
        with open(path, newline='', encoding='utf-8') as file:
            header, *rows = csv.reader(file)
        return np.array(rows, float).reshape(len(rows), len(header))
    except OSError as error:
        raise UserError(f'{directory}: no evaluated run, {error.filename} is missing') from None
    except ValueError as error:
        raise UserError(f'{path}: broken ({error}); evaluate the run again') from None


def _size(tasks: int, entries: int) -> str:
    return f'{tasks} tasks with {entries} scores each'


def compare(a: Scored, b: Scored) -> str:
    """Returns one line that says how two runs differ, each as `scores` returns it.

    Raises UserError where they were not scored on the same tasks by the same metric.
    """
    (results_a, scores_a), (results_b, scores_b) = a, b
    for name in ('metric', 'unit', 'tasks'):
        if results_a[name] != results_b[name]:
            raise UserError(f'not alike: {name} is {results_a[name]} and {results_b[name]}')
    for name, first, second in report.differing(results_a['protocol'], results_b['protocol']):
        raise UserError(f'not on the same tasks: protocol has {name} {first} and {second}')
    show = '{:.2%}'.format if results_a['unit'] == '%' else '{:.4f}'.format
    difference, half = paired(scores_a, scores_b)
    return (
        f'{results_a["metric"]} {show(scores_a.mean())} and {show(scores_b.mean())} on the same '
        f'{len(scores_a)} tasks: difference {show(difference)} ± {show(half)} (95%, paired)'
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; arguments: None: those of the program."""
    parser = argparse.ArgumentParser(
        prog='python -m maml_tf.compare',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for side in 'ab':
        parser.add_argument(
            f'run_{side}', type=pathlib.Path, metavar=f'RUN_DIRECTORY_{side.upper()}'
        )
        parser.add_argument(f'--steps_{side}', type=int, help='inner steps (default: the most)')
    given = parser.parse_args(arguments)
    with errors_as_one_line():
        print(compare(scores(given.run_a, given.steps_a), scores(given.run_b, given.steps_b)))


if __name__ == '__main__':
    main()
