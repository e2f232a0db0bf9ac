"""I-35: what a verdict states of outputs and mutants is recomputed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from forged_edits import (
    COMMAND,
    FAILED,
    GATE,
    MODULE,
    OTHER,
    SURVIVED,
    VERDICT,
    case,
    check,
    extra_mutant,
    judged,
    lines_follow,
    mutant,
    names_of,
    predicate,
    rare,
    verdict,
    without_mutant,
)
from forged_record import LastRecord, Place
from quick import Quick

#### the verdict

TAMPERED = ("tamper", "artifacts/numbers.json")


def everything_passed(record: LastRecord) -> None:
    """Have all checks passed of an attempt that failed, with the mutants that there would be."""
    predicate = record.verdict["predicate"]
    predicate["passedTests"] += predicate["failedTests"]
    predicate["failedTests"] = []
    killed = {"killed": True, "killedBy": predicate["passedTests"][:1], "outcome": "failed"}
    targets = {"empty": "", "measurements": "result.json"}
    record.gate["mutants"] = [
        {"kind": kind, "target": target, "reason": "", **killed} for kind, target in targets.items()
    ]
    record.gate.update(outcome="passed", exitCode=0, messages={})


VERDICTS = {
    "a required mutant survived": case(
        COMMAND, VERDICT, mutant(*TAMPERED, **SURVIVED), lines_follow
    ),
    "the measurements' mutant survived": rare(
        COMMAND, VERDICT, mutant("measurements", "result.json", **SURVIVED), lines_follow
    ),
    "an empty folder passed": case(MODULE, VERDICT, mutant("empty", "", **SURVIVED), lines_follow),
    "killed, and nothing killed it": case(COMMAND, VERDICT, mutant(*TAMPERED, killedBy=[])),
    "killed, and the run passed": case(COMMAND, VERDICT, mutant(*TAMPERED, outcome="passed")),
    "not killed, and a check killed it": case(COMMAND, VERDICT, mutant(*TAMPERED, killed=False)),
    "killed, and the run errored": rare(COMMAND, VERDICT, mutant(*TAMPERED, outcome="errored")),
    "killed by a check that there is not": case(
        COMMAND, VERDICT, mutant(*TAMPERED, killedBy=["test_invented"])
    ),
    "no mutant of an output": case(COMMAND, VERDICT, without_mutant(*TAMPERED), lines_follow),
    "no empty mutant": case(COMMAND, VERDICT, without_mutant("empty", ""), lines_follow),
    "no mutant of the measurements": rare(
        COMMAND, VERDICT, without_mutant("measurements", "result.json"), lines_follow
    ),
    "no content mutant": case(MODULE, VERDICT, without_mutant("content", "numbers.json")),
    "no mutants": rare(COMMAND, VERDICT, judged("mutants", to=[]), lines_follow),
    "an invented mutant": case(COMMAND, VERDICT, extra_mutant("tamper", "x.txt"), lines_follow),
    "a mutant twice": rare(COMMAND, VERDICT, extra_mutant(*TAMPERED), lines_follow),
    "an unknown kind of mutant": rare(COMMAND, VERDICT, extra_mutant("noise", ""), lines_follow),
    "failed tests": case(
        COMMAND,
        VERDICT,
        lambda record: record.verdict["predicate"].update(failedTests=["test_other"]),
        judged("messages", to={"test_other": "no"}),
        lines_follow,
    ),
    "FAILED": case(COMMAND, VERDICT, predicate("result", "FAILED")),
    "state failed": case(COMMAND, VERDICT, judged("state", to="failed")),
    "state pending": rare(COMMAND, VERDICT, judged("state", to="pending")),
    "reasons": case(COMMAND, VERDICT, judged("reasons", to=["this gate cannot fail"])),
    "outcome failed": case(COMMAND, VERDICT, judged("outcome", to="failed")),
    "exit code 1": case(COMMAND, VERDICT, judged("exitCode", to=1)),
    "no exit code": rare(COMMAND, VERDICT, judged("exitCode", to=None)),
    "a signal": rare(COMMAND, VERDICT, judged("signal", to=9)),
    "messages": case(COMMAND, VERDICT, judged("messages", to={"test_x": "no"})),
    "no test passed": case(COMMAND, VERDICT, predicate("passedTests", []), lines_follow),
    "a test passed twice": rare(
        COMMAND,
        VERDICT,
        lambda record: record.verdict["predicate"]["passedTests"].extend(
            record.verdict["predicate"]["passedTests"]
        ),
        lines_follow,
    ),
    "a shell gate with more checks": case(
        COMMAND,
        VERDICT,
        lambda record: record.verdict["predicate"]["passedTests"].append("test_more"),
        lines_follow,
    ),
    "another gate's digest": case(
        COMMAND, VERDICT, predicate("configuration", [{"name": GATE, "digest": {"sha256": OTHER}}])
    ),
    "no digest of the gate": rare(
        COMMAND, VERDICT, predicate("configuration", [{"name": GATE, "digest": {}}])
    ),
    "another gate": case(
        COMMAND,
        VERDICT,
        lambda record: record.verdict["predicate"]["configuration"][0].update(name="`true`"),
        lines_follow,
    ),
    "no configuration": rare(COMMAND, VERDICT, predicate("configuration", [])),
    "two gates": rare(
        COMMAND,
        VERDICT,
        lambda record: record.verdict["predicate"]["configuration"].append(
            {"name": "`true`", "digest": {"sha256": OTHER}}
        ),
    ),
    "exempt what the plan does not": case(
        COMMAND,
        VERDICT,
        lambda record: record.gate["exempt"].append({"files": "note.md", "reason": "why not"}),
        lines_follow,
    ),
    "not exempt what the plan exempts": rare(
        COMMAND, VERDICT, judged("exempt", to=[]), lines_follow
    ),
    "exempt for another reason": rare(
        COMMAND, VERDICT, judged("exempt", 0, "reason", to="it is beautiful"), lines_follow
    ),
    "exempt, and so a survivor": case(
        MODULE,
        VERDICT,
        mutant("tamper", "numbers.json", **SURVIVED),
        judged("exempt", to=[{"files": "numbers.json", "reason": "why not"}]),
        lines_follow,
    ),
    "protected by digest only, and judged": case(
        COMMAND, VERDICT, judged("digestOnly", to=["note.md"]), lines_follow
    ),
    "judged, and protected by digest only": case(
        MODULE, VERDICT, mutant("content", "numbers.json", **SURVIVED), lines_follow
    ),
    "coverage of a measurement that there is not": case(
        MODULE,
        VERDICT,
        judged("measurementCoverage", "recomputed", to=["total", "mean"]),
        lines_follow,
    ),
    "no coverage of a measurement that there is": case(
        COMMAND,
        VERDICT,
        judged("measurementCoverage", "claimed", to=[]),
        judged("measurementCoverage", "fraction", to=1.0),
        lines_follow,
    ),
    "a measurement of two levels": rare(
        MODULE,
        VERDICT,
        judged("measurementCoverage", "bounded", to=["total"]),
        lines_follow,
    ),
    "another fraction": case(COMMAND, VERDICT, judged("measurementCoverage", "fraction", to=1.0)),
    "no coverage": case(COMMAND, VERDICT, judged("measurementCoverage", to=None), lines_follow),
    "another claim": case(
        COMMAND,
        f"{VERDICT}|prediction-score",
        verdict("predicate", "phases/predictions/v1", 0, "claim", to="the total is great"),
    ),
    "another reason of a prediction": rare(
        COMMAND,
        f"{VERDICT}|prediction-score",
        verdict("predicate", "phases/predictions/v1", 1, "reason", to="total is 1; claimed == 1"),
    ),
    "a prediction that held": case(
        COMMAND,
        "prediction-score",
        verdict("predicate", "phases/predictions/v1", 1, "outcome", to="HELD"),
        lines_follow,
    ),
    "no prediction": case(
        COMMAND,
        "prediction-score",
        lambda record: record.verdict["predicate"].update({"phases/predictions/v1": []}),
        lines_follow,
    ),
    "one prediction fewer": rare(
        COMMAND,
        "prediction-score",
        lambda record: record.verdict["predicate"]["phases/predictions/v1"].pop(),
        lines_follow,
    ),
    "predictions in another order": case(
        COMMAND,
        "prediction-score",
        lambda record: record.verdict["predicate"]["phases/predictions/v1"].reverse(),
    ),
    "other outputs than the receipt": case(
        COMMAND, "verdict-foreign", lambda record: record.verdict["subject"].pop()
    ),
    "PASSED, of an attempt that failed": case(
        FAILED, f"{VERDICT}|entry-contradicts", predicate("result", "PASSED")
    ),
    "verified, of an attempt that failed": case(
        FAILED,
        f"{VERDICT}|entry-contradicts",
        predicate("result", "PASSED"),
        judged("state", to="verified"),
    ),
    "no reasons, of an attempt that failed": rare(
        FAILED, f"{VERDICT}|entry-contradicts", judged("reasons", to=[])
    ),
    "another gate's digest, of an attempt that failed": case(
        FAILED,
        VERDICT,
        verdict("predicate", "configuration", 0, "digest", to={"sha256": OTHER}),
    ),
    "another word for how a run on a mutant ended": case(
        COMMAND, VERDICT, mutant("content", "artifacts/**", outcome="unknown")
    ),
    "why a run errored that did not": case(
        COMMAND, VERDICT, mutant("content", "artifacts/**", reason="time-out")
    ),
    "another word for how the gate ended, of an attempt that failed": case(
        FAILED, VERDICT, judged("outcome", to="unknown")
    ),
    "failed, and everything passed": case(FAILED, VERDICT, everything_passed, lines_follow),
    "outcome passed, and a test failed": case(FAILED, VERDICT, judged("outcome", to="passed")),
    "exit code 0, and a test failed": case(FAILED, VERDICT, judged("exitCode", to=0)),
    "predictions, of an attempt that failed": case(
        FAILED,
        f"{VERDICT}|prediction-score",
        predicate(
            "phases/predictions/v1",
            [{"id": "x", "claim": "x", "outcome": "HELD", "reason": "x"}],
        ),
    ),
    "other outputs, of an attempt that failed": rare(
        FAILED, "verdict-foreign", lambda record: record.verdict["subject"].pop()
    ),
}


@pytest.mark.parametrize("name", names_of(VERDICTS))
def test_what_a_verdict_states_is_recomputed_i_35(at: Callable[[Place], Quick], name: str) -> None:
    check(at, VERDICTS[name])
