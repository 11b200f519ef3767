"""Progress bars: lively on a terminal, a line now and then in a log file."""

import sys

from tqdm import tqdm


def bar(iterable=None, description=None, **kwargs):
    """A tqdm bar with rate and time left; kwargs: tqdm's (total, unit, delay ...)."""
    return tqdm(
        iterable,
        description,
        mininterval=0.1 if sys.stderr.isatty() else 30,
        dynamic_ncols=True,
        **kwargs,
    )
