"""run_next(): the path of a phase from the plan to its checkpoint, in the order of its lines.

    run_next
      refuse_early           a cheap refusal at a checkpoint, before the lock
      open_session           one runner per repository; plan, chain, journal, history and
                             decisions must be valid
      refuse_waiting         the same refusal, from what was verified
      recover                complete or undo what a killed run left
      choose_step            RunFeature | RunExit | Done; raises where nothing may run
      prepare                preflight, setup, entry gates: a refusal comes before any work
      run_features           for each feature:
        check_work_tree        what decides is committed: commit C runs, not the work tree
        session.lock           LOCKED, at a phase's first feature
        prepare_attempt        C is laid out in a folder of its own, the inputs are resolved
        session.start          STARTED names C
        run_attempt            work: a child process, in its own copy of C;
                               collect: outputs against the declaration, hashed;
                               judge: gates of C, laid out now; then mutants
        require_recordable     HEAD may have advanced; C must still be in its history
        session.record         receipt, verdict, results, entry, one commit; refs/phases/log moves
      halt                   exit gates, review request, HALTED, commit; nothing more runs

FAILED (a gate failed), ERRORED (it could not be run or judged) and waiting are three different
things: in the state, in the words, in the exit code.
"""

from __future__ import annotations

from dataclasses import replace

from phases.base.failpoint import failpoint
from phases.errors import EnvironmentFaultError, InterruptedRunError
from phases.git.tree import CommitTree
from phases.plan.schema import Phase, Plan
from phases.record.project import Project
from phases.record.state import next_step
from phases.record.states import FeatureState
from phases.record.steps import Blocked, Done, RunExit, RunFeature, Step
from phases.record.transaction import new_txn
from phases.run.attempt import prepare_attempt, run_attempt
from phases.run.checkpoint import judge_exit_gates
from phases.run.choose import (
    RunRequest,
    choose_step,
    refuse_early,
    refuse_waiting,
    require_runnable,
)
from phases.run.history import interrupt, require_recordable, require_same_history
from phases.run.kept_copy import KeptCopy, kept_copy
from phases.run.outcome import record_of
from phases.run.plan_locks import require_lock_unchanged, require_plan
from phases.run.preflight import (
    check_committed_folders,
    check_machine,
    check_publish,
    check_repository,
    check_work_tree,
    describe_other_changes,
)
from phases.run.recovery import recover
from phases.run.results import FeatureResult, RunSummary
from phases.run.session import Session, open_session
from phases.run.setup import run_entry_gates, run_setup
from phases.views.live import Stage, View


def run_next(project: Project, view: View, request: RunRequest) -> RunSummary:
    """Run the next phase up to its checkpoint, or the one feature that was asked for.

    Raises:
        WaitingForHumanError: a phase awaits its approval; nothing was run.
        IntegrityError, EnvironmentFaultError, LimitReachedError, LockedError, UsageError: see
            errors.py.
    """
    refuse_early(project, request)
    with open_session(project, view) as session:
        refuse_waiting(project, session.snapshot, request)
        recover(session)
        step = choose_step(session.plan, session.state, request)
        if isinstance(step, Done):
            return RunSummary(phase=None, state=None)
        phase = session.plan.phase(step.phase)
        prepare(session, phase)
        step_after = run_features(session, phase, step, request)
        failing = halt(session, phase) if isinstance(step_after, RunExit) else ()
        return session.summary(phase, failing)


def prepare(session: Session, phase: Phase) -> None:
    """Refuse here whatever can be refused, before any work and before any entry about it."""
    failpoint("prepare")
    project, repo = session.project, session.repo
    check_repository(repo)
    check_committed_folders(repo, project.paths)
    check_machine(project.paths)
    tree = CommitTree(repo, repo.head())
    check_work_tree(tree, session.plan, phase, phase.features)
    not_part = describe_other_changes(tree, session.plan)
    if not_part:
        session.view.message(not_part)
    locked_plan(session, tree, phase)
    for step in (run_setup, run_entry_gates):
        with session.workspace(tree) as workspace:
            step(workspace, phase, session.view)


