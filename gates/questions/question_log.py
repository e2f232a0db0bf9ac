"""Reading the questions log, for the gate that judges it."""

from __future__ import annotations

from typing import Any


def read(text: str) -> list[dict[str, Any]]:
    """Cut a log at its headings and return each part that is a question."""
    questions: list[dict[str, Any]] = []
    for part in ("\n" + text).split("\n#")[1:]:
        heading, _, body = part.partition("\n")
        name, _, question = heading.removeprefix("## ").partition(" · ")
        if not heading.startswith("## Q-") or not question.strip():
            continue
        fields = []
        for line in body.split("\n"):
            key, _, value = line.removeprefix("- ").partition(": ")
            if line.startswith("- ") and key.islower() and value.strip():
                fields.append((key, value.strip()))
        questions.append({"id": name, "text": question.strip(), "fields": fields})
    return questions


def tags(question: dict[str, Any]) -> list[str]:
    """Return the features that a question is tagged with."""
    text = dict(question["fields"]).get("experiments", "")
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def status(question: dict[str, Any]) -> str:
    """Return a question's status."""
    return str(dict(question["fields"]).get("status", ""))
