"""The directory of a search: what was planned and what was tried, line by line.

children.jsonl: one line for each child that was scored. plan.jsonl: one line for each size, which
cells are tried and why. final.jsonl: one line for each network that was trained for the comparison
at the end. flags.txt: the command line.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from maml_tf.errors import UserError
from maml_tf.networks.cells.cell import Cell, from_json
from maml_tf.saving import records
from maml_tf.serialisation.files import naming, remove_unfinished, write_atomically

CHILDREN, PLAN, FINAL = 'children', 'plan', 'final'
# Where a child comes from. Random ones are the control: the search learns nothing of them.
ORIGINS = START, PREDICTED, EXPLORED, RANDOM, AGAIN = (
    'start',
    'predicted',
    'explored',
    'random',
    'again',
)

# Fields of the rows, and what JSON makes of them. `int` takes no true or false.
NUMBER = (int, float)
PLANNED = {'cell': (dict,), 'origin': (str,), 'predicted': (*NUMBER, type(None))}
SCORED = {'accuracy': NUMBER, 'ci95': NUMBER, 'parameters': (int,), 'seconds': NUMBER}
FIELDS = {
    CHILDREN: {'number': (int,), 'size': (int,), **PLANNED, **SCORED},
    PLAN: {'size': (int,), 'children': (list,), 'seconds': NUMBER},
    FINAL: {'cell': (dict,), 'size': (int,), 'origin': (str,), 'seed': (int,), **SCORED},
}

Row = dict[str, Any]


class SearchDirectory:
    """The files of one search.

    Attributes:
      path: the directory.
      rows: {kind: the rows of <kind>.jsonl}, in order.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self.rows: dict[str, list[Row]] = {kind: [] for kind in (CHILDREN, PLAN, FINAL)}

    def open(self, flags: Mapping[str, str], free: tuple[str, ...]) -> None:
        """Makes the directory, or reads what an earlier session left in it.

        Args:
          flags: {name: text} of the command line.
          free: names of the flags that may be others than at the start.
        Raises: UserError where the search began with other flags, or a file is damaged.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        remove_unfinished(self.path)
        for kind in self.rows:
            self.rows[kind] = self._read(kind)
        file = self.path / 'flags.txt'
        # Without rows the flags may be those of a command that the data refused.
        if any(self.rows.values()) and file.exists():
            then = records.flags(file)
            for name in sorted(then.keys() | flags.keys()):
                if name not in free and then.get(name) != flags.get(name):
                    raise UserError(
                        f'--{name}={flags.get(name)}: the search in {self.path} has '
                        f'--{name}={then.get(name)}. Name another --logdir, or give the flag as it '
                        'was'
                    )
        write_atomically(file, ''.join(f'--{name}={value}\n' for name, value in flags.items()))

    def append(self, kind: str, row: Row) -> None:
        """Adds a row, and returns when it is on the disk."""
        path = self.path / f'{kind}.jsonl'
        line = json.dumps(row) + '\n'
        with naming(path), open(path, 'a', encoding='utf-8') as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.rows[kind].append(row)

    def write(self, name: str, content: Any) -> None:
        """Writes a JSON file."""
        write_atomically(self.path / name, json.dumps(content, indent=1) + '\n')

    def seconds(self, *kinds: str) -> float:
        """Returns what the rows of these kinds have taken, in all sessions."""
        return sum(row['seconds'] for kind in kinds for row in self.rows[kind])

    def _read(self, kind):
        path = self.path / f'{kind}.jsonl'
        if not path.exists():
            return []
        # A killed search may leave a part of a line, which the next would be joined to.
        *lines, rest = path.read_text('utf-8', errors='replace').split('\n')
        rows = [_row(path, kind, number, line) for number, line in enumerate(lines, start=1)]
        if rest:
            write_atomically(path, ''.join(f'{line}\n' for line in lines))
        return rows


def cell_of(row: Row) -> Cell:
    """Returns the cell of a row."""
    return from_json(row['cell'])


def _row(path, kind, number, line):
    try:
        row = json.loads(line)
        _check(row, FIELDS[kind])
        for child in row['children'] if kind == PLAN else []:
            _check(child, PLANNED)
        return row
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f'{path}: line {number} is none that the search wrote, {line[:60]!r}; remove it, or '
            'rename the file'
        ) from None


def _check(row, fields):
    """Raises KeyError, TypeError or ValueError where a row lacks a field or has another in it."""
    for name, types in fields.items():
        if type(row[name]) not in types:
            raise TypeError(name)
    if 'cell' in fields:
        from_json(row['cell'])
