"""FEAT-009, training-dynamics self-assessment: what would you guess, what was predicted, what held?

run(ctx)
    _measured   the measurements of the track's features, from their results
    _assess     pose:    each question of track_a.yaml, decided by its rule on those measurements
                size:    each candidate for the minimum interesting experiment, by its effect
                         and spread
                score:   each prediction of the plan, by the runner's own rule
    report.…    numbers, tables, figures and sentences made from them
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lab import present
from lab.contract import Context, ContractError, Result, environment, main
from lab.digests import sha256
from lab.present.write import as_json
from lab.synthesis import questions, report, retrospect, smallest
from lab.synthesis.evidence import Evidence

QUESTION = (
    "Which statements about training dynamics would you have made wrongly before this track, "
    "which of its own predictions were wrong, and what is the smallest experiment that would have "
    "taught you something?"
)
HYPOTHESIS = (
    "At least half of what was predicted before the track holds on its numbers and at least one "
    "prediction does not; the comparison that needs the fewest runs to be decided is true answers "
    "against shuffled ones, because the labels change more than any setting does."
)
METHOD = (
    "Nothing is trained. Each question states a rule and no answer: which of some measurements is "
    "the largest, between which limits a number or its 95 % interval lies, or the number itself. "
    "The rules are applied to the results of the track's four features as they were verified; a "
    "question that the numbers leave open is not asked. Each prediction of the plan is scored "
    "again by the plan's own rule: with the 95 % interval of an estimate, HELD on the claimed "
    "side, MISSED on the other, else INCONCLUSIVE. The minimum interesting experiment is the "
    "comparison of two settings that would have needed the fewest training examples to be decided, "
    "given the effect and the spread between seeds that were measured; it is a plan made after the "
    "fact from few seeds, not a second test."
)
EXPERIMENT = __spec__.name if __name__ == "__main__" and __spec__ else __name__


@dataclass(frozen=True)
class Assessed:
    """All that was computed.

    results: feature -> its result; left_out: ids of the questions that stay open.
    """

    results: Mapping[str, Result]
    asked: tuple[questions.Question, ...]
    posed: tuple[questions.Posed, ...]
    left_out: tuple[str, ...]
    sized: tuple[smallest.Sized, ...]
    scored: tuple[retrospect.Scored, ...]

    @property
    def minimum(self) -> smallest.Sized:
        """Give the minimum interesting experiment."""
        return smallest.minimum(self.sized)


def run(ctx: Context) -> None:
    """Assess, store what the answers come from, and show it."""
    assessed = assess(ctx)
    found = sources(ctx)
    store(ctx, assessed, found)
    numbers = report.measurements(assessed)
    result = Result(
        EXPERIMENT,
        QUESTION,
        HYPOTHESIS,
        METHOD,
        numbers,
        tables=report.tables(assessed),
        findings=report.findings(assessed, numbers, found),
        environment=environment(
            ctx, receipts={name: source["receipt"] for name, source in found.items()}
        ),
    )
    present.write(ctx.out, result, report.figures(assessed))
    ctx.progress(1, 1, f"{len(assessed.posed)} questions, {len(assessed.scored)} predictions")


def assess(ctx: Context) -> Assessed:
    """Pose every question, score every prediction, size every candidate."""
    results = {name: _result(ctx, name) for name in ctx.config["features"]}
    measured: Evidence = {name: result.measurements for name, result in results.items()}
    asked, document = questions.read()
    posed = {question.id: questions.pose(question, measured) for question in asked}
    plan = json.loads(ctx.inputs.path(ctx.config["plan"]).read_text("utf-8"))
    return Assessed(
        results,
        asked,
        tuple(found for found in posed.values() if found is not None),
        tuple(name for name, found in posed.items() if found is None),
        tuple(
            smallest.size(candidate, measured)
            for candidate in smallest.candidates(document["candidates"])
        ),
        tuple(
            retrospect.score(claim, measured[claim.feature])
            for claim in retrospect.claims(plan, results)
        ),
    )


def _result(ctx: Context, feature: str) -> Result:
    """Give a feature's result; ContractError if the folder holds none that can be read."""
    path = ctx.inputs.path(feature) / "result.json"
    try:
        return Result.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, KeyError, ValueError) as error:
        msg = (
            f"{feature}: {path} is no result ({type(error).__name__}: {error}); give the "
            "outputs of a whole run"
        )
        raise ContractError(msg) from error


def sources(ctx: Context) -> dict[str, dict[str, str]]:
    """Give what the answers rest on: feature -> digests of its receipt and its result.

    A run by hand has no receipt: "none".
    """
    return {
        name: {
            "receipt": str(ctx.inputs.entries[name].get("receipt", "none")),
            "result": f"sha256:{sha256((ctx.inputs.path(name) / 'result.json').read_bytes())}",
        }
        for name in ctx.config["features"]
    }


def store(ctx: Context, assessed: Assessed, found: Mapping[str, Mapping[str, str]]) -> None:
    """Write the rules with what they gave, the predictions, the digests of what they used."""
    documents: dict[str, Any] = {
        "questions": {"asked": _plain(assessed.asked), "posed": _plain(assessed.posed)},
        "candidates": _plain(item.candidate for item in assessed.sized),
        "predictions": _plain(item.claim for item in assessed.scored),
        "sources": found,
    }
    for name, document in documents.items():
        (ctx.out / f"{name}.json").write_bytes(as_json(document))


def _plain(items: Any) -> list[dict[str, Any]]:
    return [asdict(item) for item in items]


if __name__ == "__main__":
    main(run)
