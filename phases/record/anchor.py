"""The journal and `refs/phases/log`, which anchor the ledger on the machine that wrote it. Pure.

A clone has neither. The runner makes both, so one without the other was taken away.
"""

from __future__ import annotations

from collections.abc import Collection

from phases.git.probe import LOG_REF, Probe
from phases.record import entries
from phases.record.evidence import Evidence
from phases.record.ledger import EntryKind, Ledger, Problem, parse_ledger
from phases.record.reconcile import Reconciled


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


def anchor_problems(
    probe: Probe, reconciled: Reconciled, evidence: Evidence, pending: Collection[str]
) -> tuple[Problem, ...]:
    """Return what is wrong with journal and ref: at most one problem.

    Args:
        probe: the repository.
        reconciled: progress.txt, journal and HEAD, compared.
        evidence: what the history says of the ledger.
        pending: transactions that a killed run had prepared; the next run moves the ref for them.
    """
    log, pulled = probe.log, reconciled.pulled
    # 1. A ref without a journal.
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

    # 2. HEAD has no longer what the runner recorded in its history.
    newest = evidence.newest
    if newest and int(newest.trailers["Phases-Entry"]) > evidence.committed:
        has_them = f"the runner's commit {newest.sha[:12]} has them"
        if probe.progress is None:
            return (Problem("ledger-deleted", None, f"HEAD has no entries; {has_them}"),)
        return (Problem("ledger-rewritten", None, f"HEAD lacks entries; {has_them}"),)

    # 3. The ref is at the newest commit whose entries the journal has, or the next run moves it.
    newest = evidence.newest_before(pulled.first) if pulled else evidence.newest
    if newest is None or log == newest.sha:
        return ()
    is_pending = newest.trailers.get("Phases-Txn") in pending
    taken_over = {pulled_commit(reconciled.ledger, evidence)}
    if pulled:  # a run that was killed after PULLED, and was given up
        taken_over.add(pulled_commit(parse_ledger(pulled.set_aside), Evidence()))
    if is_pending or newest.sha in taken_over:
        return ()
    actual = f"it names {log[:12]}" if log else "it does not exist"
    message = f"{LOG_REF} is not the runner's newest commit {newest.sha[:12]}: {actual}"
    if pulled and log in {commit.sha for commit in evidence.commits.values()}:
        message = (
            f"the journal lacks entries from {pulled.first:04d} on, which the runner recorded here "
            f"in commit {log[:12]}"
        )
        return (Problem("journal-lacks-commit", pulled.first, message),)
    hint = f"`git update-ref {LOG_REF} {newest.sha}`"
    if log is None:
        return (Problem("log-ref-missing", None, message, hint),)
    return (Problem("log-ref-moved", None, message, hint),)
