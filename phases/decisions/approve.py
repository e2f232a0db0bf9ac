"""approve: open the next phase. Nothing is started."""

from __future__ import annotations

from functools import partial

from phases.audit.clean import require_clean_audit
from phases.audit.unrecorded import UnrecordedFile, unrecorded_results
from phases.base import durable
from phases.base.text import printable
from phases.decisions.decide import decide
from phases.decisions.proposal import DecisionContext, Proposal, require_presence_allowed
from phases.errors import IntegrityError, UsageError
from phases.git.tree import CommitTree, WorkTree, changed_files
from phases.git.way_back import left_out_way
from phases.record.approvals import Checkpoint, find_checkpoint
from phases.record.decision_record import DecisionResult
from phases.record.ledger import EntryKind, Ledger
from phases.record.project import Project
from phases.record.receipt import Receipt
from phases.record.states import FeatureState, PhaseState
from phases.run.plan_locks import committed_lock, lock_changes, lock_of, restore_hint
from phases.run.preflight import runner_code

SHOWN_FILES = 20


def approve(project: Project, phase_id: int, summary: str) -> str:
    """Approve a phase that waits; return the record's path.

    Raises:
        WaitingForHumanError: no one answered, or with other words; nothing was recorded.
        UsageError: the phase does not wait for an approval.
        IntegrityError: what was reviewed differs from what there is.
    """
    prove = partial(require_clean_audit, consequence="nothing was asked")
    return decide(project, phase_id, summary, _examine, prove=prove)


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
    question += "".join(f"\n{line}" for line in _unbound_lines(context))
    return Proposal(
        result=DecisionResult.PASS,
        question=question,
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

    # 3. Results, runner, plan and gates are what was reviewed.
    changed = [*_file_changes(context, checkpoint.commit), *_plan_changes(context)]
    if changed:
        names = ", ".join(printable(name) for name in changed[:5])
        root = context.project.root
        way = left_out_way(root, (paths.results_name,))
        way = way or restore_hint(root, checkpoint.commit, changed)
        raise IntegrityError(
            "checkpoint-stale",
            f"differs from what was reviewed (commit {commit}): {names}",
            hint=f"{way}; or python -m phases reject {phase.id} --reason '…'",
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


def _file_changes(context: DecisionContext, commit: str) -> list[str]:
    """Return the runner's and the results' files that are others in HEAD or in the work tree.

    What was added to the results and is in no record is named instead (`_unbound_lines`).
    """
    prefixes = tuple(f"{folder}/" for folder in (*runner_code(context.repo), *_reviewed(context)))
    reviewed = {
        path: entry
        for path, entry in CommitTree(context.repo, commit).entries.items()
        if path.startswith(prefixes)
    }
    unrecorded = {file.path for file in _unrecorded(context)}
    changed = set(changed_files(context.project.root, reviewed.values()))
    for path, entry in context.tree.entries.items():
        is_added = path not in reviewed and path in unrecorded
        if path.startswith(prefixes) and reviewed.get(path) != entry and not is_added:
            changed.add(path)
    return sorted(changed | (reviewed.keys() - context.tree.entries.keys()))


#### what an approval does not bind


def _unbound_lines(context: DecisionContext) -> list[str]:
    """Return what is beside the reviewed results and is none of them, for the approver to read."""
    lines = []
    unrecorded = _unrecorded(context)
    if unrecorded:
        lines.append("in the reviewed folders, and in no record: no run made it, no gate judged it")
        lines += [f"  {file}" for file in unrecorded[:SHOWN_FILES]]
    if len(unrecorded) > SHOWN_FILES:
        hidden = len(unrecorded) - SHOWN_FILES
        lines.append(f"  … and {hidden} more: python -m phases audit lists them")
    edited = _edited_copies(context)
    if edited:
        lines.append("published copies that differ from the result")
        lines += [f"  {line}" for line in edited]
    return lines


def _reviewed(context: DecisionContext) -> list[str]:
    """Return the folders that the approver reviews."""
    paths, phase = context.project.paths, context.phase
    features = [paths.results(feature.id) for feature in phase.features]
    return [paths.phase_results(phase.id), *features]


def _unrecorded(context: DecisionContext) -> list[UnrecordedFile]:
    """Return the files of the reviewed folders that no entry names."""
    prefixes = tuple(f"{folder}/" for folder in _reviewed(context))
    files = unrecorded_results(context.project, context.tree, context.snapshot.ledger)
    return [file for file in files if file.path.startswith(prefixes)]


def _edited_copies(context: DecisionContext) -> list[str]:
    """Return the published copies of the phase that are others than their receipts name."""
    lines = []
    for feature in context.phase.features:
        status = context.status.feature(feature.id)
        if not feature.publish or status.state != FeatureState.VERIFIED:
            continue
        # The receipt is the checkpoint's: that was compared before.
        data = context.tree.read(f"{context.project.paths.results(feature.id)}/receipt.json")
        digests = Receipt.decode(data or b"").digests
        for output, path in feature.publish.items():
            for source, copy in (
                ("HEAD", context.tree.read(path)),
                ("the work tree", WorkTree(context.project.root).read(path)),
            ):
                if copy is None or durable.sha256(copy) != digests.get(output):
                    lines.append(f"{printable(path)} in {source}, of {feature.id} {output}")
    return lines
