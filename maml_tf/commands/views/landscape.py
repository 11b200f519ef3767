"""Draws what tells meta-learning from pre-training, in two dimensions.

Two tasks have a loss over two weights each. Pre-training finds the weights that are best for both
at once, meta-learning those from which one gradient step is best for each. Both are computed here,
in seconds; the picture shows where they end, and where the step leads.

    python -m maml_tf.landscape [--picture=landscape.png]
"""

import argparse
import pathlib
from collections.abc import Sequence

from maml_tf.evaluation import landscape, landscape_plot
from maml_tf.terminal.exit import errors_as_one_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; arguments: None: those of the program."""
    parser = argparse.ArgumentParser(
        prog='python -m maml_tf.landscape',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--picture', type=pathlib.Path, default='landscape.png', help='the PNG file to write'
    )
    parser.add_argument(
        '--update_lr', type=float, default=landscape.INNER_LR, help='size of the inner step'
    )
    given = parser.parse_args(arguments)
    with errors_as_one_line():
        journeys = landscape.travel(inner_lr=given.update_lr)
        print(f'{"squared error":16}{"start point":>14}{"after one step":>18}')
        for name, journey in journeys.items():
            print(f'{name:16}{journey.before.mean():14.4f}{journey.after.mean():18.4f}')
        landscape_plot.draw(given.picture, journeys)
        print(f'Picture: {given.picture}')


if __name__ == '__main__':
    main()
