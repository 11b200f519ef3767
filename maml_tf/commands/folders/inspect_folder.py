"""What is in a folder of class folders, and what to do with it: to be run before any training.

    python -m maml_tf.inspect_folder photos

Exits with 0 if a few-shot learner can be trained on the folder, else with 1 and the reason. Reads
every image once and writes nothing. Last it times a few training steps of what it proposes, which
starts TensorFlow.
"""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Callable, Sequence

from maml_tf.commands.folders.advice import advice
from maml_tf.commands.folders.look import look
from maml_tf.commands.folders.report import report
from maml_tf.commands.folders.timing import seconds_per_iteration
from maml_tf.datasets.raw.listing import list_splits
from maml_tf.errors import ArgumentError, UserError

# The flag of run_maml.py for an argument, where it has another name.
FLAGS = {'way': 'num_classes'}


def inspect(
    folder: pathlib.Path, measure: Callable[[list[str]], float] | None = seconds_per_iteration
) -> bool:
    """Prints the report on a folder; returns whether a learner can be trained on it.

    measure: see advice.
    """
    try:
        listings = list_splits(folder)
        classes = itertools.chain(*(listing.classes.values() for listing in listings.values()))
        seen = look(list(itertools.chain(*classes)))
        # One by one: what is there is also said of a folder that is then refused.
        for line in report(folder, listings, seen):
            print(line)
        print()
        for line in advice(folder, listings, seen, measure):
            print(line)
    except ArgumentError as error:
        print(f'Cannot be trained on: {error.of_flag(FLAGS)}')
        return False
    except UserError as error:
        print(f'Cannot be trained on: {error}')
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; arguments: None: those of the program."""
    parser = argparse.ArgumentParser(
        prog='python -m maml_tf.inspect_folder',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'folder',
        type=pathlib.Path,
        help='holds a folder of images for each class; or train, val and test, and these hold them',
    )
    parser.add_argument(
        '--no_timing',
        action='store_true',
        help='do not say how long training takes here; starts no TensorFlow',
    )
    options = parser.parse_args(arguments)
    folder = options.folder.expanduser()
    sys.stdout.reconfigure(errors='backslashreplace')  # Names of files can be in any script.
    sys.exit(0 if inspect(folder, None if options.no_timing else seconds_per_iteration) else 1)


if __name__ == '__main__':
    main()
