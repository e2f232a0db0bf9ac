"""The project's state: a pure fold over the plan and the ledger, and what comes next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from phases.plan.schema import Phase, Plan
from phases.record import entries
from phases.record.approval_rule import PRESENCE, ApprovalRule, stated_rule
from phases.record.decision_check import ValidDecision
from phases.record.evidence import Evidence
from phases.record.ledger import (
    DECISIONS,
    LOCKS_AND_DECISIONS,
    OUTCOMES,
    Entry,
    EntryKind,
    Problem,
)
from phases.record.overrides import Override, override_of
from phases.record.states import UNFINISHED_STATES, FeatureState, PhaseState
from phases.record.steps import (
    AttemptsSpent,
    AwaitApproval,
    Blocked,
    Done,
    RunExit,
    RunFeature,
    Step,
    Stuck,
)


@dataclass(frozen=True)
class FeatureStatus:
    """One feature as the ledger has it."""

    id: str
    title: str
    state: FeatureState = FeatureState.PENDING
    attempts: int = 0
    """Outcomes since the phase was last locked; an interruption is none."""
    started: int = 0
    """Attempts ever begun; the next one's number is one more."""
    interruptions: int = 0
    """Attempts ever begun that ended without an outcome; no lock and no rejection sets it to 0."""
    seconds: int | None = None
    receipt: str | None = None
    """SHA-256 of the newest verified attempt's receipt."""
    coverage: tuple[int, int, int] | None = None
    """Measurements (recomputed, bounded, all)."""
    digest_only: tuple[str, ...] = ()
    """What the gate protects by digests alone."""
    exempt: tuple[str, ...] = ()
    """Files whose damage the plan lets the gate overlook, and why."""

    @property
    def is_done(self) -> bool:
        """Whether the phase may go on without running it again."""
        return self.state in (FeatureState.VERIFIED, FeatureState.WAIVED)


@dataclass(frozen=True)
class PhaseStatus:
    """One phase as the ledger has it."""

    id: int
    name: str
    features: tuple[FeatureStatus, ...]
    lock: str | None = None
    """SHA-256 of the plan lock that is in force."""
    lock_path: str | None = None
    lock_commit: str | None = None
    """The commit that the lock was made from."""
    approval: ApprovalRule = PRESENCE
    """What the lock in force asks of an approval."""
    judged_approval: ApprovalRule = PRESENCE
    """What the locks ask under which something was judged; no rejection forgets them."""
    request: str | None = None
    """SHA-256 of the review request that waits for an answer, or that was approved."""
    halted: int | None = None
    """Number of the HALTED entry that waits for an answer."""
    has_outcome: bool = False
    """Whether something was judged or decided under its locks since it began (or began anew)."""
    exit_failed: bool = False
    exit_attempts: int = 0
    overrides: tuple[Override, ...] = ()
    """Relocks, rejections and waivers, in order."""
    done: Mapping[str, FeatureState] = field(default_factory=dict)
    """Id -> verified or waived, of every feature that is, also of those that left the plan."""
    approved: bool = False

    @property
    def state(self) -> PhaseState:
        """The phase's state in one word."""
        states = {feature.state for feature in self.features}
        if self.approved:
            return PhaseState.APPROVED
        if self.halted is not None:
            return PhaseState.AWAITING_APPROVAL
        if self.exit_failed or states & {FeatureState.FAILED, FeatureState.ERRORED}:
            return PhaseState.FAILED
        if self.lock is not None or states != {FeatureState.PENDING}:
            return PhaseState.RUNNING
        return PhaseState.PENDING

    def feature(self, feature_id: str) -> FeatureStatus:
        """Return the feature with this id; KeyError if there is none."""
        for feature in self.features:
            if feature.id == feature_id:
                return feature
        raise KeyError(feature_id)


@dataclass(frozen=True)
class State:
    """The whole project."""

    phases: tuple[PhaseStatus, ...]
    problems: tuple[Problem, ...] = ()
    """Entries that could not be made when the ledger says they were; they do not count."""
    judged_approval: ApprovalRule = PRESENCE
    """What the locks of all phases ask of an approval under which something was judged."""
    approval: ApprovalRule = PRESENCE
    """The same, and what the locks in force ask."""
    removed: tuple[PhaseStatus, ...] = ()
    """Phases that the plan has no more: what their locks ask of an approval counts."""
    running: frozenset[tuple[int, str | None]] = frozenset()
    """Phase and feature of each STARTED without an end, whatever the plan has."""

    def phase(self, phase_id: int) -> PhaseStatus:
        """Return the phase with this number; KeyError if there is none."""
        for phase in self.phases:
            if phase.id == phase_id:
                return phase
        raise KeyError(phase_id)

    @property
    def features(self) -> dict[str, FeatureStatus]:
        """Every feature of every phase by its id."""
        features = {}
        for phase in self.phases:
            for feature in phase.features:
                features[feature.id] = feature
        return features


