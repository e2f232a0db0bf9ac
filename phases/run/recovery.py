"""What a killed run left half done is finished or undone before anything else; each repair is an entry of its own.

Every step sees whether it was done already: a run that is killed while it recovers is recovered from in the same way.
"""

from __future__ import annotations

from pathlib import Path

from phases.base import durable, failpoint as fault
from phases.execution import worker
from phases.git import lock_files as git_locks
from phases.record import approvals as approval, entries, transaction as record
from phases.run import checkpoint
from phases.base.paths import Paths
from phases.plan.schema import Feature, Phase
from phases.run.session import Session


def is_due(paths: Paths) -> bool:
    """Whether a killed run left something that only a run can finish; reads next to nothing."""
    if paths.pending.is_dir() and any(paths.pending.iterdir()):
        return True
    if not (paths.journal.exists() and paths.progress.exists()):
        return False  # no kill removes progress.txt: somebody did, and that waits for a person as everything else does
    return paths.progress.stat().st_size != paths.journal.stat().st_size


def will_commit(session: Session) -> bool:
    """Whether recovering means commits: something is half recorded, or a feature began and has no outcome."""
    found = session.book.reconciled
    begun = any(item.state == "running" for phase in session.book.state.phases for item in phase.features)
    return bool(begun or found.torn or found.torn_end or found.restored or is_due(session.project.paths))


def recover(session: Session) -> None:
    """Finishes or undoes what a killed run left half done."""
    fault.point("recover")
    paths, found = session.project.paths, session.book.reconciled
    git_locks.clear(paths.common_dir)
    worker.sweep()
    for folder in _written_folders(paths):
        durable.sweep(folder)
    for name, torn, path in (("journal", found.torn, paths.journal), ("progress", found.torn_end, paths.progress)):
        if torn:
            after = f"{name}-{len(found.ledger.entries):04d}-{durable.sha256(torn)}.torn"
            durable.write(_torn_folder(paths) / after, torn)
            durable.write(path, found.ledger.data)
    lost = found.ledger.entries[len(found.ledger.entries) - found.restored :]
    missing = [entry for entry in lost if entry not in record.prepared(paths)]  # those are completed, and not lost
    if found.restored:
        durable.write(paths.progress, found.ledger.data)
    book, completed = record.complete_pending(paths, session.repo, session.book.ledger)
    session.advance(book)
    for message in completed:
        session.view.message(f"completed what a killed run had prepared: {message}")
    _tell_of_torn(session)
    if missing:
        session.append(
            "RECOVERED", (f"reason progress.txt lacked its last {len(missing)} entries; restored from the journal",)
        )
    for phase in session.book.state.phases:
        for item in phase.features:
            if item.state == "running":
                interrupted(
                    session,
                    session.prd.phase(phase.id),
                    session.prd.feature(item.id)[1],
                    "the runner was killed before it could record an outcome",
                )
    fault.point("recovered")


def _written_folders(paths: Paths) -> set[Path]:
    """Every folder in which a killed runner may have left a temporary file."""
    results = paths.root / paths.results_name
    inner = [*results.rglob("*"), *paths.artifacts.glob("*")]
    outcomes = {(paths.root / name).parent for name in record.prepared_files(paths)}
    own = {paths.root, paths.root / approval.FOLDER, paths.lock.parent, paths.private, results, _torn_folder(paths)}
    return {folder for folder in inner if folder.is_dir()} | own | outcomes


def _torn_folder(paths: Paths) -> Path:
    return paths.private / "quarantine" / ".torn"  # no feature can have this name


def _tell_of_torn(session: Session) -> None:
    """One REPAIRED for each torn end that was set aside, also where a kill came between the two."""
    told = {entry.lines for entry in session.book.ledger.entries if entry.kind == "REPAIRED"}
    folder = _torn_folder(session.project.paths)
    for kept in sorted(folder.glob("*-*-*.torn")) if folder.is_dir() else []:
        name, after, digest = kept.stem.split("-")
        what = "the journal" if name == "journal" else "progress.txt"
        bytes_ = f"{kept.stat().st_size} bytes that were no entry"
        lines = (f"reason {what} ended, after entry {after}, in {bytes_}", f"quarantined sha256:{digest}")
        if lines not in told:
            session.append("REPAIRED", lines)


def interrupted(session: Session, phase: Phase, feature: Feature, reason: str) -> None:
    """Records a started feature that has no outcome; it does not count as an attempt."""
    entry = session.seal("INTERRUPTED", entries.reasons([reason]), phase.id, feature)
    files = checkpoint.lock_file(session.project.paths, session.book.state.phase(phase.id))
    session.commit(
        record.Record(
            record.new_txn(),
            (entry,),
            f"{feature.id} {feature.title}: interrupted",
            checkpoint.trailers(phase.id, feature.id),
            files,
        )
    )
