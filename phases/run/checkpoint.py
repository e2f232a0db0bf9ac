"""The end of a phase: its exit gates and the review request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from phases.base import durable
from phases.execution.inputs import copy_outputs
from phases.judge.committed_gates import gate_descriptor
from phases.judge.verdict import verdict_of
from phases.plan.schema import Phase
from phases.record.entries import RecordedFile
from phases.record.halts import exit_lines, exit_reasons
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
    failing: list[str] = []
    verdicts: list[Verdict] = []
    for gate, judgement in judgements:
        failing += judgement.true_run.failing
        descriptor = gate_descriptor(workspace.tree, workspace.plan, gate)
        verdict = verdict_of(judgement, outputs=subjects, configuration=[descriptor])
        verdicts.append(verdict)
    phase_verdict = PhaseVerdict(phase=phase.id, verdicts=tuple(verdicts))
    data = phase_verdict.encode()
    path = f"{project.paths.phase_results(phase.id)}/verdict.json"
    verdict_file = RecordedFile(durable.sha256(data), path)
    return ExitGateResult(
        txn=new_txn(),
        lines=exit_lines(phase, phase_verdict, verdict_file),
        reasons=exit_reasons(phase_verdict),
        failing=tuple(failing),
        files={path: data},
        verdict=verdict_file.sha256,
    )
