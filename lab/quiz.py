"""`python -m lab quiz track-a`: a track's questions at a terminal, graded by results with receipts.

Whatever is typed, the quiz goes on or ends with the score so far: end of input and `q` end it, so
does Ctrl-C; an empty line passes a question; what cannot be read as an answer is asked for again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.present.numbers import count, number
from lab.result import ContractError, Measurement
from lab.synthesis import questions
from lab.synthesis.questions import LETTERS, Posed, Question

TRACKS = {"track-a": questions.TRACK_A}
RESULTS = Path("lab/results")
INTERRUPTED = 130

Say = Callable[[str], None]


class QuizError(Exception):
    """The quiz cannot be held; the message says why, and `next` what to type."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True)
class Graded:
    """One question and how it was answered: True right, False wrong, None passed."""

    posed: Posed
    right: bool | None


def main(argv: Sequence[str]) -> int:
    """Hold a quiz; give the exit code: 0 held or ended early, 2 cannot be held, 130 interrupted."""
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
    for stream in (sys.stdin, sys.stdout):
        if hasattr(stream, "reconfigure"):
            # a byte that is no text is a wrong answer, not a traceback
            stream.reconfigure(errors="replace")
    graded: list[Graded] = []
    try:
        posed = prepare(TRACKS[args.track], args.root, _say)
        return _hold(posed, graded)
    except (QuizError, ContractError) as error:
        remedy = getattr(error, "remedy", "python -m phases audit")
        sys.stderr.write(f"error: {error}\nnext: {remedy}\n")
        return 2
    except BrokenPipeError:  # whoever read along has gone
        sys.stdout = None  # type: ignore[assignment]  # or the interpreter would try to flush it
        return 0


def _hold(posed: Sequence[Posed], graded: list[Graded]) -> int:
    """Ask everything; the score is told however it ends."""
    code = 0
    try:
        ask_all(posed, graded, _say)
    except KeyboardInterrupt:
        _say("\nInterrupted.")
        code = INTERRUPTED
    for line in score(graded, posed):
        _say(line)
    return code


def prepare(path: Path, root: Path, say: Say) -> list[Posed]:
    """Read questions and results, tell what grades them, give the questions the numbers answer."""
    asked, _ = questions.read(path)
    features = sorted({name.partition(".")[0] for question in asked for name in question.uses})
    measured: dict[str, Mapping[str, Measurement]] = {}
    receipts = []
    for feature in features:
        measured[feature], receipt = read_result(root / RESULTS / feature)
        receipts.append(f"{feature} {receipt[:12]}")
    found = [(question, questions.pose(question, measured)) for question in asked]
    say(f"Graded by your own runs, as their receipts name them (sha256): {', '.join(receipts)}.")
    left: list[Question] = [question for question, posed in found if posed is None]
    if left:
        say(
            "Left out, because these runs cannot tell: "
            f"{', '.join(question.id for question in left)}."
        )
    say("Type a letter or a number; an empty line passes, q ends.")
    return [posed for _, posed in found if posed is not None]


def read_result(folder: Path) -> tuple[dict[str, Measurement], str]:
    """Give a feature's measurements and its receipt's SHA-256.

    QuizError unless the receipt names this result.
    """
    paths = {name: folder / name for name in ("result.json", "receipt.json")}
    for path in paths.values():
        if not path.is_file():
            msg = (
                f"{path} is not there: {folder.name} has no verified result, and nothing else "
                "grades this quiz"
            )
            raise QuizError(
                msg,
                "python -m phases status, which says what to run (phase 2 is needed to its end)",
            )
    data, receipt = paths["result.json"].read_bytes(), paths["receipt.json"].read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    try:
        named = {item["name"]: item["digest"]["sha256"] for item in json.loads(receipt)["subject"]}
        raw: Any = json.loads(data)["measurements"]
        measured = {name: Measurement.from_json(item) for name, item in raw.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{folder}: result or receipt cannot be read ({type(error).__name__}: {error})"
        raise QuizError(msg, "python -m phases audit") from error
    if named.get("result.json") != digest:
        stated = str(named.get("result.json", "no result.json"))[:12]
        msg = (
            f"{paths['result.json']} has sha256 {digest[:12]}…, its receipt names {stated}…: it "
            "was changed since"
        )
        raise QuizError(msg, "python -m phases audit")
    return measured, hashlib.sha256(receipt).hexdigest()


def ask_all(posed: Sequence[Posed], graded: list[Graded], say: Say) -> None:
    """Ask one question after the other and explain each.

    `graded` grows, so that an interrupt loses nothing.
    """
    for place, question in enumerate(posed, 1):
        say(f"\n{place} of {len(posed)} · {question.topic}\n\n{_wrap(question.text)}")
        for letter, label in zip(LETTERS, question.choices, strict=False):
            say(_wrap(f"{letter}) {label}", "  ", "     "))
        if not question.choices:
            # the tolerance itself would tell the answer's size
            say(
                f"  (a number{f', in {question.unit}' if question.unit else ''}; a tenth "
                "off is near enough)"
            )
        right = _answer(question, say)
        if right is ...:
            return
        graded.append(Graded(question, right))
        word = "Passed." if right is None else "Right." if right else "No."
        say(_wrap(f"{word} {'' if right else f'It is {question.answer}. '}{question.explanation}"))


def _answer(question: Posed, say: Say) -> Any:
    """Give True, False, None for a passed question, or ... where nothing more will come."""
    while True:
        sys.stdout.write("> ")
        sys.stdout.flush()
        line = sys.stdin.readline() if sys.stdin else ""
        if not line:
            say("")  # end of input leaves the cursor behind the prompt
        if not line or line.strip().lower() in ("q", "quit"):
            return ...
        if not line.strip():
            return None
        try:
            return questions.grade(question, line)
        except ValueError as error:
            say(f"{error}; an empty line passes, q ends")


def score(graded: Sequence[Graded], posed: Sequence[Posed]) -> list[str]:
    """Give the lines that end a quiz: score, what blind guessing gets, topics to read again."""
    right = sum(item.right is True for item in graded)
    lines = [f"\n{right} of {count(len(graded), 'question')} right"]
    if len(graded) < len(posed):
        lines[0] += f", {len(posed) - len(graded)} not asked"
    if graded:
        blind = sum(1 / len(item.posed.choices) for item in graded if item.posed.choices)
        lines[0] += f"; guessing blindly gets {number(blind, 2)}"
    lines[0] += "."
    for topic in dict.fromkeys(item.posed.topic for item in graded if item.right is not True):
        of = [item.right is True for item in graded if item.posed.topic == topic]
        lines.append(f"  to look at again: {topic} ({sum(of)} of {len(of)})")
    return lines


def _wrap(text: str, first: str = "", later: str = "") -> str:
    width = min(shutil.get_terminal_size().columns, 100)
    return textwrap.fill(
        text, max(width, 30), initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
