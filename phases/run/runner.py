"""run_next(): the path of a phase from the plan to its checkpoint, as one visible list of verbs.

    run_next
      load        project.read: plan, chain, journal, history and approvals must hold
      lock        one_runner: one runner per repository
      recover     recovery.recover: finish or undo what a killed run left half done
      choose      state.next_step: RunFeature | RunExit | AwaitApproval | Done | …
      prepare     preflight, sandbox tier, setup, entry gates: a refusal comes before any work
      run_feature
        plan_lock   at a phase's first feature: LOCKED
        start       STARTED
        work        attempt.work: a child process, only its staging folder is its own
        collect     outputs against the declaration, hashed
        judge       gate.judge on a read-only copy, then on the negative copies
        record      receipt, verdict, results, entry
        commit      one commit with trailers; refs/phases/log moves
      halt        exit gates, review request, HALTED, commit; nothing more runs

FAILED (the gate said no), ERRORED (it could not be run or judged) and waiting are three different things.
"""

from __future__ import annotations

from phases.base import durable, failpoint as fault
from phases.execution import process, sandbox
from phases.plan import lock as plan_lock
from phases.record import approvals as approval, entries, project, state, transaction as record
from phases.run import attempt, checkpoint, preflight, recovery, setup
from phases.errors import (
    EnvironmentFaultError,
    IntegrityError,
    InterruptedRunError,
    LimitReachedError,
    UsageError,
    WaitingForHumanError,
)
from phases.views.live import View
from phases.git.one_runner import one_runner
from phases.run.outcome import outcome_of
from phases.plan.schema import Feature, Phase
from phases.record.project import Project
from phases.run.session import FeatureOutcome, Outcome, Session
from phases.record.state import AttemptsSpent, AwaitApproval, Blocked, Done, RunExit, RunFeature, Step
from phases.record.steps import ways_on


def run_next(
    opened: Project, view: View, *, only: str | None = None, force: bool = False, keep_going: bool = False
) -> Outcome:
    """Runs the next phase up to its checkpoint (or `only` one feature of the open phase).

    Raises:
        WaitingForHumanError: a phase awaits its approval; nothing was run.
        IntegrityError, EnvironmentFaultError, LimitReachedError, LockedError, UsageError: as errors.py says.
    """
    fault.point("load")
    glanced, due = project.glance(opened), recovery.is_due(opened.paths)
    doubtful = opened.probe.rewound or glanced.reconciled.problems or approval.unrecorded(opened.root, glanced.ledger)
    if not (due or doubtful):
        # A loop that calls again and again at a checkpoint is turned away before git is loaded; this can only refuse.
        _refuse_while_waiting(opened, state.next_step(opened.prd, glanced.state), only, force)
    repo = opened.repo()
    book = project.read(opened, repo)
    if not due:
        _refuse_while_waiting(opened, state.next_step(opened.prd, book.state), only, force)
    fault.point("lock")
    with one_runner(opened.paths, repo), process.signals_forwarded():
        session = Session(opened, repo, project.read(opened, repo), view, sandbox.choose(opened.prd.defaults.sandbox))
        if recovery.will_commit(session):
            preflight.check_repository(repo, with_locks=False)  # not onto a detached HEAD, not amid a merge
        recovery.recover(session)
        fault.point("choose")
        step = choose(session, only, force)
        _refuse_while_waiting(opened, step, only, force)
        if isinstance(step, Done):
            return Outcome(None, "done")
        _refuse_spent(step)
        _refuse_blocked(step)
        phase = opened.prd.phase(step.phase)
        prepare(session, phase)
        return _run_phase(session, phase, step, only, keep_going)


def _run_phase(session: Session, phase: Phase, step: Step, only: str | None, keep_going: bool) -> Outcome:
    left = [item for item in session.book.state.phase(phase.id).features if not item.is_done]
    session.view.phase_started(phase.id, phase.name, 1 if only else len(left))
    failed: set[str] = set()
    while isinstance(step, RunFeature) and step.phase == phase.id:
        outcome = run_feature(session, phase, session.prd.feature(step.feature)[1])
        session.ran.append(outcome)
        if outcome.state != "verified":
            failed.add(outcome.id)
            if not keep_going or outcome.timed_out:
                return _stopped(session, phase)
        if only:
            step = state.next_step(session.prd, session.book.state)
            if not isinstance(step, RunExit):
                return _stopped(session, phase)
            break
        step = state.next_step(session.prd, session.book.state, failed)
    if isinstance(step, RunExit):
        failing = halt(session, phase)
        return Outcome(phase.id, session.book.state.phase(phase.id).state, tuple(session.ran), failing)
    _refuse_blocked(step)
    return _stopped(session, phase)


