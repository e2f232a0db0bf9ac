"""Reading the questions log, for the gate that judges it."""

from __future__ import annotations

from typing import Any


def read(text: str) -> list[dict[str, Any]]:
    """Cut a log at its headings and read each part that is a question."""
    found: list[dict[str, Any]] = []
    for part in ("\n" + text).split("\n#")[1:]:
        head, _, body = part.partition("\n")
        name, _, question = head.removeprefix("## ").partition(" · ")
        if not head.startswith("## Q-") or not question.strip():
            continue
        lines = [line[2:].partition(": ") for line in body.split("\n") if line.startswith("- ")]
        found.append(
            {
                "id": name,
                "text": question.strip(),
                "fields": [(k, v.strip()) for k, _, v in lines if k.islower() and v.strip()],
            }
        )
    return found


def tags(question: dict[str, Any]) -> list[str]:
    """Give the features that a question is tagged with."""
    text = dict(question["fields"]).get("experiments", "")
    return [tag.strip() for tag in text.split(",") if tag.strip()]


def status(question: dict[str, Any]) -> str:
    """Give a question's status."""
    return str(dict(question["fields"]).get("status", ""))