#### the fold


def fold_state(plan: Plan, ledger_entries: Iterable[Entry], evidence: Evidence) -> State:
    """Replay the entries over the plan. Pure.

    What no commit of the runner's recorded counts for nothing, and so does a decision without a
    valid record, or one that could not be made in the state that its phase had. Those that could
    not are the state's `problems`; so are entries that could not follow then, which do not count.

    Args:
        plan: the plan.
        ledger_entries: the ledger's entries, in order.
        evidence: what the history says of them.
    """
    pending = State(tuple(_pending_phase(phase) for phase in plan.phases))
    return extend_state(pending, ledger_entries, evidence)


def extend_state(state: State, ledger_entries: Iterable[Entry], evidence: Evidence) -> State:
    """Return the state after more entries; what counted before must still count. Pure."""
    phases = {phase.id: phase for phase in (*state.phases, *state.removed)}
    running = set(state.running)
    problems = list(state.problems)
    for entry in ledger_entries:
        is_counted = entry.phase is not None and _counts(entry, evidence)
        if entry.kind != EntryKind.PULLED:
            # An approval binds progress.txt as it was at the checkpoint: what comes after it voids
            # the halt, but for decisions on it, and for what says where entries were recorded.
            for phase_id, phase in phases.items():
                if phase.halted is not None and not (is_counted and phase_id == entry.phase):
                    phases[phase_id] = replace(phase, halted=None, request=None)
        if entry.phase is None or not is_counted:
            continue
        # A phase that the plan has no more still says what its locks ask of an approval.
        phase = phases.get(entry.phase) or PhaseStatus(entry.phase, "", ())
        problem = (
            _lowering_problem(entry, phases.values())
            or _order_problem(phase, phases.get(entry.phase - 1), entry, running)
            or _halt_problem(phase, entry)
            or _decision_problem(phase, entry, evidence.decisions.get(entry.seq))
        )
        if problem:
            problems.append(problem)
            continue
        phases[entry.phase] = _fold_entry(phase, entry)
        _fold_running(running, entry.phase, entry)
    judged_approval = _judged_approval(phases.values())
    approval = _required_approval(phases.values())
    planned = [phase.id for phase in state.phases]
    return State(
        phases=tuple(phases.pop(phase_id) for phase_id in planned),
        problems=tuple(problems),
        judged_approval=judged_approval,
        approval=approval,
        removed=tuple(phases.values()),
        running=frozenset(running),
    )


def _counts(entry: Entry, evidence: Evidence) -> bool:
    """Return whether the history has what an entry needs: its commit, or its record."""
    if entry.kind in (*OUTCOMES, EntryKind.HALTED):
        return evidence.ends_commit(entry.seq)
    if entry.kind in DECISIONS or entry.match(entries.RECORD):
        return entry.seq in evidence.decisions
    return True


def _halt_problem(phase: PhaseStatus, entry: Entry) -> Problem | None:
    """Return why a phase is not as its HALTED says: so many verified, so many waived, none else.

    By the ledger alone: the plan may have gained or lost features since.
    """
    if entry.kind != EntryKind.HALTED:
        return None
    line = entry.match(entries.FEATURES) or {"counts": ""}
    unfinished = [feature for feature in phase.features if feature.state in UNFINISHED_STATES]
    if not unfinished and line["counts"] == done_counts(phase.done.values()):
        return None
    message = "it halts a phase whose features are not what it says, or not done"
    return Problem("halt-contradicts", entry.seq, message)


def done_counts(states: Collection[FeatureState]) -> str:
    """Return `3 verified, 1 waived`, or `none`."""
    counts = []
    for state in (FeatureState.VERIFIED, FeatureState.WAIVED):
        count = sum(each == state for each in states)
        if count:
            counts.append(f"{count} {state}")
    return ", ".join(counts) or "none"


