"""The flags of run directories, for commands that look at runs."""

import pathlib
from typing import Any

import absl.flags

from maml_tf.commands import command_line
from maml_tf.errors import UserError
from maml_tf.terminal.text import shown


def flags_of(directory: pathlib.Path) -> Any:
    """Returns the flag values of a run directory. Raises UserError where it is none."""
    flagfile = directory / 'flags.txt'
    if not flagfile.is_file():
        raise UserError(f'{directory}: no run directory, {flagfile} is missing')
    try:
        return command_line.parsed(f'--flagfile={flagfile}')
    except absl.flags.Error as error:
        raise UserError(
            f'{flagfile}: {shown(error)}; it was written by another version of this package'
        ) from error
