"""`run --scratch`: run and judge one feature for its developer; nothing is recorded.

It writes no entry, no result and no commit, and nothing that it says counts as verified.
"""

from __future__ import annotations

from phases.errors import UsageError
from phases.execution.process import log_tail
from phases.execution.sandbox import choose_sandbox
from phases.git.tree import WorkTree
from phases.record import entries
from phases.record.outcome_lines import ran_line, whole_seconds
from phases.record.project import Project, load_unverified
from phases.record.transaction import new_txn
from phases.run.attempt import prepare_attempt, run_attempt
from phases.run.results import FeatureResult, count_checks, judgement_lines
from phases.run.setup import run_setup
from phases.run.workspace import SCRATCH_MARK, open_workspace
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
    marked_id = f"{feature.id} {SCRATCH_MARK}"
    sandbox = choose_sandbox(project.plan.defaults.sandbox)
    tree = WorkTree(project.root)
    state = load_unverified(project).state
    with open_workspace(project, project.plan, state, tree, sandbox, view=view) as workspace:
        run_setup(workspace, phase, view)

        # 1. Run and judge, as an attempt does.
        spec = prepare_attempt(
            workspace,
            phase,
            feature,
            tree.lay_out(workspace.staging.tree),
            txn=new_txn(),
            scratch_profile=profile or feature.profile or project.plan.defaults.profile,
        )
        view.feature_started(marked_id, feature.title, feature.expect.minutes)
        result = run_attempt(spec, view)

        # 2. What happened; of a run without outputs also the end of its log.
        lines = [
            ran_line(
                spec.program,
                result.process.seconds,
                attempt=spec.number,
                seed=spec.seed,
                profile=spec.profile,
                sandbox=spec.workspace.sandbox.tier,
            )
        ]
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
        seconds=whole_seconds(result.process.seconds),
        lines=tuple(f"{SCRATCH_MARK} {line}" for line in lines),
        passed=passed,
        failing=failing,
        timed_out=result.process.timed_out,
    )
    view.feature_finished(marked_id, f"{result.state}, nothing was recorded,", summary.lines)
    return summary
