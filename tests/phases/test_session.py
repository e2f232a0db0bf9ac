"""Within a run only the session writes entries: no other module of phases/run does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import phases

RUN = Path(phases.__file__).parent / "run"
WRITERS = {"append_entry", "commit", "complete_pending", "seal_entry"}
"""Functions that make entries, write them, or record an outcome with them."""
OWNERS = {"append_entry": "ledger", "seal_entry": "ledger"}
"""Function -> its module of phases.record; all others are of `transaction`."""


def writer_calls(source: str) -> list[str]:
    """Return the names of the writers that a module refers to, however it imports them."""
    tree = ast.parse(source)
    # 1. What the names of the module mean: `transaction`, or a writer under another name.
    modules, functions = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update(alias.asname or alias.name for alias in node.names)
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in node.names:
            name = alias.asname or alias.name
            full_name = f"{node.module}.{alias.name}"
            if full_name in ("phases.record.transaction", "phases.record.ledger"):
                modules.add(name)
            if alias.name in WRITERS and full_name == _full_name(alias.name):
                functions[name] = alias.name

    # 2. Where they are used.
    calls = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in functions:
            calls.append(functions[node.id])
        elif isinstance(node, ast.Attribute) and node.attr in WRITERS:
            if ast.unparse(node.value) in modules:
                calls.append(node.attr)
    return calls


def _full_name(writer: str) -> str:
    return f"phases.record.{OWNERS.get(writer, 'transaction')}.{writer}"


def test_only_the_session_writes_entries() -> None:
    writers = {}
    for path in sorted(RUN.rglob("*.py")):
        calls = writer_calls(path.read_text("utf-8"))
        if calls:
            writers[path.name] = set(calls)
    # The session itself is the control: it does all of it.
    assert writers == {"session.py": WRITERS}


BYPASSES = {
    "a function": "from phases.record.ledger import seal_entry\nseal_entry(ledger)",
    "another name": "from phases.record.ledger import append_entry as add\nadd(ledger)",
    "a module": "from phases.record import transaction\ntransaction.commit(paths)",
    "a module by another name": "from phases.record import ledger as book\nbook.seal_entry(x)",
    "the whole path": (
        "import phases.record.transaction\nphases.record.transaction.complete_pending(x)"
    ),
    "inside a function": "def f():\n    from phases.record.transaction import commit\n    commit(x)",
    "as a value": "from phases.record.ledger import seal_entry\nf = partial(seal_entry, ledger)",
}


@pytest.mark.parametrize("name", BYPASSES)
def test_another_writer_is_seen(name: str) -> None:
    assert len(writer_calls(BYPASSES[name])) == 1


def test_what_only_looks_like_a_writer_is_none() -> None:
    source = "from phases.run.session import Session\nsession.complete_pending()\nrepo.commit(x)"
    assert writer_calls(source) == []