def run_features(session: Session, phase: Phase, step: Step, request: RunRequest) -> Step | None:
    """Run features of the phase one after the other; return the step that follows, or None."""
    remaining = [item for item in session.state.phase(phase.id).features if not item.is_done]
    session.view.phase_started(phase.id, phase.name, 1 if request.only else len(remaining))
    failed: set[str] = set()
    with kept_copy(session.project.root) as copy:
        while isinstance(step, RunFeature) and step.phase == phase.id:
            result = run_feature(session, phase, step.feature, copy)
            if result.state != FeatureState.VERIFIED:
                failed.add(result.id)
                if not request.keep_going or result.timed_out:
                    return None
            step = next_step(session.plan, session.state, failed)
            if request.only:
                return step
    # Something was run: attempts of the next feature that are spent end the run without an error.
    if isinstance(step, Blocked):
        require_runnable(step)
    return step


def run_feature(session: Session, phase: Phase, feature_id: str, copy: KeptCopy) -> FeatureResult:
    """Make one attempt at one feature, from its lock to its commit."""
    # 1. The commit that runs; what decides about the run is committed and locked.
    tree, branch = session.code_tree(), session.repo.branch()
    plan = locked_plan(session, tree, phase)
    _, feature = plan.feature(feature_id)
    check_work_tree(tree, plan, phase, [feature])
    check_publish(tree, list(feature.publish.values()))
    failpoint("plan_lock")
    session.lock(phase, tree)
    failpoint("locked")

    # 2. The commit is laid out; the attempt starts.
    session.view.feature_started(feature.id, feature.title, feature.expect.minutes)
    failpoint("start")
    with session.workspace(tree) as workspace:
        layout = copy.lay_out(tree, workspace.staging.tree)
        spec = prepare_attempt(workspace, phase, feature, layout, txn=new_txn(), branch=branch)
        spec = replace(spec, started=session.start(spec))
        failpoint("started")

        # 3. Work, collect, judge. Meanwhile the experiment may have touched the record, and the
        #    user may have moved HEAD.
        try:
            result = run_attempt(spec, session.view)
            if not result.discarded:
                copy.keep()
            require_recordable(session, spec)
        except (InterruptedRunError, EnvironmentFaultError, OSError) as error:
            interrupt(session, str(error))
            raise

        # 4. Record it.
        session.view.stage(Stage.RECORD)
        failpoint("record")
        outcome = record_of(spec, result, session.snapshot)
        session.record(spec, outcome)
    return outcome.result


def locked_plan(session: Session, tree: CommitTree, phase: Phase) -> Plan:
    """Return the plan of a commit, after it was compared with the phase's lock.

    A commit since the run began may have changed it; phases that are not open do not matter.
    """
    require_lock_unchanged(session.project, tree, session.snapshot, phase)
    plan = require_plan(tree)
    names = ("defaults", "approval", "inputs", "results", "sample")
    is_same = all(getattr(plan, name) == getattr(session.plan, name) for name in names)
    if not is_same or plan.phase(phase.id) != phase:
        raise EnvironmentFaultError(
            f"the plan of phase {phase.id} was changed while this run was at work",
            hint="python -m phases run --next reads it anew",
        )
    return plan


def halt(session: Session, phase: Phase) -> tuple[str, ...]:
    """Run the exit gates and halt for the approver; return their failing checks."""
    failpoint("halt")
    tree, branch = CommitTree(session.repo, session.repo.head()), session.repo.branch()
    plan = locked_plan(session, tree, phase)
    check_work_tree(tree, plan, phase, [])  # no code of a feature runs any more
    with session.workspace(tree) as workspace:
        exit_result = judge_exit_gates(workspace, phase, session.view)
    require_same_history(session, tree.commit, branch)
    head = CommitTree(session.repo, session.repo.head())
    require_lock_unchanged(session.project, head, session.snapshot, phase)
    if exit_result.reasons:
        session.fail_exit(phase, exit_result)
        reason = exit_result.reasons[0]
        session.view.message(f"phase {phase.id}: the exit gates failed: {reason}")
        return exit_result.failing
    session.halt(phase, tree, plan, exit_result)
    return ()
