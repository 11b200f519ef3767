"""Progress bars: lively on a terminal, a line now and then in a log file."""

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator

from tqdm import tqdm


def bar(iterable: Iterable | None = None, description: str | None = None, **kwargs) -> tqdm:
    """Returns a tqdm bar with rate and time left; kwargs: tqdm's (total, unit, delay ...)."""
    return tqdm(
        iterable,
        description,
        mininterval=0.1 if sys.stderr.isatty() else 30,
        dynamic_ncols=True,
        disable=_silent,
        **kwargs,
    )


_silent = False


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Shows no bar and prints nothing meanwhile, but for errors."""
    global _silent
    before, _silent = _silent, True
    try:
        with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        _silent = before
