"""The questions log as data: reading docs/QUESTIONS.md, its rules. Pure functions of the text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

STATUSES = ("OPEN", "EXPLORING", "ANSWERED", "SUPERSEDED")
HEADING = re.compile(r"^### (Q-\d{3}) · (.+?)\s*$")
FIELD = re.compile(r"^- ([a-z ]+): (.+?)\s*$")
FEATURE = re.compile(r"^FEAT-\d{3}$")


@dataclass(frozen=True)
class LoggedQuestion:
    """One question of the log; `fields` holds all `- name: text` lines below it, in order."""

    id: str
    text: str
    fields: tuple[tuple[str, str], ...]

    def field(self, name: str) -> str:
        """Return a field's text, empty if there is no such field."""
        return dict(self.fields).get(name, "")

    @property
    def status(self) -> str:
        """The status as written."""
        return self.field("status")

    @property
    def experiments(self) -> tuple[str, ...]:
        """The features that ask this question."""
        return tuple(tag.strip() for tag in self.field("experiments").split(",") if tag.strip())


def parse(text: str) -> tuple[LoggedQuestion, ...]:
    """Return the questions of a log in order.

    Lines that belong to no question, such as its introduction, are skipped.
    """
    questions: list[tuple[str, str, list[tuple[str, str]]]] = []
    is_inside = False  # below the heading of a question
    for line in text.splitlines():
        if line.startswith("#"):
            heading = HEADING.match(line)
            is_inside = heading is not None
            if heading:
                questions.append((heading[1], heading[2], []))
        elif is_inside:
            field = FIELD.match(line)
            if field:
                questions[-1][2].append((field[1], field[2]))
    return tuple(LoggedQuestion(name, head, tuple(fields)) for name, head, fields in questions)


def find_problems(
    log: Sequence[LoggedQuestion], features: Sequence[str], verified: set[str], least: int
) -> Iterator[str]:
    """Yield a sentence for each way in which the log breaks its rules.

    `features` are those of the plan; `verified` are those whose receipt was given; `least` is the
    least number of questions.
    """
    ids = [question.id for question in log]
    if len(log) < least:
        yield f"there are {len(log)} questions; expected at least {least}"
    for name, times in _repeated(ids):
        yield f"{name} is there {times} times"
    for question in log:
        for problem in _problems_of_question(question, features):
            yield f"{question.id}: {problem}"
        for problem in _problems_of_status(question, verified, set(ids)):
            yield f"{question.id}: {problem}"
    tagged = {tag for question in log for tag in question.experiments}
    for feature in features:
        if feature not in tagged:
            yield f"no question is tagged {feature}"


def _repeated(names: Iterable[str]) -> list[tuple[str, int]]:
    return [(name, times) for name, times in Counter(names).items() if times > 1]


def _problems_of_question(question: LoggedQuestion, features: Sequence[str]) -> Iterator[str]:
    if not question.text.endswith("?"):
        yield "its heading does not end with a question mark"
    for name, times in _repeated(name for name, _ in question.fields):
        yield f"field {name!r} is there {times} times"
    if not question.field("why"):
        yield "field 'why' is missing"
    if not question.experiments:
        yield "field 'experiments' is missing"
    for tag in question.experiments:
        if tag not in features:
            yield f"tag {tag!r} is no feature of the plan ({features[0]} … {features[-1]})"


def _problems_of_status(
    question: LoggedQuestion, verified: set[str], ids: set[str]
) -> Iterator[str]:
    if question.status not in STATUSES:
        yield f"status {question.status!r}; expected one of {', '.join(STATUSES)}"
    if question.status == "ANSWERED":
        feature = question.field("answered by")
        if not FEATURE.match(feature):
            yield f"ANSWERED by {feature!r}; expected the id of a feature"
        elif feature not in verified:
            yield (
                f"ANSWERED by {feature}, whose receipt is not among the inputs; name it in this "
                "feature's `needs`"
            )
    if question.status == "SUPERSEDED":
        successor = question.field("superseded by")
        if successor not in ids - {question.id}:
            yield f"SUPERSEDED by {successor!r}; expected the id of another question"