def _order_problem(
    phase: PhaseStatus,
    previous: PhaseStatus | None,
    entry: Entry,
    running: Collection[tuple[int, str | None]],
) -> Problem | None:
    """Return why an entry of the runner's own could not follow then; None if it could.

    Judged by the entries alone: a plan may have lost a feature, and have it again.
    """
    is_relock = entry.kind == EntryKind.LOCKED and entry.match(entries.RECORD)
    is_running = (phase.id, entry.feature) in running
    ends_attempt = entry.feature and entry.kind in (*OUTCOMES, EntryKind.INTERRUPTED)
    is_exit = not entry.feature and entry.kind in (EntryKind.HALTED, EntryKind.FAILED)
    message = ""
    if ends_attempt and not is_running:
        message = f"{entry.feature} was not started"
    elif entry.kind not in _OPEN_KINDS or is_relock:
        return None
    elif phase.id > 1 and not (previous and previous.approved):
        message = f"phase {phase.id} was not open: phase {phase.id - 1} was not approved then"
        return Problem("phase-unapproved", entry.seq, message)
    elif phase.approved:
        message = f"phase {phase.id} was approved, its results are final"
    elif phase.halted is not None and is_exit:
        message = f"phase {phase.id} waited already (entry {phase.halted:04d})"
    elif entry.kind == EntryKind.STARTED and is_running:
        message = f"{entry.feature} was started already and had no outcome"
    if not message:
        return None
    return Problem("entry-order", entry.seq, f"this {entry.kind} could not follow: {message}")


def _fold_running(running: set[tuple[int, str | None]], phase: int, entry: Entry) -> None:
    """Keep the features that were started and have no outcome yet, whatever the plan has."""
    if entry.kind == EntryKind.STARTED:
        running.add((phase, entry.feature))
    elif entry.kind in (*OUTCOMES, EntryKind.INTERRUPTED):
        running.discard((phase, entry.feature))
    for fields in entry.match_all(entries.RESET):
        running.discard((phase, fields["feature"]))


def _decision_problem(
    phase: PhaseStatus, entry: Entry, decision: ValidDecision | None
) -> Problem | None:
    """Return why an entry is no decision that could be made then; None if it could, or is none."""
    reason = _decision_reason(phase, entry, decision)
    return Problem("approval-invalid", entry.seq, reason) if reason else None


def _decision_reason(
    phase: PhaseStatus, entry: Entry, decision: ValidDecision | None
) -> str | None:
    if decision is None:
        # The runner itself may lock a phase anew until something was judged by the lock.
        if entry.kind == EntryKind.LOCKED and phase.lock is not None and phase.has_outcome:
            return "it locks the phase anew, and names no decision"
        return None
    waits = phase.halted is not None
    if waits and (decision.checkpoint, decision.request) != (phase.halted, phase.request):
        return f"it is not about the checkpoint that waited then (entry {phase.halted:04d})"
    match entry.kind:
        case EntryKind.APPROVED if not waits:
            return "no checkpoint of the phase waited for an approval then"
        case EntryKind.REJECTED if phase.state == PhaseState.PENDING:
            return "the phase had not begun"
        case EntryKind.LOCKED if phase.lock is None or phase.approved:
            return "the phase had no lock to change"
        case EntryKind.WAIVED:
            return _waiver_problem(phase, entry)
    return None


def _waiver_problem(phase: PhaseStatus, entry: Entry) -> str | None:
    if phase.halted is not None:
        return "the phase was not open"
    for feature in phase.features:
        if feature.id == entry.feature and feature.state not in _WAIVABLE:
            return f"{feature.id} was {feature.state}"
    return None


def _lowering_problem(entry: Entry, phases: Collection[PhaseStatus]) -> Problem | None:
    """Return that a decision or a lock falls short of what a lock before it asks; else None.

    Presence is the only assurance that this version can make and check.
    """
    if entry.kind not in LOCKS_AND_DECISIONS:
        return None
    if entry.kind == EntryKind.LOCKED and entry.match(entries.RECORD) is None:
        is_lowered = not stated_rule(entry).covers(_judged_approval(phases))
    else:
        is_lowered = not _required_approval(phases).allows_presence
    if not is_lowered:
        return None
    message = "a lock before it asks for more than presence, or than this lock"
    return Problem("approval-lowered", entry.seq, message)


def _judged_approval(phases: Iterable[PhaseStatus]) -> ApprovalRule:
    """Return what the locks ask of an approval under which something was judged."""
    rule = PRESENCE
    for phase in phases:
        rule |= phase.judged_approval
    return rule


def _required_approval(phases: Collection[PhaseStatus]) -> ApprovalRule:
    """Return what the locks ask that are in force, or under which something was judged."""
    rule = _judged_approval(phases)
    for phase in phases:
        rule |= phase.approval
    return rule


