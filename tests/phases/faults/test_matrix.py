"""Every row of the fault matrix names tests that exist, or a reason; the document shows these rows."""

from __future__ import annotations

import ast
from pathlib import Path

from matrix import ROWS, Row, table

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[2] / "docs/reliability.md"


def missing(rows: tuple[Row, ...]) -> list[str]:
    """Tests that are named and are not there, and rows that name neither test nor reason."""
    found = [
        f"{row.id}: neither a test nor a reason" for row in rows if not row.tests and not row.reason
    ]
    for row in rows:
        for name in row.tests:
            file, _, function = name.partition("::")
            path = HERE.parent / file
            tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
            if function not in {
                item.name for item in tree.body if isinstance(item, ast.FunctionDef)
            }:
                found.append(f"{row.id}: {name} does not exist")
    return found


def test_every_row_is_there_once() -> None:
    assert [row.id for row in ROWS] == [f"F{number}" for number in range(1, 52)]


def test_every_row_names_tests_that_exist_or_a_reason() -> None:
    assert missing(ROWS) == []


def test_a_missing_test_is_seen() -> None:
    rows = (
        Row("F1", "x", "y", "z", ("test_run.py::test_nothing_of_this_name",)),
        Row("F2", "x", "y", "z"),
    )
    assert missing(rows) == [
        "F2: neither a test nor a reason", "F1: test_run.py::test_nothing_of_this_name does not exist"
    ]  # fmt: skip


def test_the_document_shows_the_rows() -> None:
    assert table() in DOCUMENT.read_text("utf-8")
