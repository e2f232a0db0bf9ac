"""What a verdict states, recomputed from the outputs, the plan and the commit that ran."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from phases.audit.attempts import Attempt
from phases.audit.findings import Finding
from phases.audit.record import Record
from phases.base.strict_json import StrictJsonError
from phases.base.text import format_count, printable
from phases.judge.gate import GateOutcome
from phases.judge.mutations import Mutation, digest_only, expected_mutations, is_exempt
from phases.judge.predictions import score_all
from phases.plan.schema import Exemption, Gate
from phases.record.result import RESULT, read_measurements
from phases.record.statement import ResourceDescriptor
from phases.record.states import FeatureState
from phases.record.verdict import MutantReport, Verdict, VerdictResult, shell_check_id


def check_verdict(record: Record, attempt: Attempt) -> Iterator[Finding]:
    """Yield where a verdict is about other outputs, or contradicts outputs, plan or commit."""
    outcome, verdict = attempt.outcome, attempt.verdict
    if verdict is None:
        return
    if verdict.digests != attempt.receipt.digests or verdict.subject != attempt.receipt.subject:
        message = "the verdict is about other outputs than the receipt"
        yield outcome.finding("verdict-foreign", message, attempt.verdict_path)
    descriptor = record.gate(attempt.source, attempt.feature.gate)
    result = _read_result(record, attempt)
    for message in (
        *state_contradictions(verdict, outcome.entry.kind.lower()),
        *check_contradictions(verdict, attempt.feature.gate),
        *_exemption_contradictions(attempt, verdict),
        *configuration_contradictions(verdict, descriptor),
        *_result_contradictions(attempt, verdict, result),
    ):
        yield outcome.finding("verdict-contradicts", message, attempt.verdict_path)
    yield from _prediction_findings(attempt, verdict, result)


def _read_result(record: Record, attempt: Attempt) -> bytes | None:
    """Return the result.json of a verified attempt; a failed one's is not committed."""
    if not attempt.is_verified or RESULT not in attempt.receipt.digests:
        return None
    folder = attempt.path.rpartition("/")[0]
    return record.read(attempt.outcome.commit.sha, f"{folder}/{RESULT}")


#### what any verdict must say, whatever it is about


def state_contradictions(verdict: Verdict, state: str) -> Iterator[str]:
    """Yield where result, state, reasons and outcome of a verdict contradict each other.

    Args:
        verdict: the verdict.
        state: the state that its entry says.
    """
    predicate, gate = verdict.predicate, verdict.gate
    is_verified = gate.state == FeatureState.VERIFIED
    if gate.state != state:
        yield f"the entry says {state.upper()}, the verdict says {gate.state}"
    if (predicate.result == VerdictResult.PASSED) != is_verified:
        yield f"the verdict says {predicate.result} and the state {gate.state}"
    if is_verified and gate.outcome != GateOutcome.PASSED:
        yield f"the verdict is verified, and its gate {gate.outcome} on the outputs"
    if (gate.outcome == GateOutcome.ERRORED) != (gate.state == FeatureState.ERRORED):
        yield f"its gate {gate.outcome} on the outputs, and the verdict is {gate.state}"
    outcomes = (gate.outcome, *(mutant.outcome for mutant in gate.mutants))
    for outcome in sorted(set(outcomes) - set(GateOutcome)):
        expected = " or ".join(GateOutcome)
        yield f"the verdict says `{printable(outcome)}` of a run; expected {expected}"
    if bool(gate.reasons) == is_verified:
        yield f"the verdict is {gate.state} for {format_count(len(gate.reasons), 'reason')}"


