"""What stands beside a run's checkpoints, read and checked: a person may have edited it.

flags.txt is what --flagfile replays, metrics.csv what was logged; clock.json and the scores of the
best checkpoints are JSON.
"""

import csv
import io
import json
import pathlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maml_tf.errors import UserError
from maml_tf.serialisation.files import check_is_file
from maml_tf.terminal.text import shortened


def flags(path: pathlib.Path) -> dict[str, str]:
    """Returns {name: text} of a flagfile; {} where there is none.

    As absl reads it: blank lines and lines that begin with # or // say nothing; --log is True and
    --nolog False.

    Raises: UserError, naming the line, where another is no flag.
    """
    found = {}
    if not path.exists():
        return found
    for number, line in enumerate(_text(path).splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith(('#', '//')):
            continue
        name, equals, value = line.removeprefix('-').removeprefix('-').partition('=')
        if not line.startswith('-') or not name.isidentifier():
            raise UserError(
                f'{path}: line {number} is no flag, {shortened(repr(line))}; a flag has the '
                'form --name=value'
            )
        if equals:
            found[name] = value
        elif name.startswith('no'):
            found[name.removeprefix('no')] = 'False'
        else:
            found[name] = 'True'
    return found


def metrics(path: pathlib.Path) -> tuple[list[str], list[dict[str, str]]]:
    """Returns the columns of a metrics.csv and its rows, as {column: text}; none without a file.

    A run that was killed may leave half a row: only lines with an end count.

    Raises: UserError, naming the line, where one is no row of numbers.
    """
    *lines, _ = _text(path).split('\n') if path.exists() else ['']
    if not lines:
        return [], []
    columns, rows = [], []
    try:
        for number, line in enumerate(lines, start=1):
            cells = next(csv.reader([line]), [])
            if number == 1:
                columns = _header(cells)
            else:
                rows.append(_row(columns, cells))
    except (ValueError, csv.Error):
        raise UserError(
            f'{path}: line {number} is none that training wrote, {line[:60]!r}; mend it, remove '
            'it, or rename the file'
        ) from None
    return columns, rows


def columns_of_metrics(path: pathlib.Path) -> list[str]:
    """Returns the columns of a metrics.csv alone; none without a file."""
    if not path.exists():
        return []
    with open(path, encoding='utf-8') as file:
        return next(csv.reader(file), [])


def _header(cells: Sequence[str]) -> list[str]:
    if 'iteration' not in cells or len(set(cells)) < len(cells):
        raise ValueError
    return list(cells)


def _row(columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """Raises ValueError for what is no row."""
    row = dict(zip(columns, cells, strict=True))
    int(row['iteration'])
    for cell in filter(None, cells):
        float(cell)
    return row


def metrics_lines(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], header: bool) -> str:
    """Returns rows as the text of a metrics.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator='\n')
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def clock(path: pathlib.Path) -> dict[str, Any]:
    """Returns a clock.json: {'training_seconds': a number, 'machine': text}.

    Raises: UserError where it holds something else; OSError where it is missing.
    """
    content = _json(path)
    if (
        not isinstance(content, dict)
        or not _is_number(content.get('training_seconds'))
        or content['training_seconds'] < 0
        or not isinstance(content.get('machine', ''), str)
    ):
        raise UserError(
            f'{path}: holds no training_seconds; mend it, or remove it, and the time of training '
            'counts from there'
        )
    return {'machine': '', **content}


def best(path: pathlib.Path) -> tuple[int, float] | None:
    """Returns (iteration, score) of a best/score.json; None where there is none.

    Raises: UserError where it holds something else.
    """
    if not path.exists():
        return None
    content = _json(path)
    if (
        not isinstance(content, dict)
        or not all(_is_number(content.get(name)) for name in ('iteration', 'score'))
        or not isinstance(content['iteration'], int)
    ):
        raise UserError(
            f'{path}: holds no iteration and score; mend it, or remove it, and the best '
            'checkpoint is chosen from there on'
        )
    return content['iteration'], content['score']


def scores(path: pathlib.Path) -> dict[int, float]:
    """Returns {iteration: score} of an ensemble's scores.json; {} where there is none.

    Raises: UserError where it holds something else.
    """
    if not path.exists():
        return {}
    content = _json(path)
    if not isinstance(content, dict) or not all(
        re.fullmatch('[0-9]{1,18}', number) and _is_number(score)
        for number, score in content.items()
    ):
        raise UserError(
            f'{path}: does not hold a score for each iteration; mend it, or remove it, and the '
            'best checkpoints are chosen from there on'
        )
    return {int(number): score for number, score in content.items()}


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max  # which NaN is not, either


def _text(path: pathlib.Path) -> str:
    try:
        check_is_file(path)
        return path.read_text('utf-8')
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror or error})') from None
    except UnicodeDecodeError as error:
        raise UserError(
            f'{path}: no text in UTF-8 ({error.reason} at byte {error.start})'
        ) from None


def _json(path: pathlib.Path) -> Any:
    """Returns the content; None where it is no JSON."""
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError):  # Of JSON and of UserError, which is one, too.
        return None
