"""What a human decides on, what is proposed to record, and what several verbs require."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from phases.errors import EnvironmentFaultError, UsageError
from phases.git.repo import Repo
from phases.git.tree import CommitTree
from phases.plan.schema import Feature, Phase
from phases.record.decision_record import DecisionResult
from phases.record.project import Project, Snapshot
from phases.record.state import PhaseStatus


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
    message: str
    """The commit's subject."""
    reason: str = ""
    reset: tuple[str, ...] = ()
    """Features that become pending."""
    waived: Mapping[str, str] = field(default_factory=dict)
    """Waived feature -> its state before."""


#### what several verbs share


def require_presence_allowed(context: DecisionContext) -> None:
    """Refuse where the plan asks for a signature: presence is weaker and must not replace it."""
    approval = context.project.plan.approval
    if not approval.allow_self:
        raise EnvironmentFaultError(
            "the plan says approval.allow_self = false: someone else than the user who runs must "
            "approve, and presence cannot tell people apart",
            hint="approve by signature (a later version), or set allow_self to true, by relock",
        )
    signers = context.project.root / "prd" / "allowed_signers"
    if approval.mode == "signed":
        cause = "approval.mode is signed"
    elif approval.mode == "auto" and signers.exists():
        cause = "prd/allowed_signers names keys"
    else:
        return
    raise EnvironmentFaultError(
        f"this project requires signed approvals ({cause}), which this version cannot make; "
        "presence is weaker and does not replace them",
        hint='remove prd/allowed_signers or set approval.mode to "presence", by relock',
    )


def require_feature(phase: Phase, feature_id: str) -> None:
    """Refuse a feature that the phase does not have."""
    ids = [feature.id for feature in phase.features]
    if feature_id not in ids:
        message = f"phase {phase.id} has no feature {feature_id!r}; it has {', '.join(ids)}"
        raise UsageError(message, hint="python -m phases status")


def dependants(features: Sequence[Feature], chosen: set[str]) -> list[str]:
    """Return the chosen features and everything that needs one of them, in the plan's order."""
    grown = set(chosen)
    while True:
        more = {feature.id for feature in features if grown & set(feature.needs)} - grown
        if not more:
            return [feature.id for feature in features if feature.id in grown]
        grown |= more
