"""The questions log: what is written is read, and every rule has a log that breaks it."""

import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.contract import Inputs
from lab.questions import experiment as questions
from lab.questions.question_log import STATUSES, find_problems, parse

ROOT = Path(__file__).resolve().parents[3]
PLAN = ("FEAT-001", "FEAT-002")
GOOD = """# Questions

- `OPEN`: nobody has begun.

## A track

### Q-001 · Does it fall?

- status: OPEN
- experiments: FEAT-001, FEAT-002
- why: Because.

### Q-002 · Is it noise?

- status: ANSWERED
- experiments: FEAT-001
- why: One cannot know.
- answered by: FEAT-001

### Q-003 · Was it noise?

- status: SUPERSEDED
- experiments: FEAT-001
- why: Asked too early.
- superseded by: Q-002

## Notes

- status: this line belongs to no question
"""

alphanumeric = string.ascii_letters + string.digits
line = st.builds(
    lambda start, end: (start + end).strip(),
    st.text(f"{alphanumeric} ,.:·#-", max_size=30),
    st.sampled_from(alphanumeric),
)
word = st.text(string.ascii_lowercase, min_size=1, max_size=9)
key = st.lists(word, min_size=1, max_size=2).map(" ".join)
entry = st.tuples(st.integers(0, 999).map("Q-{:03d}".format), line, st.lists(st.tuples(key, line)))


def problems_of(
    text: str, verified: frozenset[str] = frozenset({"FEAT-001"}), least: int = 3
) -> list[str]:
    return list(find_problems(parse(text), PLAN, set(verified), least))


@given(st.lists(entry))
def test_what_is_written_is_read(entries: list[tuple[str, str, list[tuple[str, str]]]]) -> None:
    parts = [
        f"### {name} · {text}\n\n" + "".join(f"- {k}: {v}\n" for k, v in fields)
        for name, text, fields in entries
    ]
    log = parse("# Questions\n\n- status: none\n\n" + "\n".join(parts) + "\n## End\n\n- why: no\n")
    assert [(q.id, q.text, list(q.fields)) for q in log] == entries


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    log = parse(text)
    assert len(log) <= text.count("Q-")
    list(find_problems(log, PLAN, set(), 0))


def test_a_good_log_has_no_problem() -> None:
    assert problems_of(GOOD) == []
    first, second, third = parse(GOOD)
    assert (first.status, first.experiments) == ("OPEN", PLAN)
    assert (second.field("answered by"), third.field("superseded by")) == ("FEAT-001", "Q-002")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("Q-003 ·", "Q-002 ·", "Q-002 is there 2 times"),
        ("Does it fall?", "It falls", "Q-001: its heading does not end with a question mark"),
        ("status: OPEN", "status: DONE", "Q-001: status 'DONE'; expected one of OPEN"),
        ("- status: OPEN\n", "", "Q-001: status ''"),
        ("- why: Because.\n", "", "Q-001: field 'why' is missing"),
        (
            "- why: Because.",
            "- why: Because.\n- why: And.",
            "Q-001: field 'why' is there 2 times",
        ),
        (
            "FEAT-001, FEAT-002",
            "FEAT-001, FEAT-021, FEAT-002",
            "Q-001: tag 'FEAT-021' is no feature of the plan",
        ),
        ("FEAT-001, FEAT-002", "FEAT-001", "no question is tagged FEAT-002"),
        ("- experiments: FEAT-001, FEAT-002\n", "", "Q-001: field 'experiments' is missing"),
        (
            "answered by: FEAT-001",
            "answered by: FEAT-002",
            "Q-002: ANSWERED by FEAT-002, whose receipt is not",
        ),
        (
            "answered by: FEAT-001",
            "answered by: me",
            "Q-002: ANSWERED by 'me'; expected the id of a feature",
        ),
        ("- answered by: FEAT-001\n", "", "Q-002: ANSWERED by ''"),
        ("superseded by: Q-002", "superseded by: Q-003", "Q-003: SUPERSEDED by 'Q-003'"),
        ("superseded by: Q-002", "superseded by: Q-009", "Q-003: SUPERSEDED by 'Q-009'"),
        ("### Q-003 ·", "#### Q-003 ·", "there are 2 questions; expected at least 3"),
    ],
)
def test_each_rule_finds_what_breaks_it(old: str, new: str, problem: str) -> None:
    assert GOOD.count(old) == 1
    assert [text for text in problems_of(GOOD.replace(old, new)) if problem in text] != []


def test_an_answer_without_a_receipt_does_not_count() -> None:
    feature = {"kind": "feature", "path": "x", "receipt": "sha256:00"}
    inputs = Inputs({"FEAT-001": feature, "log": {"kind": "input", "path": "y"}})
    assert questions.receipts(inputs) == {"FEAT-001"}
    verified = questions.receipts(Inputs({"FEAT-001": {**feature, "receipt": None}}))
    assert verified == set() and problems_of(GOOD, frozenset(verified)) != []


def test_the_shipped_log_is_open_complete_and_without_problems() -> None:
    text = (ROOT / "docs/QUESTIONS.md").read_text("utf-8")
    log = parse(text)
    assert len(log) == len(re.findall(r"^### ", text, re.MULTILINE)) >= 20
    assert {question.status for question in log} == {"OPEN"}
    assert list(find_problems(log, questions.plan_features(1, 21), set(), 20)) == []


def test_index_and_totals_count_the_same() -> None:
    log = parse(GOOD)
    index = questions.index_of(log, PLAN)
    measurements = questions.summarise(log, PLAN, ["a problem"])
    assert index["by_status"] == {
        "OPEN": ["Q-001"],
        "EXPLORING": [],
        "ANSWERED": ["Q-002"],
        "SUPERSEDED": ["Q-003"],
    }
    assert index["by_experiment"] == {
        "FEAT-001": ["Q-001", "Q-002", "Q-003"],
        "FEAT-002": ["Q-001"],
    }
    assert {name: m.value for name, m in measurements.items()} == {
        "questions": 3, "open": 1, "exploring": 0, "answered": 1, "superseded": 1, "tags": 4,
        "experiments": 2, "experiments_with_a_question": 2, "problems": 1,
    }  # fmt: skip
    assert set(index["by_status"]) == set(STATUSES)


def test_sentences_turn_with_the_numbers() -> None:
    log = parse(GOOD)
    good = " ".join(questions.findings(questions.summarise(log, PLAN, [])))
    numbers = questions.summarise(log, (*PLAN, "FEAT-003"), ["a problem"])
    broken = " ".join(questions.findings(numbers))
    assert "Every experiment" in good and "The log follows its rules: 0 problems" in good
    assert (
        "NOT every experiment" in broken
        and "(2 of 3)" in broken
        and "BREAKS its rules: 1 problem." in broken
    )
