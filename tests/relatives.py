"""Methods that change a line or two of MAML: checks that hold for every method are run on them with
the longer tests. Their own oracles are run always."""

from collections.abc import Iterable

import pytest

RELATIVES = ('alpha_maml', 'anil', 'bias_transformation', 'meta_sgd')


def methods(names: Iterable[str]) -> list:
    """Returns these names as parameters of a test."""
    return [
        pytest.param(name, marks=[pytest.mark.slow] * (name in RELATIVES)) for name in sorted(names)
    ]
