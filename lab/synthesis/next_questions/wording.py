"""A next experiment in sentences: its question, its prediction, what it changes."""

from __future__ import annotations

from typing import Any

from lab.present.numbers import number, quantity
from lab.synthesis.next_questions.measured import Candidate, Claim, Kind

COMPARATORS = {
    "<": "below",
    "<=": "at most",
    ">": "above",
    ">=": "at least",
    "==": "equal to",
    "!=": "other than",
}
REASONS = {
    Kind.MISSED: "missed",
    Kind.OPEN: "not decided",
    Kind.UNREPEATED: "not decided: measured once",
    Kind.WIDE: "wide interval",
}


def question(candidate: Candidate) -> str:
    """Return the question, a sentence that ends with its mark."""
    name, expected = candidate.name, describe_claim(candidate.expected)
    if candidate.kind == Kind.MISSED and candidate.claimed is not None:
        claimed = describe_claim(candidate.claimed)
        return (
            f"Is {name} {expected}, and not {claimed} as was claimed, also "
            f"{circumstance(candidate)}?"
        )
    if candidate.kind == Kind.WIDE:
        return f"Where in its interval, {describe_range(candidate.expected)}, is {name}?"
    return f"Is {name} really {expected}?"


def prediction(candidate: Candidate) -> str:
    """Return what is expected of the answer."""
    expected = candidate.expected
    return f"{expected.measurement} is {describe_claim(expected)} {circumstance(candidate)}"


def circumstance(candidate: Candidate) -> str:
    """Return under what the next experiment measures."""
    change, repeats = candidate.change, candidate.repeats
    if change is not None and change.after is not None:
        return f"with {number(change.after)} {change.word} in place of {number(change.before)}"
    if repeats is None:
        return "with another seed"
    needed = "more than can be paid"
    if repeats.needed is not None:
        needed = number(repeats.needed)
    if repeats.before is None:
        return f"over {needed} {repeats.word}"
    return f"over {needed} {repeats.word} in place of {number(repeats.before)}"


def describe_claim(claim: Claim) -> str:
    """Return a claim without its measurement: `at least 0.6`, `between 0.1 and 0.2`."""
    if claim.comparator == "within":
        return f"between {_stated(claim.value[0])} and {_stated(claim.value[1])}"
    return f"{COMPARATORS[claim.comparator]} {_stated(claim.value)}"


def describe_range(claim: Claim) -> str:
    """Return the limits of a range: `0.1 to 0.2`."""
    return f"{_stated(claim.value[0])} to {_stated(claim.value[1])}"


def reason(candidate: Candidate) -> str:
    """Return why it is asked, with the number that was measured."""
    text = f"{REASONS[candidate.kind]}; it was {quantity(candidate.measured)}"
    if candidate.kind == Kind.OPEN and candidate.claimed is not None:
        return f"{text}, claimed {describe_claim(candidate.claimed)}"
    return text


def duration(hours: float) -> str:
    """Return hours in the unit that reads best."""
    seconds = 3600 * hours
    if seconds < 120:
        return f"{number(seconds, 2)} s"
    if hours < 2:
        return f"{number(seconds / 60, 2)} min"
    return f"{number(hours, 2)} h"


def _stated(value: Any) -> str:
    """Return a value of a claim as plans write it, `0.6` and not `0.6000`."""
    if isinstance(value, float):
        return f"{value:,.4g}"
    return number(value)
