"""Asking questions at a terminal, one after the other, and grading what is typed."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lab.quiz.history import History
from lab.synthesis.questions import LETTERS, PosedQuestion, grade_answer

Write = Callable[[str], None]


class Grade(StrEnum):
    """How a question was answered; the value is what the quiz replies."""

    RIGHT = "Right."
    WRONG = "No."
    PASSED = "Passed."


@dataclass(frozen=True)
class GradedQuestion:
    """One question and how it was answered."""

    question: PosedQuestion
    grade: Grade


def ask_all(
    posed_questions: Sequence[PosedQuestion],
    graded_questions: list[GradedQuestion],
    write: Write,
    history: History | None,
) -> None:
    """Ask one question after the other and explain each; stop at `q` or the end of input.

    `graded_questions` and `history` are extended after each answer, so that an interrupt loses
    nothing. Without a history answers are not counted.
    """
    total = len(posed_questions)
    for number_asked, question in enumerate(posed_questions, start=1):
        # 1. The question and its choices.
        write(f"\n{number_asked} of {total} · {question.topic}\n\n{_wrap(question.text)}")
        for letter, label in zip(LETTERS, question.choices, strict=False):
            write(_wrap(f"{letter}) {label}", first="  ", later="     "))
        if not question.choices:
            # The tolerance itself would give away how large the answer is.
            unit = f", in {question.unit}" if question.unit else ""
            write(f"  (a number{unit}; a tenth off is near enough)")

        # 2. The answer.
        grade = _read_answer(question, write)
        if grade is None:
            return
        graded_questions.append(GradedQuestion(question, grade))
        if history is not None:
            was_kept = not history.problem
            history.add(question.id, question.topic, is_right=grade is Grade.RIGHT)
            if was_kept and history.problem:
                write(f"The score is not kept: {history.problem}. The quiz goes on.")

        # 3. Its explanation.
        reply = [grade.value, question.explanation]
        if grade is not Grade.RIGHT:
            reply.insert(1, f"It is {question.answer}.")
        write(_wrap(" ".join(reply)))


def _read_answer(question: PosedQuestion, write: Write) -> Grade | None:
    """Read lines until one is an answer; return None at `q` or the end of input."""
    while True:
        sys.stdout.write("> ")
        sys.stdout.flush()
        line = ""
        if sys.stdin:  # None where the input is closed
            line = sys.stdin.readline()
        if not line:
            write("")  # end of input leaves the cursor behind the prompt
            return None
        text = line.strip()
        if text.lower() in ("q", "quit"):
            return None
        if not text:
            return Grade.PASSED
        try:
            is_right = grade_answer(question, line)
        except ValueError as error:
            write(f"{error}; an empty line passes, q ends")
            continue
        return Grade.RIGHT if is_right else Grade.WRONG


def _wrap(text: str, *, first: str = "", later: str = "") -> str:
    """Return a text in lines as wide as the terminal, within limits that can be read."""
    width = min(shutil.get_terminal_size().columns, 100)
    return textwrap.fill(
        text,
        width=max(width, 30),
        initial_indent=first,
        subsequent_indent=later,
        break_on_hyphens=False,
    )
