"""What a human decides on, what is proposed to record, and what several verbs require."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from phases.errors import EnvironmentFaultError, UsageError
from phases.git.repo import Repo
from phases.git.tree import CommitTree
from phases.plan.schema import Phase
from phases.record import entries
from phases.record.approval_rule import SIGNERS, committed_rule, work_tree_rule
from phases.record.decision_record import DecisionResult
from phases.record.ledger import EntryKind
from phases.record.project import Project, Snapshot
from phases.record.state import PhaseStatus
from phases.run.plan_locks import require_plan


@dataclass(frozen=True)
class DecisionContext:
    """What is decided on."""

    project: Project
    tree: CommitTree
    """HEAD when the project was read."""
    snapshot: Snapshot
    phase: Phase

    @property
    def repo(self) -> Repo:
        """The repository."""
        return self.tree.repo

    @property
    def status(self) -> PhaseStatus:
        """The phase as the ledger has it."""
        return self.snapshot.state.phase(self.phase.id)


@dataclass(frozen=True)
class Proposal:
    """What the approver is asked, and what is recorded at the right answer."""

    result: DecisionResult
    question: str
    """Shown after the summary, before the challenge."""
    reason: str = ""
    reset: tuple[str, ...] = ()
    """Features that become pending."""
    waived: Mapping[str, str] = field(default_factory=dict)
    """Waived feature -> its state before."""


#### what several verbs share


def require_presence_allowed(context: DecisionContext) -> None:
    """Refuse where more than presence is asked for: it is weaker and must not replace that.

    What a lock in force asks, or one under which something was judged, and what the plan asks, in
    HEAD or in the work tree: any of them is enough.
    """
    state, plan = context.snapshot.state, context.project.plan
    head_rule = committed_rule(require_plan(context.tree), context.tree.entries)
    plan_approval = head_rule | work_tree_rule(plan, context.project.root)
    rule = state.approval | plan_approval
    if rule.allows_presence:
        return

    # 1. What is asked for, and by what.
    asked = []
    if rule.signed:
        asked.append("requires signed approvals, which this version cannot make")
    if rule.by_another:
        asked.append(
            "requires another approver than the user who runs (allow_self is false), and presence "
            "cannot tell people apart"
        )
    source = f"approval in the plan, or {SIGNERS}"
    if not state.approval.allows_presence:
        source = f"the plan lock says `{state.approval}`"
    raise EnvironmentFaultError(
        f"this project {' and '.join(asked)} ({source}); presence is weaker and does not replace "
        "that",
        hint=_presence_hint(context),
    )


def _presence_hint(context: DecisionContext) -> str:
    """Return what remains where presence is refused."""
    state = context.snapshot.state
    change = (
        f'set approval.mode to "presence" and allow_self to true in the plan, remove {SIGNERS}, '
        "commit"
    )
    if not state.judged_approval.allows_presence:
        # Under such a lock something was judged: only a record that begins anew is free of it.
        first = _commit_before_record(context)[:12]
        return (
            "a later version may sign. A project without this record: "
            f"git clone . ../anew && git -C ../anew reset --hard {first}; there {change}"
        )
    locked = context.status.lock_commit
    if context.status.has_outcome and locked:
        # The phase is locked with presence, and the plan asks for more since.
        show = f"git diff {locked[:12]} -- prd shows what changed"
        return f"bring approval and {SIGNERS} back to what was locked, and commit: {show}"
    return f"{change}, then python -m phases run --next: nothing was judged yet"


def _commit_before_record(context: DecisionContext) -> str:
    """Return the commit that the first lock names: the record came after it."""
    for entry in context.snapshot.ledger.entries:
        head = entry.match(entries.HEAD)
        if entry.kind == EntryKind.LOCKED and head:
            return head["commit"]
    return context.tree.commit


def require_feature(phase: Phase, feature_id: str) -> None:
    """Refuse a feature that the phase does not have."""
    ids = [feature.id for feature in phase.features]
    if feature_id not in ids:
        message = f"phase {phase.id} has no feature {feature_id!r}; it has {', '.join(ids)}"
        raise UsageError(message, hint="python -m phases status")
