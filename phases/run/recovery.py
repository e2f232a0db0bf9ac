"""What a killed run left half done is finished or undone before anything else; each repair is an entry of its own.

Every step sees whether it was done already: a run that is killed while it recovers is recovered from in the same way.
"""

from __future__ import annotations

from pathlib import Path

from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.paths import Paths
from phases.execution import worker
from phases.git import lock_files
from phases.plan.schema import Feature, Phase
from phases.record import approvals, entries, transaction
from phases.record.transaction import is_due, trailers
from phases.run.plan_locks import lock_file
from phases.run.session import Session


def will_commit(session: Session) -> bool:
    """Whether recovering means commits: something is half recorded, or a feature began and has no outcome."""
    found = session.snapshot.reconciled
    begun = any(
        item.state == "running"
        for phase in session.snapshot.state.phases
        for item in phase.features
    )
    return bool(
        begun or found.torn or found.torn_end or found.restored or is_due(session.project.paths)
    )


def recover(session: Session) -> None:
    """Finishes or undoes what a killed run left half done."""
    failpoint("recover")
    paths, found = session.project.paths, session.snapshot.reconciled
    lock_files.clear(paths.common_dir)
    worker.sweep()
    for folder in _written_folders(paths):
        durable.sweep(folder)
    for name, torn, path in (
        ("journal", found.torn, paths.journal),
        ("progress", found.torn_end, paths.progress),
    ):
        if torn:
            after = f"{name}-{len(found.ledger.entries):04d}-{durable.sha256(torn)}.torn"
            durable.write(_torn_folder(paths) / after, torn)
            durable.write(path, found.ledger.data)
    lost = found.ledger.entries[len(found.ledger.entries) - found.restored :]
    missing = [
        entry for entry in lost if entry not in transaction.prepared(paths)
    ]  # those are completed, and not lost
    if found.restored:
        durable.write(paths.progress, found.ledger.data)
    ledger, completed = transaction.complete_pending(paths, session.repo, session.snapshot.ledger)
    session.advance(ledger)
    for message in completed:
        session.view.message(f"completed what a killed run had prepared: {message}")
    _tell_of_torn(session)
    if missing:
        session.append(
            "RECOVERED",
            (
                f"reason progress.txt lacked its last {len(missing)} entries; restored from the journal",
            ),
        )
    for phase in session.snapshot.state.phases:
        for item in phase.features:
            if item.state == "running":
                interrupted(
                    session,
                    session.plan.phase(phase.id),
                    session.plan.feature(item.id)[1],
                    "the runner was killed before it could record an outcome",
                )
    failpoint("recovered")


def _written_folders(paths: Paths) -> set[Path]:
    """Every folder in which a killed runner may have left a temporary file."""
    results = paths.root / paths.results_name
    inner = [*results.rglob("*"), *paths.artifacts.glob("*")]
    outcomes = {(paths.root / name).parent for name in transaction.prepared_files(paths)}
    own = {
        paths.root,
        paths.root / approvals.FOLDER,
        paths.lock.parent,
        paths.private,
        results,
        _torn_folder(paths),
    }
    return {folder for folder in inner if folder.is_dir()} | own | outcomes


def _torn_folder(paths: Paths) -> Path:
    return paths.private / "quarantine" / ".torn"  # no feature can have this name


def _tell_of_torn(session: Session) -> None:
    """One REPAIRED for each torn end that was set aside, also where a kill came between the two."""
    told = {entry.lines for entry in session.snapshot.ledger.entries if entry.kind == "REPAIRED"}
    folder = _torn_folder(session.project.paths)
    for kept in sorted(folder.glob("*-*-*.torn")) if folder.is_dir() else []:
        name, after, digest = kept.stem.split("-")
        what = "the journal" if name == "journal" else "progress.txt"
        bytes_ = f"{kept.stat().st_size} bytes that were no entry"
        lines = (
            f"reason {what} ended, after entry {after}, in {bytes_}",
            f"quarantined sha256:{digest}",
        )
        if lines not in told:
            session.append("REPAIRED", lines)


def interrupted(session: Session, phase: Phase, feature: Feature, reason: str) -> None:
    """Records a started feature that has no outcome; it does not count as an attempt."""
    entry = session.seal("INTERRUPTED", entries.reasons([reason]), phase.id, feature)
    files = lock_file(session.project.paths, session.snapshot.state.phase(phase.id))
    session.commit(
        transaction.Transaction(
            transaction.new_txn(),
            (entry,),
            f"{feature.id} {feature.title}: interrupted",
            trailers(phase.id, feature.id),
            files,
        )
    )
