"""Files and directories that are whole: a reader finds all of one or nothing, never a part."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from maml_tf.errors import ArgumentError


@contextlib.contextmanager
def replaced(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to write to, and renames what was written to `path` when the block is done.

    Where the block raises, nothing is left of what it wrote.
    """
    temporary = path.with_name(f'.{path.name}.new')
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a text file, in UTF-8, so that a run cut short leaves no part of it."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


def check_new(path: pathlib.Path | str, argument: str = 'path') -> None:
    """Raises ArgumentError where `path` exists (an export overwrites nothing) or cannot be made.

    argument: which one the path was given as, for the message.
    """
    if os.path.lexists(path):
        raise ArgumentError(argument, path, 'exists already; name a new directory')
    check_writable(path, argument)


def check_writable(path: pathlib.Path | str, argument: str = 'path') -> None:
    """Raises ArgumentError where nothing can be written to `path`.

    It is tried, since permissions do not tell all; nothing is left of the trial.
    """
    whole = pathlib.Path(path).absolute()
    made = [parent for parent in whole.parents if not os.path.lexists(parent)]
    trial = whole.with_name(f'.{whole.name}.testing')  # as long as the name of a scratch directory
    try:
        whole.parent.mkdir(parents=True, exist_ok=True)
        trial.mkdir(exist_ok=True)
    except OSError as error:
        reason = f'nothing can be written there ({error.strerror}: {error.filename})'
        raise ArgumentError(argument, path, reason) from None
    finally:
        for directory in (trial, *made):
            with contextlib.suppress(OSError):  # What is in use by now stays.
                directory.rmdir()
