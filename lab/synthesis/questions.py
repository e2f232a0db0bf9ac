"""Questions whose answers are decided by measurements: reading, posing, grading an answer. Pure.

A question of the YAML file states a rule, never an answer. `pose` applies the rule to what was
measured:

    largest, smallest   the option whose measurement is
    bracket             the bin of `bin_edges` with the number in it: k edges make k + 1 bins, one
                        for each option
    interval            the bin with the whole 95 % interval in it; the last option says that the
                        run cannot tell
    equals              the option that `is` what was measured
    number              the number itself, to within its 95 % interval or a tenth of it, whichever
                        is wider
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.digests import sha256
from lab.present.numbers import number, quantity, readable_unit
from lab.result import ContractError, Measurement, Scalar
from lab.synthesis.evidence import (
    NAME,
    Evidence,
    calculate,
    confidence_interval,
    find_measurement,
    is_number,
    measurement_names,
)

RULES = ("largest", "smallest", "bracket", "interval", "equals", "number")
PLACEHOLDER = re.compile(rf"\{{({NAME.pattern})\}}")
TOLERANCE = 0.1  # of a number: how far off the answer of a reader who did not look it up may be
LETTERS = "abcdefgh"
ECHO_LENGTH = 30  # characters of an unreadable answer that its message repeats


@dataclass(frozen=True)
class Option:
    """One choice: what it says, why it would be right, and what decides it (`of` or `equal`)."""

    label: str
    why: str
    of: str | None = None
    equal: Scalar = None


@dataclass(frozen=True)
class QuizQuestion:
    """A question and the rule that decides it.

    of: the expression that the rule reads (`calculate`), where the options have none of their own;
    bin_edges: ascending, in its unit; why: explains a number; an option's own `why` explains a
    choice.
    """

    id: str
    topic: str
    ask: str
    rule: str
    of: str | None = None
    bin_edges: tuple[float, ...] = ()
    options: tuple[Option, ...] = ()
    why: str = ""

    @property
    def rule_names(self) -> tuple[str, ...]:
        """FEATURE.name of every measurement that the rule reads, each once."""
        expressions = [self.of or ""]
        expressions += [option.of or "" for option in self.options]
        return measurement_names(" ".join(expressions))

    @property
    def all_names(self) -> tuple[str, ...]:
        """FEATURE.name of every measurement that the rule or a text reads, each once."""
        texts = [*self.rule_names, self.ask, self.why]
        for option in self.options:
            texts += [option.label, option.why]
        return measurement_names(" ".join(texts))


@dataclass(frozen=True)
class PosedQuestion:
    """A question as it is asked, with its answer.

    choices: the labels in the order of asking, none for a number; solution: index of the right
    choice, or the number; tolerance: how far off a number may be, in `unit`; explanation: made
    from the numbers.
    """

    id: str
    topic: str
    text: str
    choices: tuple[str, ...]
    solution: float
    tolerance: float | None
    unit: str
    explanation: str

    @property
    def answer(self) -> str:
        """The right answer in words; a number in the unit of the explanation."""
        if self.choices:
            index = int(self.solution)
            return f"{LETTERS[index]}) {self.choices[index]}"
        measurement = Measurement.of_estimate(self.solution, self.unit)
        _, size = readable_unit(measurement)
        tolerance = (self.tolerance or 0.0) / size
        return f"{quantity(measurement)} (± {number(tolerance, 2)})"


#### reading


def read_questions(path: Path) -> tuple[tuple[QuizQuestion, ...], Mapping[str, Any]]:
    """Return the questions of a file, and the whole parsed file.

    Raises:
        ContractError: the file is no YAML, or a question breaks its rule.
    """
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        msg = f"{path} cannot be read as YAML: {error}"
        raise ContractError(msg) from error
    questions = tuple(_parse_question(entry) for entry in document["questions"])

    problems = []
    ids: set[str] = set()
    for question in questions:
        problems += [f"{question.id}: {problem}" for problem in find_problems(question)]
        if question.id in ids:
            problems.append(f"the id {question.id} is used twice")
        ids.add(question.id)
    if problems:
        msg = f"{path}: {'; '.join(problems)}"
        raise ContractError(msg)
    return questions, document


def _parse_question(entry: Mapping[str, Any]) -> QuizQuestion:
    try:
        options = []
        for raw in entry.get("options", ()):
            option = Option(raw["label"], raw["why"], of=raw.get("of"), equal=raw.get("is"))
            options.append(option)
        return QuizQuestion(
            id=entry["id"],
            topic=entry["topic"],
            ask=entry["ask"],
            rule=entry["rule"],
            of=entry.get("of"),
            bin_edges=tuple(float(edge) for edge in entry.get("bin_edges", ())),
            options=tuple(options),
            why=entry.get("why", ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        msg = f"question {entry.get('id', entry)!r}: {type(error).__name__} {error}"
        raise ContractError(msg) from error


def find_problems(question: QuizQuestion) -> Iterator[str]:
    """Yield what is wrong with a question before anything was measured."""
    if question.rule not in RULES:
        yield f"got rule {question.rule!r}; expected one of {', '.join(RULES)}"
        return
    yield from _option_problems(question)
    yield from _expression_problems(question)
    edges = list(question.bin_edges)
    has_bins = question.rule in ("bracket", "interval")
    if has_bins != bool(edges) or edges != sorted(set(edges)):
        yield (
            f"got bin_edges {edges}; expected ascending ones for bracket and interval, none for "
            "another rule"
        )
    if not question.rule_names:
        yield "it uses no measurement, so it can be answered without a run"


def _option_problems(question: QuizQuestion) -> Iterator[str]:
    """Yield what is wrong with the number of options."""
    count = len(question.options)
    edges = len(question.bin_edges)
    expected = {"bracket": edges + 1, "interval": edges + 2, "number": 0}.get(question.rule)
    if expected is not None and count != expected:
        yield f"got {count} options; expected {expected}"
    if question.rule != "number" and not 2 <= count <= len(LETTERS):
        yield f"got {count} options; expected 2 to {len(LETTERS)}"


def _expression_problems(question: QuizQuestion) -> Iterator[str]:
    """Yield what is wrong with `of`: the options have it in a comparison, else the question."""
    compares_options = question.rule in ("largest", "smallest")
    options_have_it = all(option.of for option in question.options)
    if compares_options and not options_have_it:
        yield "its options do not name what they are compared by"
    if not compares_options and options_have_it and question.rule != "number":
        yield "its options name measurements"
    if compares_options and question.of:
        yield "`of` belongs to the options here"
    if not compares_options and not question.of:
        yield "`of` is missing"


#### posing


def pose_all(
    questions: Iterable[QuizQuestion], evidence: Evidence
) -> tuple[list[PosedQuestion], list[str]]:
    """Return the questions that the measurements decide, and the ids of those left open.

    Raises:
        ContractError: a measurement that a question names does not exist.
    """
    posed_questions = []
    open_questions = []
    for question in questions:
        posed = pose(question, evidence)
        if posed is None:
            open_questions.append(question.id)
        else:
            posed_questions.append(posed)
    return posed_questions, open_questions


def pose(question: QuizQuestion, evidence: Evidence) -> PosedQuestion | None:
    """Apply a question's rule to measurements; None where they leave it open.

    They leave it open where one has no value, or two share the lead.

    Raises:
        ContractError: a measurement that the question names does not exist.
    """
    # 1. Everything that it names must exist; what decides must have a value.
    for name in question.all_names:
        find_measurement(evidence, name)
    for name in question.rule_names:
        if find_measurement(evidence, name).value is None:
            return None
    operand = None
    if question.of:
        operand = calculate(evidence, question.of)
        if operand.value is None:  # a quotient by 0
            return None
    if question.rule == "number":
        return _pose_number(question, evidence, operand)

    # 2. The right option, by its index in the file's order.
    right = _right_option(question, evidence, operand)
    if right is None:
        return None

    # 3. The choices, in the order of asking.
    order = shuffled(question)
    choices = [fill(question.options[index].label, evidence) for index in order]
    why = fill(question.options[right].why, evidence)
    return PosedQuestion(
        id=question.id,
        topic=question.topic,
        text=fill(question.ask, evidence),
        choices=tuple(choices),
        solution=order.index(right),
        tolerance=None,
        unit="",
        explanation=f"{_state_numbers(question, evidence, operand)} {why}",
    )


def _pose_number(
    question: QuizQuestion, evidence: Evidence, operand: Measurement | None
) -> PosedQuestion | None:
    if operand is None or not is_number(operand.value):
        return None
    value = operand.value
    low, high = confidence_interval(operand) or (value, value)
    why = fill(question.why, evidence)
    return PosedQuestion(
        id=question.id,
        topic=question.topic,
        text=fill(question.ask, evidence),
        choices=(),
        solution=value,
        tolerance=max((high - low) / 2, TOLERANCE * abs(value)),
        unit=operand.unit,
        explanation=f"{_state_numbers(question, evidence, operand)} {why}",
    )


def _right_option(
    question: QuizQuestion, evidence: Evidence, operand: Measurement | None
) -> int | None:
    """Return the index of the right option in the file's order; None unless there is just one."""
    if operand is None:
        matches = _extreme_options(question, evidence)
    elif question.rule == "equals":
        matches = _equal_options(question, operand.value)
    elif question.rule == "bracket":
        matches = []
        if is_number(operand.value):
            matches = [_bin_of(operand.value, question.bin_edges)]
    else:
        matches = [_bin_of_interval(question, operand)]
    if len(matches) != 1:
        return None
    return matches[0]


