"""Two methods on the same tasks: their paired difference, which is much surer than the two
intervals.

    python -m maml_tf.compare RUN_DIRECTORY_A RUN_DIRECTORY_B [--steps_a=3] [--steps_b=0]
"""

import argparse
import csv
import json
import pathlib
import sys

import numpy as np

from maml_tf.errors import UserError
from maml_tf.evaluation.intervals import paired


def scores(directory, steps=None):
    """(results.json, scores [tasks] after `steps` inner steps, None: the last) of an evaluated run.

    Raises UserError where the directory holds no evaluation or has no such step.
    """
    directory = pathlib.Path(directory)
    try:
        results = json.loads((directory / 'results.json').read_text('utf-8'))
        with open(directory / 'scores.csv', newline='', encoding='utf-8') as file:
            _, *rows = csv.reader(file)
        table = np.array(rows, float)
        columns = table.shape[1]
    except OSError as error:
        raise UserError(f'{directory}: no evaluated run, {error.filename} is missing') from None
    except (ValueError, IndexError) as error:
        raise UserError(
            f'{directory}: results.json or scores.csv is broken ({error}); evaluate again'
        ) from None
    if steps is not None and not 0 <= steps < columns:
        raise UserError(f'{directory}: evaluated after 0 to {columns - 1} steps, not {steps}')
    return results, table[:, -1 if steps is None else steps]


def compare(a, b):
    """One line that says the difference between two results of `scores`. Raises UserError for
    different tasks."""
    (results_a, scores_a), (results_b, scores_b) = a, b
    for key in ('metric', 'tasks', 'protocol'):
        if results_a.get(key) != results_b.get(key):
            raise UserError(
                f'not on the same tasks: {key} is {results_a.get(key)} and {results_b.get(key)}'
            )
    difference, half = paired(scores_a, scores_b)
    show = '{:.2%}'.format if results_a['metric'] == 'accuracy' else '{:.4f}'.format
    return (
        f'{results_a["metric"]} {show(scores_a.mean())} and {show(scores_b.mean())} on the same '
        f'{len(scores_a)} '
        f'tasks: difference {show(difference)} ± {show(half)} (95%, paired)'
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for side in 'ab':
        parser.add_argument(f'run_{side}', metavar=f'RUN_DIRECTORY_{side.upper()}')
        parser.add_argument(f'--steps_{side}', type=int, help='inner steps (default: the most)')
    arguments = parser.parse_args()
    try:
        print(
            compare(
                scores(arguments.run_a, arguments.steps_a),
                scores(arguments.run_b, arguments.steps_b),
            )
        )
    except UserError as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
