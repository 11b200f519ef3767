"""Methods that change a line or two of MAML: checks that hold for every method are run on them with
the longer tests. Their own oracles are run always."""

from collections.abc import Iterable

import pytest

RELATIVES = ('alpha_maml', 'anil', 'bias_transformation', 'cavia', 'meta_sgd')


def methods(names: Iterable[str], also: str | None = None) -> list:
    """Returns these names as parameters of a test.

    also: names that hold this text are for the longer tests, too.
    """
    return [
        pytest.param(name, marks=[pytest.mark.slow] * _later(name, also)) for name in sorted(names)
    ]


def _later(name, also):
    return name in RELATIVES or (also is not None and also in name)
