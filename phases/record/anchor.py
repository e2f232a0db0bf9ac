"""The journal and `refs/phases/log`, which anchor the ledger on the machine that wrote it. Pure.

A clone has neither. The runner makes both, so one without the other was taken away.
"""

from __future__ import annotations

from collections.abc import Collection

from phases.git.probe import LOG_REF, Probe
from phases.git.record_history import RecordCommit
from phases.record import entries
from phases.record.evidence import Evidence
from phases.record.ledger import EntryKind, Ledger, Problem, parse_ledger
from phases.record.reconcile import Pulled, Reconciled


def pulled_commit(ledger: Ledger, evidence: Evidence) -> str | None:
    """Return the commit up to which this machine has just taken entries over, or None.

    Its PULLED is in no commit of the runner's yet. One that is moves no ref, whatever it names.
    """
    commit = None
    for entry in ledger.entries[max(evidence.commits, default=0) :]:
        pulled = entry.match(entries.PULLED)
        if entry.kind == EntryKind.PULLED and pulled:
            commit = pulled["commit"]
    return commit


def _reference_problem(
    newest: str, log: str | None, pulled: Pulled | None, recorded: Collection[str]
) -> Problem:
    """Return why the ref is not at the runner's newest commit; `recorded`: all of its commits."""
    actual = f"it names {log[:12]}" if log else "it does not exist"
    message = f"{LOG_REF} is not the runner's newest commit {newest[:12]}: {actual}"
    if pulled and log and log in recorded:
        message = (
            f"the journal lacks entries from {pulled.first:04d} on, which the runner recorded here "
            f"in commit {log[:12]}"
        )
        return Problem("journal-lacks-commit", pulled.first, message)
    hint = f"`git update-ref {LOG_REF} {newest}`"
    if log is None:
        return Problem("log-ref-missing", None, message, hint)
    return Problem("log-ref-moved", None, message, hint)


def anchor_problems(
    probe: Probe,
    reconciled: Reconciled,
    evidence: Evidence,
    prepared: Collection[str],
    *,
    left_out: Problem | None,
    unfetched: Problem | None,
) -> tuple[Problem, ...]:
    """Return what is wrong with journal and ref: at most one problem.

    Args:
        probe: the repository.
        reconciled: progress.txt, journal and HEAD, compared.
        evidence: what the history says of the ledger.
        prepared: transactions that a killed run had prepared; the next run moves the ref for them.
        left_out: that HEAD's history has an entry which HEAD's progress.txt lacks.
        unfetched: that what the journal lacks came from no other repository.
    """
    log, pulled = probe.log, reconciled.pulled
    # 1. HEAD has no longer what the runner recorded in its history.
    newest = evidence.newest
    if newest and int(newest.trailers["Phases-Entry"]) > evidence.committed:
        has_them = f"the runner's commit {newest.sha[:12]} has them"
        if probe.progress is None:
            return (Problem("ledger-deleted", None, f"HEAD has no entries; {has_them}"),)
        return (Problem("ledger-rewritten", None, f"HEAD lacks entries; {has_them}"),)
    if left_out:
        return (left_out,)

    # 2. A ref without a journal.
    if not reconciled.has_journal:
        if log is None:
            return ()
        message = (
            f"{LOG_REF} names commit {log[:12]}, and there is no journal in "
            f"{probe.common_dir / 'phases'}: it was removed, or this is a mirror clone"
        )
        hint = (
            f"only if this repository is a copy in which the runner never ran: "
            f"`git update-ref -d {LOG_REF}`"
        )
        return (Problem("journal-missing", None, message, hint),)

    # 3. The ref is at the newest commit whose entries the journal has, or the next run moves it.
    known = evidence.newest_before(pulled.first) if pulled else newest
    if known and log != known.sha and not _is_moved_next(known, reconciled, evidence, prepared):
        recorded = {commit.sha for commit in evidence.commits.values()}
        return (_reference_problem(known.sha, log, pulled, recorded),)

    # 4. What the journal lacks came from another machine.
    if newest and unfetched:
        return (unfetched,)
    return ()


def _is_moved_next(
    newest: RecordCommit, reconciled: Reconciled, evidence: Evidence, prepared: Collection[str]
) -> bool:
    """Return whether the next run moves the ref to this commit: a killed run was about to."""
    taken_over = {pulled_commit(reconciled.ledger, evidence)}
    if reconciled.pulled:  # a run that was killed after PULLED, and was given up
        set_aside = parse_ledger(reconciled.pulled.set_aside)
        taken_over.add(pulled_commit(set_aside, Evidence()))
    return newest.trailers.get("Phases-Txn") in prepared or newest.sha in taken_over
