"""Reads a csv file of molecules and what assays said of them.

A header, and then a row for each molecule. One column holds the SMILES; every column of 0
(inactive), 1 (active) and empty cells (not measured) is an assay. MoleculeNet's files are so.
"""

import csv
import gzip
import pathlib
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from maml_tf.errors import ArgumentError
from maml_tf.serialisation.files import check_is_file
from maml_tf.terminal.text import listed, shortened, shown

SMILES_NAMES = ('smiles', 'canonical_smiles', 'isomeric_smiles')
NAMES = ('', 'id', 'mol_id', 'name', 'cid', 'index', 'num')  # of columns that only name molecules
LABELS = {'0': 0, '0.0': 0, '1': 1, '1.0': 1} | dict.fromkeys(('', 'nan', 'na'), -1)


class AssayTable(NamedTuple):
    """Holds molecules and what was measured of them.

    name: of the file. smiles: [molecules]. assays: their names, in the file's order.
    labels: int8 [molecules, assays], 1 active, 0 inactive, -1 not measured.
    """

    name: str
    smiles: list[str]
    assays: list[str]
    labels: np.ndarray


def find_table(data_dir: str | pathlib.Path | None, name: str | None = None) -> pathlib.Path:
    """Returns the file of a table.

    Args:
      data_dir: the file itself, or the folder that holds it.
      name: of the set, whose file in the folder is <name>.csv or <name>.csv.gz; None: the only csv
        file there.
    Raises: ArgumentError, of `data_dir`, where there is none, or where it is not clear which.
    """
    wanted = f'{name}.csv' if name else 'one csv file'
    if not data_dir:
        raise ArgumentError('data_dir', None, f'name the folder that holds {wanted}')
    folder = pathlib.Path(data_dir).expanduser()
    if folder.is_file():
        return folder
    wrong = lambda reason: ArgumentError('data_dir', shown(data_dir), reason)
    if not folder.is_dir():
        raise wrong(f'there is no such folder; it should hold {wanted}')
    stem = name or '*'
    found = sorted({*folder.glob(f'{stem}.csv'), *folder.glob(f'{stem}.csv.gz')})
    if not found:
        raise wrong(f'holds no {name}.csv' if name else 'holds no csv file')
    if len(found) > 1 and name is None:
        names = listed([path.name for path in found])
        raise wrong(f'holds {len(found)} csv files ({names}); name one of them')
    return found[0]


def read_table(path: str | pathlib.Path) -> AssayTable:
    """Reads a csv file in UTF-8, or one packed by gzip.

    Columns that only name the molecules (mol_id ...), or that hold no 0 and no 1, are no assays.

    Raises: ArgumentError, of `data_dir`, that names the file, the line and the column.
    """
    path = pathlib.Path(path)

    def wrong(reason):
        return ArgumentError('data_dir', shown(path), reason)

    numbers, rows = [], []
    try:
        for number, row in _rows(path):
            if rows and len(row) != len(rows[0]):
                raise wrong(f'line {number} has {len(row)} columns, the header {len(rows[0])}')
            numbers.append(number)
            rows.append(row)
    except (OSError, EOFError, zlib.error) as error:
        raise wrong(f'cannot be read ({getattr(error, "strerror", None) or error})') from error
    except UnicodeDecodeError as error:
        raise wrong('is not in UTF-8; a spreadsheet offers it as "CSV UTF-8"') from error
    except csv.Error as error:
        raise wrong(f'is no csv file ({error})') from error
    if len(rows) < 2:
        raise wrong('holds no molecule; it should have a header and a row for each')
    header, *molecules = rows
    smiles = _smiles_column(header, wrong)
    columns = {}
    for place, name in enumerate(header):
        if place == smiles or name.lower() in NAMES:
            continue
        if name in columns:
            raise wrong(f'has two columns {shortened(name)}')
        cells = [row[place] for row in molecules]
        labels = [LABELS.get(cell.lower()) for cell in cells]
        if not {0, 1} & {*labels}:
            continue
        if None in labels:
            line = labels.index(None)
            raise wrong(
                f'line {numbers[line + 1]}, column {shortened(name)}: '
                f'{shortened(repr(cells[line]))} is no label; 0 is inactive, 1 active, an empty '
                'cell not measured'
            )
        columns[name] = labels
    if not columns:
        raise wrong('has no column of 0 and 1, so no assay')
    labels = np.array([*columns.values()], np.int8).T
    return AssayTable(path.name, [row[smiles] for row in molecules], [*columns], labels)


def _smiles_column(header, wrong):
    found = [place for place, name in enumerate(header) if name.lower() in SMILES_NAMES]
    if len(found) != 1:
        reason = f'the header names {len(found)} columns of SMILES; one should be called smiles'
        raise wrong(f'{reason} ({shortened(listed(header))})')
    return found[0]


def _rows(path: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of its line, cells) of all rows that are not empty, the header first."""
    check_is_file(path)
    opened = gzip.open if path.suffix == '.gz' else open
    with opened(path, 'rt', encoding='utf-8-sig', newline='') as file:
        first = file.readline()
        file.seek(0)
        # Spreadsheets write semicolons in many countries.
        delimiter = ';' if first.count(';') > first.count(',') else ','
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield reader.line_num, cells