def check_contradictions(verdict: Verdict, gate: Gate) -> Iterator[str]:
    """Yield where checks, exit code and mutants of a verdict contradict each other.

    Args:
        verdict: the verdict.
        gate: the gate, by the plan that judged.
    """
    # 1. The checks on the outputs. A shell gate is one check.
    predicate, report = verdict.predicate, verdict.gate
    checks = [*predicate.passed_tests, *predicate.failed_tests]
    if gate.shell and set(checks) - {shell_check_id(gate.shell)}:
        yield "the verdict of a shell gate names other checks than its command"
    if len(set(checks)) != len(checks) or predicate.warned_tests:
        yield "the verdict names a check twice, or one that only warned"
    if set(report.messages) != set(predicate.failed_tests):
        yield "the verdict has messages of other checks than those that failed"
    has_passed = bool(predicate.passed_tests) and not predicate.failed_tests
    is_clean = report.exit_code == 0 and report.signal is None
    if report.outcome == GateOutcome.PASSED and not (has_passed and is_clean):
        end = f"exit code {report.exit_code}"
        if report.signal is not None:
            end = f"signal {report.signal}"
        yield (
            f"the gate passed with {format_count(len(predicate.passed_tests), 'check')} passed, "
            f"{len(predicate.failed_tests)} failed and {end}"
        )
    elif report.outcome == GateOutcome.FAILED and is_clean:
        yield "the gate failed with exit code 0"

    # 2. Each mutant.
    for mutant in report.mutants:
        yield from _mutant_contradictions(mutant, checks)


def _mutant_contradictions(mutant: MutantReport, checks: Collection[str]) -> Iterator[str]:
    name = _name(mutant)
    is_killed = bool(mutant.killed_by)
    if mutant.killed != is_killed or (is_killed and mutant.outcome != GateOutcome.FAILED):
        killed = "killed" if mutant.killed else "not killed"
        by = f"by {format_count(len(mutant.killed_by), 'check')}, and its run {mutant.outcome}"
        yield f"of mutant {name} it says {killed} {by}"
    if mutant.reason and mutant.outcome != GateOutcome.ERRORED:
        yield f"mutant {name} has a reason why its run errored, and the run {mutant.outcome}"
    unknown = sorted(set(mutant.killed_by) - set(checks))
    if unknown:
        yield f"mutant {name} was killed by {printable(unknown[0])}, which is no check"


def survivors(verdict: Verdict, exempt: Sequence[Exemption] = ()) -> list[str]:
    """Return the mutants that survived and must not: all but those of exempt files."""
    names = []
    for mutant in verdict.gate.required_mutants:
        if not mutant.killed and not is_exempt(mutant.kind, mutant.target, exempt):
            names.append(_name(mutant))
    return names


def survivor_contradictions(verdict: Verdict, unkilled: Sequence[str]) -> Iterator[str]:
    """Yield where a gate that passed is judged otherwise than by the mutants that survived."""
    gate = verdict.gate
    if gate.state == FeatureState.VERIFIED and unkilled:
        yield f"the verdict is verified, and the mutant {unkilled[0]} survived"
    if gate.state == FeatureState.FAILED and gate.outcome == GateOutcome.PASSED and not unkilled:
        yield "the verdict is failed, its gate passed, and no mutant survived that must not"


def configuration_contradictions(verdict: Verdict, gate: ResourceDescriptor) -> Iterator[str]:
    """Yield that a verdict names another gate than its commit has."""
    if verdict.predicate.configuration != (gate,):
        yield f"the verdict names another gate, or another digest of it, than {gate.name} has"


