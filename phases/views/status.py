"""What status, plan and approve show: text and JSON made from the state alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from phases.base.text import printable
from phases.plan.outline import PlanLike
from phases.record.overrides import Override
from phases.record.state import FeatureStatus, PhaseStatus
from phases.record.steps import (
    AttemptsSpent,
    AwaitApproval,
    Blocked,
    Done,
    RunExit,
    RunFeature,
    Step,
    Stuck,
    next_commands,
)

if TYPE_CHECKING:
    from phases.plan.schema import Phase, Plan
    from phases.record.project import Snapshot

MARKS = {
    "verified": "✓",
    "waived": "~",
    "failed": "✗",
    "errored": "!",
    "running": "…",
    "pending": "·",
}
WORDS = {
    "pending": "pending",
    "running": "running",
    "failed": "failed",
    "awaiting_approval": "awaits your approval",
    "approved": "approved",
}


def next_action(step: Step) -> dict[str, Any]:
    """The one thing to do next, for people and scripts."""
    if isinstance(step, AwaitApproval):
        return {
            "action": "approve",
            "phase": step.phase,
            "feature": None,
            "command": f"python -m phases approve {step.phase}",
        }
    if isinstance(step, Done):
        return {"action": "done", "phase": None, "feature": None, "command": None}
    if isinstance(step, AttemptsSpent | Blocked):
        action = "run" if isinstance(step, AttemptsSpent) else "approve"
        return {
            "action": action,
            "phase": step.phase,
            "feature": step.feature,
            "command": next_commands(step)[0],
        }
    feature = step.feature if isinstance(step, RunFeature) else None
    return {
        "action": "run",
        "phase": step.phase,
        "feature": feature,
        "command": "python -m phases run --next",
    }


def coverage(feature: FeatureStatus) -> float | None:
    """Share of the measurements that the gate recomputes or bounds; None before there are any."""
    counts = feature.coverage
    return round((counts[0] + counts[1]) / counts[2], 4) if counts and counts[2] else None


def status_json(plan: PlanLike, snapshot: Snapshot, step: Step) -> dict[str, Any]:
    """`status --json`, as docs/cli.md gives it."""
    entries = snapshot.ledger.entries
    return {
        "project": plan.project,
        "head": {"entry": entries[-1].seq if entries else 0, "hash": snapshot.ledger.head},
        "phases": [
            {
                "id": phase.id,
                "name": phase.name,
                "state": phase.state,
                "features": [
                    {
                        "id": item.id,
                        "title": item.title,
                        "state": item.state,
                        "attempts": item.attempts,
                        "seconds": item.seconds,
                        "receipt": f"sha256:{item.receipt}" if item.receipt else None,
                        "coverage": coverage(item),
                    }
                    for item in phase.features
                ],
            }
            for phase in snapshot.state.phases
        ],
        "next": next_action(step),
    }


def status_text(
    plan: PlanLike, snapshot: Snapshot, step: Step, results: str, ascii_only: bool = False
) -> str:
    """Where the project stands, for a person; the last line is the command to type next."""
    lines = [
        plan.project,
        *_decided([note for phase in snapshot.state.phases for note in phase.notes]),
    ]
    for phase in snapshot.state.phases:
        lines += ["", f"Phase {phase.id} · {phase.name} · {WORDS[phase.state]}"]
        lines += [_feature_line(item) for item in phase.features]
    lines += ["", *_next_lines(snapshot, step, results)]
    text = "\n".join(lines)
    return (
        text
        if not ascii_only
        else text.translate({ord("✓"): "+", ord("✗"): "x", ord("·"): "-", ord("…"): "."})
    )


def _decided(notes: Sequence[Override]) -> list[str]:
    """Relocks, rejections and waivers, before anything else; nothing where there are none."""
    return (
        ["", "Decided by a person:", *(f"  {printable(note.sentence, 400)}" for note in notes)]
        if notes
        else []
    )


def _feature_line(feature: FeatureStatus) -> str:
    facts = []
    if feature.seconds is not None:
        facts.append(f"{feature.seconds} s")
    if feature.coverage:
        recomputed, bounded, total = feature.coverage
        facts.append(f"coverage {recomputed} + {bounded} of {total}")
    if feature.attempts > 1 or feature.state in ("failed", "errored"):
        facts.append(f"{feature.attempts} attempts" if feature.attempts != 1 else "1 attempt")
    tail = f"  ({', '.join(facts)})" if facts else ""
    return f"  {MARKS[feature.state]} {feature.id:<10} {feature.title:<36} {feature.state}{tail}"


def _next_lines(snapshot: Snapshot, step: Step, results: str) -> list[str]:
    command = next_action(step)["command"]
    if isinstance(step, AwaitApproval):
        return [
            f"Phase {step.phase} awaits your approval. To review: {results}/, progress.txt, git log.",
            f"next: {command}",
        ]
    if isinstance(step, Done):
        return ["Every phase is approved; nothing is left to do."]
    if isinstance(step, AttemptsSpent):
        what = step.feature or "the exit gates"
        said = f"{what} failed {step.attempts} times under this plan lock; a person decides how to go on."
        return [said, *(f"or: {way}" for way in next_commands(step)[1:]), f"next: {command}"]
    if isinstance(step, Blocked):
        said = f"{step.feature} needs {step.waived}, which was waived and gives nothing; a person decides how to go on."
        return [said, *(f"or: {way}" for way in next_commands(step)[1:]), f"next: {command}"]
    if isinstance(step, Stuck):
        return [f"left in phase {step.phase}: {', '.join(step.features)}.", f"next: {command}"]
    return [f"next: {command}"]


def plan_json(plan: Plan, snapshot: Snapshot, step: Step) -> dict[str, Any]:
    """`plan --json`: what `run --next` would do."""
    if not isinstance(step, RunFeature | RunExit | AttemptsSpent | Blocked | Stuck):
        return {"phase": getattr(step, "phase", None), "features": [], "next": next_action(step)}
    phase, state = plan.phase(step.phase), snapshot.state.phase(step.phase)
    features = [
        {
            "id": item.id,
            "title": item.title,
            "reason": reason(state.feature(item.id)),
            "runs": item.module or item.command,
            "minutes": item.expect.minutes,
            "memory_gb": item.expect.memory_gb,
        }
        for item in phase.features
        if not state.feature(item.id).is_done
    ]
    return {"phase": step.phase, "features": features, "next": next_action(step)}


def plan_text(plan: Plan, snapshot: Snapshot, step: Step) -> str:
    """What `run --next` would do and why, with expected minutes and memory."""
    if isinstance(step, AwaitApproval):
        return (
            f"run --next would run nothing: phase {step.phase} awaits your approval.\nnext: "
            + str(next_action(step)["command"])
        )
    if isinstance(step, Done):
        return "run --next would run nothing: every phase is approved."
    if isinstance(step, AttemptsSpent | Blocked):
        return "run --next would run nothing: " + "\n".join(
            _next_lines(snapshot, step, plan.results)
        )
    summary = plan_json(plan, snapshot, step)
    phase = plan.phase(step.phase)
    lines = [f"run --next would run phase {phase.id}, {phase.name}, up to its checkpoint:"]
    lines += [f"  setup   {command}" for command in phase.setup]
    lines += [f"  entry   {item.name}" for item in phase.entry]
    for item in summary["features"]:
        lines.append(f"  {item['id']:<10} {item['title']:<36} {item['runs']}")
        lines.append(
            f"             about {item['minutes']:g} min, {item['memory_gb']:g} GB; {item['reason']}"
        )
    lines += [f"  exit    {item.name}" for item in phase.exit]
    total = sum(item["minutes"] for item in summary["features"])
    peak = max((item["memory_gb"] for item in summary["features"]), default=0)
    lines += [
        f"in all about {total:g} min, at most {peak:g} GB; then it halts for your approval of phase {phase.id}"
    ]
    return "\n".join(lines)


def reason(item: FeatureStatus) -> str:
    """Why a feature that is not done would run."""
    if item.state in ("failed", "errored"):
        return f"attempt {item.started} {item.state}"
    if item.state == "running":
        return "the last run was killed"
    return "not run yet" if item.started == 0 else "runs again"


def checkpoint_text(
    phase: Phase, state: PhaseStatus, details: Mapping[str, Mapping[str, Any]], results: str
) -> str:
    """The summary that a person reads before a decision.

    Args:
        phase: as the plan has it.
        state: as the ledger has it.
        details: feature id -> checks, predictions, unjudged kinds, claimed measurements, as the stored verdicts say.
        results: the folder where the results lie.
    """
    lines = [
        f"Phase {phase.id} · {phase.name} · {WORDS[state.state]}",
        *_decided(state.notes),
        *_repeated(state),
        "",
    ]
    for item in state.features:
        found = details.get(item.id, {})
        lines.append(f"{item.id} {item.title}: {item.state}, attempt {item.started}")
        if unjudged := found.get("unjudged"):
            lines.append(f"    UNJUDGED by the plan's own word: {', '.join(unjudged)}")
        if "passed" in found:
            lines.append(
                f"    checks: {found['passed']} passed; fails on {found['caught']} negative copies"
            )
        if item.coverage:
            recomputed, bounded, total = item.coverage
            lines.append(
                f"    coverage: {recomputed} recomputed + {bounded} bounded of {total} measurements"
                + (f"; only claimed: {', '.join(found['claimed'])}" if found.get("claimed") else "")
            )
        lines += [f"    prediction {text}" for text in found.get("predictions", ())]
        if item.receipt and item.state == "verified":
            lines.append(f"    receipt sha256:{item.receipt}  {results}/{item.id}/receipt.json")
    if state.request:
        lines += ["", f"review request sha256:{state.request}"]
    return "\n".join(printable(line, 400) for line in lines)


def _repeated(state: PhaseStatus) -> list[str]:
    """Features that took more than one attempt: whoever approves should know that it was tried until it passed."""
    again = [
        f"  {item.id}: {item.started} attempts in all"
        for item in state.features
        if item.started > 1
    ]
    exits = [f"  exit gates: said no {state.exit_attempts} times"] if state.exit_attempts else []
    return ["", "Tried more than once:", *again, *exits] if again or exits else []


def verdict_details(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What of a stored verdict a person should see."""
    predicate = verdict["predicate"]
    proof = predicate.get("phases/gate/v1", {})
    negatives = proof.get("negatives", [])
    return {
        "passed": len(predicate["passedTests"]),
        "caught": f"{sum(bool(item['ok']) for item in negatives)} of {len(negatives)}",
        "unjudged": proof.get("unjudged", []),
        "claimed": (proof.get("coverage") or {}).get("claimed", []),
        "predictions": [
            f"{item['outcome']}: {item['claim']}"
            for item in predicate.get("phases/predictions/v1", [])
        ],
    }
