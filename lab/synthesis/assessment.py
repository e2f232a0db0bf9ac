"""A track's self-assessment: its questions, candidates and predictions, decided by its results.

assess(ctx, track)
    measure    _read_result          the measurements of the track's features, from their results
               pose_all              each question of the track, decided by its rule on them
               evaluate_candidate    each candidate for the minimum interesting experiment, by its
                                     effect and its standard deviation between repeats
               score_prediction      each prediction of the plan, by the runner's own rule
    source_digests                   which results and receipts they come from
    store                            questions, candidates, predictions and sources as JSON
    numbers, tables, report, figures made from what was measured
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab.contract import Context, ContractError, Outcome, Result
from lab.digests import sha256
from lab.present.write import as_json
from lab.synthesis import figures, numbers, report, tables
from lab.synthesis.measured import Assessment
from lab.synthesis.minimum_experiment import evaluate_candidate, read_candidates
from lab.synthesis.questions import pose_all, read_questions
from lab.synthesis.retrospect import read_predictions, score_prediction
from lab.synthesis.tracks import Track


def assess(ctx: Context, track: Track) -> Outcome:
    """Assess, store what the answers come from, and return numbers, tables and findings."""
    # 1. Assess and store: what the gate decides again.
    assessment = measure(ctx, track)
    sources = source_digests(ctx)
    store(ctx.out, assessment, sources)

    # 2. Numbers, and what is shown of them.
    measurements = numbers.measurements(assessment)
    question_count, score_count = len(assessment.posed_questions), len(assessment.scores)
    ctx.progress(1, 1, f"{question_count} questions, {score_count} predictions")
    return Outcome(
        measurements,
        tables=tables.tables(assessment),
        findings=report.findings(assessment, measurements, sources),
        figures=figures.figures(assessment, track.figure_prefix),
        environment={"receipts": {name: source["receipt"] for name, source in sources.items()}},
    )


def measure(ctx: Context, track: Track) -> Assessment:
    """Pose every question, evaluate every candidate, score every prediction."""
    # 1. The results of the track's features.
    results = {feature: _read_result(ctx, feature) for feature in ctx.config["features"]}
    evidence = {feature: result.measurements for feature, result in results.items()}

    # 2. The questions; those that the numbers do not decide stay open.
    questions, document = read_questions(track.questions)
    posed_questions, open_questions = pose_all(questions, evidence)

    # 3. Candidates for the minimum interesting experiment, and the plan's predictions.
    candidates = read_candidates(document["candidates"])
    plan = json.loads(ctx.inputs.path(ctx.config["plan"]).read_text("utf-8"))
    predictions = read_predictions(plan, results)
    return Assessment(
        results=results,
        questions=questions,
        posed_questions=tuple(posed_questions),
        open_questions=tuple(open_questions),
        candidates=tuple(evaluate_candidate(candidate, evidence) for candidate in candidates),
        scores=tuple(
            score_prediction(prediction, evidence[prediction.feature]) for prediction in predictions
        ),
        units=track.units,
    )


def _read_result(ctx: Context, feature: str) -> Result:
    """Return a feature's result.

    Raises:
        ContractError: the feature's folder has no result that can be read.
    """
    path = ctx.inputs.path(feature) / "result.json"
    try:
        return Result.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, KeyError, ValueError) as error:
        msg = (
            f"{feature}: {path} is no result ({type(error).__name__}: {error}); give the "
            "outputs of a whole run"
        )
        raise ContractError(msg) from error


def source_digests(ctx: Context) -> dict[str, dict[str, str]]:
    """Return what the answers rest on: feature -> digests of its receipt and its result.

    A run by hand has no receipt: "none".
    """
    sources = {}
    for feature in ctx.config["features"]:
        result = (ctx.inputs.path(feature) / "result.json").read_bytes()
        receipt = ctx.inputs.entries[feature].get("receipt", "none")
        sources[feature] = {"receipt": str(receipt), "result": f"sha256:{sha256(result)}"}
    return sources


def store(out: Path, assessment: Assessment, sources: dict[str, dict[str, str]]) -> None:
    """Write the questions with their answers, the candidates, the predictions and the sources."""
    documents: dict[str, Any] = {
        "questions": {
            "questions": list(map(asdict, assessment.questions)),
            "posed_questions": list(map(asdict, assessment.posed_questions)),
        },
        "candidates": [asdict(result.candidate) for result in assessment.candidates],
        "predictions": [asdict(score.prediction) for score in assessment.scores],
        "sources": sources,
    }
    for name, document in documents.items():
        (out / f"{name}.json").write_bytes(as_json(document))
