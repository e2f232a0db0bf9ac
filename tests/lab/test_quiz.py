"""The quiz as a person meets it: pseudo-terminal, pipe, answers that are none, no results."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from lab.contract import Measurement
from lab.synthesis import questions
from tests.lab.synthesis import track

ROOT = Path(__file__).resolve().parents[2]
PROMPT = r"\r\n> "
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("quiz")
    track.write(root / "lab/results")
    return root


def posed() -> list[questions.Posed]:
    found = [questions.pose(asked, track.measured()) for asked in questions.read()[0]]
    return [item for item in found if item is not None]


def answer_to(item: questions.Posed) -> str:
    return questions.LETTERS[int(item.right)] if item.choices else repr(item.right)


def terminal(root: Path, *more: str) -> "pexpect.spawn[str]":
    argv = ["-m", "lab", "quiz", "track-a", *more]
    child = pexpect.spawn(
        sys.executable, argv, cwd=str(root), env=ENV, encoding="utf-8", timeout=60
    )
    child.setwinsize(50, 100)
    return child


def ended(child: "pexpect.spawn[str]") -> tuple[int, str]:
    child.expect(pexpect.EOF)
    screen = child.before
    child.close()
    return child.exitstatus, screen


def piped(root: Path, typed: bytes, *more: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "lab", "quiz", "track-a", *more]
    return subprocess.run(
        command, cwd=root, env=ENV, input=typed, capture_output=True, check=False, timeout=60
    )


def test_a_whole_quiz_at_a_terminal_is_graded_by_the_numbers(repository: Path) -> None:
    child = terminal(repository)
    every = posed()
    for place, item in enumerate(every, 1):
        child.expect(PROMPT)
        shown = re.sub(r"\s+", " ", child.before)
        assert f"{place} of {len(every)} · {item.topic}" in shown
        assert item.answer not in shown or item.choices, (
            "the answer stood there before it was asked for"
        )
        child.sendline(answer_to(item))
        child.expect("Right\\.")
    code, screen = ended(child)
    assert code == 0 and f"{len(every)} of {len(every)} questions right" in screen
    assert "to look at again" not in screen


def test_wrong_answers_are_explained_and_topics_named(repository: Path) -> None:
    every = posed()
    child = terminal(repository)
    child.expect(PROMPT)
    assert not every[0].choices
    child.sendline(str(every[0].right * 3))
    child.expect(PROMPT)
    shown = re.sub(r"\s+", " ", child.before)
    assert f"No. It is {every[0].answer}. {every[0].explanation}" in shown
    wrong = next(i for i in range(len(every[1].choices)) if i != every[1].right)
    child.sendline(questions.LETTERS[wrong])
    child.expect(PROMPT)
    child.sendline("")
    child.expect(r"Passed\.")
    child.sendline("q")
    code, screen = ended(child)
    assert (
        code == 0 and "0 of 3 questions right" in screen and f"{len(every) - 3} not asked" in screen
    )
    assert f"to look at again: {every[0].topic} (0 of 3)" in screen


def test_nonsense_is_asked_again_and_never_crashes(repository: Path) -> None:
    child = terminal(repository)
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
        child.expect("is no number; wanted one such as 12, 0.25 or 3e-4")
        child.expect(PROMPT)
    child.sendline(answer_to(posed()[0]))
    child.expect("Right\\.")
    child.expect(PROMPT)
    for typed in ("7", "z", "ab", "1e5"):
        child.sendline(typed)
        child.expect("is none of a, b")
        child.expect(PROMPT)
    child.sendeof()
    code, screen = ended(child)
    assert code == 0 and "1 of 1 question right" in screen and "Traceback" not in screen


def test_ctrl_c_ends_with_the_score_so_far(repository: Path) -> None:
    child = terminal(repository)
    child.expect(PROMPT)
    child.sendline(answer_to(posed()[0]))
    child.expect("Right\\.")
    child.expect(PROMPT)
    child.sendintr()
    code, screen = ended(child)
    assert (
        code == 130
        and "Interrupted." in screen
        and "1 of 1 question right" in screen
        and "Traceback" not in screen
    )


@pytest.mark.parametrize(
    "typed", [b"", b"\xff\xfe\x00\n", b"q", b"\n" * 500, b"a\n" * 500, b"\x00\n\x04\n"]
)
def test_a_pipe_of_anything_ends_in_a_score(repository: Path, typed: bytes) -> None:
    done = piped(repository, typed)
    assert done.returncode == 0 and done.stderr == b"", done.stderr.decode()
    assert (
        b"right" in done.stdout.splitlines()[-1]
        or b"to look at again" in done.stdout.splitlines()[-1]
    )


def test_a_closed_input_and_a_reader_who_leaves_are_no_crash(repository: Path) -> None:
    quiz = f"{sys.executable} -m lab quiz track-a"
    closed = subprocess.run(
        ["bash", "-c", f"{quiz} <&-"], cwd=repository, env=ENV, capture_output=True, check=False
    )
    assert (
        closed.returncode == 0
        and b"0 of 0 questions right" in closed.stdout
        and closed.stderr == b""
    )
    left = subprocess.run(
        ["bash", "-c", f"(sleep 3; yes a) | {quiz} | true; echo ${{PIPESTATUS[1]}}"],
        cwd=repository, env=ENV, capture_output=True, check=False,
    )  # fmt: skip
    assert left.stdout == b"0\n" and b"Traceback" not in left.stderr


def test_root_names_the_repository(repository: Path, tmp_path: Path) -> None:
    assert piped(tmp_path, b"q\n", "--root", str(repository)).returncode == 0


def refused(root: Path) -> str:
    done = piped(root, b"a\n")
    assert done.returncode == 2 and done.stdout == b""
    text = done.stderr.decode()
    assert (
        text.startswith("error: ")
        and text.splitlines()[-1].startswith("next: ")
        and "Traceback" not in text
    )
    return text


def test_without_results_it_says_what_to_run(tmp_path: Path) -> None:
    text = refused(tmp_path)
    assert "FEAT-005 has no verified result" in text and "next: python -m phases status" in text


def test_a_result_that_its_receipt_does_not_name_grades_nothing(tmp_path: Path) -> None:
    folder = track.write(tmp_path / "lab/results") / "FEAT-006"
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(text.replace('"value": 0.001', '"value": 0.005', 1))
    said = refused(tmp_path)
    assert (
        "its receipt names" in said
        and "FEAT-006" in said
        and "next: python -m phases audit" in said
    )
    (folder / "receipt.json").unlink()
    assert "FEAT-006 has no verified result" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"), [("receipt.json", "{"), ("receipt.json", "[]"), ("result.json", '{"a": 1}')]
)
def test_records_that_cannot_be_read_are_named(tmp_path: Path, name: str, text: str) -> None:
    folder = track.write(tmp_path / "lab/results") / "FEAT-005"
    (folder / name).write_text(text)
    assert "FEAT-005: result or receipt cannot be read" in refused(tmp_path)


def test_a_result_without_a_number_that_is_asked_for_is_named(tmp_path: Path) -> None:
    folder = track.write(tmp_path / "lab/results") / "FEAT-005"
    document = json.loads((folder / "result.json").read_text())
    del document["measurements"]["staircase_share"]
    data = json.dumps(document).encode()
    (folder / "result.json").write_bytes(data)
    subject = [{"name": "result.json", "digest": {"sha256": hashlib.sha256(data).hexdigest()}}]
    (folder / "receipt.json").write_text(json.dumps({"subject": subject}))
    assert "FEAT-005 has no measurement 'staircase_share'" in refused(tmp_path)


def test_what_the_numbers_leave_open_is_not_asked(tmp_path: Path) -> None:
    track.write(
        tmp_path / "lab/results", {"FEAT-005.noise_growth": Measurement.of_estimate(None, "times")}
    )
    out = piped(tmp_path, b"\n" * 100).stdout.decode()
    assert "Left out, because these runs cannot tell: noise-grows." in out
    assert f"of {len(posed()) - 1} ·" in out and "simple noise scale says" not in out


def test_another_track_and_help_are_answered(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lab", "quiz"]
    wrong = subprocess.run(
        [*command, "track-z"], cwd=tmp_path, env=ENV, capture_output=True, text=True, check=False
    )
    assert (
        wrong.returncode == 2
        and "invalid choice: 'track-z'" in wrong.stderr
        and "Traceback" not in wrong.stderr
    )
    asked = subprocess.run(
        [*command, "--help"], cwd=tmp_path, env=ENV, capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0 and "track-a" in asked.stdout


def test_the_quiz_loads_neither_torch_nor_matplotlib(repository: Path) -> None:
    code = (
        "import sys, io; sys.stdin = io.StringIO(''); "
        "from lab.quiz import main; main(['track-a'])\n"
        "heavy = {'torch', 'transformers', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, env=ENV, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
