"""Cases that only `make soak` runs: rarer variants of one that every run tests."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def mark_soak(cases: Iterable[Any], *, short: Collection[Any]) -> list[Any]:
    """Mark all cases but the `short` ones as soak tests; a case is a value or a tuple of them."""
    cases = list(cases)
    unknown = set(short).difference(cases)
    assert not unknown, f"{unknown} is none of the cases, so no run would test it"
    parameters = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marks = () if case in short else pytest.mark.soak
        parameters.append(pytest.param(*values, marks=marks))
    return parameters
