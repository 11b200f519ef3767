"""Text that fits a line of the screen or of a picture."""

import textwrap
import unicodedata
from collections.abc import Sequence

LONGEST = 300  # characters of what an error quotes


def shown(text: object) -> str:
    """Returns a text on one line, and printable whatever bytes a file's name is made of."""
    return ' '.join(str(text).splitlines()).encode('utf-8', 'backslashreplace').decode()


def described(error: BaseException) -> str:
    """Returns an exception on one line, as 'OSError: image file is truncated'."""
    return shortened(' '.join(f'{type(error).__name__}: {error}'.split()))


def shortened(text: object) -> str:
    """Returns a text on one line of at most LONGEST characters: it may quote a whole file."""
    text = str(text)
    return shown(text if len(text) <= LONGEST else f'{text[:LONGEST]}…')


def counted(number: int, noun: str) -> str:
    """Returns '1 class', '2 classes', '1 image', '2 images', '1 query', '2 queries'."""
    if number != 1:
        stem = noun.removesuffix('y')
        noun = f'{stem}ies' if stem != noun else f'{noun}{"es" if noun.endswith("s") else "s"}'
    return f'{number:,} {noun}'


def listed(names: Sequence[object], most: int = 10, joint: str = ', ') -> str:
    """Returns the first names, and how many more there are."""
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return joint.join(shown(name) for name in names[:most]) + more


def width(text: str) -> int:
    """Counts the columns of a text: East Asian characters take two, combining marks none."""
    return sum(map(_columns, text))


def padded(text: str, columns: int) -> str:
    """Returns the text with spaces after it up to so many columns."""
    return text + ' ' * (columns - width(text))


def cut(text: object, columns: int) -> str:
    """Returns at most so many columns, with an ellipsis for the end that is left out."""
    text = shown(text)
    if width(text) <= columns:
        return text
    while width(text) >= columns:
        text = text[:-1]
    return text + '…'


def cut_middle(text: object, columns: int) -> str:
    """Returns at most so many columns, the last third of the text among them.

    The end of a file's name tells it from the others.
    """
    text = shown(text)
    if width(text) <= columns:
        return text
    end = text[-(columns // 3) :]
    while width(end) > columns // 3:
        end = end[1:]
    return cut(text, columns - width(end)) + end


def wrapped(text: object, columns: int, lines: int) -> str:
    """Returns at most so many lines of so many columns."""
    text = shown(text)
    characters = columns * len(text) // max(width(text), 1)
    pieces = textwrap.wrap(text, characters)
    if len(pieces) > lines:
        pieces[lines - 1 :] = [pieces[lines - 1][: characters - 1] + '…']
    return '\n'.join(pieces)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in 'FW' else 1
