"""Says by how much methods are better than the first of them on the same tasks.

They are compared task by task: the interval of a paired difference is much narrower than those of
the two means.

    python -m maml_tf.compare RUN_DIRECTORY RUN_DIRECTORY ... [--picture=comparison.png]

With --over_shots runs are grouped by method and shots, and a curve is drawn for each method:

    python -m maml_tf.compare --over_shots --picture=shots.png RUN_DIRECTORY RUN_DIRECTORY ...

A run may have a name and the inner steps after which it counts (else: the most), as in
FOMAML=logs/run@3. Over shots it names the method, which is else the run's --algorithm.
"""

import argparse
import pathlib
from collections.abc import Sequence

from maml_tf.evaluation.comparisons import comparison_plot, over_shots, over_shots_plot
from maml_tf.evaluation.comparisons.comparison import compare, scores, table, training_curve
from maml_tf.terminal.exit import errors_as_one_line


def named_run(text: str) -> tuple[str | None, pathlib.Path, int | None]:
    """Reads [LABEL=]RUN_DIRECTORY[@STEPS] -> (label, directory, steps)."""
    label, path, steps = None, text, None
    if not pathlib.Path(path).is_dir() and '=' in path:
        label, _, path = path.partition('=')
    if not pathlib.Path(path).is_dir() and path.rpartition('@')[2].isdecimal():
        path, _, number = path.rpartition('@')
        steps = int(number)
    return label, pathlib.Path(path), steps


def labelled_run(text: str) -> tuple[str, pathlib.Path, int | None]:
    """Returns what `named_run` does; without a label the whole text is one."""
    label, directory, steps = named_run(text)
    return label or text, directory, steps


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; arguments: None: those of the program."""
    parser = argparse.ArgumentParser(
        prog='python -m maml_tf.compare',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('run', nargs='+', metavar='[LABEL=]RUN_DIRECTORY[@STEPS]')
    parser.add_argument('--picture', type=pathlib.Path, help='draw the comparison as a PNG file')
    parser.add_argument(
        '--over_shots', action='store_true', help='a curve for each method over the shots'
    )
    given = parser.parse_args(arguments)
    with errors_as_one_line():
        (_over_shots if given.over_shots else _side_by_side)(given.run, given.picture)
        if given.picture:
            print(f'Picture: {given.picture}')


def _side_by_side(texts: Sequence[str], picture: pathlib.Path | None) -> None:
    runs, curves = [], []
    for label, directory, steps in map(labelled_run, texts):
        scored = scores(directory, steps)
        values = scored[0]['axis']['values']
        runs.append((label, scored, values[-1] if steps is None else steps))
        if picture:
            curves.append(training_curve(directory, scored[0]['metric']))
    compared = compare(runs, curves or None)
    print(table(compared))
    if picture:
        comparison_plot.draw(picture, compared)


def _over_shots(texts: Sequence[str], picture: pathlib.Path | None) -> None:
    grouped = over_shots.group(
        [
            over_shots.Run(label, directory, scores(directory, steps))
            for label, directory, steps in map(named_run, texts)
        ]
    )
    print(over_shots.table(grouped))
    if picture:
        over_shots_plot.draw(picture, grouped)


if __name__ == '__main__':
    main()
