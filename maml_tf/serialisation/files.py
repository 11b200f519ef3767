"""Files and directories that are whole: a reader finds all of one or nothing, never a part."""

import contextlib
import os
import pathlib
import stat
from collections.abc import Iterator

from maml_tf.errors import ArgumentError

UNFINISHED = '.new'  # ends the name of a file that is being written


@contextlib.contextmanager
def replaced(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to write to, and renames what was written to `path` when the block is done.

    Where the block raises, nothing is left of what it wrote.
    """
    temporary = path.with_name(f'.{path.name}{UNFINISHED}')
    try:
        with naming(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # Its directory may be gone, or not be written.
            temporary.unlink()


def remove_unfinished(directory: pathlib.Path) -> None:
    """Removes what killed programs left of files that were to be `replaced` in a directory."""
    for path in directory.glob(f'.*{UNFINISHED}'):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: pathlib.Path, scratch: pathlib.Path | None = None) -> Iterator[None]:
    """Lets an OSError of the block name the file `path`: of a full disk it names none.

    scratch: the file that was to become it; an error that names this one names `path` instead.
    """
    try:
        yield
    except OSError as error:
        # One without a number says all in its message, which a name would replace.
        of_scratch = scratch is not None and error.filename == os.fspath(scratch)
        if of_scratch or (error.errno is not None and error.filename is None):
            error.filename = str(path)
        raise


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Writes a text file, in UTF-8, so that a run cut short leaves no part of it."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


def check_is_file(path: pathlib.Path | str) -> None:
    """Raises OSError for what is no file of bytes: opening a FIFO would wait for a writer."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError('not a regular file')


def check_new(path: pathlib.Path | str, argument: str = 'path', kind: str = 'directory') -> None:
    """Raises ArgumentError where `path` exists (an export overwrites nothing) or cannot be made.

    Args:
      argument: which one the path was given as, for the message.
      kind: what it is to be.
    """
    if os.path.lexists(path):
        raise ArgumentError(argument, path, f'exists already; name a new {kind}')
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
