"""Complete or undo what a killed run left, before anything else; each repair is an entry.

Every step sees whether it was done already: a run that is killed while it recovers is recovered in
the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from phases.base import durable
from phases.base.failpoint import failpoint
from phases.base.paths import Paths
from phases.errors import IntegrityError
from phases.execution.worker import sweep_staging
from phases.git.lock_files import clear_stale_locks
from phases.record import entries
from phases.record.completion import require_own, started_commit
from phases.record.decision_check import APPROVALS
from phases.record.ledger import Entry, EntryKind
from phases.record.pending import has_pending_record
from phases.record.reconcile import Reconciled
from phases.record.state import State
from phases.record.states import FeatureState
from phases.record.transaction import Transaction
from phases.run.preflight import check_repository
from phases.run.session import Session
from phases.run.take_over import require_pullable

KILLED = "the runner was killed before it could record an outcome"


def recover(session: Session, reason: str = KILLED) -> None:
    """Complete or undo what a killed run left; `reason` says why features have no outcome.

    Raises:
        IntegrityError: something is prepared that this runner did not prepare, or that cannot be
            completed any more; nothing was changed.
    """
    paths = session.project.paths
    prepared = _prepared(session)
    if _will_commit(session):
        # Not onto a detached HEAD, not amid a merge.
        check_repository(session.repo, with_locks=False)
    failpoint("recover")

    # 1. Files that nothing owns any more.
    clear_stale_locks(paths.common_dir)
    sweep_staging()
    for folder in _written_folders(paths, prepared):
        durable.sweep(folder)
    if session.snapshot.reconciled.pulled:
        require_pullable(session.project, session.snapshot)  # before any work
    session.anchor_pulled()

    # 2. Outcomes that were prepared completely, and the ledger's two files.
    _set_orphans_aside(session, prepared)
    restore_progress(session)

    # 3. Features that were started and have no outcome.
    for feature_id in _running_features(session.state):
        phase, feature = session.plan.feature(feature_id)
        session.interrupt(phase, feature, reason)
    failpoint("recovered")


def restore_progress(session: Session) -> None:
    """Restore what progress.txt and its journal lost, and complete prepared outcomes.

    Truncated tails are set aside, lost entries restored; each repair is an entry.
    """
    # 1. The two files, then the outcomes that follow.
    paths, reconciled = session.project.paths, session.snapshot.reconciled
    lost = _lost_entries(_prepared(session), reconciled)
    _set_torn_ends_aside(paths, reconciled)
    if reconciled.restored:
        durable.write(paths.progress, reconciled.ledger.data)
    for message in session.complete_pending():
        session.view.message(f"completed what a killed run had prepared: {message}")

    # 2. An entry for each repair.
    _record_torn_ends(session)
    if lost:
        reason = f"progress.txt lacked its last {len(lost)} entries; restored from the journal"
        session.restore(entries.reason_lines([reason]))

    # 3. Decisions that no commit has and that are prepared nowhere: they count for nothing.
    for entry in session.snapshot.uncommitted_decisions:
        session.give_up_decision(entry)


def _prepared(session: Session) -> tuple[Transaction, ...]:
    """Return what a killed run had prepared, after all of it was judged."""
    return require_own(session.project, session.repo, session.snapshot.ledger).prepared


def _set_orphans_aside(session: Session, prepared: Sequence[Transaction]) -> None:
    """Set prepared outcomes aside whose commit is no longer in the history.

    Raises:
        IntegrityError: an entry of the outcome is in the ledger already, which only grows.
    """
    ledger, paths = session.snapshot.ledger, session.project.paths
    for transaction in prepared:
        commit = started_commit(ledger, transaction.txn)
        if commit is None or session.repo.is_ancestor(commit, "HEAD"):
            continue
        if transaction.entries[0] in ledger.entries:
            raise IntegrityError(
                "head-moved",
                f"a killed run had begun to record `{transaction.message}`, which ran on commit "
                f"{commit[:12]}; that commit is no longer in the history of HEAD",
                hint=f"`git merge --ff --no-edit {commit[:12]}`, then python -m phases run --next",
            )
        folder = paths.private / "quarantine" / ".orphans" / transaction.txn
        durable.make_folder(folder.parent)
        (paths.pending / transaction.txn).rename(folder)


def _will_commit(session: Session) -> bool:
    """Return whether recovering makes commits."""
    reconciled = session.snapshot.reconciled
    return bool(
        _running_features(session.state)
        or reconciled.needs_repair
        or has_pending_record(session.project.paths)
    )


def _running_features(state: State) -> list[str]:
    running = FeatureState.RUNNING
    return [feature.id for feature in state.features.values() if feature.state == running]


def _written_folders(paths: Paths, prepared: Sequence[Transaction]) -> set[Path]:
    """Return every folder in which a killed runner may have left a temporary file."""
    results = paths.root / paths.results_name
    folders = {
        paths.root,
        paths.root / APPROVALS,
        paths.runner_lock.parent,
        paths.private,
        results,
        _torn_folder(paths),
    }
    for path in (*results.rglob("*"), *paths.artifacts.glob("*")):
        if path.is_dir():
            folders.add(path)
    for transaction in prepared:
        for name in transaction.files:
            folders.add((paths.root / name).parent)
    return folders


def _lost_entries(prepared: Sequence[Transaction], reconciled: Reconciled) -> list[Entry]:
    """Return the entries that progress.txt lacked, but for those of prepared outcomes."""
    known: set[Entry] = set()
    for transaction in prepared:
        known.update(transaction.entries)
    count = len(reconciled.ledger.entries)
    restored = reconciled.ledger.entries[count - reconciled.restored :]
    return [entry for entry in restored if entry not in known]


#### truncated tails


def _torn_folder(paths: Paths) -> Path:
    return paths.private / "quarantine" / ".torn"  # no feature can have this name


def _set_torn_ends_aside(paths: Paths, reconciled: Reconciled) -> None:
    """Keep each truncated tail as `NAME-ENTRY-SHA256.torn` and write the file without it."""
    last = len(reconciled.ledger.entries)
    tails = {"journal": reconciled.torn_journal, "progress": reconciled.torn_progress}
    files = {"journal": paths.journal, "progress": paths.progress}
    for name, tail in tails.items():
        if tail:
            target = f"{name}-{last:04d}-{durable.sha256(tail)}.torn"
            durable.write(_torn_folder(paths) / target, tail)
            durable.write(files[name], reconciled.ledger.data)


def _record_torn_ends(session: Session) -> None:
    """Append one REPAIRED for each tail that was set aside, also by a run that was killed then."""
    recorded = set()
    for entry in session.snapshot.ledger.entries:
        if entry.kind == EntryKind.REPAIRED:
            recorded.add(entry.lines)
    for file in sorted(_torn_folder(session.project.paths).glob("*-*-*.torn")):
        name, last, digest = file.stem.split("-")
        title = "the journal" if name == "journal" else "progress.txt"
        size = file.stat().st_size
        reason = f"{title} ended, after entry {last}, in {size} bytes that were no entry"
        lines = (
            *entries.reason_lines([reason]),
            entries.QUARANTINED.format(sha256=digest),
        )
        if lines not in recorded:
            session.repair(lines)
