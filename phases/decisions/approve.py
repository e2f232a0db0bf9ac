"""approve: open the next phase. Nothing is started."""

from __future__ import annotations

from phases.base import durable
from phases.decisions.decide import decide
from phases.decisions.proposal import DecisionContext, Proposal, require_presence_allowed
from phases.errors import IntegrityError, UsageError
from phases.git.tree import CommitTree, WorkTree, changed_files
from phases.record.approvals import Checkpoint, find_checkpoint
from phases.record.decision_record import DecisionResult
from phases.record.ledger import EntryKind, Ledger
from phases.record.project import Project
from phases.record.state import PhaseState
from phases.run.plan_locks import committed_lock, lock_changes, lock_of
from phases.run.preflight import runner_code


def approve(project: Project, phase_id: int, summary: str) -> str:
    """Approve a phase that waits; return the record's path.

    Raises:
        WaitingForHumanError: no one answered, or with other words; nothing was recorded.
        UsageError: the phase does not wait for an approval.
        IntegrityError: what was reviewed differs from what there is.
    """
    return decide(project, phase_id, summary, _examine)


def _examine(context: DecisionContext) -> Proposal:
    phase, state = context.phase, context.status.state
    require_presence_allowed(context)
    if state != PhaseState.AWAITING_APPROVAL:
        raise UsageError(
            f"phase {phase.id} ({phase.name}) is {state}; "
            "only a phase that awaits approval can be approved",
            hint="python -m phases status",
        )
    checkpoint = waiting_checkpoint(context)

    # Commits by others since the checkpoint are allowed, and listed.
    question = (
        f"checkpoint: commit {checkpoint.commit[:12]}, entry {checkpoint.entry:04d}, "
        f"request sha256:{checkpoint.request_sha256[:16]}…"
    )
    for line in context.repo.commits_since(checkpoint.commit):
        question += f"\n  since then: {line}"
    return Proposal(
        result=DecisionResult.PASS,
        question=question,
        message=f"Phase {phase.id} {phase.name}: approved",
    )


def waiting_checkpoint(context: DecisionContext) -> Checkpoint:
    """Return commit C of a phase that waits, after everything it binds was compared.

    Raises:
        IntegrityError: C is not in HEAD's history, or progress.txt, the plan, gates, runner or
            results differ from C.
    """
    paths, phase, status = context.project.paths, context.phase, context.status

    # 1. C is in HEAD's history and holds the request that the ledger names.
    checkpoint = find_checkpoint(
        context.repo,
        context.snapshot.evidence,
        phase.id,
        status.halted or 0,
        paths.review_request(phase.id),
    )
    if checkpoint is None:
        raise IntegrityError(
            "checkpoint-missing",
            f"no commit in HEAD's history holds the checkpoint of phase {phase.id}",
        )
    commit = checkpoint.commit[:12]
    if checkpoint.request_sha256 != status.request:
        raise IntegrityError(
            "request-changed",
            f"{checkpoint.request_path} in commit {commit} is not the review request that the "
            "ledger names",
        )

    # 2. progress.txt is byte-equal to C's, but for what says where entries were recorded.
    if not _ends_at(context.snapshot.ledger, checkpoint):
        raise IntegrityError(
            "ledger-moved",
            f"progress.txt differs from what commit {commit} holds: "
            "entries came after the checkpoint",
            hint="python -m phases run --next makes a new checkpoint",
        )

    # 3. Plan, gates, runner and the phase's results are what was reviewed.
    changed = [*_plan_changes(context), *_file_changes(context, checkpoint)]
    if changed:
        raise IntegrityError(
            "checkpoint-stale",
            f"differs from what was reviewed (commit {commit}): {', '.join(changed[:5])}",
            hint=f"git diff {commit} shows it; restore it, or reject the phase",
        )
    return checkpoint


def _ends_at(ledger: Ledger, checkpoint: Checkpoint) -> bool:
    """Return whether a ledger is that of a checkpoint, with nothing after it but PULLED."""
    then = Ledger(ledger.header, ledger.entries[: checkpoint.entry])
    since = ledger.entries[checkpoint.entry :]
    is_same = durable.sha256(then.data) == checkpoint.progress_sha256
    return is_same and all(entry.kind == EntryKind.PULLED for entry in since)


def _plan_changes(context: DecisionContext) -> list[str]:
    """Return what of the phase's lock is not as locked, in HEAD or in the work tree.

    What the lock does not list belongs to other phases, and may change. The runner itself may be a
    newer one, unless it is part of this repository (`_file_changes`).
    """
    project, phase_id = context.project, context.phase.id
    names: set[str] = set()
    for lock in (
        committed_lock(context.tree, phase_id),
        lock_of(project.plan, WorkTree(project.root), phase_id),
    ):
        names.update(lock_changes(project, context.repo, context.snapshot, lock))
    return sorted(names - {"runner"})


def _file_changes(context: DecisionContext, checkpoint: Checkpoint) -> list[str]:
    """Return the runner's and the results' files that are others in HEAD or in the work tree."""
    paths, phase = context.project.paths, context.phase
    folders = [*runner_code(context.repo), paths.phase_results(phase.id)]
    folders += [paths.results(feature.id) for feature in phase.features]
    prefixes = tuple(f"{folder}/" for folder in folders)
    reviewed = {
        path: entry
        for path, entry in CommitTree(context.repo, checkpoint.commit).entries.items()
        if path.startswith(prefixes)
    }
    changed = set(changed_files(context.project.root, reviewed.values()))
    for path, entry in context.tree.entries.items():
        if path.startswith(prefixes) and reviewed.get(path) != entry:
            changed.add(path)
    return sorted(changed | (reviewed.keys() - context.tree.entries.keys()))