def _stopped(session: Session, phase: Phase) -> Outcome:
    return Outcome(phase.id, session.book.state.phase(phase.id).state, tuple(session.ran))


#### choose


def choose(session: Session, only: str | None, force: bool) -> Step:
    """What to do now: the next step, or the one feature that was asked for."""
    step = state.next_step(session.prd, session.book.state)
    if only is None:
        return step
    phase, feature = _known_feature(session.project, only)
    current = session.book.state.phase(phase.id)
    opened = None if isinstance(step, Done) else step.phase
    if current.state == "approved":
        raise UsageError(
            f"{only} is in phase {phase.id}, which is approved: its results stand",
            remedy=f"python -m phases reject {phase.id} --reason '…' reopens it",
        )
    if phase.id != opened:
        raise UsageError(
            f"{only} is in phase {phase.id}, which is not open yet; phase {opened} is", remedy="python -m phases status"
        )
    known = current.feature(only)
    if known.is_done and not force:
        raise UsageError(f"{only} is {known.state} already", remedy=f"python -m phases run --feature {only} --force")
    states = {item.id: item.state for each in session.book.state.phases for item in each.features}
    missing = [need for need in feature.needs if states[need] != "verified"]
    if missing and states[missing[0]] == "waived":
        return Blocked(phase.id, only, missing[0], session.project.prd.feature(missing[0])[0].id)
    if missing:
        raise UsageError(
            f"{only} needs {', '.join(missing)} first", remedy=f"python -m phases run --feature {missing[0]}"
        )
    if state.is_spent(session.prd, current, known):
        return AttemptsSpent(phase.id, only, known.attempts)
    return RunFeature(phase.id, only)


def _known_feature(opened: Project, feature_id: str) -> tuple[Phase, Feature]:
    try:
        return opened.prd.feature(feature_id)
    except KeyError:
        known = ", ".join(feature.id for phase in opened.prd.phases for feature in phase.features)
        raise UsageError(
            f"no feature {feature_id!r} in the PRD; it has {known}", remedy="python -m phases status"
        ) from None


def _refuse_while_waiting(opened: Project, step: Step, only: str | None, force: bool) -> None:
    if isinstance(step, AwaitApproval) and not (only and force):
        name, results = opened.prd.phase(step.phase).name, opened.prd.results
        raise WaitingForHumanError(
            f"Phase {step.phase} ({name}) awaits your approval; nothing was run. "
            f"To review: {results}/, progress.txt, git log",
            remedy=f"python -m phases approve {step.phase}",
        )


def _refuse_spent(step: Step) -> None:
    if isinstance(step, AttemptsSpent):
        what = step.feature or "the exit gates"
        raise LimitReachedError(
            f"{what} of phase {step.phase} failed {step.attempts} times under this plan lock, as often as the plan "
            "allows (attempts); nothing was run",
            remedy="a person types one of: " + "; ".join(ways_on(step)),
        )


def _refuse_blocked(step: Step) -> None:
    if isinstance(step, Blocked):
        raise WaitingForHumanError(
            f"{step.feature} of phase {step.phase} needs {step.waived}, which was waived and gives nothing",
            remedy="a person types one of: " + "; ".join(ways_on(step)),
        )


#### prepare


def prepare(session: Session, phase: Phase) -> None:
    """Everything that can refuse a run does so here, before any work and before any entry about it."""
    fault.point("prepare")
    preflight.check_repository(session.repo)
    preflight.check_places(session.repo, session.project.paths)
    preflight.check_machine(session.project.paths)
    preflight.check_equals_head(session.repo, session.prd, phase, None)
    check_lock(session, phase)
    setup.run_setup(session.project, phase, session.tier, session.view)
    setup.run_entry_gates(session.project, phase, session.tier, session.view)


