"""Progress bars: lively on a terminal, a line now and then in a log file."""

import sys
from collections.abc import Iterable

from tqdm import tqdm


def bar(iterable: Iterable | None = None, description: str | None = None, **kwargs) -> tqdm:
    """Returns a tqdm bar with rate and time left; kwargs: tqdm's (total, unit, delay ...)."""
    return tqdm(
        iterable,
        description,
        mininterval=0.1 if sys.stderr.isatty() else 30,
        dynamic_ncols=True,
        **kwargs,
    )
