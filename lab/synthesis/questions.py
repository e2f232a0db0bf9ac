"""Questions whose answers are decided by measurements: reading, posing, grading an answer. Pure.

A question stands in a YAML file and states a rule, never an answer. `pose` applies the rule to
what was measured:

    largest, smallest   the option whose measurement is
    bracket             between which `cuts` the number lies: k cuts part k + 1 options
    interval            between which `cuts` the whole 95 % interval lies; the last option says
                        that the run cannot tell
    equals              the option that `is` what was measured
    number              the number itself, to within its 95 % interval or a tenth of it, whichever
                        is wider
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.present.numbers import number, quantity
from lab.result import ContractError, Measurement, Scalar
from lab.synthesis import evidence
from lab.synthesis.evidence import Evidence

TRACK_A = Path(__file__).with_name("track_a.yaml")
RULES = ("largest", "smallest", "bracket", "interval", "equals", "number")
PLACEHOLDER = re.compile(rf"\{{({evidence.NAME.pattern})\}}")
SHARE = 0.1  # of a number: how far off an answer may be that was not looked up
LETTERS = "abcdefgh"


@dataclass(frozen=True)
class Option:
    """One choice: what it says, why it would be right, and what decides it (`of` or `equal`)."""

    label: str
    why: str
    of: str | None = None
    equal: Scalar = None


@dataclass(frozen=True)
class Question:
    """A question and the rule that decides it.

    `why` explains a number, an option's own `why` explains a choice.
    """

    id: str
    topic: str
    ask: str
    rule: str
    of: str | None = None
    cuts: tuple[float, ...] = ()
    options: tuple[Option, ...] = ()
    why: str = ""

    @property
    def uses(self) -> tuple[str, ...]:
        """Give FEATURE.name of every measurement that decides it or is shown in it, each once."""
        texts = [
            self.ask,
            self.why,
            *(text for option in self.options for text in (option.label, option.why)),
        ]
        return evidence.names(" ".join([*self.deciding, *texts]))

    @property
    def deciding(self) -> tuple[str, ...]:
        """Give FEATURE.name of every measurement that the rule reads, each once."""
        return evidence.names(
            " ".join([self.of or "", *(option.of or "" for option in self.options)])
        )


@dataclass(frozen=True)
class Posed:
    """A question as it is asked, with its answer.

    choices: the labels in the order shown, none for a number; right: place of the right
    choice, or the number; tolerance: how far off a number may be, in `unit`; explanation: made
    from the numbers.
    """

    id: str
    topic: str
    text: str
    choices: tuple[str, ...]
    right: float
    tolerance: float | None
    unit: str
    explanation: str

    @property
    def answer(self) -> str:
        """Give the right answer in words."""
        if self.choices:
            return f"{LETTERS[int(self.right)]}) {self.choices[int(self.right)]}"
        return f"{number(self.right)} {self.unit}".strip() + f" (± {number(self.tolerance, 2)})"


def read(path: Path = TRACK_A) -> tuple[tuple[Question, ...], Mapping[str, Any]]:
    """Give the questions of a file and all that the file holds.

    ContractError if a question breaks its rule.
    """
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        msg = f"{path} cannot be read as YAML: {error}"
        raise ContractError(msg) from error
    found = tuple(_question(raw) for raw in document["questions"])
    wrong = [f"{question.id}: {fault}" for question in found for fault in faults(question)]
    twice = sorted({q.id for q in found if [p.id for p in found].count(q.id) > 1})
    if wrong or twice:
        msg = f"{path}: {'; '.join([*wrong, *(f'{name} stands there twice' for name in twice)])}"
        raise ContractError(msg)
    return found, document


def _question(raw: Mapping[str, Any]) -> Question:
    try:
        options = tuple(
            Option(o["label"], o["why"], o.get("of"), o.get("is")) for o in raw.get("options", ())
        )
        cuts = tuple(float(cut) for cut in raw.get("cuts", ()))
        rest = {name: raw[name] for name in ("id", "topic", "ask", "rule")}
        return Question(
            **rest, of=raw.get("of"), cuts=cuts, options=options, why=raw.get("why", "")
        )
    except (KeyError, TypeError, ValueError) as error:
        msg = f"question {raw.get('id', raw)!r}: {type(error).__name__} {error}"
        raise ContractError(msg) from error


def faults(question: Question) -> Iterator[str]:
    """Give what is wrong with a question before anything was measured."""
    rule, options = question.rule, question.options
    if rule not in RULES:
        yield f"rule {rule!r}; wanted one of {', '.join(RULES)}"
        return
    compared = rule in ("largest", "smallest")
    wanted = {
        "bracket": len(question.cuts) + 1,
        "interval": len(question.cuts) + 2,
        "number": 0,
    }.get(rule)
    if wanted is not None and len(options) != wanted:
        yield f"{len(options)} options; wanted {wanted}"
    if rule != "number" and not 2 <= len(options) <= len(LETTERS):
        yield f"{len(options)} options; wanted 2 to {len(LETTERS)}"
    if compared != all(option.of for option in options) and rule != "number":
        yield (
            "its options do not name what they are compared by"
            if compared
            else "its options name measurements"
        )
    if compared == bool(question.of):
        yield "`of` stands with the options here" if compared else "`of` is missing"
    if (rule in ("bracket", "interval")) != bool(question.cuts) or list(question.cuts) != sorted(
        set(question.cuts)
    ):
        yield (
            f"cuts {list(question.cuts)}; wanted ascending ones for bracket and interval, none else"
        )
    if not question.deciding:
        yield "it uses no measurement, so that anybody can answer it without a run"


def pose(question: Question, measured: Evidence) -> Posed | None:
    """Apply a question's rule; None where the numbers leave it open.

    They do where one has no value, or two share the lead. ContractError where a measurement that it
    names does not exist.
    """
    found = {name: evidence.find(measured, name) for name in question.uses}
    if any(found[name].value is None for name in question.deciding):
        return None
    met = evidence.calculate(measured, question.of) if question.of else None
    if met is not None and met.value is None:  # a quotient by 0
        return None
    if question.rule == "number":
        return _posed_number(question, measured, met)
    place = _decide(question, measured, met)
    if place is None:
        return None
    order = shuffled(question)
    right = question.options[place]
    return Posed(
        question.id,
        question.topic,
        fill(question.ask, measured),
        tuple(fill(question.options[i].label, measured) for i in order),
        order.index(place),
        None,
        "",
        f"{_numbers(question, measured, met)} {fill(right.why, measured)}",
    )


def _posed_number(question: Question, measured: Evidence, met: Measurement | None) -> Posed | None:
    if met is None or not evidence.is_number(met.value):
        return None
    value: float = met.value  # type: ignore[assignment]
    low, high = evidence.interval(met) or (value, value)
    tolerance = max((high - low) / 2, SHARE * abs(value))
    told = f"{_numbers(question, measured, met)} {fill(question.why, measured)}"
    return Posed(
        question.id,
        question.topic,
        fill(question.ask, measured),
        (),
        value,
        tolerance,
        met.unit,
        told,
    )


def _decide(question: Question, measured: Evidence, met: Measurement | None) -> int | None:
    """Give the place of the right option in the file's order; None unless there is just one."""
    options, cuts = question.options, question.cuts
    if met is None:
        values: list[Any] = [
            evidence.calculate(measured, option.of or "").value for option in options
        ]
        if not all(map(evidence.is_number, values)):
            return None
        best = max(values) if question.rule == "largest" else min(values)
        right = [place for place, value in enumerate(values) if value == best]
    elif question.rule == "equals":
        right = [
            i
            for i, o in enumerate(options)
            if type(o.equal) is type(met.value) and o.equal == met.value
        ]
    elif question.rule == "bracket":
        right = [_bracket(met.value, cuts)] if evidence.is_number(met.value) else []
    else:
        ends = evidence.interval(met)
        brackets = {_bracket(end, cuts) for end in ends} if ends else set()
        right = list(brackets) if len(brackets) == 1 else [len(cuts) + 1]
    return right[0] if len(right) == 1 else None


