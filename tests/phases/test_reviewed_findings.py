"""The reviewed findings: each belongs to a test, and another text is noticed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import reviewed_findings
from reviewed_findings import FOLDER, MODULES, compare, describe_reports

NOTHING_TO_SAY = {"test_audit_honest", "test_waive"}
"""Modules in whose tests `audit --json` never has a line."""


@pytest.mark.parametrize("module", MODULES)
def test_each_section_belongs_to_a_test(module: str) -> None:
    (path,) = Path(__file__).parent.rglob(f"{module}.py")
    tests = set(re.findall(r"^def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE))
    file = FOLDER / f"{module}.txt"
    assert file.exists() == (module not in NOTHING_TO_SAY)
    sections = re.findall(r"(?m)^## (\w+)", file.read_text("utf-8")) if file.exists() else []
    assert set(sections) <= tests
    assert sections or module in NOTHING_TO_SAY


def test_each_file_is_of_a_module() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == {*MODULES} - NOTHING_TO_SAY


def test_another_text_another_number_and_another_report_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UPDATE_FINDINGS", raising=False)
    monkeypatch.setattr(reviewed_findings, "FOLDER", tmp_path)
    (tmp_path / "test_x.txt").write_text("## test_y\nerror a (entry 4): b\n\n## test_z\nc\n")
    compare("test_x", "test_y", "error a (entry 4): b\n")
    compare("test_x", "test_control", "")
    for actual in ("error a (entry 4): c\n", "error a (entry 5): b\n", ""):
        with pytest.raises(AssertionError, match="not as reviewed"):
            compare("test_x", "test_y", actual)
    with pytest.raises(AssertionError, match="not as reviewed"):
        compare("test_x", "test_control", "error a (entry 4): b\n")


def test_what_varies_is_numbered() -> None:
    item = {"severity": "error", "code": "a", "entry": None, "commit": None, "path": None}
    messages = [f"{'ab' * 20} is not {'cd' * 20}, {'ab' * 20} is", "by a at b on c, by d at e on f"]
    report = {"findings": [{**item, "message": text} for text in messages], "uncovered": []}
    assert describe_reports([(Path("/nowhere"), report)] * 2).splitlines() == [
        "error a (): #1 is not #2, #1 is",
        "error a (): by USER1, by USER2",
        "-- report 2",
        "error a (): #1 is not #2, #1 is",
        "error a (): by USER1, by USER2",
    ]
