"""Gate of FEAT-003: is the questions log well formed, complete, and honest about what is answered?

Reads the copy with a reader of its own. Inputs: `questions`, and every feature that an
answer may name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gates.questions.question_log import read, status, tags
from gates.shared import outputs
from gates.shared.documents import stated_numbers
from gates.shared.standard import (  # noqa: F401 - collected here as this gate's own
    assert_all_judged,
    assert_report_states,
    assert_table_agrees,
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)

STATUSES = ("OPEN", "EXPLORING", "ANSWERED", "SUPERSEDED")
PLAN = [f"FEAT-{number:03d}" for number in range(1, 22)]
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


def read_log() -> list[dict[str, Any]]:
    """Return the questions of the stored copy: id, text and a list of (field, text)."""
    return read((outputs.out() / "QUESTIONS.md").read_text("utf-8"))


def receipts() -> set[str]:
    """Return the features among the inputs that came with the digest of their receipt."""
    entries = json.loads(Path(os.environ["PHASES_INPUTS"]).read_text("utf-8"))
    features = set()
    for name, entry in entries.items():
        if entry["kind"] == "feature" and entry.get("receipt"):
            features.add(name)
    return features


def find_problems() -> list[str]:
    """Return what is wrong with the log, by this gate's own reading."""
    log = read_log()
    ids = [question["id"] for question in log]
    problems = [f"{name} is there twice" for name in sorted(set(ids)) if ids.count(name) > 1]
    if len(ids) < LEAST:
        problems.append(f"only {len(ids)} questions")
    tagged = set(all_tags(log))
    problems += [f"nothing asks {feature}" for feature in PLAN if feature not in tagged]
    for question in log:
        for problem in (*_problems_of_question(question), *_problems_of_status(question, ids)):
            problems.append(f"{question['id']}: {problem}")
    return problems


def _problems_of_question(question: dict[str, Any]) -> Iterator[str]:
    fields = dict(question["fields"])
    if not question["text"].endswith("?"):
        yield "no question mark"
    if not fields.get("why"):
        yield "no reason"
    if len(fields) != len(question["fields"]):
        yield "a field is there twice"
    if not tags(question) or set(tags(question)) - set(PLAN):
        yield f"tags {tags(question)}"


def _problems_of_status(question: dict[str, Any], ids: list[str]) -> Iterator[str]:
    fields = dict(question["fields"])
    if status(question) not in STATUSES:
        yield f"status {status(question)}"
    if status(question) == "ANSWERED" and fields.get("answered by") not in receipts():
        yield f"answered by {fields.get('answered by')}, which has no receipt here"
    if status(question) == "SUPERSEDED":
        successor = fields.get("superseded by")
        if successor not in set(ids) - {question["id"]}:
            yield f"superseded by {successor}"


def all_tags(log: list[dict[str, Any]]) -> list[str]:
    """Return the tags of all questions, in order."""
    names = []
    for question in log:
        names += tags(question)
    return names


def recount() -> dict[str, int]:
    """Return every measurement of this feature, counted by this gate."""
    log = read_log()
    tagged = all_tags(log)
    counts = {
        "questions": len(log),
        "tags": len(tagged),
        "experiments": len(PLAN),
        "experiments_with_a_question": len(set(tagged) & set(PLAN)),
        "problems": len(find_problems()),
    }
    for name in STATUSES:
        counts[name.lower()] = sum(status(question) == name for question in log)
    return counts


def test_every_measurement_is_judged() -> None:
    assert_all_judged(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_count(name: str) -> None:
    outputs.assert_agrees(name, recount()[name])


def test_report_states_the_counts() -> None:
    assert_report_states(recount())


def test_findings_state_the_counts() -> None:
    counts = recount()
    first, second, third = map(stated_numbers, outputs.result()["findings"])
    assert first == [counts["questions"], *(counts[name.lower()] for name in STATUSES)]
    assert second[:2] == [counts["experiments_with_a_question"], counts["experiments"]]
    assert abs(second[2] - counts["tags"] / counts["questions"]) <= 0.05
    assert third == [counts["problems"]]


def test_table_shows_the_log() -> None:
    rows = []
    for question in read_log():
        rows.append([question["id"], question["text"], status(question), ", ".join(tags(question))])
    assert_table_agrees(0, rows)


def test_copy_is_the_log_of_the_input() -> None:
    path = outputs.inputs()["questions"]
    if path.is_dir():
        path /= "QUESTIONS.md"
    assert (outputs.out() / "QUESTIONS.md").read_bytes() == path.read_bytes()


def test_log_has_no_problem() -> None:
    assert find_problems() == []


def test_figure_shows_the_questions_of_each_experiment() -> None:
    (series,) = outputs.read_json("figures/questions_per_experiment.json")["series"]
    assert [f"FEAT-{number}" for number in series["x"]] == PLAN
    log = read_log()
    assert series["y"] == [sum(name in tags(question) for question in log) for name in PLAN]


def test_index_agrees_with_the_log() -> None:
    index = outputs.read_json("index.json")
    log = read_log()
    assert [question["id"] for question in index["questions"]] == [q["id"] for q in log]
    assert [q["fields"] for q in index["questions"]] == [dict(q["fields"]) for q in log]
    assert list(index["by_status"]) == list(STATUSES)
    for name in STATUSES:
        assert index["by_status"][name] == [q["id"] for q in log if status(q) == name]
    assert list(index["by_experiment"]) == PLAN
    for name in PLAN:
        assert index["by_experiment"][name] == [q["id"] for q in log if name in tags(q)]