def _extreme_options(question: QuizQuestion, evidence: Evidence) -> list[int]:
    """Return the options whose measurement is the largest (or smallest); none without numbers."""
    values = []
    for option in question.options:
        value = calculate(evidence, option.of or "").value
        if not is_number(value):
            return []
        values.append(value)
    extreme = max if question.rule == "largest" else min
    best = extreme(values)
    return [index for index, value in enumerate(values) if value == best]


def _equal_options(question: QuizQuestion, value: Scalar) -> list[int]:
    """Return the options that are the value, type included: `true` is not 1."""
    matches = []
    for index, option in enumerate(question.options):
        if type(option.equal) is type(value) and option.equal == value:
            matches.append(index)
    return matches


def _bin_of_interval(question: QuizQuestion, operand: Measurement) -> int:
    """Return the bin with the whole 95 % interval in it, else the last option: cannot tell."""
    edges = question.bin_edges
    interval = confidence_interval(operand)
    if interval is not None:
        low, high = (_bin_of(end, edges) for end in interval)
        if low == high:
            return low
    return len(edges) + 1


def _bin_of(value: float, edges: tuple[float, ...]) -> int:
    """Return the index of a value's bin; an edge belongs to the bin above it."""
    return sum(edge <= value for edge in edges)


def shuffled(question: QuizQuestion) -> tuple[int, ...]:
    """Return the order in which the options are asked: by digest, the same on every machine.

    Bins of a number keep their own order, which is the easiest one to read.
    """
    indices = range(len(question.options))
    if question.rule == "bracket":
        return tuple(indices)
    keys = []
    for option in question.options:
        text = f"{question.id}\0{option.label}"
        keys.append(sha256(text.encode()))
    return tuple(sorted(indices, key=keys.__getitem__))


