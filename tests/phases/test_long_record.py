"""A record as long as those that the benchmark of the audit makes is honest, and is still read."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.forging import audit_codes
from long_record import write_long_record
from toy import Toy

ENTRIES = 300


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Return a repository with a long record whose last phase waits."""
    return write_long_record(tmp_path_factory.mktemp("long") / "toy", ENTRIES)


def test_an_honest_record_has_no_findings(long: Toy) -> None:
    printed = long.call("audit").stdout
    assert printed.endswith("\naudit: ok\n")
    assert len(printed.splitlines()) == 2, "nothing is warned of, nothing uncovered"
