"""FEAT-020, what to ask next: next experiments, from what missed, stayed open or is uncertain.

run(ctx)
    measure
        read_source          results and receipts of the features among the inputs
        score_prediction     each prediction of the plan, by the runner's own rule
        candidates.propose   a next experiment for each that did not hold
        candidates.narrow    and for the widest headline numbers
        costs.with_cost      by FEAT-017's models, or by the receipt
        candidates.rank      most told per hour first
    store                    all candidates, and the best as a feature of a plan
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.contract import Context, ContractError, Experiment, Outcome, Result, main
from lab.digests import sha256
from lab.present.write import as_json
from lab.synthesis.next_questions import figures, numbers, report, tables, wording
from lab.synthesis.next_questions.candidates import find_widths, narrow, propose, rank
from lab.synthesis.next_questions.costs import CostModel, with_cost
from lab.synthesis.next_questions.measured import Candidate, NextQuestions, Source
from lab.synthesis.retrospect import read_predictions, score_prediction

EXPERIMENT = Experiment(
    title="What to ask next",
    question=(
        "Which next experiment tells most for its cost, given what missed, what stayed open and "
        "what is known least?"
    ),
    hypothesis=(
        "Most of what did not hold can be asked again in less than an hour each on this machine, "
        "and the cheapest question is one that needs no training."
    ),
    method=(
        "Nothing is trained and no model is run. Each prediction of the plan is scored by the "
        "plan's own rule. A miss is asked again with a changed setting. What is open is asked with "
        "as many repeats as would have decided it, given the standard deviation that was measured; "
        "the widest headline numbers with as many as halve their intervals. Trainings cost what "
        "the models of FEAT-017 say, everything else what its receipt says, times the repeats. An "
        "answer is worth 1 bit where nothing is known of it or an interval is halved, and the "
        "entropy of its probability where the measured number says something. Bits per hour rank. "
        "It is a plan made after the fact from few repeats: it says where to look, not what is "
        "there."
    ),
    headline=(
        "best",
        "best_bits_per_hour",
        "candidates",
        "first_five_hours",
        "predictions_missed",
        "predictions_inconclusive",
        "widest",
    ),
)


def run(ctx: Context) -> Outcome:
    """Make the candidates, store them, and return numbers, tables and findings."""
    questions, plan = measure(ctx)
    store(ctx.out, questions, plan)
    measured = numbers.measurements(questions)
    score_count, candidate_count = len(questions.scores), len(questions.candidates)
    ctx.progress(1, 1, f"{score_count} predictions, {candidate_count} candidates")
    receipts = {feature: source.receipt for feature, source in questions.sources.items()}
    return Outcome(
        measured,
        tables=tables.tables(questions),
        findings=report.findings(questions, measured),
        figures=figures.figures(questions),
        environment={"receipts": receipts},
    )


def measure(ctx: Context) -> tuple[NextQuestions, Mapping[str, Any]]:
    """Return everything that is asked, and the plan."""
    # 1. What there is.
    plan = json.loads(ctx.inputs.path(ctx.config["plan"]).read_text("utf-8"))
    features = [name for name, one in ctx.inputs.entries.items() if one["kind"] == "feature"]
    sources = {feature: read_source(ctx, feature) for feature in sorted(features)}
    results = {feature: source.result for feature, source in sources.items()}

    # 2. How the predictions fared.
    predictions = read_predictions(plan, results)
    scores = []
    for prediction in predictions:
        scores.append(score_prediction(prediction, results[prediction.feature].measurements))

    # 3. The candidates, with their cost.
    candidates, unplanned = propose(scores, results, ctx.config)
    widths = find_widths(results, predictions)
    candidates += narrow(widths, candidates, results, ctx.config)
    model = read_model(ctx, results)
    costed = []
    for candidate in candidates:
        costed.append(with_cost(candidate, sources[candidate.feature], model, ctx.config))
    questions = NextQuestions(sources, tuple(scores), rank(costed), tuple(unplanned), widths)
    return questions, plan


def read_source(ctx: Context, feature: str) -> Source:
    """Return a feature's result and what its receipt says.

    Raises:
        ContractError: result or receipt cannot be read.
    """
    folder = ctx.inputs.path(feature)
    try:
        result = Result.from_json(json.loads((folder / "result.json").read_text("utf-8")))
        receipt = (folder / "receipt.json").read_bytes()
        products = json.loads(receipt)["predicate"]["runDetails"]["byproducts"]
        process = next(one["content"] for one in products if one["name"] == "process")
        seconds, peak = float(process["seconds"]), float(process["peakMemoryBytes"])
    except (OSError, KeyError, ValueError, StopIteration) as error:
        msg = (
            f"{feature}: {folder} has no result with its receipt ({type(error).__name__}: "
            f"{error}); give the outputs of a verified run"
        )
        raise ContractError(msg) from error
    return Source(result, f"sha256:{sha256(receipt)}", seconds, peak)


def read_model(ctx: Context, results: Mapping[str, Result]) -> CostModel | None:
    """Return the models of memory and time; None where their feature is not among the inputs.

    Raises:
        ContractError: the feature's outputs lack them.
    """
    feature = ctx.config["hardware"]
    if feature not in results:
        return None
    path = ctx.inputs.path(feature) / "artifacts/configs/base.json"
    try:
        machine = results[feature].environment["machine"]
        return CostModel.from_json(feature, machine, json.loads(path.read_text("utf-8")))
    except (OSError, KeyError, TypeError, ValueError) as error:
        msg = (
            f"{feature}: {path} or `machine` of its environment cannot be read "
            f"({type(error).__name__}: {error}); give its outputs with artifacts/"
        )
        raise ContractError(msg) from error


# What is stored


def store(out: Path, questions: NextQuestions, plan: Mapping[str, Any]) -> None:
    """Write all candidates and, where there is one, the best as a feature of a plan."""
    rows = [candidate_json(one, place) for place, one in enumerate(questions.candidates, start=1)]
    (out / "candidates.json").write_bytes(as_json(rows))
    entry = {}
    if questions.affordable:
        entry = plan_entry(questions.affordable[0], plan)
    (out / "plan_entry.json").write_bytes(as_json(entry))


def candidate_json(candidate: Candidate, place: int) -> dict[str, Any]:
    """Return a candidate with everything that it comes from; cost and bits per hour may be null."""
    bits_per_hour = None
    if candidate.cost is not None:
        bits_per_hour = candidate.bits_per_hour
    return {
        "rank": place,
        **asdict(candidate),
        "measured": candidate.measured.to_json(),
        "question": wording.question(candidate),
        "prediction": wording.prediction(candidate),
        "bits_per_hour": bits_per_hour,
    }


def plan_entry(best: Candidate, plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the best candidate as a feature of the plan, to be edited.

    It is the feature that it comes from, with the next free id, the question, the prediction and
    the cost in place of its own. What it changes is said in `description`: the config is the
    user's to copy and change.
    """
    features = [feature for phase in plan["phases"] for feature in phase["features"]]
    numbers_used = [int(feature["id"].rpartition("-")[2]) for feature in features]
    origin = next(feature for feature in features if feature["id"] == best.feature)
    cost, expected = best.cost, best.expected
    assert cost is not None  # it is within reach
    kept = ("module", "command", "config", "needs", "inputs", "outputs", "gate", "timeout_s")
    return {
        "id": f"{best.feature.rpartition('-')[0]}-{max(numbers_used) + 1:03}",
        "title": f"{origin['title']}, asked again",
        "description": (
            f"{wording.question(best)} As {best.feature}, {wording.circumstance(best)}: copy its "
            "config and change that."
        ),
        **{name: origin[name] for name in kept if name in origin},
        "predictions": [
            {
                "id": f"{best.id}-again",
                "claim": wording.prediction(best),
                "measurement": expected.measurement,
                "comparator": expected.comparator,
                "value": expected.value,
                "source": f"{best.feature}: {wording.reason(best)}",
            }
        ],
        "expect": {
            "minutes": max(1, math.ceil(cost.seconds / 60)),
            "memory_gb": max(1, math.ceil(cost.bytes / 1e9)),
        },
    }


if __name__ == "__main__":
    main(EXPERIMENT, run)