def _pending_phase(phase: Phase) -> PhaseStatus:
    features = [FeatureStatus(feature.id, feature.title) for feature in phase.features]
    return PhaseStatus(phase.id, phase.name, tuple(features))


_OPEN_KINDS = (
    EntryKind.LOCKED,
    EntryKind.STARTED,
    *OUTCOMES,
    EntryKind.HALTED,
    EntryKind.WAIVED,
)
"""Kinds that only an open phase can have: a relock alone may come at any time."""
_WAIVABLE = (FeatureState.FAILED, FeatureState.ERRORED, FeatureState.PENDING)

BINDING_KINDS = (*OUTCOMES, EntryKind.HALTED, EntryKind.WAIVED)
"""Kinds after which only a human may change what the phase was locked on."""


def _fold_entry(phase: PhaseStatus, entry: Entry) -> PhaseStatus:
    """Return the phase after one of its entries, which counts."""
    # 1. What every view shows first, and what binds the phase to its lock.
    override = override_of(entry)
    if override:
        phase = replace(phase, overrides=(*phase.overrides, override))
    if entry.kind in BINDING_KINDS:
        rule = phase.judged_approval | phase.approval
        phase = replace(phase, has_outcome=True, judged_approval=rule)

    # 2. What it does to the phase, or to one of its features.
    match entry.kind:
        case EntryKind.LOCKED:
            return _lock(phase, entry)
        case EntryKind.HALTED:
            request = entry.match(entries.REQUEST) or {}
            digest = request.get("sha256")
            return replace(phase, halted=entry.seq, request=digest, exit_failed=False)
        case EntryKind.APPROVED:
            return replace(phase, approved=True, halted=None)
        case EntryKind.REJECTED:
            return _reject(phase, entry)
        case EntryKind.FAILED if entry.feature is None:
            return replace(phase, exit_failed=True, exit_attempts=phase.exit_attempts + 1)
        case _:
            return _fold_feature_entry(phase, entry)


def _fold_feature_entry(phase: PhaseStatus, entry: Entry) -> PhaseStatus:
    """Return the phase after an entry about one feature."""
    done = {**phase.done}
    done.pop(entry.feature or "", None)
    if entry.feature and entry.kind in (EntryKind.VERIFIED, EntryKind.WAIVED):
        done[entry.feature] = FeatureState(entry.kind.lower())
    features = list(phase.features)
    for index, feature in enumerate(features):
        if feature.id == entry.feature:
            features[index] = _fold_feature(feature, entry)
            break
    phase = replace(phase, done=done, features=tuple(features))
    # A new attempt (`--force`) voids a request that waits: what was reviewed is not what there is.
    if entry.feature and entry.kind in (*OUTCOMES, EntryKind.STARTED, EntryKind.WAIVED):
        phase = replace(phase, halted=None, request=None, exit_failed=False)
    return phase


def _lock(phase: PhaseStatus, entry: Entry) -> PhaseStatus:
    """Return the locked phase; attempts are counted anew under every lock."""
    lock = entry.match(entries.LOCK) or {}
    features = [replace(feature, attempts=0) for feature in _reset_features(phase, entry)]
    return replace(
        phase,
        done=_still_done(phase, entry),
        features=tuple(features),
        lock=lock.get("sha256"),
        lock_path=lock.get("path"),
        lock_commit=(entry.match(entries.HEAD) or {}).get("commit"),
        approval=stated_rule(entry),
        halted=None,
        request=None,
        exit_attempts=0,
    )


def _reject(phase: PhaseStatus, entry: Entry) -> PhaseStatus:
    """Return the rejected phase: its lock is released."""
    features = _reset_features(phase, entry)
    return replace(
        phase,
        done=_still_done(phase, entry),
        features=features,
        has_outcome=False,
        lock=None,
        lock_path=None,
        lock_commit=None,
        approval=PRESENCE,
        halted=None,
        request=None,
        exit_failed=False,
        approved=False,
    )


def _still_done(phase: PhaseStatus, entry: Entry) -> dict[str, FeatureState]:
    """Return what is done of a phase without what an entry resets."""
    reset = {fields["feature"] for fields in entry.match_all(entries.RESET)}
    return {name: state for name, state in phase.done.items() if name not in reset}


