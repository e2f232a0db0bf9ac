"""Within a run only the session writes entries: no other module of phases/run does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import phases

RUN = Path(phases.__file__).parent / "run"
WRITERS = {
    "phases.record.ledger.append_entry",
    "phases.record.ledger.seal_entry",
    "phases.record.transaction.commit",
    "phases.record.completion.complete_pending",
}
"""Functions that make entries, write them, or record an outcome with them."""


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Return the names that a module imports, inside functions too -> what they stand for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def used_writers(source: str) -> list[str]:
    """Return the writers that a module uses, under whatever name and in whatever way."""
    tree = ast.parse(source)
    imported = imported_names(tree)
    writers = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            full_name = imported.get(node.id)
        elif isinstance(node, ast.Attribute):
            module = imported.get(ast.unparse(node.value))
            full_name = f"{module}.{node.attr}"
        else:
            continue
        if full_name in WRITERS:
            writers.append(full_name)
    return writers


def test_only_the_session_writes_entries() -> None:
    writers = {}
    for path in sorted(RUN.rglob("*.py")):
        used = used_writers(path.read_text("utf-8"))
        if used:
            writers[path.name] = set(used)
    # The session itself is the control: it uses all of them.
    assert writers == {"session.py": WRITERS}


BYPASSES = {
    "a function": "from phases.record.ledger import seal_entry\nseal_entry(x)",
    "another name": "from phases.record.ledger import append_entry as add\nadd(x)",
    "a module": "from phases.record import transaction\ntransaction.commit(x)",
    "a module by another name": "from phases.record import ledger as other\nother.seal_entry(x)",
    "the whole path": (
        "import phases.record.completion\nphases.record.completion.complete_pending(x)"
    ),
    "inside a function": (
        "def f(x):\n    from phases.record.transaction import commit\n    commit(x)"
    ),
    "as a value": "from phases.record.ledger import seal_entry\nf = partial(seal_entry, x)",
}


@pytest.mark.parametrize("name", BYPASSES)
def test_another_writer_is_seen(name: str) -> None:
    assert len(used_writers(BYPASSES[name])) == 1


def test_what_only_looks_like_a_writer_is_none() -> None:
    source = "from phases.run.session import Session\nsession.complete_pending()\nrepo.commit(x)"
    assert used_writers(source) == []
