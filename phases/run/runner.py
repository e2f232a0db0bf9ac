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
        session.lock           LOCKED, at a phase's first feature
        session.start          STARTED
        run_attempt            work: a child process, only its staging folder is its own;
                               collect: outputs against the declaration, hashed;
                               judge: the gate on a read-only copy, then on mutants
        session.record         receipt, verdict, results, entry, one commit; refs/phases/log moves
      halt                   exit gates, review request, HALTED, commit; nothing more runs

FAILED (a gate failed), ERRORED (it could not be run or judged) and waiting are three different
things: in the state, in the words, in the exit code.
"""

from __future__ import annotations

from phases.base.failpoint import failpoint
from phases.errors import EnvironmentFaultError, InterruptedRunError
from phases.plan.schema import Feature, Phase
from phases.record.project import Project, load_verified
from phases.record.state import FeatureState, next_step
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
from phases.run.outcome import record_of
from phases.run.plan_locks import require_lock_unchanged
from phases.run.preflight import (
    check_committed_folders,
    check_equals_head,
    check_machine,
    check_publish,
    check_repository,
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
        refuse_waiting(project, session.state, request)
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
    check_equals_head(repo, session.plan, phase, None)
    require_lock_unchanged(project, repo, session.snapshot, phase)
    run_setup(project, phase, session.sandbox, session.view)
    run_entry_gates(project, phase, session.sandbox, session.view)


def run_features(session: Session, phase: Phase, step: Step, request: RunRequest) -> Step | None:
    """Run features of the phase one after the other; return the step that follows, or None."""
    remaining = [item for item in session.state.phase(phase.id).features if not item.is_done]
    session.view.phase_started(phase.id, phase.name, 1 if request.only else len(remaining))
    failed: set[str] = set()
    while isinstance(step, RunFeature) and step.phase == phase.id:
        _, feature = session.plan.feature(step.feature)
        result = run_feature(session, phase, feature)
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


def run_feature(session: Session, phase: Phase, feature: Feature) -> FeatureResult:
    """Make one attempt at one feature, from its lock to its commit."""
    # 1. What the receipt will name is committed and locked.
    check_equals_head(session.repo, session.plan, phase, feature)
    check_publish(session.repo, list(feature.publish.values()))
    failpoint("plan_lock")
    session.lock(phase)
    failpoint("locked")

    # 2. Inputs and gates are laid out; the attempt starts.
    session.view.feature_started(feature.id, feature.title, feature.expect.minutes)
    txn = new_txn()
    failpoint("start")
    with prepare_attempt(
        session.project,
        session.repo,
        session.sandbox,
        state=session.state,
        phase=phase,
        feature=feature,
        txn=txn,
    ) as spec:
        session.start(spec)
        failpoint("started")

        # 3. Work, collect, judge. The experiment may have touched the record or its own code.
        try:
            result = run_attempt(spec, session.view)
            load_verified(session.project, session.repo)
            check_equals_head(session.repo, session.plan, phase, feature)
        except (InterruptedRunError, EnvironmentFaultError, OSError) as error:
            session.interrupt(phase, feature, str(error))
            raise

        # 4. Record it.
        session.view.stage(Stage.RECORD)
        failpoint("record")
        outcome = record_of(spec, result, session.snapshot)
        session.record(spec, outcome)
    return outcome.result


def halt(session: Session, phase: Phase) -> tuple[str, ...]:
    """Run the exit gates and halt for the approver; return their failing checks."""
    failpoint("halt")
    check_equals_head(session.repo, session.plan, phase, None)
    require_lock_unchanged(session.project, session.repo, session.snapshot, phase)
    exit_result = judge_exit_gates(
        session.project,
        session.repo,
        session.sandbox,
        state=session.state,
        phase=phase,
        view=session.view,
    )
    if exit_result.reasons:
        session.fail_exit(phase, exit_result)
        reason = exit_result.reasons[0]
        session.view.message(f"phase {phase.id}: the exit gates failed: {reason}")
        return exit_result.failing
    session.halt(phase, exit_result)
    return ()
