"""The words of a track's questions and candidates: those that were reviewed, and filled rightly.

words.json has a digest of every question and every candidate of each track. A question's digest
covers what it asks, its rule and its bins, and the label and the `why` of every option in the order
of the bins: a label that was moved to another bin is another question. The lab's files are kept
equal to it by tests/gates/test_synthesis_gate.py, which also says what to write for a new track.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gates.shared import deciding
from gates.shared.deciding import Results
from gates.shared.documents import filled, shows

OUTCOMES = ("HELD", "MISSED", "INCONCLUSIVE")


@dataclass(frozen=True)
class Comparisons:
    """What the figure of a track's comparisons says of them, beside their numbers."""

    effect: str
    difference: str
    title: str
    fewest: str


OVER_SEEDS = Comparisons(
    effect="Mean paired difference",
    difference="difference of loss (nats/token)",
    title="Comparisons of two settings, one difference per seed",
    fewest="runs",
)
OVER_TEXTS = Comparisons(
    effect="Difference",
    difference="difference (nats/token or share)",
    title="Comparisons of two settings, errors by leaving out one text at a time",
    fewest="tokens",
)


def reviewed(track: str) -> dict[str, dict[str, str]]:
    """Return the digests by id (questions) or name (candidates) of a track."""
    text = Path(__file__).with_name("words.json").read_text("utf-8")
    digests: dict[str, dict[str, str]] = json.loads(text)[track]
    return digests


def digests(
    questions: Iterable[Mapping[str, Any]], candidates: Iterable[Mapping[str, Any]]
) -> dict[str, dict[str, str]]:
    """Return the digests of a track's questions and candidates, as questions.json has them."""
    return {
        "questions": {item["id"]: _digest(item) for item in questions},
        "candidates": {item["name"]: _digest(item) for item in candidates},
    }


def _digest(item: Mapping[str, Any]) -> str:
    """Return a digest of all fields; whole numbers are the same as floats, as 1 and 1.0."""
    text = json.dumps(_plain(item), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    """Return a JSON value with single blanks in its texts and floats in place of whole numbers."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return " ".join(value.split())
    if deciding.is_number(value):
        return float(value)
    return value


def misworded(
    question: Mapping[str, Any], posed: Mapping[str, Any], option: int | None, results: Results
) -> list[str]:
    """Return which texts of a posed question are not its own words with the measured numbers.

    option: the right one by the measurements; None for a number.
    """
    why = question["why"] if option is None else question["options"][option]["why"]
    templates = {"text": question["ask"], "explanation": f"{_statement(question)} {why}"}
    problems = []
    for field, template in templates.items():
        if not is_filled(template, posed[field], results):
            problems.append(f"{question['id']}: {field} {posed[field]!r} is not {template!r}")
    if posed["topic"] != question["topic"]:
        problems.append(f"{question['id']}: topic {posed['topic']!r}")
    return problems


def _statement(question: Mapping[str, Any]) -> str:
    """Return the template of the sentence that states what decided."""
    expressions = [question["of"] or "", *(option["of"] or "" for option in question["options"])]
    words = " ".join(expressions).split(" ")
    names = list(dict.fromkeys(word for word in words if "." in word))
    if question["of"] and len(names) > 1:
        names.append(question["of"])
    return "; ".join(f"{name} = {{{name}}}" for name in names) + "."


def is_filled(template: str, text: str, results: Results) -> bool:
    """Return whether a text is a template with the measured number in the place of each {…}."""
    slots = filled(" ".join(template.split()), text)
    if slots is None:
        return False
    for expression, stated in slots:
        value = deciding.calculate(results, expression)["value"]
        if not shows(stated, value, _unit(expression, results)):
            return False
    return True


def _unit(expression: str, results: Results) -> str:
    """Return the unit of an expression; a quotient has none that is read in another size."""
    if " / " in expression:
        return ""
    feature, _, name = expression.split(" ", maxsplit=1)[0].partition(".")
    return str(results[feature][name].get("unit", ""))
