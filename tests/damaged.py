"""Damages files as bad disks, cut transfers and mix-ups do, always in the same ways.

MAML_TF_FUZZ=1000 says how many damaged files each kind of file gets; without it they are few.
"""

import os
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from maml_tf.errors import ArgumentError, UserError
from maml_tf.terminal.text import shown

NUMBER = int(os.environ.get('MAML_TF_FUZZ', '0'))
FOREIGN = (
    b'',
    b'\0' * 100,
    b'\xff\xd8\xff\xe0 no JPEG',
    b'\x89PNG\r\n\x1a\n no PNG',
    b'GIF89a\xff\xff\xff\xff\xf7\0\0',
    b'PK\x03\x04 no archive',
    b'\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f',  # a pickle with a frame of 8 exabytes
    b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n',
    b'{}',
    b'[]',
    b'null',
    b'{"a": NaN, "b": Infinity}',
    b'[' * 100_000,
    b'9' * 5000,
    b'a,b\n1,2\n',
    b'--flagfile=flags.txt\n',
    'ä\u2028\r\n'.encode(),
    'ä'.encode('utf-16'),
)
SPLICED = st.binary(min_size=1, max_size=40) | st.sampled_from(FOREIGN)


class Damage(NamedTuple):
    """Tells what becomes of a file.

    kind: of KINDS, or one of ODD, after which it is no file any more
    share: where in the file, from 0 to 1
    spliced: bytes that come in
    bit: that is flipped
    """

    kind: str
    share: float
    spliced: bytes
    bit: int

    def of(self, content: bytes) -> bytes:
        """Returns damaged bytes."""
        at = int(self.share * len(content))
        return KINDS[self.kind](content, at, self)

    def to(self, path: pathlib.Path) -> None:
        """Damages a file."""
        if self.kind not in ODD:
            path.write_bytes(self.of(path.read_bytes()))
            return
        path.unlink()
        if self.kind == 'directory':
            path.mkdir()
        elif self.kind == 'fifo':
            os.mkfifo(path)
        elif self.kind == 'dangling link':
            path.symlink_to('nowhere')


def _flipped(content, at, damage):
    return content[:at] + bytes([content[at] ^ 1 << damage.bit]) + content[at + 1 :]


KINDS = {
    'truncated': lambda content, at, damage: content[:at],
    'bit flipped': lambda content, at, damage: _flipped(content, at, damage) if content else b'',
    'inserted': lambda content, at, damage: content[:at] + damage.spliced + content[at:],
    'overwritten': lambda content, at, damage: (
        content[:at] + damage.spliced + content[at + len(damage.spliced) :]
    ),
    'removed': lambda content, at, damage: content[:at] + content[at + 1 + damage.bit :],
    'zeros': lambda content, at, damage: content[:at] + b'\0' * (len(content) - at),
    'doubled': lambda content, at, damage: content + content[at:],
    'replaced': lambda content, at, damage: damage.spliced,
}
ODD = ('directory', 'fifo', 'dangling link', 'missing')


def damages(*odd: str) -> st.SearchStrategy[Damage]:
    """Strategy of damages; `odd`: those of ODD that are among them."""
    kinds = st.sampled_from(sorted(KINDS))
    if odd:  # One in ten.
        kinds = st.integers(0, 9).flatmap(lambda n: kinds_of(n, odd))
    # Most of what is fragile stands at the beginning or at the end of a file.
    share = st.floats(0, 1, exclude_max=True)
    shares = share | share.map(lambda x: x**4) | share.map(lambda x: 1 - (1 - x) ** 4 * (1 - 1e-9))
    shares = shares.map(lambda x: min(max(x, 0.0), 1 - 1e-9))
    return st.builds(Damage, kinds, shares, SPLICED, st.integers(0, 7))


def kinds_of(number: int, odd: Sequence[str]) -> st.SearchStrategy[str]:
    """Strategy of kinds: of `odd` for 0."""
    return st.sampled_from(odd if number == 0 else sorted(KINDS))


def fuzz(few: int, share: float = 1) -> Callable[[Callable], Callable]:
    """Returns the settings of a test: seeded, and with so many examples.

    few: without MAML_TF_FUZZ; share: of MAML_TF_FUZZ.
    """
    number = int(NUMBER * share) or few
    chosen = settings(
        max_examples=number,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],  # Shrinking would read for a long time.
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    return lambda test: seed(0)(chosen(test))


class Counts:
    """Counts what was read as whole and what was refused."""

    def __init__(self):
        self.whole = self.refused = 0

    def read(self, read: Callable[[], Any], *names: object) -> Any:
        """Returns what read() gives; None where it is refused in one line with one of `names`."""
        try:
            value = read()
        except UserError as error:
            self.refused += 1
            message = str(error)
            if isinstance(error, ArgumentError):
                assert error.argument
            assert message and len(message) < 2000, message[:3000]
            assert len(shown(message).splitlines()) == 1 and '{{' not in message, message
            assert any(str(name) in message for name in names), (message, names)
            assert 'Traceback' not in message
            return None
        self.whole += 1
        return value

    def say(self, title: str) -> None:
        """Prints the counts; pytest shows them with -s or -rP."""
        total = self.whole + self.refused
        print(f'{title}: {total} damaged files, {self.refused} refused, {self.whole} read as whole')


def each_damaged(
    title: str,
    files: Sequence[pathlib.Path],
    read: Callable[[], Any],
    names: Sequence[object],
    few: int,
    share: float = 1,
    odd: Sequence[str] = (),
    check: Callable[[Any], None] = lambda value: None,
    tidy: bool = False,
) -> Counts:
    """Damages one of the files, reads them and restores it, again and again.

    Args:
      files: whole ones, all below one directory that is put back after each reading.
      read: raises UserError, or returns what `check` is given.
      names: one of which every refusal has.
      few, share: see `fuzz`.
      odd: see `damages`.
      tidy: removes what reading leaves beside the files.
    """
    files, counts = list(files), Counts()
    whole = {path: path.read_bytes() for path in files}
    directories = {path.parent for path in files}

    @fuzz(few, share)
    @given(st.sampled_from(files), damages(*odd))
    def attempt(path, damage):
        damage.to(path)
        unchanged = damage.kind not in ODD and path.read_bytes() == whole[path]
        try:
            if not unchanged:
                value = counts.read(read, *names)
                if value is not None:
                    check(value)
        finally:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            for left in {entry for directory in directories for entry in directory.iterdir()}:
                if left in whole or tidy and not left.is_dir():
                    left.unlink()
            for original, content in whole.items():
                original.write_bytes(content)

    attempt()
    counts.say(title)
    return counts
