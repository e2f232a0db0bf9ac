"""status: the state of the project and the next command, as text and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from phases.base.text import format_count, printable
from phases.git.checks import abort_in_progress
from phases.git.way_back import ledger_way
from phases.plan.schema import Plan
from phases.record import entries
from phases.record.overrides import Override
from phases.record.pending import read_pending
from phases.record.project import Project, Snapshot, rewound_error, snapshot_problems
from phases.record.state import FeatureStatus, PhaseStatus, next_step
from phases.record.states import FeatureState, PhaseState
from phases.record.steps import (
    AttemptsSpent,
    AwaitApproval,
    Blocked,
    Done,
    RunFeature,
    Step,
    Stuck,
    next_commands,
)
from phases.views.stale import NOTHING_STALE, Stale

MARKS = {
    FeatureState.VERIFIED: "✓",
    FeatureState.WAIVED: "~",
    FeatureState.FAILED: "✗",
    FeatureState.ERRORED: "!",
    FeatureState.RUNNING: "…",
    FeatureState.PENDING: "·",
}
PHASE_WORDS = {
    PhaseState.PENDING: "pending",
    PhaseState.RUNNING: "running",
    PhaseState.FAILED: "failed",
    PhaseState.AWAITING_APPROVAL: "awaits your approval",
    PhaseState.APPROVED: "approved",
}
_ASCII = str.maketrans({"✓": "+", "✗": "x", "·": "-", "…": "."})


#### the next command


class Action(StrEnum):
    """What kind of command is next."""

    RUN = "run"
    APPROVE = "approve"
    DONE = "done"


@dataclass(frozen=True)
class NextAction:
    """The one command to type next."""

    action: Action
    phase: int | None = None
    feature: str | None = None
    command: str | None = None


def next_action(step: Step) -> NextAction:
    """Return the command for a step."""
    match step:
        case Done():
            return NextAction(Action.DONE)
        case AwaitApproval(phase):
            command = f"python -m phases approve {phase}"
            return NextAction(Action.APPROVE, phase, command=command)
        case AttemptsSpent(phase, feature):
            return NextAction(Action.RUN, phase, feature, next_commands(step)[0])
        case Blocked(phase, feature):
            return NextAction(Action.APPROVE, phase, feature, next_commands(step)[0])
        case RunFeature(phase, feature):
            return NextAction(Action.RUN, phase, feature, "python -m phases run --next")
    # The exit gates, or features that failed in this very run.
    return NextAction(Action.RUN, step.phase, command="python -m phases run --next")


def next_lines(step: Step, results: str) -> list[str]:
    """Return what comes next and why; the last line is the command, where there is one.

    `results` is the folder that the approver reviews.
    """
    # 1. Why this comes next, where the command alone does not say it.
    lines = []
    match step:
        case Done():
            return ["Every phase is approved; there is nothing left to do."]
        case AwaitApproval(phase):
            review = f"To review: {results}/, progress.txt, git log."
            lines.append(f"Phase {phase} awaits your approval. {review}")
        case AttemptsSpent(_, feature, attempts):
            subject = feature or "the exit gates"
            spent = f"{subject} failed {attempts} times under this plan lock"
            lines.append(f"{spent}; the approver decides how to go on.")
        case Blocked(_, feature, waived):
            blocked = f"{feature} needs {waived}, which was waived and has no results"
            lines.append(f"{blocked}; the approver decides how to go on.")
        case Stuck(phase, features):
            lines.append(f"not verified in phase {phase}: {', '.join(features)}.")

    # 2. The commands; the usual one comes last, where a reader looks for it.
    if isinstance(step, AttemptsSpent | Blocked):
        lines += [f"or: {command}" for command in next_commands(step)[1:]]
    lines.append(f"next: {next_action(step).command}")
    return lines


#### status


def status_json(plan: Plan, snapshot: Snapshot, *, stale: Stale = NOTHING_STALE) -> dict[str, Any]:
    """Return the object that `status --json` prints."""
    newest = 0
    if snapshot.ledger.entries:
        newest = snapshot.ledger.entries[-1].seq
    step = next_step(plan, snapshot.state)
    return {
        "project": plan.project,
        "head": {"entry": newest, "hash": snapshot.ledger.head},
        "phases": [_phase_json(phase, stale) for phase in snapshot.state.phases],
        "next": asdict(next_action(step)),
    }


def _phase_json(phase: PhaseStatus, stale: Stale) -> dict[str, Any]:
    features = [
        {
            "id": feature.id,
            "title": feature.title,
            "state": feature.state,
            "attempts": feature.attempts,
            "interruptions": feature.interruptions,
            "seconds": feature.seconds,
            "receipt": receipt_name(feature),
            "coverage": coverage_fraction(feature),
            "digest_only": list(feature.digest_only),
            "exempt": list(feature.exempt),
            "stale": list(stale.get(feature.id, ())),
        }
        for feature in phase.features
    ]
    return {"id": phase.id, "name": phase.name, "state": phase.state, "features": features}


def receipt_name(feature: FeatureStatus) -> str | None:
    """Return `sha256:…` of the newest verified attempt's receipt, or None."""
    if feature.receipt is None:
        return None
    return f"sha256:{feature.receipt}"


