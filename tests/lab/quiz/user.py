"""A user of the quiz: at a pseudo-terminal, or with answers from a pipe."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pexpect

from lab.synthesis.questions import LETTERS, PosedQuestion, pose, read_questions
from lab.synthesis.tracks import TRACKS
from tests.lab.synthesis import track

ROOT = Path(__file__).resolve().parents[3]
PROMPT = r"\r\n> "
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}


def posed_questions(name: str = "track-a") -> list[PosedQuestion]:
    evidence = track.measurements(track=name)
    questions, _ = read_questions(TRACKS[name].questions)
    posed = [pose(question, evidence) for question in questions]
    return [question for question in posed if question is not None]


def right_answer(question: PosedQuestion) -> str:
    """Return what the user types to be right."""
    if question.choices:
        return LETTERS[int(question.solution)]
    return repr(question.solution)


def terminal(root: Path, name: str = "track-a") -> "pexpect.spawn[str]":
    """Start the quiz at a pseudo-terminal."""
    argv = ["-m", "lab", "quiz", name]
    child = pexpect.spawn(
        sys.executable, argv, cwd=str(root), env=ENV, encoding="utf-8", timeout=60
    )
    child.setwinsize(50, 100)
    return child


def wait_for_end(child: "pexpect.spawn[str]") -> tuple[int, str]:
    """Return the exit code and the screen since the last `expect`."""
    child.expect(pexpect.EOF)
    screen = child.before
    child.close()
    return child.exitstatus, screen


def screen_text(child: "pexpect.spawn[str]") -> str:
    """Return the screen up to the last `expect`, without its line breaks."""
    return re.sub(r"\s+", " ", child.before)


def piped(root: Path, typed: bytes, *more: str) -> subprocess.CompletedProcess[bytes]:
    """Run the quiz with its input from a pipe."""
    command = [sys.executable, "-m", "lab", "quiz", "track-a", *more]
    return subprocess.run(
        command, cwd=root, env=ENV, input=typed, capture_output=True, check=False, timeout=60
    )
