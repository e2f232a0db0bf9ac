"""Findings of what to ask next: sentences that change with their numbers."""

from __future__ import annotations

from collections.abc import Mapping

from lab.present.numbers import count, number
from lab.result import Measurement
from lab.synthesis.next_questions import wording
from lab.synthesis.next_questions.measured import Candidate, NextQuestions
from lab.synthesis.next_questions.numbers import FIRST


def findings(questions: NextQuestions, measurements: Mapping[str, Measurement]) -> tuple[str, ...]:
    """Return what to ask, what it costs, and whence the questions come."""
    affordable = questions.affordable
    sentences = []
    # 1. The questions.
    if affordable:
        sentences.append(f"Ask next: {_sentence(affordable[0])}")
        for candidate in affordable[1:3]:
            sentences.append(f"Then: {_sentence(candidate)}")
        first = min(FIRST, len(affordable))
        hours = measurements["first_five_hours"].number
        sentences.append(
            f"The first {count(first, 'experiment')} take {wording.duration(hours)} together; the "
            f"cheapest of all takes {wording.duration(measurements['cheapest_hours'].number)}, the "
            f"dearest {wording.duration(measurements['dearest_hours'].number)}."
        )

    # 2. Whence they come.
    value = {name: measurement.value for name, measurement in measurements.items()}
    predictions = count(len(questions.scores), "prediction")
    experiments = count(len(questions.candidates), "experiment")
    sentences.append(
        f"Of {predictions}, {value['predictions_missed']} missed and "
        f"{value['predictions_inconclusive']} could not be decided. {experiments} follow: "
        f"{value['candidates_missed']} from misses, {value['candidates_open']} from what is open, "
        f"{value['candidates_wide']} from wide intervals; {value['out_of_reach']} of them out of "
        f"reach. From {count(len(questions.unplanned), 'prediction')} none follows."
    )
    if questions.widths:
        percent = number(100 * questions.widths[0].relative, 2)
        sentences.append(
            f"The widest headline number is {value['widest']}: its interval reaches {percent} % "
            "of what is claimed of it, or of itself, to either side."
        )
    return tuple(sentences)


def _sentence(candidate: Candidate) -> str:
    """Return a question with its prediction and its cost."""
    cost = candidate.cost
    assert cost is not None  # it is within reach
    return (
        f"{wording.question(candidate)} Prediction: {wording.prediction(candidate)}. It takes "
        f"{wording.duration(candidate.hours)} by the {cost.source} and tells "
        f"{number(candidate.bits, 2)} bits."
    )
