"""Runs that leave no trace: `run --scratch` for whoever develops a feature, `verify` for whoever doubts a stored one.

Neither writes an entry, a result or a commit, and nothing that they say counts as verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from phases.errors import UsageError
from phases.execution import worker
from phases.execution.inputs import check_inputs, encode_inputs, lay_out_outputs, resolve_inputs
from phases.execution.process import log_tail
from phases.execution.sandbox import choose_sandbox
from phases.judge.committed_gates import materialise_gates
from phases.judge.gate import gate_spec, judge_feature
from phases.judge.mutation import Judgement
from phases.judge.verdict import coverage_counts
from phases.record import entries, transaction
from phases.record.project import Project, load_unverified, load_verified
from phases.record.state import FeatureStatus
from phases.run import attempt, setup
from phases.views.live import View


@dataclass(frozen=True)
class ScratchResult:
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
            "checks": {
                "passed": self.passed,
                "failed": len(self.failing),
                "failing": list(self.failing),
            },
        }


def run_scratch(
    project: Project, view: View, feature_id: str, profile: str | None
) -> ScratchResult:
    """Runs and judges one feature in staging, with any profile, also from uncommitted code."""
    repo = project.repo()
    snapshot = load_unverified(project)
    try:
        phase, feature = project.plan.feature(feature_id)
    except KeyError:
        raise UsageError(
            f"no feature {feature_id!r} in the PRD", hint="python -m phases plan"
        ) from None
    tier = choose_sandbox(project.plan.defaults.sandbox)
    setup.run_setup(project, phase, tier, view)
    chosen = profile or attempt.profile_of(project.plan, feature)
    with attempt.plan(
        project,
        repo,
        snapshot.state,
        phase,
        feature,
        tier,
        transaction.new_txn(),
        scratch_profile=chosen,
    ) as planned:
        view.feature_started(feature.id, f"{feature.title} [scratch]", feature.expect.minutes)
        judged = attempt.run(planned, view)
        lines = [
            entries.ran(
                planned.what,
                judged.finished.seconds,
                planned.number,
                planned.seed,
                planned.profile,
                tier.tier,
            )
        ]
        if not judged.outputs:
            lines += log_tail(planned.log).splitlines()[-15:]
        rehearsed = _told(
            feature.id, judged.judgement, judged.state, lines, judged.reasons, feature.gate.name
        )
    view.feature_finished(
        feature.id, f"{rehearsed.state} [scratch: nothing was recorded]", rehearsed.lines
    )
    return rehearsed


def verify_features(
    project: Project, view: View, feature_ids: Sequence[str]
) -> list[ScratchResult]:
    """Judges stored results again, gate and proof, with a fresh nonce.

    Raises:
        IntegrityError: what is stored is not what the receipt names.
        EnvironmentFaultError: an artifact or input is not on this machine.
    """
    repo = project.repo()
    snapshot = load_verified(project, repo)
    states = {
        item.id: (phase.id, item) for phase in snapshot.state.phases for item in phase.features
    }
    unknown = [name for name in feature_ids if name not in states]
    if unknown:
        raise UsageError(f"no feature {unknown[0]!r} in the PRD", hint="python -m phases status")
    chosen = feature_ids or [name for name, (_, item) in states.items() if item.receipt]
    return [_verify_one(project, view, states[name][1]) for name in chosen]


def _verify_one(project: Project, view: View, item: FeatureStatus) -> ScratchResult:
    if item.receipt is None:
        raise UsageError(
            f"{item.id} is {item.state} and has no stored results", hint="python -m phases status"
        )
    repo = project.repo()
    _, feature = project.plan.feature(item.id)
    states = load_unverified(project).state
    with worker.staging(project.root) as place:
        out = place.folder / "stored"
        outputs = lay_out_outputs(project.paths, item.id, item.receipt, out)
        given = resolve_inputs(
            project.plan, feature, states, project.paths, repo, place.folder / "given"
        )
        check_inputs(given)
        place.inputs_file.write_bytes(encode_inputs(given))
        materialise_gates(repo, place.folder / "judge")
        view.feature_started(item.id, f"{item.title} [verify]", None)
        view.stage("judge")
        judgement = judge_feature(
            gate_spec(feature.gate, feature.gate_timeout_s or project.plan.defaults.gate_timeout_s),
            gates_dir=place.folder / "judge",
            out=out,
            outputs=outputs,
            inputs_file=place.inputs_file,
            workspace=place.folder / "judgement",
            env={**project.plan.defaults.env, **place.environment},
            sandbox=choose_sandbox(project.plan.defaults.sandbox),
            unjudged=feature.unjudged,
            on_progress=view.progress,
        )
    told = _told(item.id, judgement, judgement.state, [], (), feature.gate.name)
    view.feature_finished(
        item.id, f"{told.state} again" if told.state == "verified" else told.state, told.lines
    )
    return told


def _told(
    feature_id: str,
    judgement: Judgement | None,
    state: str,
    lines: list[str],
    reasons: Sequence[str],
    gate_name: str,
) -> ScratchResult:
    if judgement is None:
        return ScratchResult(feature_id, state, (*lines, *entries.reasons(reasons)), 0, ())
    checks = judgement.true_run.checks
    failing = tuple(check.id for check in checks if not check.passed)
    passed = len(checks) - len(failing)
    caught = (sum(item.ok for item in judgement.negatives), len(judgement.negatives))
    lines = [
        *lines,
        *entries.gate(
            gate_name, passed, len(failing), coverage_counts(judgement), caught, judgement.unjudged
        ),
    ]
    if judgement.coverage and judgement.coverage.claimed:
        lines += [f"only claimed: {', '.join(judgement.coverage.claimed)}"]
    messages = [f"{check.id}: {check.message}" for check in checks if not check.passed]
    return ScratchResult(
        feature_id,
        state,
        (*lines, *entries.reasons([*judgement.reasons, *messages])),
        passed,
        failing,
    )
