"""A record like those that the benchmark of the audit makes is honest; a lie in it is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faults.forging import audit_codes
from long_record import write_long_record
from terminal_user import as_asked, at_terminal
from toy import Toy

from phases.record.ledger import EntryKind
from tests.soak import mark_soak

ENTRIES = 300


@pytest.fixture(scope="module")
def _long(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return write_long_record(tmp_path_factory.mktemp("long") / "toy", ENTRIES)


@pytest.fixture
def long(_long: Toy, tmp_path: Path) -> Toy:
    """Return a copy of a repository with a long record, whose third phase waits."""
    return _long.copy(tmp_path / "toy")


def test_an_honest_record_has_no_findings_at_all(long: Toy) -> None:
    report = json.loads(long.call("audit", "--json").stdout)
    assert report["findings"] == []
    assert report["uncovered"] == []


def test_it_has_what_a_life_of_a_project_has(long: Toy) -> None:
    kinds = {line.split(" · ")[2] for line in long.progress.splitlines() if line.startswith("### ")}
    rare = {EntryKind.PULLED, EntryKind.REPAIRED, EntryKind.LOST}
    assert kinds == set(EntryKind) - rare
    entries = long.progress.count("\n### ")
    assert entries >= ENTRIES
    assert "more phases" in long.git("log", "--format=%s").splitlines()
    assert 4.5 <= entries / int(long.git("rev-list", "--count", "HEAD")) <= 5.5


def test_the_runner_goes_on_from_there(long: Toy) -> None:
    assert long.call("run", "--next", code=4).stdout == ""
    assert at_terminal(long.root, "approve", "3", answer=as_asked)[0] == 0
    long.run("run", "--feature", "LONG-004-00")
    assert long.states()["LONG-004-00"] == "verified"
    long.assert_audit_is_clean()


def test_a_gate_passes_again_on_a_feature_that_only_repeats_another(long: Toy) -> None:
    long.run("verify", "LONG-002-02", "LONG-002-07")


def change_byte(path: Path) -> None:
    """Change one digit in the middle of a file."""
    data = bytearray(path.read_bytes())
    place = next(place for place in range(len(data) // 2, len(data)) if data[place] in b"12345678")
    data[place] += 1
    path.write_bytes(data)


BYTES = {
    "progress.txt": "chain-self",
    "results/LONG-002-07/receipt.json": "receipt-changed",
    "results/LONG-002-07/result.json": "result-changed",
    "prd/approvals/phase-2.1.json": "approval-missing",
}


@pytest.mark.parametrize("path", mark_soak(BYTES, short=["results/LONG-002-07/receipt.json"]))
def test_a_byte_that_was_changed_in_the_middle_is_found(long: Toy, path: str) -> None:
    change_byte(long.root / path)
    assert BYTES[path] in audit_codes(long)
