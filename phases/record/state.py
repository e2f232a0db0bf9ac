"""Where the project stands: a pure fold over the plan and the ledger, and what comes next."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from phases.plan.outline import PhaseLike, PlanLike
from phases.record.ledger import Entry
from phases.record.overrides import Override, override_of
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

RAN = r"ran .+ for (?P<seconds>\d+) s: attempt (?P<attempt>\d+), .*"
COVERAGE = r"gate .+; coverage (?P<recomputed>\d+) \+ (?P<bounded>\d+) of (?P<total>\d+)(; .*)?"
RECEIPT = r"receipt sha256:(?P<digest>[0-9a-f]{64}) (?P<path>\S+)"
LOCK = r"lock sha256:(?P<digest>[0-9a-f]{64}) (?P<path>\S+)"
REQUEST = r"request sha256:(?P<digest>[0-9a-f]{64}) (?P<path>\S+)"
RECORD = r"record sha256:(?P<digest>[0-9a-f]{64}) (?P<path>\S+)"
VERDICT = r"verdict sha256:(?P<digest>[0-9a-f]{64}) (?P<path>\S+)"
HEAD = r"head (?P<commit>[0-9a-f]{40,64})"
AGAIN = r"runs again: (?P<feature>\S+)"
ATTEMPT = r"attempt (?P<attempt>\d+), .*"
OUTCOMES = ("VERIFIED", "FAILED", "ERRORED")


class FeatureState(StrEnum):
    """What a feature is."""

    PENDING = "pending"
    RUNNING = "running"
    VERIFIED = "verified"
    FAILED = "failed"
    ERRORED = "errored"
    WAIVED = "waived"


class PhaseState(StrEnum):
    """What a phase is."""

    PENDING = "pending"
    RUNNING = "running"
    FAILED = "failed"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"


@dataclass(frozen=True)
class FeatureStatus:
    """One feature: `pending | running | verified | failed | errored | waived`."""

    id: str
    title: str
    state: str = "pending"
    attempts: int = 0
    """Outcomes since the phase was last locked; an interruption is none."""
    started: int = 0
    """Attempts ever begun; the next one's number is one more."""
    seconds: int | None = None
    receipt: str | None = None
    """Digest of the newest verified attempt's receipt."""
    coverage: tuple[int, int, int] | None = None
    """Measurements (recomputed, bounded, all)."""

    @property
    def is_done(self) -> bool:
        """Whether the phase may go on without it running again."""
        return self.state in ("verified", "waived")


@dataclass(frozen=True)
class PhaseStatus:
    """One phase: `pending | running | failed | awaiting_approval | approved`."""

    id: int
    name: str
    features: tuple[FeatureStatus, ...]
    lock: str | None = None
    """Digest of the plan lock that holds now."""
    lock_path: str | None = None
    request: str | None = None
    """Digest of the review request that waits for an answer."""
    halted: int | None = None
    """Number of the HALTED entry that waits for an answer."""
    exit_failed: bool = False
    exit_attempts: int = 0
    notes: tuple[Override, ...] = ()
    """What persons decided beside approving, in order: relocks, rejections, waivers."""
    approved: bool = False

    @property
    def state(self) -> str:
        """The phase's state in one word."""
        if self.approved:
            return "approved"
        if self.halted is not None:
            return "awaiting_approval"
        if self.exit_failed or any(
            feature.state in ("failed", "errored") for feature in self.features
        ):
            return "failed"
        begun = self.lock is not None or any(
            feature.state != "pending" for feature in self.features
        )
        return "running" if begun else "pending"

    def feature(self, feature_id: str) -> FeatureStatus:
        """The feature with this id; KeyError if there is none."""
        for feature in self.features:
            if feature.id == feature_id:
                return feature
        raise KeyError(feature_id)


@dataclass(frozen=True)
class State:
    """The whole project."""

    phases: tuple[PhaseStatus, ...]

    def phase(self, phase_id: int) -> PhaseStatus:
        """The phase with this number; KeyError if there is none."""
        for phase in self.phases:
            if phase.id == phase_id:
                return phase
        raise KeyError(phase_id)


def fold_state(plan: PlanLike, entries: Iterable[Entry], records: Collection[str]) -> State:
    """Replays the entries over the plan. Pure.

    Args:
        prd: the plan.
        entries: the ledger's entries, in order.
        records: digests of the approval records that exist; an APPROVED entry without its record counts for nothing.
    """
    phases = {phase.id: _blank(phase) for phase in plan.phases}
    for entry in entries:
        if entry.kind in ("REPAIRED", "RECOVERED"):
            # An approval binds progress.txt as it was at the checkpoint: what waits has to halt anew.
            phases = {
                key: replace(phase, halted=None, request=None) for key, phase in phases.items()
            }
        if entry.phase in phases:
            phase = _step(phases[entry.phase], entry, records)
            note = override_of(entry) if _is_recorded(entry, records) else None
            phases[entry.phase] = replace(phase, notes=(*phase.notes, note)) if note else phase
    return State(tuple(phases.values()))


def _blank(phase: PhaseLike) -> PhaseStatus:
    return PhaseStatus(
        phase.id, phase.name, tuple(FeatureStatus(item.id, item.title) for item in phase.features)
    )


