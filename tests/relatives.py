"""Of checks that hold for every method, those of a few kinds of methods are run always, and all
others with the longer tests. The methods' own oracles are run always."""

from collections.abc import Iterable

import pytest

# One of each kind: gradients through an inner loop, mini-batches with state, an order that matters,
# a head that is solved and an encoder that draws, with running averages.
KINDS = ('maml', 'reptile', 'matching', 'r2d2')


def methods(names: Iterable[str]) -> list:
    """Returns these names as parameters of a test."""
    return [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in KINDS)) for name in sorted(names)
    ]
