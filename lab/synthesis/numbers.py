"""Measurements of the self-assessment: pure functions of what was assessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from lab.result import Measurement
from lab.synthesis.measured import Assessment
from lab.synthesis.questions import PosedQuestion


def measurements(assessment: Assessment) -> dict[str, Measurement]:
    """Return all measurements.

    All are exact but the effect of the minimum interesting experiment, which is the measurement of
    the feature that it belongs to.
    """
    # 1. Every question counts for the names used, also one that these numbers leave open.
    questions = assessment.posed_questions
    names_used: set[str] = set()
    for question in assessment.questions:
        names_used.update(question.all_names)

    # 2. Predictions and candidates.
    outcomes = Counter(score.outcome for score in assessment.scores)
    held_share = None
    if assessment.scores:
        held_share = outcomes["HELD"] / len(assessment.scores)
    decided_count = sum(result.decided for result in assessment.candidates)
    minimum, units = assessment.minimum, assessment.units

    exact = Measurement.of_exact
    return {
        "questions": exact(len(questions), "questions"),
        "questions_left_out": exact(len(assessment.open_questions), "questions"),
        "topics": exact(len({question.topic for question in questions}), "topics"),
        "numbers_used": exact(len(names_used), "measurements"),
        "blind_score": exact(blind_score(questions), ""),
        "predictions": exact(len(assessment.scores), "predictions"),
        "predictions_held": exact(outcomes["HELD"], "predictions"),
        "predictions_missed": exact(outcomes["MISSED"], "predictions"),
        "predictions_inconclusive": exact(outcomes["INCONCLUSIVE"], "predictions"),
        "held_share": exact(held_share, ""),
        "candidates": exact(len(assessment.candidates), "comparisons"),
        "candidates_decided": exact(decided_count, "comparisons"),
        "minimum_experiment": exact(minimum.candidate.name),
        "minimum_experiment_feature": exact(minimum.candidate.feature),
        "minimum_experiment_answer": exact(minimum.answer),
        units.repeats_name: exact(minimum.seeds, units.repeats),
        units.costs_name: exact(minimum.examples, units.costs),
        "minimum_experiment_effect": minimum.effect,
    }


def blind_score(questions: Sequence[PosedQuestion]) -> float:
    """Return the share of questions that evenly guessed letters get right; a number is never."""
    expected = sum(1 / len(question.choices) for question in questions if question.choices)
    return expected / max(len(questions), 1)
