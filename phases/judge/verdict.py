"""A judgement as a record: an in-toto Statement v1 with predicate test-result v0.1.

Source: https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md. What that predicate has no
field for stands under one extension key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from phases.judge.coverage import MeasurementCoverage
from phases.judge.mutation import Judgement
from phases.record.receipt import STATEMENT

TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
EXTENSION = "phases/gate/v1"


def verdict(
    judgement: Judgement, *, outputs: Mapping[str, str], configuration: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The judgement as a document that JSON can hold.

    Args:
        judgement: what was found.
        outputs: path -> SHA-256 of what was judged: the subject.
        configuration: in-toto resource descriptors ({"name" or "uri", "digest"}) of what judged it.
    """
    run = judgement.true_run
    return {
        "_type": STATEMENT,
        "subject": [{"name": path, "digest": {"sha256": digest}} for path, digest in sorted(outputs.items())],
        "predicateType": TEST_RESULT,
        "predicate": {
            "result": "PASSED" if judgement.state == "verified" else "FAILED",
            "configuration": [dict(item) for item in configuration],
            "passedTests": [check.id for check in run.checks if check.passed],
            "warnedTests": [],
            "failedTests": list(run.failing),
            EXTENSION: {
                "state": judgement.state,
                "reasons": list(judgement.reasons),
                "unjudged": list(judgement.unjudged),
                "messages": {check.id: check.message for check in run.checks if not check.passed},
                "nonce": judgement.nonce,
                "outcome": run.outcome,
                "exitCode": run.exit_code,
                "signal": run.signal,
                "negatives": [
                    {"kind": item.kind, "ok": item.ok, "outcome": item.outcome, "caughtBy": list(item.caught_by),
                     "reason": item.reason}
                    for item in judgement.negatives
                ],
                "coverage": _coverage(judgement.coverage),
                "seconds": {"trueRun": round(run.seconds, 3), "all": round(judgement.seconds, 3)},
            },
        },
    }  # fmt: skip


def _coverage(met: MeasurementCoverage | None) -> dict[str, Any] | None:
    if met is None:
        return None
    names = {"recomputed": met.recomputed, "bounded": met.bounded, "claimed": met.claimed}
    return {"fraction": met.fraction, **{level: list(listed) for level, listed in names.items()}}


def coverage_counts(judgement: Judgement) -> tuple[int, int, int] | None:
    """Measurements (recomputed, bounded, all); None without measurements or proof."""
    covered = judgement.coverage
    if covered is None:
        return None
    recomputed, bounded = len(covered.recomputed), len(covered.bounded)
    total = recomputed + bounded + len(covered.claimed)
    return (recomputed, bounded, total) if total else None
