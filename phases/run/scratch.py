"""`run --scratch`: run and judge one feature for its developer; nothing is recorded.

It writes no entry, no result and no commit, and nothing that it says counts as verified.
"""

from __future__ import annotations

from phases.errors import UsageError
from phases.execution.process import log_tail
from phases.execution.sandbox import choose_sandbox
from phases.record import entries
from phases.record.project import Project, load_unverified
from phases.record.transaction import new_txn
from phases.run.attempt import prepare_attempt, run_attempt
from phases.run.outcome import ran_line
from phases.run.results import FeatureResult, count_checks, judgement_lines
from phases.run.setup import run_setup
from phases.views.live import View

LOG_LINES = 15


def run_scratch(
    project: Project, view: View, feature_id: str, profile: str | None
) -> FeatureResult:
    """Run and judge one feature in staging, with any profile, also from uncommitted code."""
    try:
        phase, feature = project.plan.feature(feature_id)
    except KeyError:
        message = f"the plan has no feature {feature_id!r}"
        raise UsageError(message, hint="python -m phases plan") from None
    sandbox = choose_sandbox(project.plan.defaults.sandbox)
    run_setup(project, phase, sandbox, view)

    # 1. Run and judge, as an attempt does.
    with prepare_attempt(
        project,
        project.repo(),
        sandbox,
        state=load_unverified(project).state,
        phase=phase,
        feature=feature,
        txn=new_txn(),
        scratch_profile=profile or feature.profile or project.plan.defaults.profile,
    ) as spec:
        title = f"{feature.title} [scratch]"
        view.feature_started(feature.id, title, feature.expect.minutes)
        result = run_attempt(spec, view)

        # 2. What happened; of a run without outputs also the end of its log.
        lines = [ran_line(spec, result)]
        if not result.outputs:
            lines += log_tail(spec.log).splitlines()[-LOG_LINES:]
    if result.judgement is None:
        lines += entries.reason_lines(result.errors)
    else:
        lines += judgement_lines(feature.gate.name, result.judgement)
    passed, failing = count_checks(result.judgement)
    summary = FeatureResult(
        id=feature.id,
        state=result.state,
        seconds=max(1, round(result.process.seconds)),
        lines=tuple(lines),
        passed=passed,
        failing=failing,
        timed_out=result.process.timed_out,
    )
    view.feature_finished(
        feature.id, f"{result.state} [scratch: nothing was recorded]", summary.lines
    )
    return summary