def _step(phase: PhaseStatus, entry: Entry, records: Collection[str]) -> PhaseStatus:
    if entry.kind == "LOCKED":
        # The first lock of a phase is the runner's own; to lock it anew is a person's decision, with a record.
        return (
            _locked(phase, entry) if phase.lock is None or _is_recorded(entry, records) else phase
        )
    if entry.kind == "HALTED":
        request = entry.fact(REQUEST)
        return replace(
            phase,
            halted=entry.seq,
            request=request["digest"] if request else None,
            exit_failed=False,
        )
    if entry.kind in ("APPROVED", "REJECTED"):
        return _decided(phase, entry, records)
    if entry.kind == "WAIVED" and not _is_recorded(entry, records):
        return phase
    if entry.feature is None:
        return (
            replace(phase, exit_failed=True, exit_attempts=phase.exit_attempts + 1)
            if entry.kind == "FAILED"
            else phase
        )
    features = tuple(
        _feature_step(item, entry) if item.id == entry.feature else item for item in phase.features
    )
    if entry.kind in (*OUTCOMES, "STARTED", "WAIVED"):
        # Any new outcome voids a request that waits: what was reviewed is no longer what stands.
        return replace(phase, features=features, halted=None, request=None, exit_failed=False)
    return replace(phase, features=features)


def _locked(phase: PhaseStatus, entry: Entry) -> PhaseStatus:
    lock = entry.fact(LOCK)
    again = {match["feature"] for line in entry.lines if (match := re.fullmatch(AGAIN, line))}
    features = tuple(
        replace(_again(item) if item.id in again else item, attempts=0) for item in phase.features
    )
    return replace(
        phase,
        lock=lock["digest"] if lock else None,
        lock_path=lock["path"] if lock else None,
        features=features,
        halted=None,
        request=None,
        exit_attempts=0,
    )


def _decided(phase: PhaseStatus, entry: Entry, records: Collection[str]) -> PhaseStatus:
    if not _is_recorded(entry, records):
        return phase
    if entry.kind == "APPROVED":
        return replace(phase, approved=True, halted=None)
    again = {match["feature"] for line in entry.lines if (match := re.fullmatch(AGAIN, line))}
    features = tuple(_again(item) if item.id in again else item for item in phase.features)
    return replace(
        phase,
        features=features,
        lock=None,
        lock_path=None,
        halted=None,
        request=None,
        exit_failed=False,
        approved=False,
    )


def _again(feature: FeatureStatus) -> FeatureStatus:
    """Pending once more: what the last attempt found no longer stands for it."""
    return replace(feature, state="pending", seconds=None, coverage=None)


def _is_recorded(entry: Entry, records: Collection[str]) -> bool:
    record = entry.fact(RECORD)
    return record is not None and record["digest"] in records


def _feature_step(feature: FeatureStatus, entry: Entry) -> FeatureStatus:
    if entry.kind == "STARTED":
        return replace(feature, state="running", started=feature.started + 1)
    if entry.kind == "INTERRUPTED":
        return replace(feature, state="pending")
    if entry.kind == "WAIVED":
        return replace(feature, state="waived")
    if entry.kind not in OUTCOMES:
        return feature
    ran, covered, receipt = entry.fact(RAN), entry.fact(COVERAGE), entry.fact(RECEIPT)
    verified = entry.kind == "VERIFIED"
    return replace(
        feature,
        state=entry.kind.lower(),
        attempts=feature.attempts + 1,
        seconds=int(ran["seconds"]) if ran else None,
        receipt=receipt["digest"] if receipt and verified else feature.receipt,
        coverage=(int(covered[1]), int(covered[2]), int(covered[3])) if covered else None,
    )


def next_step(plan: PlanLike, state: State, failed_now: Collection[str] = ()) -> Step:
    """What `run --next` does now. Pure.

    Args:
        prd: the plan.
        state: where the project stands.
        failed_now: features that already failed in this very run (`--keep-going`); they are not tried again in it.
    """
    for phase, planned in zip(state.phases, plan.phases, strict=True):
        if phase.state == "approved":
            continue
        if phase.state == "awaiting_approval":
            return AwaitApproval(phase.id)
        left = [item for item in phase.features if not item.is_done]
        if not left:
            spent = phase.lock is not None and phase.exit_attempts >= plan.defaults.attempts
            return (
                AttemptsSpent(phase.id, None, phase.exit_attempts) if spent else RunExit(phase.id)
            )
        needs = {feature.id: feature.needs for feature in planned.features}
        verified = {
            item.id for known in state.phases for item in known.features if item.state == "verified"
        }
        ready = [
            item
            for item in left
            if item.id not in failed_now and verified.issuperset(needs[item.id])
        ]
        if not ready:
            if not failed_now and (
                blocked := _blocked(state, phase.id, {item.id: needs[item.id] for item in left})
            ):
                return blocked
            return Stuck(phase.id, tuple(item.id for item in left))
        chosen = ready[0]
        if is_spent(plan, phase, chosen):
            return AttemptsSpent(phase.id, chosen.id, chosen.attempts)
        return RunFeature(phase.id, chosen.id)
    return Done()


def is_spent(plan: PlanLike, phase: PhaseStatus, feature: FeatureStatus) -> bool:
    """Whether a feature has used up its attempts; a rejection released the lock that they were counted under."""
    return phase.lock is not None and feature.attempts >= plan.defaults.attempts


def _blocked(state: State, phase: int, needs: Mapping[str, Collection[str]]) -> Blocked | None:
    """The first of the features that are left that needs a waived one."""
    waived = {
        item.id: known.id
        for known in state.phases
        for item in known.features
        if item.state == "waived"
    }
    found = ((name, need) for name, needed in needs.items() for need in needed if need in waived)
    return next((Blocked(phase, name, need, waived[need]) for name, need in found), None)
