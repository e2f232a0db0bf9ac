"""run_next(): the path of a phase from the plan to its checkpoint, as one visible list of verbs.

    run_next
      load        load_verified: plan, chain, journal, history and approvals must hold
      lock        one_runner: one runner per repository
      recover     recovery.recover: finish or undo what a killed run left half done
      choose      next_step: RunFeature | RunExit | AwaitApproval | Done | …
      prepare     preflight, sandbox tier, setup, entry gates: a refusal comes before any work
      run_feature
        plan_lock   at a phase's first feature: LOCKED
        start       STARTED
        work        attempt.work: a child process, only its staging folder is its own
        collect     outputs against the declaration, hashed
        judge       judge_feature on a read-only copy, then on the negative copies
        record      receipt, verdict, results, entry
        commit      one commit with trailers; refs/phases/log moves
      halt        exit gates, review request, HALTED, commit; nothing more runs

FAILED (the gate said no), ERRORED (it could not be run or judged) and waiting are three different things.
"""

from __future__ import annotations

from phases.base.failpoint import failpoint
from phases.errors import (
    EnvironmentFaultError,
    InterruptedRunError,
)
from phases.execution import process
from phases.execution.sandbox import choose_sandbox
from phases.git.one_runner import one_runner
from phases.plan.schema import Feature, Phase
from phases.record import approvals, entries, transaction
from phases.record.project import Project, load_unverified, load_verified
from phases.record.state import next_step
from phases.record.steps import Done, RunExit, RunFeature, Step
from phases.record.transaction import is_due, trailers
from phases.run import attempt, checkpoint, preflight, recovery, setup
from phases.run.outcome import outcome_of
from phases.run.plan_locks import check_lock, lock_file, lock_plan
from phases.run.refusals import choose, refuse_blocked, refuse_spent, refuse_while_waiting
from phases.run.session import FeatureOutcome, Outcome, Session
from phases.views.live import View


def run_next(
    project: Project,
    view: View,
    *,
    only: str | None = None,
    force: bool = False,
    keep_going: bool = False,
) -> Outcome:
    """Runs the next phase up to its checkpoint (or `only` one feature of the open phase).

    Raises:
        WaitingForHumanError: a phase awaits its approval; nothing was run.
        IntegrityError, EnvironmentFaultError, LimitReachedError, LockedError, UsageError: as errors.py says.
    """
    failpoint("load")
    glanced, due = load_unverified(project), is_due(project.paths)
    doubtful = (
        project.probe.rewound
        or glanced.reconciled.problems
        or approvals.unrecorded(project.root, glanced.ledger)
    )
    if not (due or doubtful):
        # A loop that calls again and again at a checkpoint is turned away before git is loaded; this can only refuse.
        refuse_while_waiting(project, next_step(project.plan, glanced.state), only, force)
    repo = project.repo()
    snapshot = load_verified(project, repo)
    if not due:
        refuse_while_waiting(project, next_step(project.plan, snapshot.state), only, force)
    failpoint("lock")
    with one_runner(project.paths, repo), process.signals_forwarded():
        session = Session(
            project,
            repo,
            load_verified(project, repo),
            view,
            choose_sandbox(project.plan.defaults.sandbox),
        )
        if recovery.will_commit(session):
            preflight.check_repository(
                repo, with_locks=False
            )  # not onto a detached HEAD, not amid a merge
        recovery.recover(session)
        failpoint("choose")
        step = choose(session, only, force)
        refuse_while_waiting(project, step, only, force)
        if isinstance(step, Done):
            return Outcome(None, "done")
        refuse_spent(step)
        refuse_blocked(step)
        phase = project.plan.phase(step.phase)
        prepare(session, phase)
        return _run_phase(session, phase, step, only, keep_going)


def _run_phase(
    session: Session, phase: Phase, step: Step, only: str | None, keep_going: bool
) -> Outcome:
    left = [item for item in session.snapshot.state.phase(phase.id).features if not item.is_done]
    session.view.phase_started(phase.id, phase.name, 1 if only else len(left))
    failed: set[str] = set()
    while isinstance(step, RunFeature) and step.phase == phase.id:
        outcome = run_feature(session, phase, session.plan.feature(step.feature)[1])
        session.ran.append(outcome)
        if outcome.state != "verified":
            failed.add(outcome.id)
            if not keep_going or outcome.timed_out:
                return _stopped(session, phase)
        if only:
            step = next_step(session.plan, session.snapshot.state)
            if not isinstance(step, RunExit):
                return _stopped(session, phase)
            break
        step = next_step(session.plan, session.snapshot.state, failed)
    if isinstance(step, RunExit):
        failing = halt(session, phase)
        return Outcome(
            phase.id, session.snapshot.state.phase(phase.id).state, tuple(session.ran), failing
        )
    refuse_blocked(step)
    return _stopped(session, phase)


