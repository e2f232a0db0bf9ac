"""Runs that leave no trace: `run --scratch` for whoever develops a feature, `verify` for whoever doubts a stored one.

Neither writes an entry, a result or a commit, and nothing that they say counts as verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from phases.execution import inputs, sandbox, worker
from phases.judge import gate
from phases.record import entries, project, transaction as record
from phases.run import attempt, checkpoint, setup
from phases.errors import UsageError
from phases.views.live import View
from phases.run.outcome import coverage_counts
from phases.record.project import Project
from phases.record.state import FeatureState


@dataclass(frozen=True)
class Rehearsal:
    """What a run without trace said."""

    id: str
    state: str
    lines: tuple[str, ...]
    passed: int
    failing: tuple[str, ...]

    def json(self) -> dict[str, Any]:
        """One feature of `verify --json` and `run --scratch --json`."""
        return {
            "id": self.id,
            "state": self.state,
            "lines": list(self.lines),
            "checks": {"passed": self.passed, "failed": len(self.failing), "failing": list(self.failing)},
        }


def scratch(opened: Project, view: View, feature_id: str, profile: str | None) -> Rehearsal:
    """Runs and judges one feature in staging, with any profile, also from uncommitted code."""
    repo = opened.repo()
    book = project.glance(opened)
    try:
        phase, feature = opened.prd.feature(feature_id)
    except KeyError:
        raise UsageError(f"no feature {feature_id!r} in the PRD", remedy="python -m phases plan") from None
    tier = sandbox.choose(opened.prd.defaults.sandbox)
    setup.run_setup(opened, phase, tier, view)
    chosen = profile or attempt.profile_of(opened.prd, feature)
    with attempt.plan(
        opened, repo, book.state, phase, feature, tier, record.new_txn(), scratch_profile=chosen
    ) as planned:
        view.feature_started(feature.id, f"{feature.title} [scratch]", feature.expect.minutes)
        judged = attempt.run(planned, view)
        lines = [
            entries.ran(planned.what, judged.finished.seconds, planned.number, planned.seed, planned.profile, tier.tier)
        ]
        if not judged.outputs:
            lines += setup.log_tail(planned.log).splitlines()[-15:]
        rehearsed = _told(feature.id, judged.judgement, judged.state, lines, judged.reasons, feature.gate.name)
    view.feature_finished(feature.id, f"{rehearsed.state} [scratch: nothing was recorded]", rehearsed.lines)
    return rehearsed


def verify(opened: Project, view: View, feature_ids: Sequence[str]) -> list[Rehearsal]:
    """Judges stored results again, gate and proof, with a fresh nonce.

    Raises:
        IntegrityError: what is stored is not what the receipt names.
        EnvironmentFaultError: an artifact or input is not on this machine.
    """
    repo = opened.repo()
    book = project.read(opened, repo)
    states = {item.id: (phase.id, item) for phase in book.state.phases for item in phase.features}
    unknown = [name for name in feature_ids if name not in states]
    if unknown:
        raise UsageError(f"no feature {unknown[0]!r} in the PRD", remedy="python -m phases status")
    chosen = feature_ids or [name for name, (_, item) in states.items() if item.receipt]
    return [_verify_one(opened, view, states[name][1]) for name in chosen]


def _verify_one(opened: Project, view: View, item: FeatureState) -> Rehearsal:
    if item.receipt is None:
        raise UsageError(f"{item.id} is {item.state} and has no stored results", remedy="python -m phases status")
    repo = opened.repo()
    _, feature = opened.prd.feature(item.id)
    states = project.glance(opened).state
    with worker.staging(opened.root) as place:
        out = place.folder / "stored"
        outputs = inputs.lay_out(opened.paths, item.id, item.receipt, out)
        given = inputs.resolve(opened.prd, feature, states, opened.paths, repo, place.folder / "given")
        inputs.check(given)
        place.inputs_file.write_bytes(inputs.document(given))
        checkpoint.materialise_gates(repo, place.folder / "judge")
        view.feature_started(item.id, f"{item.title} [verify]", None)
        view.stage("judge")
        judgement = gate.judge(
            setup.spec(feature.gate, feature.gate_timeout_s or opened.prd.defaults.gate_timeout_s),
            gates_dir=place.folder / "judge",
            out=out,
            outputs=outputs,
            inputs_file=place.inputs_file,
            workspace=place.folder / "judgement",
            env={**opened.prd.defaults.env, **place.environment},
            sandbox=sandbox.choose(opened.prd.defaults.sandbox),
            unjudged=feature.unjudged,
            on_progress=view.progress,
        )
    told = _told(item.id, judgement, judgement.state, [], (), feature.gate.name)
    view.feature_finished(item.id, f"{told.state} again" if told.state == "verified" else told.state, told.lines)
    return told


def _told(
    feature_id: str,
    judgement: gate.Judgement | None,
    state: str,
    lines: list[str],
    reasons: Sequence[str],
    gate_name: str,
) -> Rehearsal:
    if judgement is None:
        return Rehearsal(feature_id, state, (*lines, *entries.reasons(reasons)), 0, ())
    checks = judgement.true_run.checks
    failing = tuple(check.id for check in checks if not check.passed)
    passed = len(checks) - len(failing)
    caught = (sum(item.ok for item in judgement.negatives), len(judgement.negatives))
    lines = [
        *lines,
        *entries.gate(gate_name, passed, len(failing), coverage_counts(judgement), caught, judgement.unjudged),
    ]
    if judgement.coverage and judgement.coverage.claimed:
        lines += [f"only claimed: {', '.join(judgement.coverage.claimed)}"]
    messages = [f"{check.id}: {check.message}" for check in checks if not check.passed]
    return Rehearsal(feature_id, state, (*lines, *entries.reasons([*judgement.reasons, *messages])), passed, failing)
