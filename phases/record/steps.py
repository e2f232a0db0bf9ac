"""What can come next: one class per kind of step, and the ways on where only a person can choose one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunFeature:
    """Run this feature next."""

    phase: int
    feature: str


@dataclass(frozen=True)
class RunExit:
    """All features are done: run the exit gates and halt."""

    phase: int


@dataclass(frozen=True)
class AwaitApproval:
    """A human's turn; nothing runs."""

    phase: int


@dataclass(frozen=True)
class AttemptsSpent:
    """A feature (None: the exit gates) has used up its attempts under this lock."""

    phase: int
    feature: str | None
    attempts: int


@dataclass(frozen=True)
class Stuck:
    """Features are left, but all of them failed in this run or wait for one that did."""

    phase: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class Blocked:
    """Every feature that is left needs one that was waived and gives nothing: a human's turn."""

    phase: int
    feature: str
    waived: str
    """The one that it needs."""
    waived_phase: int


@dataclass(frozen=True)
class Done:
    """Every phase is approved."""


Step = RunFeature | RunExit | AwaitApproval | AttemptsSpent | Stuck | Blocked | Done


def next_commands(step: AttemptsSpent | Blocked) -> tuple[str, ...]:
    """The commands of which a person has to choose one; the first is what is usually wanted."""
    waive = f"python -m phases approve {step.phase} --waive {step.feature} --reason '…'"
    if isinstance(step, Blocked):
        return (
            waive,
            f"python -m phases reject {step.waived_phase} --feature {step.waived} --reason '…'",
        )
    relock = f"python -m phases relock {step.phase} --reason '…'"
    return (
        (relock, waive)
        if step.feature
        else (relock, f"python -m phases reject {step.phase} --reason '…'")
    )
