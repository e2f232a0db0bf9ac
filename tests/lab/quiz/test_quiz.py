"""The quiz as its user meets it: pseudo-terminal, pipe, unreadable answers, missing results.

What it keeps between sessions is tested in test_quiz_history.py.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lab.contract import Measurement
from lab.synthesis.questions import LETTERS
from lab.synthesis.tracks import TRACKS
from tests.lab.quiz.user import (
    ENV,
    PROMPT,
    piped,
    posed_questions,
    right_answer,
    screen_text,
    terminal,
    wait_for_end,
)
from tests.lab.synthesis import track


@pytest.mark.parametrize("name", TRACKS)
def test_a_whole_quiz_at_a_terminal_is_graded_by_the_numbers(repository: Path, name: str) -> None:
    child = terminal(repository, name)
    questions = posed_questions(name)
    for number, question in enumerate(questions, 1):
        child.expect(PROMPT)
        text = screen_text(child)
        assert f"{number} of {len(questions)} · {question.topic}" in text
        if not question.choices:
            assert question.answer not in text, "the answer was shown before the question was asked"
        child.sendline(right_answer(question))
        child.expect("Right\\.")
    code, screen = wait_for_end(child)
    assert code == 0
    assert f"{len(questions)} of {len(questions)} questions right" in screen
    assert "to look at again" not in screen
    assert "Once more" not in screen


def test_wrong_answers_are_explained_and_topics_named(repository: Path) -> None:
    number_question, choice_question, *more = posed_questions()
    child = terminal(repository)

    # 1. A wrong number.
    child.expect(PROMPT)
    assert not number_question.choices
    child.sendline(str(number_question.solution * 3))
    child.expect(PROMPT)
    explanation = f"No. It is {number_question.answer}. {number_question.explanation}"
    assert explanation in screen_text(child)

    # 2. A wrong letter, and a question passed.
    indices = range(len(choice_question.choices))
    wrong = next(index for index in indices if index != choice_question.solution)
    child.sendline(LETTERS[wrong])
    child.expect(PROMPT)
    child.sendline("")
    child.expect(r"Passed\.")

    # 3. The score.
    child.sendline("q")
    code, screen = wait_for_end(child)
    assert code == 0
    assert "0 of 3 questions right" in screen
    assert f"{len(more) - 1} not asked" in screen
    assert f"to look at again: {number_question.topic} (0 of 3)" in screen


def test_unreadable_answers_are_asked_for_again_and_never_crash(repository: Path) -> None:
    child = terminal(repository)

    # 1. What is no number.
    child.expect(PROMPT)
    for typed in (
        "letters",
        "a",
        "--",
        "1 2",
        "0x1f",
        "\t?",
        "ünïcödé",
        "\x1b[A",
        "9" * 3000 + "x",
    ):
        child.sendline(typed)
        child.expect("is no number; expected one such as 12, 0.25 or 3e-4")
        child.expect(PROMPT)
    child.sendline(right_answer(posed_questions()[0]))
    child.expect("Right\\.")

    # 2. What is no letter.
    child.expect(PROMPT)
    for typed in ("7", "z", "ab", "1e5"):
        child.sendline(typed)
        child.expect("is none of a, b")
        child.expect(PROMPT)

    # 3. End of input.
    child.sendeof()
    code, screen = wait_for_end(child)
    assert code == 0
    assert "1 of 1 question right" in screen
    assert "Traceback" not in screen


def test_ctrl_c_ends_with_the_score_so_far(repository: Path) -> None:
    child = terminal(repository)
    child.expect(PROMPT)
    child.sendline(right_answer(posed_questions()[0]))
    child.expect("Right\\.")
    child.expect(PROMPT)
    child.sendintr()
    code, screen = wait_for_end(child)
    assert code == 130
    assert "Interrupted." in screen
    assert "1 of 1 question right" in screen
    assert "Traceback" not in screen


@pytest.mark.parametrize(
    "typed", [b"", b"\xff\xfe\x00\n", b"q", b"\n" * 500, b"a\n" * 500, b"\x00\n\x04\n"]
)
def test_a_pipe_of_anything_ends_in_a_score(repository: Path, typed: bytes) -> None:
    done = piped(repository, typed)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b"", done.stderr.decode()
    last_line = done.stdout.splitlines()[-1]
    assert b"0 of 0 questions right" in last_line or b"Kept in" in last_line


def test_a_closed_input_and_a_reader_who_leaves_are_no_crash(repository: Path) -> None:
    quiz = f"{sys.executable} -m lab quiz track-a"
    closed = subprocess.run(
        ["bash", "-c", f"{quiz} <&-"], cwd=repository, env=ENV, capture_output=True, check=False
    )
    assert closed.returncode == 0
    assert b"0 of 0 questions right" in closed.stdout
    assert closed.stderr == b""
    script = f"(sleep 3; yes a) | {quiz} | true; echo ${{PIPESTATUS[1]}}"
    no_reader = subprocess.run(
        ["bash", "-c", script], cwd=repository, env=ENV, capture_output=True, check=False
    )
    assert no_reader.stdout == b"0\n"
    assert b"Traceback" not in no_reader.stderr


def test_root_names_the_repository(repository: Path, tmp_path: Path) -> None:
    assert piped(tmp_path, b"q\n", "--root", str(repository)).returncode == 0


def refusal(root: Path) -> str:
    """Return the message with which the quiz refuses to start."""
    done = piped(root, b"a\n")
    assert done.returncode == 2
    assert done.stdout == b""
    text = done.stderr.decode()
    assert text.startswith("error: ")
    assert text.splitlines()[-1].startswith("next: ")
    assert "Traceback" not in text
    return text


def test_without_results_it_says_what_to_run(tmp_path: Path) -> None:
    text = refusal(tmp_path)
    assert "FEAT-005 has no verified result" in text
    assert "next: python -m phases status, which says what to run (phase 2 is needed" in text


def test_a_result_that_its_receipt_does_not_name_grades_nothing(tmp_path: Path) -> None:
    folder = track.write_results(tmp_path / "lab/results") / "FEAT-006"
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(text.replace('"value": 0.001', '"value": 0.005', 1))
    message = refusal(tmp_path)
    assert "its receipt names" in message
    assert "FEAT-006" in message
    assert "next: python -m phases audit" in message
    (folder / "receipt.json").unlink()
    assert "FEAT-006 has no verified result" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"), [("receipt.json", "{"), ("receipt.json", "[]"), ("result.json", '{"a": 1}')]
)
def test_records_that_cannot_be_read_are_named(tmp_path: Path, name: str, text: str) -> None:
    folder = track.write_results(tmp_path / "lab/results") / "FEAT-005"
    (folder / name).write_text(text)
    assert "FEAT-005: result or receipt cannot be read" in refusal(tmp_path)


def test_a_result_without_a_number_that_is_asked_for_is_named(tmp_path: Path) -> None:
    folder = track.write_results(tmp_path / "lab/results") / "FEAT-005"
    document = json.loads((folder / "result.json").read_text())
    del document["measurements"]["staircase_share"]
    (folder / "result.json").write_text(json.dumps(document))
    track.write_receipt(folder)
    message = refusal(tmp_path)
    assert "FEAT-005 has no measurement 'staircase_share'" in message
    assert "next: python -m phases audit" in message


def test_what_the_numbers_leave_open_is_not_asked(tmp_path: Path) -> None:
    unmeasured = {"FEAT-005.noise_growth": Measurement.of_estimate(None, "times")}
    track.write_results(tmp_path / "lab/results", unmeasured)
    out = piped(tmp_path, b"\n" * 100).stdout.decode()
    assert "Left out, because these runs cannot tell: noise-grows." in out
    assert f"of {len(posed_questions()) - 1} ·" in out
    assert "simple noise scale says" not in out


def test_another_track_and_help_are_answered(tmp_path: Path) -> None:
    def quiz(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lab", "quiz", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=ENV, capture_output=True, text=True, check=False
        )

    other_track = quiz("track-z")
    assert other_track.returncode == 2
    assert "invalid choice: 'track-z'" in other_track.stderr
    assert "Traceback" not in other_track.stderr
    helped = quiz("--help")
    assert helped.returncode == 0
    assert "track-a" in helped.stdout
    assert "track-b" in helped.stdout
    assert "track-c" in helped.stdout


def test_the_quiz_loads_neither_torch_nor_matplotlib(repository: Path) -> None:
    code = (
        "import sys, io; sys.stdin = io.StringIO(''); "
        "from lab.quiz.command import main; main(['track-a'])\n"
        "heavy = {'torch', 'transformers', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, env=ENV, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
