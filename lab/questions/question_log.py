"""The questions log as data: reading docs/QUESTIONS.md, its rules. Pure functions of the text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

STATUSES = ("OPEN", "EXPLORING", "ANSWERED", "SUPERSEDED")
HEAD = re.compile(r"^### (Q-\d{3}) · (.+?)\s*$")
FIELD = re.compile(r"^- ([a-z ]+): (.+?)\s*$")
FEATURE = re.compile(r"^FEAT-\d{3}$")


@dataclass(frozen=True)
class Question:
    """One question of the log; `fields` holds all `- name: text` lines below it, in order."""

    id: str
    text: str
    fields: tuple[tuple[str, str], ...]

    def field(self, name: str) -> str:
        """Give a field's text, empty if it is not there."""
        return dict(self.fields).get(name, "")

    @property
    def status(self) -> str:
        """Give the status as written."""
        return self.field("status")

    @property
    def experiments(self) -> tuple[str, ...]:
        """Give the features that ask this question."""
        return tuple(tag.strip() for tag in self.field("experiments").split(",") if tag.strip())


def parse(text: str) -> tuple[Question, ...]:
    """Give the questions of a log in order.

    Lines that belong to no question, such as its introduction, are skipped.
    """
    heads: list[tuple[str, str]] = []
    fields: list[list[tuple[str, str]]] = []
    inside = False
    for line in text.splitlines():
        if match := HEAD.match(line):
            heads.append((match[1], match[2]))
            fields.append([])
        if line.startswith("#"):
            inside = match is not None
        elif inside and (found := FIELD.match(line)):
            fields[-1].append((found[1], found[2]))
    return tuple(Question(*head, tuple(own)) for head, own in zip(heads, fields, strict=True))


def problems(
    log: Sequence[Question], features: Sequence[str], proved: set[str], least: int
) -> Iterator[str]:
    """Give a sentence for each way in which the log breaks its rules."""
    ids = Counter(question.id for question in log)
    if len(log) < least:
        yield f"there are {len(log)} questions, wanted at least {least}"
    for name, times in ids.items():
        if times > 1:
            yield f"{name} stands there {times} times"
    for question in log:
        for sentence in _faults(question, features, proved, set(ids)):
            yield f"{question.id}: {sentence}"
    for feature in features:
        if not any(feature in question.experiments for question in log):
            yield f"no question is tagged {feature}"


def _faults(
    question: Question, features: Sequence[str], proved: set[str], ids: set[str]
) -> Iterator[str]:
    if not question.text.endswith("?"):
        yield "its heading does not end with a question mark"
    for name, times in Counter(name for name, _ in question.fields).items():
        if times > 1:
            yield f"field {name!r} stands there {times} times"
    if not question.field("why"):
        yield "field 'why' is missing"
    if not question.experiments:
        yield "field 'experiments' is missing"
    for tag in question.experiments:
        if tag not in features:
            yield f"tag {tag!r} is no feature of the plan ({features[0]} … {features[-1]})"
    if question.status not in STATUSES:
        yield f"status {question.status!r}, wanted one of {', '.join(STATUSES)}"
    if question.status == "ANSWERED":
        feature = question.field("answered by")
        if not FEATURE.match(feature):
            yield f"ANSWERED by {feature!r}, wanted the id of a feature"
        elif feature not in proved:
            yield (
                f"ANSWERED by {feature}, whose receipt is not among the inputs; name it in this "
                "feature's `needs`"
            )
    if question.status == "SUPERSEDED" and question.field("superseded by") not in ids - {
        question.id
    }:
        yield (
            f"SUPERSEDED by {question.field('superseded by')!r}, wanted the id of another question"
        )
