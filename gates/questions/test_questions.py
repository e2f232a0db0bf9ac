"""Gate of FEAT-003: is the questions log well formed, complete, and honest about what is answered?

Reads the copy with a reader of its own. Inputs: `questions`, and every feature that an
answer may name.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gates.questions.question_log import read, status, tags
from gates.shared import outputs

STATUSES = ("OPEN", "EXPLORING", "ANSWERED", "SUPERSEDED")
PLAN = [f"FEAT-{number:03d}" for number in range(1, 21)]
LEAST = 20
COUNTS = (
    "questions",
    "open",
    "exploring",
    "answered",
    "superseded",
    "tags",
    "experiments",
    "experiments_with_a_question",
    "problems",
)


def log() -> list[dict[str, Any]]:
    """Give the questions of the stored copy: id, text and a list of (field, text)."""
    return read((outputs.out() / "QUESTIONS.md").read_text("utf-8"))


def receipts() -> set[str]:
    """Give the features among the inputs that came with the digest of their receipt."""
    entries = json.loads(Path(os.environ["PHASES_INPUTS"]).read_text("utf-8"))
    return {
        name
        for name, entry in entries.items()
        if entry["kind"] == "feature" and entry.get("receipt")
    }


def faults() -> list[str]:
    """Give what is wrong with the log, by this gate's own reading."""
    questions = log()
    ids = [question["id"] for question in questions]
    wrong = [f"{name} stands there twice" for name in sorted({n for n in ids if ids.count(n) > 1})]
    wrong += [] if len(ids) >= LEAST else [f"only {len(ids)} questions"]
    wrong += [
        f"nothing asks {feature}"
        for feature in PLAN
        if all(feature not in tags(q) for q in questions)
    ]
    for question in questions:
        fields, name = dict(question["fields"]), question["id"]
        wrong += [f"{name}: no question mark"] if not question["text"].endswith("?") else []
        wrong += [f"{name}: no reason"] if not fields.get("why") else []
        wrong += (
            [f"{name}: a field stands there twice"]
            if len(fields) != len(question["fields"])
            else []
        )
        wrong += (
            [f"{name}: tags {tags(question)}"]
            if not tags(question) or set(tags(question)) - set(PLAN)
            else []
        )
        wrong += [f"{name}: status {status(question)}"] if status(question) not in STATUSES else []
        if status(question) == "ANSWERED" and fields.get("answered by") not in receipts():
            wrong.append(
                f"{name}: answered by {fields.get('answered by')}, which has no receipt here"
            )
        if status(question) == "SUPERSEDED" and fields.get("superseded by") not in set(ids) - {
            name
        }:
            wrong.append(f"{name}: superseded by {fields.get('superseded by')}")
    return wrong


def counted() -> dict[str, int]:
    """Give every measurement of this feature, counted anew."""
    questions = log()
    every = [tag for question in questions for tag in tags(question)]
    return {
        "questions": len(questions),
        **{
            name.lower(): sum(status(question) == name for question in questions)
            for name in STATUSES
        },
        "tags": len(every),
        "experiments": len(PLAN),
        "experiments_with_a_question": len(set(every) & set(PLAN)),
        "problems": len(faults()),
    }


@pytest.mark.integrity
def test_files_are_those_that_were_listed() -> None:
    outputs.assert_files_match()


@pytest.mark.integrity
def test_report_was_made_from_the_result() -> None:
    outputs.assert_report_matches()


@pytest.mark.integrity
def test_figures_show_their_data() -> None:
    outputs.assert_figures_match()


def test_every_measurement_is_judged() -> None:
    assert set(outputs.result()["measurements"]) == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_count(name: str) -> None:
    outputs.assert_agrees(name, counted()[name])


def test_copy_is_the_log_that_was_given() -> None:
    given = outputs.inputs()["questions"]
    given = given / "QUESTIONS.md" if given.is_dir() else given
    assert (outputs.out() / "QUESTIONS.md").read_bytes() == given.read_bytes()


def test_log_has_no_fault() -> None:
    assert faults() == []


def test_figure_shows_the_questions_of_each_experiment() -> None:
    (series,) = outputs.read_json("figures/questions_per_experiment.json")["series"]
    assert [f"FEAT-{number}" for number in series["x"]] == PLAN
    assert series["y"] == [sum(name in tags(question) for question in log()) for name in PLAN]


def test_index_agrees_with_the_log() -> None:
    index, questions = outputs.read_json("index.json"), log()
    assert [q["id"] for q in index["questions"]] == [q["id"] for q in questions]
    assert index["by_status"] == {
        name: [q["id"] for q in questions if status(q) == name] for name in STATUSES
    }
    assert index["by_experiment"] == {
        name: [q["id"] for q in questions if name in tags(q)] for name in PLAN
    }
    assert [q["fields"] for q in index["questions"]] == [dict(q["fields"]) for q in questions]
