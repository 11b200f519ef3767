"""Puts the images that several runs complete beside each other: the same images and pixels.

    python -m maml_tf.completions [LABEL=]RUN_DIRECTORY ... [--picture=completions.png]

Rows are the pixels that are given, what each run makes of them (after the adaptation steps of its
evaluation, and with its deviations where it predicts some), and the images themselves. A run may
have a name and another number of steps, as in CAVIA=logs/run@3. The data are looked for where the
first run found them, unless --data_dir says otherwise.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from maml_tf import algorithms
from maml_tf.commands import command_line
from maml_tf.commands.experiment import problem_of
from maml_tf.commands.views import completed
from maml_tf.commands.views.compare import labelled_run
from maml_tf.commands.views.runs import flags_of
from maml_tf.datasets.sources import SOURCES
from maml_tf.episodes.image_completion import ImageCompletion
from maml_tf.errors import UserError
from maml_tf.evaluation.evaluate import TASK_SEED
from maml_tf.learner import Learner
from maml_tf.saving.init_from import load_weights
from maml_tf.terminal.exit import errors_as_one_line

OF_IMAGES = 'celeba'  # the source whose tasks are images to be completed
# What runs have in common that complete the same images.
COMMON = ('datasource', 'image_size')


def rebuilt(directory: pathlib.Path) -> tuple[Any, Learner]:
    """Returns (flag values, the learner of the latest checkpoint) of a run directory.

    Raises: UserError where it is none, or of a run that completes no images.
    """
    flags = flags_of(directory)
    if flags.datasource != OF_IMAGES:
        raise UserError(
            f'{directory}: a run of --datasource={flags.datasource}; images are completed by runs '
            f'of {OF_IMAGES}'
        )
    learner = algorithms.registry()[flags.algorithm].from_flags(flags, problem_of(flags))
    load_weights(learner, directory)
    learner.check_ready()
    return flags, learner


def source_of(runs: Sequence[tuple[pathlib.Path, Any]], data_dir: str | None) -> ImageCompletion:
    """Returns the images that all runs, (directory, flag values), are about.

    Raises: UserError where they are not about the same, or the data are missing.
    """
    (first, flags), *_ = runs
    for directory, others in runs:
        for name in COMMON:
            if others[name].value != flags[name].value:
                raise UserError(
                    f'{directory}: has --{name}={others[name].value}, and {first} has '
                    f'--{name}={flags[name].value}'
                )
    if data_dir is not None:
        flags.data_dir = data_dir
    return SOURCES[flags.datasource].load(flags)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; arguments: None: those of the program."""
    parser = argparse.ArgumentParser(
        prog='python -m maml_tf.completions',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('run', nargs='+', metavar='[LABEL=]RUN_DIRECTORY[@STEPS]')
    parser.add_argument(
        '--picture',
        type=pathlib.Path,
        default='completions.png',
        help='the PNG file to write (default: %(default)s)',
    )
    parser.add_argument('--data_dir', help="TensorFlow Datasets directory (default: the run's)")
    parser.add_argument('--split', choices=('val', 'test'), default='test', help='of the images')
    parser.add_argument('--images', type=int, default=completed.IMAGES, help='how many')
    parser.add_argument(
        '--pixels',
        type=int,
        nargs='+',
        default=completed.GIVEN,
        help='how many are given (default: 10 100 1000)',
    )
    given = parser.parse_args(arguments)
    with errors_as_one_line(command_line.FLAG_OF, file='--picture'):
        for name, value in (('images', given.images), ('pixels', min(given.pixels))):
            if value < 1:
                raise UserError(f'--{name}={value}: at least 1')
        runs = [labelled_run(text) for text in given.run]
        labels = [label for label, *_ in runs]
        if repeated := next((label for label in labels if labels.count(label) > 1), None):
            raise UserError(f'{repeated}: named twice; give each run a name of its own')
        learners = [rebuilt(directory) for _, directory, _ in runs]
        flags = [(directory, flags) for (_, directory, _), (flags, _) in zip(runs, learners)]
        source = source_of(flags, given.data_dir)
        tasks = completed.tasks_of(source, given.split, TASK_SEED, given.images, given.pixels)
        made = {
            label: completed.complete(learner, tasks, steps)
            for (label, _, steps), (_, learner) in zip(runs, learners)
        }
        completed.draw(given.picture, tasks, made)
        print(f'Picture: {given.picture}')
