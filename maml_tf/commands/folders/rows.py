"""The lines of a report: a label, and text in a column of its own; and lists that are short."""

import collections
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from maml_tf.datasets.raw.listing import is_hidden
from maml_tf.terminal.text import counted, shown

LABEL = 12  # columns
CONVERTIBLE = {'.heic', '.heif', '.tif', '.tiff', '.avif', '.svg', '.dng', '.cr2', '.nef', '.arw'}


def row(label: str, text: object) -> str:
    """Returns a line of a report."""
    return f'{label:<{LABEL}}{shown(text)}'.rstrip()


def several(label: str, heading: str, items: Sequence[str], most: int = 5) -> Iterator[str]:
    """Yields a row, if there are items, and the first of them below it."""
    if items:
        yield row(label, heading)
        yield from (row('', f'  {item}') for item in items[:most])
        if len(items) > most:
            yield row('', f'  and {len(items) - most:,} more')


def frequent(values: Iterable[str], most: int = 4) -> str:
    """Returns 'a (7), b (2) and 3 others', the most frequent first."""
    counts = collections.Counter(values)
    text = ', '.join(f'{value} ({count:,})' for value, count in counts.most_common(most))
    return f'{text} and {len(counts) - most} others' if len(counts) > most else text


def by_ending(paths: Sequence[pathlib.Path], noun: str = 'other file') -> str:
    """Returns '3 other files: .heic (2), .txt (1)', and what can be converted.

    paths: of one file or more.
    """
    endings = collections.Counter(
        'hidden' if is_hidden(path) else path.suffix.lower() or 'without ending' for path in paths
    )
    hint = ''
    if CONVERTIBLE & set(endings):
        hint = ' (.heic, .tif and the like can be converted to JPEG or PNG)'
    return f'{counted(len(paths), noun)}: {frequent(endings.elements(), 8)}{hint}'
