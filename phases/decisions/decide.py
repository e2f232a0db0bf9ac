"""One human decision: examined, asked at the terminal, examined again under the lock, recorded.

The verbs `approve`, `reject`, `relock` and `waive` differ in what they examine; each proposes what
would be recorded. A decision starts nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from phases.decisions.proposal import DecisionContext, Proposal
from phases.decisions.record import record_decision
from phases.decisions.terminal import challenge
from phases.errors import EnvironmentFaultError, IntegrityError, UsageError
from phases.git.one_runner import one_runner
from phases.git.repo import Repo
from phases.git.tree import CommitTree
from phases.plan.schema import Phase
from phases.record.completion import pending_errors, require_none_elsewhere
from phases.record.pending import has_pending_record, raise_first, read_pending
from phases.record.project import Project, load_verified, reconcile_project, rewound_error
from phases.run.preflight import check_committed_folders


def decide(
    project: Project,
    phase_id: int,
    summary: str,
    examine: Callable[[DecisionContext], Proposal],
    prove: Callable[[Project], None] | None = None,
) -> str:
    """Ask for a decision at the controlling terminal and record it; return the record's path.

    Args:
        project: the project.
        phase_id: the phase that is decided on.
        summary: what the approver reads first.
        examine: refuses, or proposes what is recorded; called again once the answer came.
        prove: refuses too, and takes longer; called once, before the question.

    Raises:
        WaitingForHumanError: no one answered, or with other words; nothing was recorded.
        IntegrityError: what was asked about changed before the answer came.
    """
    phase = find_phase(project, phase_id)
    repo = project.repo()
    proposal = examine(_read_context(project, repo, phase))
    if prove is not None:
        prove(project)
    tty = challenge(f"{summary}\n{proposal.question}", phase.name)
    with one_runner(project.paths, repo):
        context = _read_context(project, repo, phase)
        _require_unchanged(proposal, examine(context))
        return record_decision(context, proposal, tty)


def find_phase(project: Project, phase_id: int) -> Phase:
    """Return the phase; UsageError names those that there are."""
    try:
        return project.plan.phase(phase_id)
    except KeyError:
        ids = ", ".join(str(phase.id) for phase in project.plan.phases)
        message = f"the plan has no phase {phase_id}; it has {ids}"
        raise UsageError(message, hint="python -m phases status") from None


def _read_context(project: Project, repo: Repo, phase: Phase) -> DecisionContext:
    """Read the project; what a killed run left has to be completed before it can be decided on.

    Raises:
        IntegrityError: HEAD is not at or after the runner's last commit; what is prepared is not
            this runner's, or cannot be completed, or waits in another work tree.
        EnvironmentFaultError: it is, and can; or git could not hold what a decision writes.
    """
    check_committed_folders(repo, project.paths)
    project = project.probed_anew()
    if project.probe.is_rewound:
        raise rewound_error(project)  # no run could complete anything before
    require_none_elsewhere(project.paths)
    pending = read_pending(project.paths)
    reconciled = reconcile_project(project, repo)
    raise_first(pending_errors(project, repo, reconciled.ledger, pending))
    if has_pending_record(project.paths) or reconciled.needs_repair:
        raise EnvironmentFaultError(
            "a run is at work here, or was killed and left a pending record",
            hint="python -m phases run --next completes it; then decide",
        )
    snapshot = load_verified(project, repo)
    for entry in snapshot.uncommitted_decisions:
        raise EnvironmentFaultError(
            f"{entry.kind} of entry {entry.seq:04d} has no commit: what a killed command had "
            "prepared for it was removed",
            hint="python -m phases run --next gives it up; then decide",
        )
    return DecisionContext(project, CommitTree(repo, repo.head()), snapshot, phase)


def _require_unchanged(proposal: Proposal, actual: Proposal) -> None:
    """Refuse to record anything but what the approver saw."""
    if proposal != actual:
        raise IntegrityError(
            "ledger-moved",
            "what was asked about changed before the answer came; nothing was recorded. "
            f"It is now:\n{actual.question}",
            hint="type the command again and read it anew",
        )
