"""The files of checkpoints in a directory: which there are, and whether they are whole."""

import os
import pathlib
import re
import shutil
from collections.abc import Collection, Iterator

import tensorflow as tf

from maml_tf.serialisation.files import check_is_file
from maml_tf.serialisation.tensorflow_errors import reason

# The index first: without it the rest is no checkpoint.
ENDINGS = ('index', 'data-00000-of-00001')
DAMAGED = 'damaged-'  # stands before the names of files that are kept, and read no more


def checkpoints(directory: pathlib.Path | str) -> dict[int, str]:
    """Returns {iteration: checkpoint prefix} of a run directory, ascending.

    Files of other names, such as model-final.index, are none of a run's.
    """
    # The index is written last: where it is, the run had written all of the checkpoint.
    found = {iteration: str(path.with_suffix('')) for iteration, path in _of(directory, 'index')}
    return dict(sorted(found.items()))


def flagfile_of(path: pathlib.Path | str) -> pathlib.Path | None:
    """Returns the flags.txt of the run that a path is of; None: there is none.

    path: a run directory, a checkpoint's prefix in it, or its best/.
    """
    path = pathlib.Path(path)
    found = [one / 'flags.txt' for one in (path, *path.parents[:2])]
    return next((file for file in found if file.is_file()), None)


def damage(prefix: pathlib.Path | str) -> str | None:
    """Says why a checkpoint cannot be read as a whole; None: it can.

    All of it is read, and compared with its checksums.
    """
    try:
        for ending in ENDINGS:
            if os.path.lexists(path := f'{prefix}.{ending}'):
                check_is_file(path)
        reader = tf.train.load_checkpoint(str(prefix))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except Exception as error:  # TensorFlow's reader raises many types on damaged files.
        return reason(error)
    return None


def whole(directory: pathlib.Path | str) -> list[int]:
    """Returns the iterations of the checkpoints that can be read, ascending."""
    return [number for number, prefix in checkpoints(directory).items() if damage(prefix) is None]


def cannot_be_read(prefix: pathlib.Path | str) -> str | None:
    """Returns '(why); what else is whole' of a damaged checkpoint; None: it can be read."""
    if why := damage(prefix):
        return f'cannot be read ({why}); {in_words(whole(pathlib.Path(prefix).parent))}'
    return None


def in_words(iterations: Collection[int]) -> str:
    """Returns 'iterations 10, 20 are whole', for the end of a message."""
    if not iterations:
        return 'no other is whole'
    several = len(iterations) > 1
    numbers = ', '.join(map(str, iterations))
    return f'iteration{"s" * several} {numbers} {"are" if several else "is"} whole'


def set_aside(directory: pathlib.Path | str, iteration: int) -> pathlib.Path:
    """Renames a damaged checkpoint to damaged-model-<iteration>; returns its new prefix."""
    directory = pathlib.Path(directory)
    for ending in reversed(ENDINGS):  # Without an index, data that a kill left would go unseen.
        path = directory / f'model-{iteration}.{ending}'
        if os.path.lexists(path):
            target = path.with_name(f'{DAMAGED}{path.name}')
            if target.is_dir():  # Where a damaged index was a directory before.
                shutil.rmtree(target)
            path.rename(target)
    return directory / f'{DAMAGED}model-{iteration}'


def remove_all_but(directory: pathlib.Path, kept: Collection[int]) -> None:
    """Removes the other checkpoints, and data whose index a killed run had removed already."""
    for ending in ENDINGS:
        for iteration, path in list(_of(directory, ending)):
            if iteration not in kept:
                path.unlink()


def _of(directory: pathlib.Path | str, ending: str) -> Iterator[tuple[int, pathlib.Path]]:
    for path in pathlib.Path(directory).glob(f'model-*.{ending}'):
        if name := re.fullmatch(rf'model-(0|[1-9][0-9]*)\.{ending}', path.name):
            yield int(name[1]), path
