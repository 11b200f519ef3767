"""The lines of a report: a label, and text in a column of its own."""

import collections
from collections.abc import Iterable, Iterator, Sequence

from maml_tf.terminal.text import shown

LABEL = 12  # columns


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
