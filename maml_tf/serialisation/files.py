"""Files and directories that are whole: a reader finds all of one or nothing, never a part."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from maml_tf.errors import ArgumentError

DESCRIPTION = 'maml_tf.json'


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


@contextlib.contextmanager
def new_saved_model(
    path: pathlib.Path | str, description: Mapping[str, Any]
) -> Iterator[pathlib.Path]:
    """Gives a directory to write a SavedModel to, and renames it to `path` when the block is done.

    Beside the model stands maml_tf.json. Where the block raises, nothing is left of what it wrote.

    Args:
      description: {name: JSON value}, the content of maml_tf.json.
    Raises:
      ArgumentError: `path` exists.
    """
    path = pathlib.Path(path)
    check_new(path)
    scratch = path.with_name(f'.{path.name}.writing')
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        yield scratch
        content = json.dumps(description, indent=1) + '\n'
        (scratch / DESCRIPTION).write_text(content, encoding='utf-8')
        os.replace(scratch, path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_new(path: pathlib.Path | str, argument: str = 'path') -> None:
    """Raises ArgumentError where `path` exists (an export overwrites nothing) or cannot be made.

    argument: which one the path was given as, for the message.
    """
    if pathlib.Path(path).exists():
        raise ArgumentError(argument, path, 'exists already; name a new directory')
    above = next(one for one in pathlib.Path(path).absolute().parents if one.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise ArgumentError(argument, path, f'{above} is no directory that may be written to')