def _reset_features(phase: PhaseStatus, entry: Entry) -> tuple[FeatureStatus, ...]:
    """Return the phase's features, those that the entry resets pending again."""
    reset = {fields["feature"] for fields in entry.match_all(entries.RESET)}
    features = []
    for feature in phase.features:
        if feature.id not in reset:
            features.append(feature)
            continue
        pending = replace(feature, state=FeatureState.PENDING, seconds=None, coverage=None)
        features.append(replace(pending, digest_only=(), exempt=()))
    return tuple(features)


def _fold_feature(feature: FeatureStatus, entry: Entry) -> FeatureStatus:
    """Return the feature after one of its entries."""
    match entry.kind:
        case EntryKind.STARTED:
            return replace(feature, state=FeatureState.RUNNING, started=feature.started + 1)
        case EntryKind.INTERRUPTED:
            interruptions = feature.interruptions + 1
            return replace(feature, state=FeatureState.PENDING, interruptions=interruptions)
        case EntryKind.WAIVED:
            return replace(feature, state=FeatureState.WAIVED)
    if entry.kind not in OUTCOMES:
        return feature
    receipt = entry.match(entries.RECEIPT)
    if receipt and entry.kind == EntryKind.VERIFIED:
        feature = replace(feature, receipt=receipt["sha256"])
    ran = entry.match(entries.RAN)
    coverage = entry.match(entries.MEASUREMENT_COVERAGE)
    digest_only = entry.match_all(entries.DIGEST_ONLY)
    exempt = entry.match_all(entries.EXEMPT)
    return replace(
        feature,
        state=FeatureState(entry.kind.lower()),
        attempts=feature.attempts + 1,
        seconds=int(ran["seconds"]) if ran else None,
        coverage=_coverage_counts(coverage) if coverage else None,
        digest_only=tuple(fields["text"] for fields in digest_only),
        exempt=tuple(fields["exemption"] for fields in exempt),
    )


def _coverage_counts(fields: dict[str, str]) -> tuple[int, int, int]:
    return int(fields["recomputed"]), int(fields["bounded"]), int(fields["total"])


#### what comes next


def next_step(plan: Plan, state: State, failed_now: Collection[str] = ()) -> Step:
    """Return what `run --next` does now. Pure.

    Args:
        plan: the plan.
        state: the project's state.
        failed_now: features that already failed in this very run (`--keep-going`); they are not
            tried again in it.
    """
    # 1. The first phase that is not approved.
    phase = next((item for item in state.phases if item.state != PhaseState.APPROVED), None)
    if phase is None:
        return Done()
    if phase.state == PhaseState.AWAITING_APPROVAL:
        return AwaitApproval(phase.id)

    # 2. Its features that are not done; then its exit gates.
    remaining = [feature for feature in phase.features if not feature.is_done]
    if not remaining:
        if phase.lock is not None and phase.exit_attempts >= plan.defaults.attempts:
            return AttemptsSpent(phase.id, None, phase.exit_attempts)
        return RunExit(phase.id)

    # 3. The first of them whose needs are verified.
    needs = {feature.id: set(feature.needs) for feature in plan.phase(phase.id).features}
    states = {feature.id: feature.state for feature in state.features.values()}
    for feature in remaining:
        unmet = [need for need in needs[feature.id] if states[need] != FeatureState.VERIFIED]
        if unmet or feature.id in failed_now:
            continue
        if is_spent(plan, phase, feature):
            return AttemptsSpent(phase.id, feature.id, feature.attempts)
        return RunFeature(phase.id, feature.id)

    # 4. None can run: for a waived need a human decides, else the next run tries again.
    if not failed_now:
        blocked = _find_blocked(plan, state, phase, remaining)
        if blocked:
            return blocked
    return Stuck(phase.id, tuple(feature.id for feature in remaining))


def is_spent(plan: Plan, phase: PhaseStatus, feature: FeatureStatus) -> bool:
    """Return whether a feature has used up its attempts; without a lock none are counted."""
    return phase.lock is not None and feature.attempts >= plan.defaults.attempts


def _find_blocked(
    plan: Plan, state: State, phase: PhaseStatus, remaining: list[FeatureStatus]
) -> Blocked | None:
    """Return the first remaining feature that needs a waived one."""
    waived_phases = {}
    for each in state.phases:
        for feature in each.features:
            if feature.state == FeatureState.WAIVED:
                waived_phases[feature.id] = each.id
    for feature in remaining:
        _, planned = plan.feature(feature.id)
        for need in planned.needs:
            if need in waived_phases:
                return Blocked(phase.id, feature.id, need, waived_phases[need])
    return None
