"""A phase's two ends: the plan lock at its start, the exit gates and the review request at its halt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phases.base import durable
from phases.base.paths import request_path
from phases.base.text import utc_now
from phases.execution import worker
from phases.execution.inputs import (
    ResolvedInput,
    cached_input,
    check_inputs,
    encode_inputs,
    lay_out_outputs,
    tracked_input,
)
from phases.execution.sandbox import Sandbox
from phases.git.repo import Repo
from phases.judge.committed_gates import gate_digest, materialise_gates
from phases.judge.gate import gate_spec, judge_phase
from phases.judge.mutation import Judgement
from phases.judge.verdict import verdict as verdict_document
from phases.plan.schema import Phase
from phases.record import approvals, entries, transaction
from phases.record.project import Project, Snapshot
from phases.record.receipt import encode
from phases.record.state import State
from phases.run.plan_locks import lock_file
from phases.views.live import View

#### the plan lock


#### gates from HEAD


#### the halt


@dataclass(frozen=True)
class ExitGateResult:
    """What the exit gates said."""

    txn: str
    lines: tuple[str, ...]
    reasons: tuple[str, ...]
    failing: tuple[str, ...]
    files: Mapping[str, bytes]
    """`verdict.json` of the phase, and its lock."""
    verdict: str | None
    """Digest of the verdict; None where the phase has no exit gates."""


def judge_exit(
    project: Project, repo: Repo, state: State, phase: Phase, tier: Sandbox, view: View
) -> ExitGateResult:
    """Runs the exit gates over all results of the phase, and proves them like any other gate."""
    current = state.phase(phase.id)
    files = lock_file(project.paths, current)
    done = [item for item in current.features if item.state == "verified"]
    waived = [item.id for item in current.features if item.state == "waived"]
    if not phase.exit:
        return ExitGateResult(transaction.new_txn(), (), (), (), files, None)
    view.message(f"phase {phase.id}: exit gates")
    with worker.staging(project.root) as place:
        folders = {item.id: place.folder / "phase" / item.id for item in done}
        outputs = {
            item.id: lay_out_outputs(project.paths, item.id, item.receipt, folders[item.id])
            for item in done
        }
        given = _phase_inputs(project, repo, phase)
        check_inputs(given)
        place.inputs_file.write_bytes(encode_inputs(given))
        materialise_gates(repo, place.folder / "judge")
        judgements = [
            judge_phase(
                gate_spec(item, project.plan.defaults.gate_timeout_s),
                gates_dir=place.folder / "judge",
                features=folders,
                outputs=outputs,
                inputs_file=place.inputs_file,
                workspace=place.folder / f"exit-{number}",
                sandbox=tier,
                env={
                    **project.plan.defaults.env,
                    **place.environment,
                    "PHASES_WAIVED": " ".join(waived),
                },
            )
            for number, item in enumerate(phase.exit)
        ]
    subject = {
        f"{name}/{path}": digest
        for name, found in outputs.items()
        for path, digest in found.items()
    }
    verdicts = [
        verdict_document(judged, outputs=subject, configuration=[_descriptor(repo, item.name)])
        for item, judged in zip(phase.exit, judgements, strict=True)
    ]
    data = encode({"phase": phase.id, "verdicts": verdicts})
    path = f"{project.paths.phase_results(phase.id)}/verdict.json"
    lines = [
        line
        for item, judged in zip(phase.exit, judgements, strict=True)
        for line in _gate_lines(item.name, judged)
    ]
    located = entries.RecordedFile(durable.sha256(data), path)
    reasons = [
        reason
        for judged in judgements
        if judged.state != "verified"
        for reason in judged.reasons or ("no",)
    ]
    failing = [
        check.id for judged in judgements for check in judged.true_run.checks if not check.passed
    ]
    return ExitGateResult(
        transaction.new_txn(),
        (*lines, located.line("verdict")),
        tuple(reasons),
        tuple(failing),
        {**files, path: data},
        located.sha256,
    )


def _phase_inputs(project: Project, repo: Repo, phase: Phase) -> list[ResolvedInput]:
    """The inputs of all features of the phase; exit gates may recompute from them."""
    names = sorted({name for feature in phase.features for name in feature.inputs})
    items = [project.plan.input(name) for name in names]
    return [
        cached_input(item) if item.is_cached else tracked_input(item, project.paths, repo)
        for item in items
    ]


def _descriptor(repo: Repo, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "digest": {"sha256": gate_digest(repo, name)} if name.startswith("gates/") else {},
    }


def _gate_lines(name: str, judged: Judgement) -> tuple[str, ...]:
    checks = judged.true_run.checks
    passed = sum(check.passed for check in checks)
    caught = (sum(item.ok for item in judged.negatives), len(judged.negatives))
    said_no = [(check.id, check.message) for check in checks if not check.passed]
    return (
        *entries.gate(name, passed, len(said_no), None, caught, judged.unjudged),
        *entries.failing(said_no),
    )


def ask_review(
    project: Project, repo: Repo, snapshot: Snapshot, phase: Phase, judged: ExitGateResult
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The review request, and the lines by which the HALTED entry names it."""
    current = snapshot.state.phase(phase.id)
    gates = {
        path: gate_digest(repo, path)
        for path in sorted(
            {
                item.pytest
                for item in (*phase.exit, *(f.gate for f in phase.features))
                if item.pytest
            }
        )
    }
    features = [
        {
            "id": item.id,
            "title": item.title,
            "state": item.state,
            "receipt": item.receipt if item.state == "verified" else None,
            "attempts": item.attempts,
            "coverage": list(item.coverage) if item.coverage else None,
        }
        for item in current.features
    ]
    number = 1 + sum(
        entry.kind == "HALTED" and entry.phase == phase.id for entry in snapshot.ledger.entries
    )
    data = approvals.request(
        phase.id,
        phase.name,
        number,
        lock=current.lock or "",
        gates=gates,
        features=features,
        exit_verdict=judged.verdict,
        txn=judged.txn,
        time=utc_now(),
    )
    located = entries.RecordedFile(durable.sha256(data), request_path(project.paths, phase.id))
    summary = ", ".join(
        f"{count} {word}"
        for word in ("verified", "waived")
        if (count := sum(item.state == word for item in current.features))
    )
    lines = (
        f"features: {summary}",
        located.line("request"),
        f"head {repo.head()}",
        f"a person decides: python -m phases approve {phase.id}",
    )
    return {**judged.files, located.path: data}, lines
