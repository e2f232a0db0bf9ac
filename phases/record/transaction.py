"""Record every outcome exactly once: files, entries, commit and ref, prepared, then applied.

Everything that an outcome writes is first written to `.phases/pending/TXN/`: its files, then the
digest of its `record.json` to the git common directory (the binding), then `record.json` itself.
Then it is applied: journal and progress.txt, files, one commit with the transaction's id in a
trailer, `refs/phases/log`. Each step sees whether it was done already. So the next run completes
what a killed run left at any step (`completion.py`), and nothing is written twice.
"""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.paths import Paths
from phases.base.text import is_printable
from phases.errors import IntegrityError
from phases.git.repo import Repo
from phases.git.way_back import untrailed_way
from phases.record.ledger import Entry, Ledger, append_entry, parse_ledger
from phases.record.statement import Document

RECORD = "record.json"


@dataclass(frozen=True)
class Transaction:
    """What one outcome writes."""

    txn: str
    entries: tuple[Entry, ...]
    """Sealed on the ledger as it is; at least one."""
    message: str
    """The commit's subject."""
    trailers: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Repository path -> bytes, committed."""
    removed: tuple[str, ...] = ()
    """Repository paths that the outcome removes: outputs of the attempt before."""


class PendingRecord(Document):
    """`record.json` of a prepared transaction; the bytes of its files are beside it, by number."""

    txn: str
    message: str
    trailers: dict[str, str]
    files: dict[str, str]
    """Repository path -> SHA-256 of the bytes, in the order of the numbers."""
    removed: tuple[str, ...]
    blocks: tuple[str, ...]
    """The entries' exact text."""


def new_txn() -> str:
    """Return a transaction id: 64 random bits."""
    return secrets.token_hex(8)


def subject_trailers(
    phase: int,
    feature: str | None = None,
    *,
    attempt: int | None = None,
    receipt: str | None = None,
) -> dict[str, str]:
    """Return the trailers that say what a commit is about; `commit` adds which entry it holds."""
    trailers = {"Phases-Phase": str(phase)}
    if feature is not None:
        trailers["Phases-Feature"] = feature
    if attempt is not None:
        trailers["Phases-Attempt"] = str(attempt)
    if receipt is not None:
        trailers["Phases-Receipt"] = f"sha256:{receipt}"
    return trailers


#### prepare, then apply


def commit(paths: Paths, repo: Repo, ledger: Ledger, transaction: Transaction) -> Ledger:
    """Prepare the transaction, then apply it; return the ledger afterwards."""
    prepare(paths, transaction)
    failpoint("prepared")
    return apply(paths, repo, ledger, transaction)


def prepare(paths: Paths, transaction: Transaction) -> None:
    """Lay down everything that a transaction writes, bound to this runner; apply nothing."""
    folder = paths.pending / transaction.txn

    # 1. The files.
    files = enumerate(transaction.files.values())
    durable.write_files({folder / str(number): data for number, data in files})
    failpoint("copied")

    # 2. The binding, before the record: a record without it is no record of this runner's. It
    #    names the folder too, for runs in other work trees.
    record = PendingRecord(
        txn=transaction.txn,
        message=transaction.message,
        trailers=dict(transaction.trailers),
        files={path: durable.sha256(data) for path, data in transaction.files.items()},
        removed=transaction.removed,
        blocks=tuple(entry.block.decode() for entry in transaction.entries),
    ).encode()
    binding = durable.sha256(record).encode() + b"\n" + os.fsencode(folder) + b"\n"
    durable.write(paths.binding(transaction.txn), binding)
    failpoint("bound")

    # 3. The record, from which on the outcome will be completed.
    durable.write(folder / RECORD, record)


