"""The end of a phase: its exit gates and the review request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from phases.base import durable
from phases.base.text import utc_now
from phases.execution.inputs import copy_outputs
from phases.git.tree import CommitTree
from phases.judge.committed_gates import gate_descriptor
from phases.judge.verdict import failed_checks, gate_summary, verdict_of
from phases.plan.schema import Phase, Plan
from phases.record import entries
from phases.record.entries import RecordedFile
from phases.record.ledger import EntryKind
from phases.record.project import Snapshot
from phases.record.review_request import (
    GitCommit,
    PhaseName,
    Review,
    ReviewedFeature,
    ReviewRequest,
    Sha256,
)
from phases.record.state import PhaseStatus, done_counts
from phases.record.statement import file_subjects
from phases.record.states import FeatureState
from phases.record.transaction import new_txn
from phases.record.verdict import PhaseVerdict, Verdict
from phases.run.workspace import Workspace
from phases.views.live import View


@dataclass(frozen=True)
class ExitGateResult:
    """What the exit gates found, and what is recorded of it."""

    txn: str
    lines: tuple[str, ...]
    reasons: tuple[str, ...]
    """Why the phase did not pass; empty if it did."""
    failing: tuple[str, ...]
    files: Mapping[str, bytes]
    """`verdict.json` of the phase."""
    verdict: str | None
    """SHA-256 of the verdict; None where the phase has no exit gates."""


def judge_exit_gates(workspace: Workspace, phase: Phase, view: View) -> ExitGateResult:
    """Run the exit gates over all results of the phase, and test that they can fail."""
    project, status = workspace.project, workspace.state.phase(phase.id)
    if not phase.exit:
        return ExitGateResult(new_txn(), (), (), (), {}, None)
    view.message(f"phase {phase.id}: exit gates")

    # 1. Lay out the outputs of the verified features; exit gates may recompute from their inputs.
    waived = [item.id for item in status.features if item.state == FeatureState.WAIVED]
    inputs = sorted({name for feature in phase.features for name in feature.inputs})
    judge = workspace.prepare_judge(phase.exit, inputs)
    folders: dict[str, Path] = {}
    outputs: dict[str, dict[str, str]] = {}
    for item in status.features:
        if item.state == FeatureState.VERIFIED:
            folder = workspace.staging.folder / "phase" / item.id
            folders[item.id] = folder
            outputs[item.id] = copy_outputs(project.paths, item.id, item.receipt, folder)

    # 2. Judge them by each gate.
    judgements = []
    for number, gate in enumerate(phase.exit):
        judgement = judge.judge_phase(gate, number, folders=folders, outputs=outputs, waived=waived)
        judgements.append((gate, judgement))

    # 3. What is recorded.
    subjects = {}
    for feature_id, digests in outputs.items():
        for path, digest in digests.items():
            subjects[f"{feature_id}/{path}"] = digest
    lines: list[str] = []
    reasons: list[str] = []
    failing: list[str] = []
    verdicts: list[Verdict] = []
    for gate, judgement in judgements:
        lines += gate_summary(gate.name, judgement).lines
        lines += entries.failing_lines(failed_checks(judgement))
        failing += judgement.true_run.failing
        if judgement.state != FeatureState.VERIFIED:
            reasons += judgement.reasons or ("failed",)
        descriptor = gate_descriptor(workspace.tree, workspace.plan, gate)
        verdicts.append(verdict_of(judgement, outputs=subjects, configuration=[descriptor]))
    data = PhaseVerdict(phase=phase.id, verdicts=tuple(verdicts)).encode()
    path = f"{project.paths.phase_results(phase.id)}/verdict.json"
    verdict_file = RecordedFile(durable.sha256(data), path)
    lines.append(verdict_file.line(entries.VERDICT))
    return ExitGateResult(
        txn=new_txn(),
        lines=tuple(lines),
        reasons=tuple(reasons),
        failing=tuple(failing),
        files={path: data},
        verdict=verdict_file.sha256,
    )


def compose_request(
    tree: CommitTree, plan: Plan, snapshot: Snapshot, phase: Phase, exit_result: ExitGateResult
) -> ReviewRequest:
    """Return the review request of a phase whose exit gates passed on a commit."""
    status = snapshot.state.phase(phase.id)

    # 1. Gates by digest.
    gates = {gate.name: gate for gate in phase.exit}
    for feature in phase.features:
        gates[feature.gate.name] = feature.gate

    # 2. Features; their receipts are the subjects.
    features = []
    receipts = {}
    for item in status.features:
        receipt = item.receipt if item.state == FeatureState.VERIFIED else None
        if receipt:
            receipts[item.id] = receipt
        features.append(
            ReviewedFeature(
                id=item.id,
                title=item.title,
                state=item.state,
                receipt=receipt,
                attempts=item.attempts,
                measurement_coverage=item.coverage,
            )
        )

    # 3. How often the phase has halted before.
    halts = [
        entry
        for entry in snapshot.ledger.entries
        if entry.kind == EntryKind.HALTED and entry.phase == phase.id
    ]
    verdict = exit_result.verdict
    review = Review(
        phase=PhaseName(id=phase.id, name=phase.name),
        attempt=len(halts) + 1,
        commit=GitCommit(git_commit=tree.commit),
        lock=Sha256(sha256=status.lock or ""),
        gates=tuple(gate_descriptor(tree, plan, gates[name]) for name in sorted(gates)),
        features=tuple(features),
        exit_verdict=Sha256(sha256=verdict) if verdict else None,
        requested_on=utc_now(),
        txn=exit_result.txn,
    )
    return ReviewRequest(subject=file_subjects(receipts), predicate=review)


def halt_lines(request: RecordedFile, status: PhaseStatus, head: str) -> tuple[str, ...]:
    """Return the lines by which a HALTED entry names what waits for the approver."""
    return (
        entries.FEATURES.format(counts=done_counts(status.done.values())),
        request.line(entries.REQUEST),
        entries.HEAD.format(commit=head),
        entries.NEXT.format(command=f"python -m phases approve {status.id}"),
    )
