"""What a run tells its caller: one result per feature, one summary per run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from phases.judge.gate import Judgement
from phases.judge.verdict import verdict_of
from phases.record.entries import reason_lines
from phases.record.outcome_lines import gate_summary
from phases.record.states import FeatureState, PhaseState


@dataclass(frozen=True)
class FeatureResult:
    """What became of one feature in a run, a scratch run or a verification."""

    id: str
    state: FeatureState
    seconds: int
    lines: tuple[str, ...]
    """What happened, for readers."""
    passed: int = 0
    failing: tuple[str, ...] = ()
    receipt: str | None = None
    """SHA-256 of the receipt of a recorded, verified attempt."""
    timed_out: bool = False

    def json(self) -> dict[str, Any]:
        """Return one feature of `run --json` and `verify --json`."""
        return {
            "id": self.id,
            "state": self.state.value,
            "seconds": self.seconds,
            "receipt": f"sha256:{self.receipt}" if self.receipt else None,
            "lines": list(self.lines),
            "checks": {
                "passed": self.passed,
                "failed": len(self.failing),
                "failing": list(self.failing),
            },
        }


@dataclass(frozen=True)
class RunSummary:
    """What a run did."""

    phase: int | None
    state: PhaseState | None
    """The phase's state afterwards; None where every phase was approved and nothing was run."""
    features: tuple[FeatureResult, ...] = ()
    exit_failing: tuple[str, ...] = ()
    """Failing checks of the exit gates."""

    def json(self) -> dict[str, Any]:
        """Return `run --json`, as docs/cli.md has it."""
        return {
            "phase": self.phase,
            "state": self.state.value if self.state else "done",
            "features": [feature.json() for feature in self.features],
        }


def count_checks(judgement: Judgement | None) -> tuple[int, tuple[str, ...]]:
    """Return how many checks passed on the true outputs, and the ids of those that failed."""
    if judgement is None:
        return 0, ()
    failing = judgement.true_run.failing
    return len(judgement.true_run.checks) - len(failing), failing


def judgement_lines(gate: str, judgement: Judgement) -> tuple[str, ...]:
    """Return what a judgement that is not recorded found, for readers."""
    lines = [*gate_summary(gate, verdict_of(judgement, outputs={}, configuration=[])).lines]
    if judgement.coverage and judgement.coverage.claimed:
        lines.append(f"only claimed: {', '.join(judgement.coverage.claimed)}")
    checks = judgement.true_run.checks
    failed = [f"{check.id}: {check.message}" for check in checks if not check.passed]
    lines += reason_lines([*judgement.reasons, *failed])
    return tuple(lines)