def mutant_contradictions(verdict: Verdict, expected: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield where the mutants are not those that the outputs and the plan give.

    Args:
        verdict: the verdict.
        expected: kind and target of each, in order.
    """
    stated = [(mutant.kind, mutant.target) for mutant in verdict.gate.mutants]
    expected = list(expected)
    missing = [item for item in expected if item not in stated]
    invented = [item for item in stated if item not in expected]
    if missing:
        yield f"the verdict lacks the mutant {' '.join(missing[0]).strip()}"
    elif invented:
        name = printable(" ".join(invented[0]).strip())
        yield f"the verdict has the mutant {name}, which these outputs do not give"
    elif stated != expected:
        yield "the verdict has its mutants twice, or in another order"


def _name(mutant: MutantReport) -> str:
    return printable(f"{mutant.kind} {mutant.target}".strip())


#### what follows from the outputs of a feature


def _exemption_contradictions(attempt: Attempt, verdict: Verdict) -> Iterator[str]:
    planned = [(item.files, item.reason) for item in attempt.feature.exempt]
    if [(item.files, item.reason) for item in verdict.gate.exempt] != planned:
        yield "the verdict exempts other files than the plan"
    yield from survivor_contradictions(verdict, survivors(verdict, attempt.feature.exempt))


def _result_contradictions(
    attempt: Attempt, verdict: Verdict, result: bytes | None
) -> Iterator[str]:
    """Yield where mutants and coverage are not those of the outputs."""
    gate = verdict.gate
    if gate.outcome != GateOutcome.PASSED:
        if gate.mutants and gate.outcome == GateOutcome.FAILED:
            yield "the gate failed on the outputs, and the verdict has mutants"
        return
    if not attempt.is_verified and RESULT in attempt.receipt.digests:
        return  # what its result.json had is not committed
    try:
        mutations = expected_mutations(
            attempt.receipt.digests, attempt.feature.outputs, gate.nonce, result
        )
        names = list(read_measurements(result)) if result is not None else []
    except StrictJsonError:
        return  # a finding of the outputs
    expected = [(str(item.kind), item.target) for item in mutations]
    yield from mutant_contradictions(verdict, expected)
    yield from _coverage_contradictions(verdict, names)
    if gate.digest_only != _digest_only(verdict, mutations):
        yield "the verdict states other outputs as protected by digest only than its mutants say"


def _digest_only(verdict: Verdict, mutations: Iterable[Mutation]) -> tuple[str, ...]:
    """Return what is protected by digest only, by the mutants that the verdict states."""
    by_name = {(str(item.kind), item.target): item for item in mutations}
    stated = []
    for mutant in verdict.gate.mutants:
        mutation = by_name.get((mutant.kind, mutant.target))
        if mutation is not None:
            stated.append((mutation, mutant.killed))
    return digest_only(stated)


def _coverage_contradictions(verdict: Verdict, names: Sequence[str]) -> Iterator[str]:
    coverage = verdict.gate.measurement_coverage
    if coverage is None:
        yield "the verdict states no measurement coverage"
        return
    stated = [*coverage.recomputed, *coverage.bounded, *coverage.claimed]
    if sorted(stated) != sorted(names):
        yield "the measurement coverage names other measurements than result.json has"
    judged = len(coverage.recomputed) + len(coverage.bounded)
    fraction = judged / len(stated) if stated else None
    if coverage.fraction != fraction:
        yield f"the measurement coverage is {coverage.fraction}; its names give {fraction}"


def _prediction_findings(
    attempt: Attempt, verdict: Verdict, result: bytes | None
) -> Iterator[Finding]:
    """Yield where the same numbers give other scores."""
    try:
        measurements = read_measurements(result) if result else {}
    except StrictJsonError as error:
        message = f"result.json is invalid: {error}"
        yield attempt.outcome.finding("result-changed", message, attempt.path)
        return
    recomputed = score_all(attempt.feature, measurements) if attempt.is_verified else []
    if tuple(recomputed) != verdict.predicate.predictions:
        scores = ", ".join(f"{item.id} {item.outcome}" for item in recomputed)
        stated = ", ".join(f"{item.id} {item.outcome}" for item in verdict.predicate.predictions)
        message = f"recomputed are {scores or 'no predictions'}; the verdict has {stated or 'none'}"
        if scores == stated:
            message = "the recomputed predictions have other claims or reasons than the verdict"
        yield attempt.outcome.finding("prediction-score", message, attempt.verdict_path)