def _bracket(value: Any, cuts: tuple[float, ...]) -> int:
    return sum(cut <= value for cut in cuts)


def shuffled(question: Question) -> tuple[int, ...]:
    """Give the order in which the options are shown: by digest, the same on every machine.

    What has an order of its own (brackets of a number) keeps it: a ladder out of order is a reading
    test.
    """
    places = range(len(question.options))
    if question.rule == "bracket":
        return tuple(places)
    keys = [
        hashlib.sha256(f"{question.id}\0{option.label}".encode()).hexdigest()
        for option in question.options
    ]
    return tuple(sorted(places, key=keys.__getitem__))


def fill(text: str, measured: Evidence) -> str:
    """Give a text with each {FEATURE.name} replaced by its value, standard error and unit."""
    filled = PLACEHOLDER.sub(lambda match: quantity(evidence.find(measured, match[1])), text)
    return " ".join(filled.split())


def _numbers(question: Question, measured: Evidence, met: Measurement | None) -> str:
    """State the measurements that decided, and what was computed from them."""
    told = "; ".join(
        f"{place} = {quantity(evidence.find(measured, place))}" for place in question.deciding
    )
    if question.of and len(question.deciding) > 1 and met is not None:
        return f"{told}; {question.of} = {quantity(met)}."
    return f"{told}."


def grade(posed: Posed, answer: str) -> bool:
    """Say whether an answer is right; ValueError saying what was wanted if it cannot be read."""
    text = answer.strip().lower().rstrip(").")
    if posed.choices:
        letters = LETTERS[: len(posed.choices)]
        if len(text) != 1 or text not in letters:
            msg = f"{_short(answer)} is none of {', '.join(letters)}"
            raise ValueError(msg)
        return letters.index(text) == posed.right
    try:
        value = float(
            re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.removesuffix(posed.unit.lower()).strip())
        )
    except ValueError:
        msg = f"{_short(answer)} is no number; wanted one such as 12, 0.25 or 3e-4"
        raise ValueError(msg) from None
    return abs(value - posed.right) <= (posed.tolerance or 0) * (1 + 1e-9)


def _short(answer: str) -> str:
    kept = "".join(c if c.isprintable() else "?" for c in answer.strip())
    return repr(kept if len(kept) <= 30 else f"{kept[:30]}…")
