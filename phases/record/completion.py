"""Complete what a killed run had prepared: all of it judged before the first effect."""

from __future__ import annotations

import shlex

from phases.base import durable
from phases.base.paths import Paths, link_above
from phases.errors import IntegrityError
from phases.git.repo import Repo
from phases.record import entries
from phases.record.committed_plan import committed_plan
from phases.record.evidence import weigh_evidence, weigh_prepared
from phases.record.foreign import Claim, foreign_reasons
from phases.record.ledger import LOCKS_AND_DECISIONS, EntryKind, Ledger, chain_problems
from phases.record.pending import (
    Pending,
    bound_folders,
    folders_elsewhere,
    foreign_error,
    is_there,
    raise_first,
    read_pending,
)
from phases.record.project import Project
from phases.record.state import fold_state
from phases.record.transaction import RECORD, Transaction, apply, stale_error


def require_own(project: Project, repo: Repo, ledger: Ledger) -> Pending:
    """Return what the pending folder holds, if this runner prepared it and can complete it.

    Raises:
        IntegrityError: `pending-foreign`, `pending-stale`, or `pending-elsewhere`: it is prepared
            in another work tree; nothing was changed.
    """
    require_none_elsewhere(project.paths)
    pending = read_pending(project.paths)
    raise_first(pending_errors(project, repo, ledger, pending))
    return pending


def require_none_elsewhere(paths: Paths) -> None:
    """Refuse while a killed run's record waits in another work tree: journal and ref are shared."""
    for folder in folders_elsewhere(paths):
        command = f"cd {shlex.quote(str(folder.parents[2]))}"
        raise IntegrityError(
            "pending-elsewhere",
            f"a run was killed in another work tree, where its record waits: {folder}",
            hint=f"`{command}`, then python -m phases run --next completes it",
        )


def complete_pending(project: Project, repo: Repo, ledger: Ledger) -> tuple[Ledger, list[str]]:
    """Apply what a killed run had prepared, discard what it had not finished preparing.

    Return the ledger afterwards and the messages of what was completed.

    Raises:
        IntegrityError: see `require_own`.
    """
    pending = require_own(project, repo, ledger)
    completed = []
    for transaction in pending.prepared:
        ledger = apply(project.paths, repo, ledger, transaction)
        completed.append(transaction.message)
    for folder in pending.unfinished:
        durable.remove(folder)
    _sweep_bindings(project.paths)
    return ledger, completed


def _sweep_bindings(paths: Paths) -> None:
    """Remove the bindings whose folder is gone, in every work tree: they share the bindings."""
    durable.sweep(paths.bindings)
    for txn, folders in bound_folders(paths).items():
        if not any(is_there(folder) for folder in folders):
            durable.remove(paths.binding(txn))


#### judged


def pending_errors(
    project: Project, repo: Repo, ledger: Ledger, pending: Pending
) -> tuple[IntegrityError, ...]:
    """Return an error for everything in the pending folder that cannot be completed.

    `pending` was read before `ledger`: while a runner is at work, the ledger may have grown.
    """
    errors = list(pending.errors)
    for transaction in pending.prepared:
        folder = project.paths.pending / transaction.txn
        before = _ledger_before(ledger, transaction)
        if before is None:
            # A runner at work has recorded it since, and more after it.
            if (folder / RECORD).exists():
                errors.append(stale_error(project.paths, transaction.txn))
            continue
        reasons = _reasons(project, repo, before, transaction)
        if reasons:
            errors.append(foreign_error(project.paths, folder, "; ".join(reasons)))
        ledger = Ledger(before.header, (*before.entries, *transaction.entries))
    return tuple(errors)


def _ledger_before(ledger: Ledger, transaction: Transaction) -> Ledger | None:
    """Return the ledger up to a transaction's first entry; None where it does not follow.

    A killed run may have appended some of its entries already: then they are the ledger's last.
    """
    first = transaction.entries[0]
    count = len(ledger.entries)
    if first in ledger.entries:
        count = ledger.entries.index(first)
    before = Ledger(ledger.header, ledger.entries[:count])
    appended = ledger.entries[count:]
    if first.prev != before.head or appended != transaction.entries[: len(appended)]:
        return None
    return before


def _reasons(project: Project, repo: Repo, before: Ledger, transaction: Transaction) -> list[str]:
    """Return why a transaction is not one of this runner's, in words."""
    # 1. Its entries, each block hashed again, follow the ledger.
    after = Ledger(before.header, (*before.entries, *transaction.entries))
    problems = chain_problems(after)
    if problems:
        return [problem.message for problem in problems]

    # 2. It is one that this runner could have prepared.
    evidence = weigh_evidence(project.root, before, len(before.data))
    claim = Claim(
        transaction=transaction,
        before=before,
        state=fold_state(project.plan, before.entries, evidence),
        paths=project.paths,
        lost=evidence.lost,
        published=_published(repo, before, transaction),
    )
    reasons = foreign_reasons(claim)
    if not reasons and claim.last.kind in LOCKS_AND_DECISIONS:
        reasons = _decision_reasons(project, repo, after, transaction)

    # 3. Nothing on the way to its files leads elsewhere.
    for path in (*transaction.files, *transaction.removed):
        link = link_above(project.root, path)
        if link and not reasons:
            reasons.append(f"{link.relative_to(project.root)} on the way to {path} is a link")
    return reasons


def _decision_reasons(
    project: Project, repo: Repo, after: Ledger, transaction: Transaction
) -> list[str]:
    """Return why its decision would not count once it is committed, as `audit` will judge it."""
    evidence = weigh_prepared(project.root, after, transaction.files, repo.head())
    state = fold_state(project.plan, after.entries, evidence)
    numbers = {entry.seq for entry in transaction.entries}
    problems = (*evidence.problems, *state.problems)
    return [problem.message for problem in problems if problem.entry in numbers]


def _published(repo: Repo, before: Ledger, transaction: Transaction) -> frozenset[str]:
    """Return what a feature publishes by the plan of the commit that its STARTED names."""
    commit = started_commit(before, transaction.txn)
    feature_id = transaction.entries[-1].feature
    if commit is None or feature_id is None:
        return frozenset()
    try:
        _, feature = committed_plan(repo, commit).feature(feature_id)
    except (ValueError, KeyError):
        return frozenset()
    return frozenset(feature.publish.values())


def started_commit(ledger: Ledger, txn: str) -> str | None:
    """Return the commit that the STARTED entry of a transaction names, or None."""
    for entry in ledger.entries:
        named = entry.match(entries.TRANSACTION)
        head = entry.match(entries.HEAD)
        if entry.kind == EntryKind.STARTED and named and head and named["txn"] == txn:
            return head["commit"]
    return None
