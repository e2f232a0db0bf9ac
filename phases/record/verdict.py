"""The verdict: what a gate found, as an in-toto Statement v1 with predicate test result v0.1.

What that predicate has no field for is in two extension keys, `phases/gate/v1` and
`phases/predictions/v1`.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from phases.base.text import printable
from phases.record.receipt import Receipt
from phases.record.statement import Document, ResourceDescriptor, Statement
from phases.record.states import FeatureState

TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
GATE_EXTENSION = "phases/gate/v1"
PREDICTIONS_EXTENSION = "phases/predictions/v1"


class VerdictResult(StrEnum):
    """The result in the words of the in-toto predicate."""

    PASSED = "PASSED"
    FAILED = "FAILED"


class MutantReport(Document):
    """One mutant of the outputs: whether the gate's checks killed it, and which."""

    kind: str
    """empty, measurements, tamper or content."""
    target: str
    """What it changes: a file, a pattern of outputs, a part of result.json, a feature."""
    killed: bool
    outcome: str
    killed_by: tuple[str, ...]
    reason: str


class ExemptionReport(Document):
    """Files whose damage the plan lets the gate overlook, and why."""

    files: str
    reason: str

    def __str__(self) -> str:
        return f"{self.files}: {self.reason}"


class CoverageReport(Document):
    """Names of the measurements by what the gate judges of them."""

    fraction: float | None
    recomputed: tuple[str, ...]
    bounded: tuple[str, ...]
    claimed: tuple[str, ...]


class JudgementSeconds(Document):
    """Wall time of the run on the true outputs, and of all runs."""

    true_run: float
    all: float


class GateReport(Document):
    """How the gate ran, and whether it can fail."""

    state: FeatureState
    reasons: tuple[str, ...]
    exempt: tuple[ExemptionReport, ...]
    digest_only: tuple[str, ...]
    """What the gate protects by digests alone: targets of content mutants that survived."""
    messages: dict[str, str]
    """Failed check -> its message."""
    nonce: str
    outcome: str
    exit_code: int | None
    signal: int | None
    mutants: tuple[MutantReport, ...]
    measurement_coverage: CoverageReport | None
    seconds: JudgementSeconds

    @property
    def required_mutants(self) -> tuple[MutantReport, ...]:
        """The mutants that must be killed: all but those of kind `content`."""
        return tuple(mutant for mutant in self.mutants if mutant.kind != "content")


class ScoredPrediction(Document):
    """One prediction and how it fared."""

    id: str
    claim: str
    outcome: str
    reason: str


def shell_check_id(command: str) -> str:
    """Return the id of a shell gate's only check: its command."""
    return printable(command, 120)


class VerdictPredicate(Document):
    """The predicate of a verdict."""

    result: VerdictResult
    configuration: tuple[ResourceDescriptor, ...]
    passed_tests: tuple[str, ...]
    warned_tests: tuple[str, ...] = ()
    failed_tests: tuple[str, ...]
    gate: GateReport = Field(alias=GATE_EXTENSION)
    predictions: tuple[ScoredPrediction, ...] = Field((), alias=PREDICTIONS_EXTENSION)


class Verdict(Statement):
    """The verdict on one feature's outputs, or of one exit gate on a phase's."""

    predicate_type: str = Field(TEST_RESULT, pattern=f"^{TEST_RESULT}$")
    predicate: VerdictPredicate

    @property
    def gate(self) -> GateReport:
        """The gate's own part."""
        return self.predicate.gate

    @property
    def passed_tests(self) -> tuple[str, ...]:
        """Ids of the checks that passed on the outputs."""
        return self.predicate.passed_tests

    @property
    def failed_tests(self) -> tuple[str, ...]:
        """Ids of the checks that failed on the outputs."""
        return self.predicate.failed_tests


class PhaseVerdict(Document):
    """`verdict.json` of a phase: one verdict per exit gate."""

    phase: int
    verdicts: tuple[Verdict, ...]


class AttemptRecord(Document):
    """`attempts/N.json`: what a failed attempt leaves in the repository."""

    feature: str
    attempt: int
    state: FeatureState
    reasons: tuple[str, ...]
    receipt: Receipt
    verdict: Verdict | None
    log_tail: tuple[str, ...]
