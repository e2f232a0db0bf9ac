"""Measurements of the next questions: pure functions of the candidates."""

from __future__ import annotations

from collections import Counter

from lab.result import Measurement
from lab.synthesis.next_questions.measured import Kind, NextQuestions

FIRST = 5  # candidates whose cost is added up


def measurements(questions: NextQuestions) -> dict[str, Measurement]:
    """Return all measurements.

    All are exact: what the rules and the models of cost make of the inputs. How far a model is off
    is a measurement of the feature that fitted it.
    """
    outcomes = Counter(score.outcome for score in questions.scores)
    kinds = Counter(candidate.kind for candidate in questions.candidates)
    affordable = questions.affordable
    exact = Measurement.of_exact
    numbers = {
        "predictions": exact(len(questions.scores), "predictions"),
        "predictions_missed": exact(outcomes["MISSED"], "predictions"),
        "predictions_inconclusive": exact(outcomes["INCONCLUSIVE"], "predictions"),
        "candidates": exact(len(questions.candidates), "experiments"),
        "candidates_missed": exact(kinds[Kind.MISSED], "experiments"),
        "candidates_open": exact(kinds[Kind.OPEN] + kinds[Kind.UNREPEATED], "experiments"),
        "candidates_wide": exact(kinds[Kind.WIDE], "experiments"),
        "out_of_reach": exact(len(questions.candidates) - len(affordable), "experiments"),
        "unplanned": exact(len(questions.unplanned), "predictions"),
        "widest": exact(None),
        "widest_relative": exact(None),
        "best": exact(None),
        "best_bits_per_hour": exact(None, "bits/h"),
        "cheapest_hours": exact(None, "h"),
        "dearest_hours": exact(None, "h"),
        "first_five_hours": exact(None, "h"),
    }

    # Without a width or a candidate there is nothing to state of them.
    if questions.widths:
        widest = questions.widths[0]
        numbers["widest"] = exact(f"{widest.feature}.{widest.measurement}")
        numbers["widest_relative"] = exact(widest.relative, "of what is claimed")
    if affordable:
        hours = [candidate.hours for candidate in affordable]
        numbers["best"] = exact(affordable[0].name)
        numbers["best_bits_per_hour"] = exact(affordable[0].bits_per_hour, "bits/h")
        numbers["cheapest_hours"] = exact(min(hours), "h")
        numbers["dearest_hours"] = exact(max(hours), "h")
        numbers["first_five_hours"] = exact(sum(hours[:FIRST]), "h")
    return numbers