def check_lock(session: Session, phase: Phase) -> None:
    """Stops where the plan is not what the open phase was locked on."""
    current = session.book.state.phase(phase.id)
    if current.lock is None:
        return
    locked = checkpoint.read_lock(session.project.paths, current)
    differing = plan_lock.differences(locked, checkpoint.compose_lock(session.project, session.repo, phase))
    if differing:
        shown = checkpoint.lock_diff(session.repo, session.book.ledger, phase.id, differing)
        raise IntegrityError(
            "plan-changed",
            f"the plan of phase {phase.id} is not what was locked at its start: {', '.join(differing)}{shown}",
            remedy=f"bring it back, or python -m phases relock {phase.id} --reason '…'",
        )


#### run_feature


def run_feature(session: Session, phase: Phase, feature: Feature) -> FeatureOutcome:
    """One attempt at one feature, from its lock to its commit."""
    preflight.check_equals_head(session.repo, session.prd, phase, feature)
    preflight.check_publish(session.repo, list(feature.publish.values()))
    fault.point("plan_lock")
    lock_plan(session, phase)
    fault.point("locked")
    expected = feature.expect.minutes
    session.view.feature_started(feature.id, feature.title, expected)
    txn = record.new_txn()
    fault.point("start")
    with attempt.plan(session.project, session.repo, session.book.state, phase, feature, session.tier, txn) as planned:
        session.append(
            "STARTED",
            entries.started(
                planned.what, planned.number, planned.seed, planned.profile, session.tier.tier, planned.commit, txn
            ),
            phase.id,
            feature,
        )
        fault.point("started")
        try:
            judged = attempt.run(planned, session.view)
            project.read(session.project, session.repo)
            preflight.check_equals_head(session.repo, session.prd, phase, feature)
        except (InterruptedRunError, EnvironmentFaultError, OSError) as error:
            recovery.interrupted(session, phase, feature, str(error))
            raise
        session.view.stage("record")
        fault.point("record")
        outcome = outcome_of(planned, judged, session.book)
        entry = session.seal(outcome.kind, outcome.lines, phase.id, feature)
        session.view.stage("commit")
        fault.point("commit")
        files = {**outcome.files, **checkpoint.lock_file(session.project.paths, session.book.state.phase(phase.id))}
        session.commit(record.Record(txn, (entry,), outcome.message, outcome.trailers, files, outcome.removed))
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


def lock_plan(session: Session, phase: Phase) -> None:
    """LOCKED, at a phase's first feature and after a rejection."""
    if session.book.state.phase(phase.id).lock is not None:
        check_lock(session, phase)
        return
    if not session.book.ledger.entries:
        session.append("GENESIS", entries.genesis(session.prd.project, session.repo.root_commit()))
    lock = checkpoint.compose_lock(session.project, session.repo, phase)
    path = checkpoint.lock_path(session.project.paths, phase.id)
    durable.write(session.project.root / path, lock.data)
    fault.point("lock_written")
    session.append("LOCKED", entries.locked(entries.Located(lock.digest, path), session.repo.head()), phase.id)


#### halt


def halt(session: Session, phase: Phase) -> tuple[str, ...]:
    """Exit gates, review request, HALTED entry, commit. Returns the failing checks; empty at a checkpoint."""
    fault.point("halt")
    preflight.check_equals_head(session.repo, session.prd, phase, None)
    check_lock(session, phase)
    judged = checkpoint.judge_exit(session.project, session.repo, session.book.state, phase, session.tier, session.view)
    if judged.reasons:
        entry = session.seal("FAILED", (*judged.lines, *entries.reasons(judged.reasons)), phase.id)
        session.commit(
            record.Record(
                judged.txn,
                (entry,),
                f"Phase {phase.id} {phase.name}: exit gates failed",
                checkpoint.trailers(phase.id),
                judged.files,
            )
        )
        session.view.message(f"phase {phase.id}: the exit gates said no: {judged.reasons[0]}")
        return judged.failing
    files, lines = checkpoint.ask_review(session.project, session.repo, session.book, phase, judged)
    entry = session.seal("HALTED", (*judged.lines, *lines), phase.id)
    session.commit(
        record.Record(
            judged.txn,
            (entry,),
            f"Phase {phase.id} {phase.name}: awaiting approval",
            checkpoint.trailers(phase.id),
            files,
        )
    )
    return ()
