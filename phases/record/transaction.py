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

from phases.base import durable, failpoint as fault
from phases.record import ledger
from phases.errors import IntegrityError
from phases.record.ledger import Entry, Ledger
from phases.base.paths import Paths
from phases.git.repo import Repo


@dataclass(frozen=True)
class Record:
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


def commit(paths: Paths, repo: Repo, book: Ledger, record: Record) -> Ledger:
    """Prepares the record, then applies it; returns the ledger afterwards."""
    folder = paths.pending / record.txn
    _prepare(folder, record)
    fault.point("prepared")
    return _apply(paths, repo, book, record, folder)


def complete_pending(paths: Paths, repo: Repo, book: Ledger) -> tuple[Ledger, list[str]]:
    """Applies what a killed run had prepared and discards what it had not finished preparing.

    Returns the ledger afterwards and the messages of what was completed.
    """
    completed = []
    for folder in sorted(paths.pending.glob("*")) if paths.pending.is_dir() else []:
        if (folder / "record.json").exists():
            record = _load(folder)
            book = _apply(paths, repo, book, record, folder)
            completed.append(record.message)
        else:
            durable.remove(folder)
    return book, completed


def prepared(paths: Paths) -> set[Entry]:
    """The entries of outcomes that a killed run had prepared whole."""
    folders = paths.pending.glob("*/record.json") if paths.pending.is_dir() else ()
    return {entry for path in folders for entry in _load(path.parent).entries}


def prepared_files(paths: Paths) -> set[str]:
    """The repository paths that such outcomes write."""
    folders = paths.pending.glob("*/record.json") if paths.pending.is_dir() else ()
    return {name for path in folders for name in _load(path.parent).files}


def _prepare(folder: Path, record: Record) -> None:
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
    durable.write(folder / "record.json", json.dumps(document, indent=1, ensure_ascii=False).encode())


def _load(folder: Path) -> Record:
    document = json.loads((folder / "record.json").read_bytes())
    blocks = "".join(document["blocks"]).encode()
    entries = ledger.parse(blocks).entries
    files = {path: (folder / str(number)).read_bytes() for number, path in enumerate(document["files"])}
    return Record(
        document["txn"], entries, document["message"], document["trailers"], files, tuple(document["removed"])
    )


def _apply(paths: Paths, repo: Repo, book: Ledger, record: Record, folder: Path) -> Ledger:
    for entry in record.entries:
        if entry in book.entries:
            continue
        if entry.prev != book.head:
            raise IntegrityError(
                "pending-stale",
                f"{folder} holds an outcome that does not follow the ledger's last entry",
                remedy="move that folder away to set the outcome aside",
            )
        book = ledger.append(paths.progress, paths.journal, book, entry)
    for path, data in record.files.items():
        target = paths.root / path
        if not target.is_file() or target.read_bytes() != data:
            durable.write(target, data)
    for path in record.removed:
        durable.remove(paths.root / path)
    fault.point("files")
    last = record.entries[-1]
    trailers = {
        **record.trailers,
        "Phases-Entry": f"{last.seq:04d}",
        "Phases-Head": last.self_hash,
        "Phases-Txn": record.txn,
    }
    made = _committed(repo, record)
    if made is not None:
        repo.unstage(_own_paths(repo, record))  # git may have died between its new commit and its new index
    commit = made or repo.commit(_own_paths(repo, record), record.message, trailers)
    fault.point("committed")
    repo.move_log_ref(commit)
    fault.point("ref_moved")
    durable.remove(folder / "record.json")  # first: a folder with its record is whole, and would be applied again
    fault.point("withdrawn")
    durable.remove(folder)
    fault.point("recorded")
    return book


def _own_paths(repo: Repo, record: Record) -> list[str]:
    removed = [path for path in record.removed if repo.blob("HEAD", path) is not None]
    return sorted({*record.files, *removed, "progress.txt"})


def _committed(repo: Repo, record: Record) -> str | None:
    """The commit that already holds this transaction: the run was killed after it, before or after the ref moved."""
    log = repo.log_ref()
    for known in repo.history(since=f"{log}^@" if log else None):  # from HEAD down to the ref's own commit
        if known.trailers.get("Phases-Txn") == record.txn:
            return known.sha
    return None