def fill(text: str, evidence: Evidence) -> str:
    """Return a text with each {FEATURE.name} replaced by its value, standard error and unit."""
    filled = PLACEHOLDER.sub(lambda match: quantity(find_measurement(evidence, match[1])), text)
    return " ".join(filled.split())


def _state_numbers(question: QuizQuestion, evidence: Evidence, operand: Measurement | None) -> str:
    """Return a sentence of the measurements that decided, and what was computed from them."""
    names = question.rule_names
    parts = [f"{name} = {quantity(find_measurement(evidence, name))}" for name in names]
    if operand is not None and len(names) > 1:
        parts.append(f"{question.of} = {quantity(operand)}")
    return f"{'; '.join(parts)}."


#### grading


def grade_answer(question: PosedQuestion, answer: str) -> bool:
    """Return whether an answer is right.

    Raises:
        ValueError: the answer is none of the letters, or no number; the message says which.
    """
    text = answer.strip().lower().rstrip(").")
    if question.choices:
        letters = LETTERS[: len(question.choices)]
        if len(text) != 1 or text not in letters:
            msg = f"{_shorten(answer)} is none of {', '.join(letters)}"
            raise ValueError(msg)
        return letters.index(text) == question.solution

    digits = text.removesuffix(question.unit.lower()).strip()
    digits = re.sub(r"(?<=\d),(?=\d{3}\b)", "", digits)  # 1,250 is 1250
    try:
        value = float(digits)
    except ValueError:
        msg = f"{_shorten(answer)} is no number; expected one such as 12, 0.25 or 3e-4"
        raise ValueError(msg) from None
    tolerance = question.tolerance or 0
    return abs(value - question.solution) <= tolerance * (1 + 1e-9)  # rounding of the ends


def _shorten(answer: str) -> str:
    """Return an answer as a message quotes it: printable, and of bounded length."""
    text = "".join(c if c.isprintable() else "?" for c in answer.strip())
    if len(text) > ECHO_LENGTH:
        text = f"{text[:ECHO_LENGTH]}…"
    return repr(text)
