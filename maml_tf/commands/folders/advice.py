"""The advice on a folder of class folders: how its classes are split, and how to train on them."""

import math
import pathlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sized

from maml_tf.commands.folders.look import Seen
from maml_tf.commands.folders.rows import row
from maml_tf.datasets.raw.folder_split import (
    ADAPT,
    check_enough,
    large_enough,
    split_classes,
    too_small,
)
from maml_tf.datasets.raw.listing import SPLITS, Listing
from maml_tf.errors import UserError
from maml_tf.terminal.text import counted, listed, shown

METHOD = 'prototypical'  # the cheapest of the good ones: it adapts without gradients
ITERATIONS = 2000
FEWEST = 100  # iterations, and multiples of it
AFFORDABLE = 3600  # seconds
WAY, SHOT, QUERY = 5, 1, 15  # proposed where there are classes and images enough
KEPT = 0.75  # of the training classes have images enough for the proposed queries


def advice(
    folder: pathlib.Path,
    listings: Mapping[str, Listing],
    seen: Mapping[pathlib.Path, Seen],
    measure: Callable[[list[str]], float] | None,
) -> Iterator[str]:
    """Yields how the classes are split, the command that trains on them and how long it takes.

    Args:
      listings: what listing.list_splits found in the folder.
      seen: every image of every class.
      measure: arguments of run_maml.py -> seconds of an iteration here; None: they are not told.
    Raises: UserError where they are too few.
    """
    quoted = shown(shlex.quote(str(folder)))
    try:
        split = split_classes(folder, listings)
    except UserError as error:
        raise UserError(f'{error} --init_from=RUN_DIRECTORY --support={quoted}') from None
    parts = {
        part: {
            name: [path for path in paths if not seen[path].error]
            for name, paths in classes.items()
        }
        for part, classes in split.items()
    }
    least = dict.fromkeys(SPLITS, SHOT + 1)
    large = large_enough(parts, least)
    way = max(2, min(WAY, *map(len, large.values())))
    check_enough(folder, large, dict.fromkeys(SPLITS, way), least)
    query = train_query(large['train'], way)
    sizes = ', '.join(f'{part} {len(classes)}' for part, classes in parts.items())
    is_ours = '' in listings
    origin = 'by their names; --split_file chooses otherwise' if is_ours else 'as the folders are'
    yield row('split', f'{sizes} classes, {origin}')
    for part, classes in parts.items():
        yield row(f'  {part}', listed(list(classes)))
    for line in too_small(parts, {**least, 'train': SHOT + query}):
        yield row('left out', line)
    if way < WAY:
        yield row('tasks', f'{way}-way; for {WAY}-way tasks each split needs {WAY} classes')
    if len(large['train']) < 2 * way:
        yield row(
            'note',
            f'{len(large["train"])} classes to train on are few: learning to learn wants many. '
            f'{ADAPT} adapts a learner that was trained on others',
        )
    yield ''
    arguments = [
        *(f'--algorithm={METHOD}', f'--num_classes={way}', f'--update_batch_size={SHOT}'),
        *(f'--train_query={query}', '--meta_batch_size=1'),
    ]
    if measure:
        yield 'Timing a few training steps, which have to be compiled first'
        yield ''
    seconds = measure(['--datasource=directory', *arguments]) if measure else None
    iterations = _affordable(seconds)
    yield f'To train, {way}-way {SHOT}-shot{_minutes(seconds, iterations)}:'
    yield ''
    yield (
        f'    run_maml.py --datasource=directory --data_dir={quoted} {" ".join(arguments)} '
        f'--metatrain_iterations={iterations}'
    )


def _affordable(seconds: float | None) -> int:
    """Returns as many iterations as an hour has, at most ITERATIONS."""
    if not seconds:
        return ITERATIONS
    in_time = int(AFFORDABLE / seconds) // FEWEST * FEWEST
    return min(ITERATIONS, max(FEWEST, in_time))


def _minutes(seconds: float | None, iterations: int) -> str:
    if seconds is None:
        return ''
    minutes = math.ceil(seconds * iterations / 60)
    text = f', about {counted(minutes, "minute")} here ({seconds:.2g} seconds an iteration)'
    if iterations < ITERATIONS:
        text += f'; {ITERATIONS:,} iterations would be better, and take {_hours(seconds)}'
    return text


def _hours(seconds: float) -> str:
    return f'{seconds * ITERATIONS / 3600:.1f} hours'


def train_query(classes: Mapping[str, Sized], way: int) -> int:
    """Returns the queries per class for which most classes, and at least `way`, have images.

    classes: {name: its images}.
    """
    counts = sorted(map(len, classes.values()), reverse=True)
    kept = max(way, math.ceil(KEPT * len(counts)))
    return min(QUERY, counts[kept - 1] - SHOT)
