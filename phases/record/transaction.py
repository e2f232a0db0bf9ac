"""One outcome is recorded exactly once: files, entry, commit and ref, prepared first and then applied.

Everything that an outcome will write is first laid down in `.phases/pending/TXN/`, its `record.json` last. Then it is
applied: files, journal and progress.txt, one commit with the transaction's id in a trailer, `refs/phases/log`. Each
step sees whether it was done already, so a run that was killed anywhere in between is completed by the next one,
and nothing is written twice.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.paths import Paths
from phases.errors import IntegrityError
from phases.git.repo import Repo
from phases.record.ledger import Entry, Ledger, append_entry, parse_ledger


@dataclass(frozen=True)
class Transaction:
    """What one outcome writes."""

    txn: str
    entries: tuple[Entry, ...]
    """Sealed on the ledger as it stands; at least one."""
    message: str
    """The commit's subject."""
    trailers: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Repository path -> bytes, committed."""
    removed: tuple[str, ...] = ()
    """Repository paths that the outcome takes away: outputs of the attempt before."""


def new_txn() -> str:
    """A transaction id: 64 random bits."""
    return secrets.token_hex(8)


def commit(paths: Paths, repo: Repo, ledger: Ledger, record: Transaction) -> Ledger:
    """Prepares the record, then applies it; returns the ledger afterwards."""
    folder = paths.pending / record.txn
    _prepare(folder, record)
    failpoint("prepared")
    return _apply(paths, repo, ledger, record, folder)


def complete_pending(paths: Paths, repo: Repo, ledger: Ledger) -> tuple[Ledger, list[str]]:
    """Applies what a killed run had prepared and discards what it had not finished preparing.

    Returns the ledger afterwards and the messages of what was completed.
    """
    completed = []
    for folder in sorted(paths.pending.glob("*")) if paths.pending.is_dir() else []:
        if (folder / "record.json").exists():
            record = _load(folder)
            ledger = _apply(paths, repo, ledger, record, folder)
            completed.append(record.message)
        else:
            durable.remove(folder)
    return ledger, completed


def prepared(paths: Paths) -> set[Entry]:
    """The entries of outcomes that a killed run had prepared whole."""
    folders = paths.pending.glob("*/record.json") if paths.pending.is_dir() else ()
    return {entry for path in folders for entry in _load(path.parent).entries}


def prepared_files(paths: Paths) -> set[str]:
    """The repository paths that such outcomes write."""
    folders = paths.pending.glob("*/record.json") if paths.pending.is_dir() else ()
    return {name for path in folders for name in _load(path.parent).files}


def _prepare(folder: Path, record: Transaction) -> None:
    for number, data in enumerate(record.files.values()):
        durable.write(folder / str(number), data)
    document = {
        "txn": record.txn,
        "message": record.message,
        "trailers": dict(record.trailers),
        "files": list(record.files),
        "removed": list(record.removed),
        "blocks": [entry.block.decode() for entry in record.entries],
    }
    durable.write(
        folder / "record.json", json.dumps(document, indent=1, ensure_ascii=False).encode()
    )


def _load(folder: Path) -> Transaction:
    document = json.loads((folder / "record.json").read_bytes())
    blocks = "".join(document["blocks"]).encode()
    entries = parse_ledger(blocks).entries
    files = {
        path: (folder / str(number)).read_bytes() for number, path in enumerate(document["files"])
    }
    return Transaction(
        document["txn"],
        entries,
        document["message"],
        document["trailers"],
        files,
        tuple(document["removed"]),
    )


def _apply(paths: Paths, repo: Repo, ledger: Ledger, record: Transaction, folder: Path) -> Ledger:
    for entry in record.entries:
        if entry in ledger.entries:
            continue
        if entry.prev != ledger.head:
            raise IntegrityError(
                "pending-stale",
                f"{folder} holds an outcome that does not follow the ledger's last entry",
                hint="move that folder away to set the outcome aside",
            )
        ledger = append_entry(paths.progress, paths.journal, ledger, entry)
    for path, data in record.files.items():
        target = paths.root / path
        if not target.is_file() or target.read_bytes() != data:
            durable.write(target, data)
    for path in record.removed:
        durable.remove(paths.root / path)
    failpoint("files")
    last = record.entries[-1]
    trailers = {
        **record.trailers,
        "Phases-Entry": f"{last.seq:04d}",
        "Phases-Head": last.self_hash,
        "Phases-Txn": record.txn,
    }
    made = _committed(repo, record)
    if made is not None:
        repo.unstage(
            _own_paths(repo, record)
        )  # git may have died between its new commit and its new index
    commit = made or repo.commit(_own_paths(repo, record), record.message, trailers)
    failpoint("committed")
    repo.move_log_ref(commit)
    failpoint("ref_moved")
    durable.remove(
        folder / "record.json"
    )  # first: a folder with its record is whole, and would be applied again
    failpoint("withdrawn")
    durable.remove(folder)
    failpoint("recorded")
    return ledger


def _own_paths(repo: Repo, record: Transaction) -> list[str]:
    removed = [path for path in record.removed if repo.blob("HEAD", path) is not None]
    return sorted({*record.files, *removed, "progress.txt"})


def _committed(repo: Repo, record: Transaction) -> str | None:
    """The commit that already holds this transaction: the run was killed after it, before or after the ref moved."""
    log = repo.log_ref()
    for known in repo.history(
        since=f"{log}^@" if log else None
    ):  # from HEAD down to the ref's own commit
        if known.trailers.get("Phases-Txn") == record.txn:
            return known.sha
    return None


def trailers(
    phase: int,
    feature: str | None = None,
    attempt: int | None = None,
    receipt_: str | None = None,
) -> dict[str, str]:
    """The trailers of a commit that say what it is about; `record` adds those that say which entry it holds."""
    facts = {
        "Phases-Phase": str(phase),
        "Phases-Feature": feature,
        "Phases-Attempt": attempt,
        "Phases-Receipt": f"sha256:{receipt_}" if receipt_ else None,
    }
    return {name: str(value) for name, value in facts.items() if value is not None}


def is_due(paths: Paths) -> bool:
    """Whether a killed run left something that only a run can finish; reads next to nothing."""
    if paths.pending.is_dir() and any(paths.pending.iterdir()):
        return True
    if not (paths.journal.exists() and paths.progress.exists()):
        return False  # no kill removes progress.txt: somebody did, and that waits for a person as everything else does
    return paths.progress.stat().st_size != paths.journal.stat().st_size