def apply(paths: Paths, repo: Repo, ledger: Ledger, transaction: Transaction) -> Ledger:
    """Do what a prepared transaction says and was not done yet; return the ledger afterwards."""
    folder = paths.pending / transaction.txn

    # 1. Entries: journal and progress.txt.
    for entry in transaction.entries:
        if ledger.entries[entry.seq - 1 : entry.seq] == (entry,):
            continue
        if entry.prev != ledger.head:
            raise stale_error(paths, transaction.txn)
        ledger = append_entry(paths.progress, paths.journal, ledger, entry)
    durable.sync(paths.progress)  # HEAD must not have entries that the file could still lose

    # 2. Files.
    files = {}
    for path, data in transaction.files.items():
        target = paths.root / path
        if not target.is_file() or target.read_bytes() != data:
            files[target] = data
    durable.write_files(files)
    for path in transaction.removed:
        durable.remove(paths.root / path)
    failpoint("files")

    # 3. One commit, found again by its trailer where a killed run had made it.
    last = transaction.entries[-1]
    trailers = {
        **transaction.trailers,
        "Phases-Entry": f"{last.seq:04d}",
        "Phases-Head": last.self_hash,
        "Phases-Txn": transaction.txn,
    }
    own_paths = sorted({*transaction.files, *transaction.removed, "progress.txt"})
    with repo.writing():
        sha = _find_commit(repo, transaction)
        if sha is None:
            sha = repo.commit(own_paths, transaction.message, trailers)
        else:
            repo.unstage(own_paths)  # git may have died between its new commit and its new index
        repo.check_commit(sha, own_paths)
        failpoint("committed")
        repo.move_log_ref(sha)
        failpoint("ref_moved")

    # 4. Withdraw what was prepared, its record first: a folder with its record would be applied
    #    again. The binding goes last: without it the record would be foreign. Where a power loss
    #    brings the binding back, the next run sweeps it.
    with durable.environment_faults(folder, "remove"):
        (folder / RECORD).unlink(missing_ok=True)
    failpoint("withdrawn")
    durable.remove(folder)
    failpoint("removed")
    with durable.environment_faults(paths.bindings, "write"):
        paths.binding(transaction.txn).unlink(missing_ok=True)
    failpoint("recorded")
    return ledger


def stale_error(paths: Paths, txn: str) -> IntegrityError:
    """Return the error for a record of this runner's that can no longer be completed."""
    folder = paths.pending / txn
    return IntegrityError(
        "pending-stale",
        f"{folder} holds an outcome that cannot be completed: "
        "it does not follow the ledger's last entry",
        hint=f"`{move_command(paths, folder)}` sets the outcome aside",
    )


def move_command(paths: Paths, path: Path) -> str:
    """Return the command that moves something away that is in the pending folder, or is it."""
    if not is_printable(path.name):
        path = paths.pending
    number = 1
    while os.path.lexists(paths.private / f"foreign-{number}"):
        number += 1
    return shlex.join(["mv", str(path), str(paths.private / f"foreign-{number}")])


def _require_not_amended(repo: Repo, transaction: Transaction) -> None:
    """Refuse where a commit without the runner's trailers already holds the last entry."""
    entry = transaction.entries[-1]
    if entry not in parse_ledger(repo.blob("HEAD", "progress.txt") or b"").entries:
        return
    commit = next(repo.history(paths=["progress.txt"])).sha
    raise IntegrityError(
        "commit-untrailed",
        f"commit {commit[:12]} holds entry {entry.seq:04d} without the runner's trailers: "
        "the runner's commit was amended or rebased",
        hint=f"`{untrailed_way(repo.root, commit)}`, then python -m phases run --next commits it "
        "anew",
    )


def _find_commit(repo: Repo, transaction: Transaction) -> str | None:
    """Return the commit that already holds this transaction; its ref may have moved or not."""
    log = repo.log_ref()
    if log == repo.head():  # nobody has committed since the runner's newest commit
        trailers = repo.own_commit(log).trailers
        return log if trailers.get("Phases-Txn") == transaction.txn else None
    since = f"{log}^@" if log else None  # from HEAD back to the ref's own commit
    for past in repo.history(since=since):
        if past.trailers.get("Phases-Txn") == transaction.txn:
            return past.sha
    _require_not_amended(repo, transaction)
    return None
