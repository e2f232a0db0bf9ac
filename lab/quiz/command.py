"""`python -m lab quiz TRACK`: a track's questions at a terminal, graded by results with receipts.

Whatever is typed, the quiz goes on or ends with the score so far: end of input, `q` and Ctrl-C end
it; an empty line passes a question; a line that cannot be read as an answer is asked for again.

Answers are counted in a file of the user's (`history`). Topics with a question that was not
answered right the last time come first. After the last question, those that were not right are
asked once more, without being counted: a right answer minutes after its explanation proves little.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.present.numbers import count
from lab.quiz.asking import Grade, GradedQuestion, ask_all
from lab.quiz.history import DamagedHistoryError, History, open_history
from lab.quiz.results import AUDIT, QuizError, prepare
from lab.quiz.score import history_lines, missed_first, score_lines
from lab.result import ContractError
from lab.synthesis.questions import PosedQuestion
from lab.synthesis.tracks import TRACKS

INTERRUPTED = 130  # exit code after Ctrl-C, as of a shell


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


def _write_line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
