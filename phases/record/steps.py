"""What can come next: one class per kind of step, and the commands that a human can choose."""

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
    """The phase waits for its approver; nothing runs."""

    phase: int


@dataclass(frozen=True)
class AttemptsSpent:
    """A feature (None: the exit gates) has used up its attempts under this lock."""

    phase: int
    feature: str | None
    attempts: int


@dataclass(frozen=True)
class Stuck:
    """Every remaining feature failed in this run or waits for one that did."""

    phase: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class Blocked:
    """Every remaining feature needs one that was waived and has no results: a human must decide."""

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
    """Return the commands of which a human has to choose one, the usual one first."""
    waive = f"python -m phases approve {step.phase} --waive {step.feature} --reason '…'"
    if isinstance(step, Blocked):
        reject = f"python -m phases reject {step.waived_phase} --feature {step.waived}"
        return (waive, f"{reject} --reason '…'")
    relock = f"python -m phases relock {step.phase} --reason '…'"
    if step.feature:
        return (relock, waive)
    return (relock, f"python -m phases reject {step.phase} --reason '…'")
