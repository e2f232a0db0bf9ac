"""Entries and records that nobody's runner made, in commits that look like the runner's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from toy import Toy

from phases.base.text import utc_now
from phases.record.ledger import Entry, parse_ledger, seal_entry


def forge_entry(
    toy: Toy, kind: str, lines: Sequence[str], phase: int | None = 1, feature: str | None = None
) -> Entry:
    """Append an entry to progress.txt and to the journal, as the runner would."""
    ledger = parse_ledger(toy.progress.encode())
    entry = seal_entry(
        ledger,
        kind,
        tuple(lines),
        time=utc_now(),
        phase=phase,
        feature=feature,
        title="Count" if feature else "",
    )
    data = ledger.with_entry(entry).data
    (toy.root / "progress.txt").write_bytes(data)
    (toy.root / ".git/phases/journal").write_bytes(data)
    return entry


def forge_commit(toy: Toy, entry: Entry, files: Mapping[str, str] | None = None) -> str:
    """Commit everything with the trailers of an entry and move the log's ref; return the commit."""
    for path, text in (files or {}).items():
        toy.write(path, text)
    trailers = {
        "Phases-Phase": str(entry.phase),
        "Phases-Entry": f"{entry.seq:04d}",
        "Phases-Head": entry.self_hash,
        "Phases-Txn": "0123456789abcdef",
    }
    lines = "\n".join(f"{name}: {value}" for name, value in trailers.items())
    toy.git("add", "-A")
    toy.git("commit", "-q", "--allow-empty", "-m", f"forged\n\n{lines}")
    toy.git("update-ref", "refs/phases/log", "HEAD")
    return toy.git("rev-parse", "HEAD")


def audit_codes(toy: Toy, code: int | None = 3) -> set[str]:
    """Return the codes of what audit finds to be an error."""
    report = json.loads(toy.call("audit", "--json", code=code).stdout)
    return {item["code"] for item in report["findings"] if item["severity"] == "error"}