def _stopped(session: Session, phase: Phase) -> Outcome:
    return Outcome(phase.id, session.snapshot.state.phase(phase.id).state, tuple(session.ran))


#### choose


#### prepare


def prepare(session: Session, phase: Phase) -> None:
    """Everything that can refuse a run does so here, before any work and before any entry about it."""
    failpoint("prepare")
    preflight.check_repository(session.repo)
    preflight.check_places(session.repo, session.project.paths)
    preflight.check_machine(session.project.paths)
    preflight.check_equals_head(session.repo, session.plan, phase, None)
    check_lock(session, phase)
    setup.run_setup(session.project, phase, session.tier, session.view)
    setup.run_entry_gates(session.project, phase, session.tier, session.view)


#### run_feature


def run_feature(session: Session, phase: Phase, feature: Feature) -> FeatureOutcome:
    """One attempt at one feature, from its lock to its commit."""
    preflight.check_equals_head(session.repo, session.plan, phase, feature)
    preflight.check_publish(session.repo, list(feature.publish.values()))
    failpoint("plan_lock")
    lock_plan(session, phase)
    failpoint("locked")
    expected = feature.expect.minutes
    session.view.feature_started(feature.id, feature.title, expected)
    txn = transaction.new_txn()
    failpoint("start")
    with attempt.plan(
        session.project, session.repo, session.snapshot.state, phase, feature, session.tier, txn
    ) as planned:
        session.append(
            "STARTED",
            entries.started(
                planned.what,
                planned.number,
                planned.seed,
                planned.profile,
                session.tier.tier,
                planned.commit,
                txn,
            ),
            phase.id,
            feature,
        )
        failpoint("started")
        try:
            judged = attempt.run(planned, session.view)
            load_verified(session.project, session.repo)
            preflight.check_equals_head(session.repo, session.plan, phase, feature)
        except (InterruptedRunError, EnvironmentFaultError, OSError) as error:
            recovery.interrupted(session, phase, feature, str(error))
            raise
        session.view.stage("record")
        failpoint("record")
        outcome = outcome_of(planned, judged, session.snapshot)
        entry = session.seal(outcome.kind, outcome.lines, phase.id, feature)
        session.view.stage("commit")
        failpoint("commit")
        files = {
            **outcome.files,
            **lock_file(session.project.paths, session.snapshot.state.phase(phase.id)),
        }
        session.commit(
            transaction.Transaction(
                txn, (entry,), outcome.message, outcome.trailers, files, outcome.removed
            )
        )
    session.view.feature_finished(feature.id, outcome.kind.lower(), outcome.lines)
    return FeatureOutcome(
        feature.id,
        outcome.kind.lower(),
        outcome.seconds,
        outcome.passed,
        outcome.failing,
        outcome.receipt,
        outcome.timed_out,
    )


#### halt


def halt(session: Session, phase: Phase) -> tuple[str, ...]:
    """Exit gates, review request, HALTED entry, commit. Returns the failing checks; empty at a checkpoint."""
    failpoint("halt")
    preflight.check_equals_head(session.repo, session.plan, phase, None)
    check_lock(session, phase)
    judged = checkpoint.judge_exit(
        session.project, session.repo, session.snapshot.state, phase, session.tier, session.view
    )
    if judged.reasons:
        entry = session.seal("FAILED", (*judged.lines, *entries.reasons(judged.reasons)), phase.id)
        session.commit(
            transaction.Transaction(
                judged.txn,
                (entry,),
                f"Phase {phase.id} {phase.name}: exit gates failed",
                trailers(phase.id),
                judged.files,
            )
        )
        session.view.message(f"phase {phase.id}: the exit gates said no: {judged.reasons[0]}")
        return judged.failing
    files, lines = checkpoint.ask_review(
        session.project, session.repo, session.snapshot, phase, judged
    )
    entry = session.seal("HALTED", (*judged.lines, *lines), phase.id)
    session.commit(
        transaction.Transaction(
            judged.txn,
            (entry,),
            f"Phase {phase.id} {phase.name}: awaiting approval",
            trailers(phase.id),
            files,
        )
    )
    return ()
