"""The sentences of a next experiment, made again from its fields."""

from __future__ import annotations

from typing import Any

from gates.shared.documents import written

WORDS = {
    "<": "below",
    "<=": "at most",
    ">": "above",
    ">=": "at least",
    "==": "equal to",
    "!=": "other than",
}
LARGER = {  # unit -> the units in its place: their name, size, and least value
    "bytes": (("GiB", 2**30, 2**30), ("MiB", 2**20, 2**20), ("KiB", 2**10, 2**10)),
    "s": (("min", 60, 120),),
}
WHY = {
    "missed": "missed",
    "open": "not decided",
    "unrepeated": "not decided: measured once",
    "wide": "wide interval",
}


def question(candidate: dict[str, Any]) -> str:
    """Return the question of a candidate."""
    name = f"{candidate['feature']}.{candidate['expected']['measurement']}"
    expected = claim(candidate["expected"])
    if candidate["kind"] == "missed":
        claimed = claim(candidate["claimed"])
        how = circumstance(candidate)
        return f"Is {name} {expected}, and not {claimed} as was claimed, also {how}?"
    if candidate["kind"] == "wide":
        low, high = map(stated, candidate["expected"]["value"])
        return f"Where in its interval, {low} to {high}, is {name}?"
    return f"Is {name} really {expected}?"


def prediction(candidate: dict[str, Any]) -> str:
    """Return what is expected."""
    expected = candidate["expected"]
    return f"{expected['measurement']} is {claim(expected)} {circumstance(candidate)}"


def circumstance(candidate: dict[str, Any]) -> str:
    """Return what the next experiment changes or repeats."""
    change, repeats = candidate["change"], candidate["repeats"]
    if repeats is None:
        if change["after"] is None:
            return "with another seed"
        return f"with {change['after']:,} {change['word']} in place of {change['before']:,}"
    needed = "more than can be paid"
    if repeats["needed"] is not None:
        needed = f"{repeats['needed']:,}"
    over = f"over {needed} {repeats['word']}"
    if repeats["before"] is None:
        return over
    return f"{over} in place of {repeats['before']:,}"


def claim(content: dict[str, Any]) -> str:
    """Return a claim without the name of what is measured."""
    value = content["value"]
    if content["comparator"] == "within":
        return f"between {stated(value[0])} and {stated(value[1])}"
    return f"{WORDS[content['comparator']]} {stated(value)}"


def stated(value: Any) -> str:
    """Return a claimed value in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def reason(candidate: dict[str, Any]) -> str:
    """Return why it is asked, with the number that was measured."""
    text = f"{WHY[candidate['kind']]}; it was {quantity(candidate['measured'])}"
    if candidate["kind"] == "open":
        return f"{text}, claimed {claim(candidate['claimed'])}"
    return text


def duration(hours: float) -> str:
    """Return a time in the unit that reads best, to two digits."""
    seconds = 3600 * hours
    if seconds < 120:
        return f"{written(seconds, 2)} s"
    if hours < 2:
        return f"{written(seconds / 60, 2)} min"
    return f"{written(hours, 2)} h"


def quantity(measured: dict[str, Any]) -> str:
    """Return a measurement with its error, unit and n, in the units that are read most easily."""
    value, stderr = measured["value"], measured.get("stderr")
    unit, size = measured.get("unit", ""), 1
    if isinstance(value, (int, float)):
        for name, larger, least in LARGER.get(unit, ()):
            if abs(value) >= least:
                unit, size = name, larger
                break
    text = stated(value)
    if isinstance(value, float) or size > 1:
        text = written(value / size, 4)
    if stderr is not None:
        text += f" ± {written(stderr / size, 2)}"
    if unit:
        text += f" {unit}"
    if measured.get("n") is not None:
        text += f" (n = {measured['n']:,})"
    return text
