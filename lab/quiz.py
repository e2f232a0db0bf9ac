"""`python -m lab quiz TRACK`: a track's questions at a terminal, graded by results with receipts.

Whatever is typed, the quiz goes on or ends with the score so far: end of input, `q` and Ctrl-C end
it; an empty line passes a question; a line that cannot be read as an answer is asked for again.

Answers are counted in a file of the user's (`quiz_history`). Topics with a question that was not
answered right the last time come first. After the last question, those that were not right are
asked once more, without being counted: a right answer minutes after its explanation proves little.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lab.digests import sha256
from lab.present.numbers import count, number
from lab.quiz_history import (
    RIGHT,
    DamagedHistoryError,
    History,
    Tallies,
    Tally,
    open_history,
)
from lab.result import ContractError, Measurement
from lab.synthesis.questions import (
    LETTERS,
    PosedQuestion,
    grade_answer,
    pose_all,
    read_questions,
)
from lab.synthesis.tracks import TRACKS, Track

RESULTS = Path("lab/results")
INTERRUPTED = 130  # exit code after Ctrl-C, as of a shell
AUDIT = "python -m phases audit"

Write = Callable[[str], None]


class QuizError(Exception):
    """The quiz cannot start; the message says why, and `hint` what to type."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


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


def main(argv: Sequence[str]) -> int:
    """Run a quiz and return the exit code.

    0: run to its end or ended early; 2: it cannot start; 130: interrupted.
    """
    # 1. The arguments.
    parser = argparse.ArgumentParser(
        prog="python -m lab quiz", description="Questions answered by your own runs."
    )
    parser.add_argument("track", choices=sorted(TRACKS), help="which track's questions")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(),
        help="the repository whose results grade (default: here)",
    )
    args = parser.parse_args(argv)

    # 2. A byte that is no text is a wrong answer, not a traceback.
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")

    # 3. The quiz.
    try:
        history = _open_history(args.track)
        posed_questions = prepare(TRACKS[args.track], args.root, _write_line)
        ordered_questions = missed_first(posed_questions, history.tallies)
        for line in history_lines(posed_questions, history):
            _write_line(line)
        _write_line("Type a letter or a number; an empty line passes, q ends.")
        return _ask_and_score(ordered_questions, history)
    except (QuizError, ContractError) as error:
        hint = getattr(error, "hint", AUDIT)
        sys.stderr.write(f"error: {error}\nnext: {hint}\n")
        return 2
    except BrokenPipeError:  # the reader of a pipe has gone
        sys.stdout = None  # or the interpreter would try to flush it
        return 0


def _open_history(track: str) -> History:
    """Return what was answered before.

    Raises:
        QuizError: the file is damaged; to go on would lose what is in it.
    """
    try:
        return open_history(track)
    except DamagedHistoryError as error:
        path = error.path
        hint = f"mv {path} {path}.damaged, which begins a new score; or repair the file"
        raise QuizError(str(error), hint) from error


def _ask_and_score(posed_questions: Sequence[PosedQuestion], history: History) -> int:
    """Ask everything, write the score however it ends, and return the exit code."""
    graded_questions: list[GradedQuestion] = []
    code = 0
    try:
        ask_all(posed_questions, graded_questions, _write_line, history)
        missed = [item.question for item in graded_questions if item.grade is not Grade.RIGHT]
        if missed and len(graded_questions) == len(posed_questions):
            _write_line(f"\nOnce more, without counting: {count(len(missed), 'question')}.")
            ask_all(missed, [], _write_line, None)
    except KeyboardInterrupt:
        _write_line("\nInterrupted.")
        code = INTERRUPTED
    for line in score_lines(graded_questions, len(posed_questions), history):
        _write_line(line)
    return code


def prepare(track: Track, root: Path, write: Write) -> list[PosedQuestion]:
    """Return the questions that the results decide, and write which receipts grade them.

    Raises:
        QuizError: a result is missing, cannot be read, or is not the one of its receipt.
        ContractError: the question file is invalid, or a measurement that it names is missing.
    """
    # 1. The results of every feature that a question names.
    questions, _ = read_questions(track.questions)
    features: set[str] = set()
    for question in questions:
        features.update(name.partition(".")[0] for name in question.all_names)
    evidence: dict[str, Mapping[str, Measurement]] = {}
    receipts = []
    for feature in sorted(features):
        evidence[feature], receipt = read_result(root / RESULTS / feature, track.phase)
        receipts.append(f"{feature} {receipt[:12]}")

    # 2. The questions; those that the numbers leave open are left out.
    posed_questions, open_ids = pose_all(questions, evidence)

    # 3. What the user has to know before the first question.
    write(f"Graded by your own runs, as their receipts name them (sha256): {', '.join(receipts)}.")
    if open_ids:
        write(f"Left out, because these runs cannot tell: {', '.join(open_ids)}.")
    return posed_questions


