"""Says by how much methods are better than the first of them on the same tasks.

They are compared task by task: the interval of a paired difference is much narrower than those of
the two means.

    python -m maml_tf.compare RUN_DIRECTORY RUN_DIRECTORY ... [--picture=comparison.png]

A run may have a name and the inner steps after which it counts (else: the most), as in
FOMAML=logs/run@3.
"""

import argparse
import pathlib
from collections.abc import Sequence

from maml_tf.evaluation.comparisons import comparison_plot
from maml_tf.evaluation.comparisons.comparison import compare, scores, table, training_curve
from maml_tf.terminal.exit import errors_as_one_line


def named_run(text: str) -> tuple[str, pathlib.Path, int | None]:
    """Reads [LABEL=]RUN_DIRECTORY[@STEPS] -> (label, directory, steps)."""
    label, path, steps = None, text, None
    if not pathlib.Path(path).is_dir() and '=' in path:
        label, _, path = path.partition('=')
    if not pathlib.Path(path).is_dir() and path.rpartition('@')[2].isdecimal():
        path, _, number = path.rpartition('@')
        steps = int(number)
    return label or text, pathlib.Path(path), steps


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; arguments: None: those of the program."""
    parser = argparse.ArgumentParser(
        prog='python -m maml_tf.compare',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('run', nargs='+', metavar='[LABEL=]RUN_DIRECTORY[@STEPS]')
    parser.add_argument('--picture', type=pathlib.Path, help='draw the comparison as a PNG file')
    given = parser.parse_args(arguments)
    with errors_as_one_line():
        runs, curves = [], []
        for label, directory, steps in map(named_run, given.run):
            scored = scores(directory, steps)
            values = scored[0]['axis']['values']
            runs.append((label, scored, values[-1] if steps is None else steps))
            if given.picture:
                curves.append(training_curve(directory, scored[0]['metric']))
        compared = compare(runs, curves or None)
        print(table(compared))
        if given.picture:
            comparison_plot.draw(given.picture, compared)
            print(f'Picture: {given.picture}')


if __name__ == '__main__':
    main()