def coverage_fraction(feature: FeatureStatus) -> float | None:
    """Return the share of the measurements that the gate recomputes or bounds, or None."""
    if feature.coverage is None:
        return None
    recomputed, bounded, total = feature.coverage
    if total == 0:
        return None
    return round((recomputed + bounded) / total, 4)


def status_text(
    plan: Plan,
    snapshot: Snapshot,
    *,
    stale: Stale = NOTHING_STALE,
    ascii_only: bool = False,
) -> str:
    """Return the state for a reader: overrides first, the command to type next last."""
    # 1. Overrides of every phase: no reader should have to look for them.
    phases = snapshot.state.phases
    overrides: list[Override] = []
    for phase in phases:
        overrides += phase.overrides
    lines = [plan.project, *override_lines(overrides)]

    # 2. The phases with their features, and what comes next.
    for phase in phases:
        lines += ["", phase_heading(phase)]
        for feature in phase.features:
            lines.append(_feature_line(feature))
            lines += [f"      {line}" for line in protection_lines(feature)]
            lines += [f"      stale: {change}" for change in stale.get(feature.id, ())]
    lines += ["", *next_lines(next_step(plan, snapshot.state), plan.results)]
    text = "\n".join(lines)
    # A terminal or pipe that cannot print the marks must not end the command.
    if ascii_only:
        text = text.translate(_ASCII)
    return text


def phase_heading(phase: PhaseStatus) -> str:
    """Return `Phase 1 · NAME · awaits your approval`."""
    return f"Phase {phase.id} · {phase.name} · {PHASE_WORDS[phase.state]}"


def override_lines(overrides: Sequence[Override]) -> list[str]:
    """Return the relocks, rejections and waivers under a heading; nothing where there are none."""
    if not overrides:
        return []
    sentences = [f"  {printable(override.sentence, 400)}" for override in overrides]
    return ["", "overrides:", *sentences]


def coverage_text(feature: FeatureStatus) -> str:
    """Return `measurement coverage 12 + 3 of 17`: recomputed, bounded, all; "" without any."""
    if feature.coverage is None:
        return ""
    recomputed, bounded, total = feature.coverage
    return f"measurement coverage {recomputed} + {bounded} of {total}"


def attempts_text(feature: FeatureStatus) -> str:
    """Return `3 attempts in all, 2 of them interrupted`: whatever was reset since."""
    text = f"{format_count(feature.started, 'attempt')} in all"
    if feature.interruptions:
        text += f", {feature.interruptions} of them interrupted"
    return text


def protection_lines(feature: FeatureStatus) -> list[str]:
    """Return what of the outputs nobody judged: sealed by digests, or exempt from that too."""
    lines = [entries.DIGEST_ONLY.format(text=target) for target in feature.digest_only]
    lines += [entries.EXEMPT.format(exemption=exemption) for exemption in feature.exempt]
    return lines


def _feature_line(feature: FeatureStatus) -> str:
    details = []
    if feature.seconds is not None:
        details.append(f"{feature.seconds} s")
    if feature.coverage:
        details.append(coverage_text(feature))
    # A single attempt that passed needs no mention.
    is_failure = feature.state in (FeatureState.FAILED, FeatureState.ERRORED)
    if feature.attempts > 1 or is_failure or (feature.attempts and feature.interruptions):
        details.append(format_count(feature.attempts, "attempt"))
    if feature.interruptions:
        details.append(format_count(feature.interruptions, "interruption"))
    line = f"  {MARKS[feature.state]} {feature.id:<10} {feature.title:<36} {feature.state}"
    if details:
        line += f"  ({', '.join(details)})"
    return line


#### warnings


def record_warnings(project: Project, snapshot: Snapshot) -> list[str]:
    """Return what is invalid in the record, as far as views look: they warn and never refuse."""
    # 1. The history, the ledger, then what anchors it and its decisions.
    warnings = []
    problems = snapshot.reconciled.problems
    if project.probe.is_rewound:
        error = rewound_error(project)
        warnings.append(f"warning: {error.code}: {error}\nnext: {error.hint}")
    elif not problems:
        problems = snapshot_problems(project, snapshot)
    for problem in problems:
        entry = f" (entry {problem.entry:04d})" if problem.entry else ""
        warnings.append(f"warning: {problem.code}: {problem.message}{entry}")

    if project.probe.is_shallow:
        message = "this clone is shallow: who recorded what cannot be seen here"
        warnings.append(f"warning: {message}\nnext: git fetch --unshallow")
    if problems and not project.probe.is_rewound and abort_in_progress(project.root):
        # Two records amid a merge: what `next` says cannot be done before.
        way = ledger_way(project.root, problems[0].code, project.plan.results)
        warnings.append(f"next: {way}")

    for foreign in read_pending(project.paths).errors:
        warnings.append(f"warning: {foreign.code}: {foreign}\nnext: {foreign.hint}")

    # 2. What is as it should be, and not obvious.
    if snapshot.reconciled.restored and not project.probe.is_rewound:
        message = "progress.txt lacks its last entry, which the journal has"
        warnings.append(f"note: {message}: a runner writes it now, or the next run restores it")
    pulled = snapshot.reconciled.pulled
    if pulled and snapshot.reconciled.has_journal:
        warnings.append(f"note: {pulled.text}; the next run or decision takes this over")
    return warnings
