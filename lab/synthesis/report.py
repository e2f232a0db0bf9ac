"""Findings of the self-assessment: sentences that change with its numbers."""

from __future__ import annotations

from collections.abc import Mapping

from lab.present.numbers import count, number, quantity
from lab.result import Measurement
from lab.synthesis.measured import Assessment
from lab.synthesis.retrospect import PredictionScore

# feature -> {"receipt": digest, "result": digest}
Sources = Mapping[str, Mapping[str, str]]


def findings(
    assessment: Assessment, measurements: Mapping[str, Measurement], sources: Sources
) -> tuple[str, ...]:
    """Return the sentences that the numbers support.

    The minimum interesting experiment, the balance of the predictions, each one that did not hold,
    and what the questions cover.
    """
    # The predictions: their balance, and each one that did not hold.
    values = {name: measurement.value for name, measurement in measurements.items()}
    missed, inconclusive = [], []
    for score in assessment.scores:
        if score.outcome == "MISSED":
            missed.append(f"Missed, and therefore learned: {_describe(score)}")
        elif score.outcome == "INCONCLUSIVE":
            inconclusive.append(f"Still open: {_describe(score)}")
    balance = (
        f"Of {count(len(assessment.scores), 'prediction')} registered before the track, "
        f"{values['predictions_held']} held, {values['predictions_missed']} missed and "
        f"{values['predictions_inconclusive']} could not be decided by these runs."
    )
    return (
        _minimum_sentence(assessment, sources),
        balance,
        *missed,
        *inconclusive,
        _questions_sentence(assessment, measurements),
    )


def _describe(score: PredictionScore) -> str:
    prediction = score.prediction
    return f"{prediction.feature} claimed that {prediction.claim}; {score.reason}."


def _questions_sentence(assessment: Assessment, measurements: Mapping[str, Measurement]) -> str:
    questions = count(int(measurements["questions"].number), "question")
    topics = count(int(measurements["topics"].number), "topic")
    numbers_used = count(int(measurements["numbers_used"].number), "measurement")
    blind_percent = number(100 * measurements["blind_score"].number, 2)
    sentence = (
        f"{questions} on {topics} are decided by {numbers_used} of this track; guessing blindly "
        f"gets {blind_percent} % of them right."
    )
    if not assessment.open_questions:
        return f"{sentence} The numbers leave none of them open."
    names = ", ".join(assessment.open_questions)
    return f"{sentence} The numbers of this run do not decide these, which are not asked: {names}."


def _minimum_sentence(assessment: Assessment, sources: Sources) -> str:
    """Return what the minimum interesting experiment is, its answer and its receipt."""
    minimum, units = assessment.minimum, assessment.units
    candidate = minimum.candidate
    receipt = sources[candidate.feature]["receipt"]
    effect = f"{quantity(minimum.effect)}, {candidate.of}, receipt {receipt}"
    if not minimum.decided:
        return (
            f"None of {count(len(assessment.candidates), 'comparison')} was decided by these runs. "
            f"The nearest to a minimum interesting experiment is {candidate.name!r}: "
            f"{candidate.question} ({effect}.)"
        )
    return (
        f"The minimum interesting experiment is {candidate.name!r}: {candidate.question} With the "
        f"standard deviation between {units.repeats} that was measured, {minimum.seeds} "
        f"{units.repeats} or {number(minimum.examples)} {units.costs} would have been enough. "
        f"Answer: {minimum.answer} ({effect})."
    )