def read_result(folder: Path, phase: int) -> tuple[dict[str, Measurement], str]:
    """Return a feature's measurements and its receipt's SHA-256; `phase` makes its result.

    Raises:
        QuizError: a file is missing or cannot be read, or the receipt names another result.
    """
    # 1. Both files must be there.
    result_path, receipt_path = folder / "result.json", folder / "receipt.json"
    for path in (result_path, receipt_path):
        if not path.is_file():
            msg = (
                f"{path} does not exist: {folder.name} has no verified result, and nothing else "
                "grades this quiz"
            )
            hint = (
                f"python -m phases status, which says what to run (phase {phase} is needed to its "
                "end)"
            )
            raise QuizError(msg, hint)
    result, receipt = result_path.read_bytes(), receipt_path.read_bytes()

    # 2. Both must be readable.
    try:
        subject = json.loads(receipt)["subject"]
        digests = {item["name"]: item["digest"]["sha256"] for item in subject}
        raw: Any = json.loads(result)["measurements"]
        measurements = {name: Measurement.from_json(item) for name, item in raw.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{folder}: result or receipt cannot be read ({type(error).__name__}: {error})"
        raise QuizError(msg, AUDIT) from error

    # 3. The receipt must name this result.
    digest = sha256(result)
    if digests.get("result.json") != digest:
        expected = str(digests.get("result.json", "no result.json"))[:12]
        msg = (
            f"{result_path} has sha256 {digest[:12]}…, its receipt names {expected}…: it was "
            "changed since"
        )
        raise QuizError(msg, AUDIT)
    return measurements, sha256(receipt)


def missed_first(posed_questions: Sequence[PosedQuestion], tallies: Tallies) -> list[PosedQuestion]:
    """Return the questions with the topics first that were not right the last time.

    Within such a topic the questions come first that were not right; all else keeps its order.
    """
    topics = list(dict.fromkeys(question.topic for question in posed_questions))
    missed = missed_topics(posed_questions, tallies)

    def key(question: PosedQuestion) -> tuple[bool, int, bool]:
        was_right = not _was_missed(question, tallies)
        return question.topic not in missed, topics.index(question.topic), was_right

    return sorted(posed_questions, key=key)


def missed_topics(posed_questions: Sequence[PosedQuestion], tallies: Tallies) -> list[str]:
    """Return the topics with a question that was not answered right the last time, in order."""
    topics = [question.topic for question in posed_questions if _was_missed(question, tallies)]
    return list(dict.fromkeys(topics))


def _was_missed(question: PosedQuestion, tallies: Tallies) -> bool:
    return question.id in tallies and tallies[question.id].last != RIGHT


def history_lines(posed_questions: Sequence[PosedQuestion], history: History) -> list[str]:
    """Return what a user is told about earlier quizzes before the first question."""
    lines = []
    asked, right = _totals(history.tallies.values())
    if asked:
        lines.append(f"Earlier quizzes: {right} of {count(asked, 'answer')} right.")
    topics = missed_topics(posed_questions, history.tallies)
    if topics:
        lines.append(
            f"First come the topics that were not right the last time: {', '.join(topics)}."
        )
    if history.problem:
        lines.append(f"This quiz is not counted: {history.problem}.")
    return lines


def _totals(tallies: Iterable[Tally]) -> tuple[int, int]:
    """Return how often questions were asked, and how often answered right."""
    counts = [(tally.asked, tally.right) for tally in tallies]
    return sum(asked for asked, _ in counts), sum(right for _, right in counts)


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


def score_lines(
    graded_questions: Sequence[GradedQuestion], total: int, history: History
) -> list[str]:
    """Return the lines that end a quiz of `total` questions.

    The score, what blind guessing gets, the topics to read again, and where the score is kept.
    """
    # 1. The score, and what letters guessed evenly would have got.
    right = sum(item.grade is Grade.RIGHT for item in graded_questions)
    summary = f"\n{right} of {count(len(graded_questions), 'question')} right"
    if len(graded_questions) < total:
        summary += f", {total - len(graded_questions)} not asked"
    if graded_questions:
        choice_counts = [len(item.question.choices) for item in graded_questions]
        blind_score = sum(1 / n for n in choice_counts if n)
        summary += f"; guessing blindly gets {number(blind_score, 2)}"
    lines = [f"{summary}."]

    # 2. Topics with a question that was not answered right, in the order of asking.
    by_topic: dict[str, list[GradedQuestion]] = {}
    for item in graded_questions:
        by_topic.setdefault(item.question.topic, []).append(item)
    for topic, items in by_topic.items():
        right = sum(item.grade is Grade.RIGHT for item in items)
        if right == len(items):
            continue
        score = f"{right} of {len(items)}"
        of_topic = [tally for tally in history.tallies.values() if tally.topic == topic]
        asked, right = _totals(of_topic)
        if asked > len(items):
            score += f"; {right} of {asked} in all quizzes"
        lines.append(f"  to look at again: {topic} ({score})")

    # 3. Where it is kept.
    if graded_questions and history.problem:
        lines.append(f"The score is not kept: {history.problem}.")
    elif graded_questions:
        has_topics = len(lines) > 1
        next_time = "; these topics come first the next time" if has_topics else ""
        lines.append(f"Kept in {history.path}{next_time}.")
    return lines


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


def _write_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
