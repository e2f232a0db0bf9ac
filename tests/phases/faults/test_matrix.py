"""Every row of the fault matrix names tests that exist, or a reason; the document shows them."""

from __future__ import annotations

import ast
from pathlib import Path

from matrix import ROWS, Row, table

FAULTS = Path(__file__).parent
DOCUMENT = FAULTS.parents[2] / "docs/reliability.md"


def defined_functions(path: Path) -> set[str]:
    """Return the functions on the top level of a module; none where there is no such file."""
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def matrix_problems(rows: tuple[Row, ...]) -> list[str]:
    """Return tests that are named and do not exist, and rows with neither test nor reason."""
    problems = []
    for row in rows:
        if not row.tests and not row.reason:
            problems.append(f"{row.id}: neither a test nor a reason")
        for name in row.tests:
            file, _, function = name.partition("::")
            if function not in defined_functions(FAULTS.parent / file):
                problems.append(f"{row.id}: {name} does not exist")
    return problems


def test_every_row_is_there_once() -> None:
    assert [row.id for row in ROWS] == [f"F{number}" for number in range(1, len(ROWS) + 1)]


def test_every_row_names_tests_that_exist_or_a_reason() -> None:
    assert matrix_problems(ROWS) == []


def test_a_missing_test_is_seen() -> None:
    absent = "test_run.py::test_that_does_not_exist"
    rows = (Row("F1", "x", "y", "z", tests=(absent,)), Row("F2", "x", "y", "z"))
    assert matrix_problems(rows) == [
        f"F1: {absent} does not exist",
        "F2: neither a test nor a reason",
    ]


def test_the_document_shows_the_rows() -> None:
    assert table() in DOCUMENT.read_text("utf-8")
