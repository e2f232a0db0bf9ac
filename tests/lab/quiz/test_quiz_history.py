"""What the quiz keeps between sessions, as its user meets it; and a file that cannot be kept."""

import json
import os
import re
import signal
import stat
from pathlib import Path
from typing import Any

import pexpect
import pytest

from lab.quiz import history as quiz_history
from lab.quiz.history import DamagedHistoryError, Tally, open_history, read_tracks, write_tracks
from lab.quiz.score import missed_first
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

PASS = ""  # what the user types to pass a question


def kept_file() -> Path:
    return Path(ENV["XDG_STATE_HOME"]) / "llm-learning-lab" / "quiz.json"


def kept(track: str = "track-a") -> dict[str, Any]:
    """Return id -> tally of the user's file."""
    document = json.loads(kept_file().read_text("utf-8"))
    assert document["schema"] == "lab.quiz/1"
    tallies: dict[str, Any] = document["tracks"].get(track, {})
    return tallies


def answer(child: "pexpect.spawn[str]", typed: str) -> str:
    """Wait for the next question, answer it, and return the screen with the question."""
    child.expect(PROMPT)
    screen = screen_text(child)
    child.sendline(typed)
    return screen


def topics_of_session(repository: Path) -> tuple[list[str], list[str]]:
    """Pass everything; return the topics in the order of asking, and the lines before them."""
    out = piped(repository, b"\n" * 100).stdout.decode()
    first_round = out.split("\nOnce more")[0]
    introduction = first_round.split("\n1 of ")[0].splitlines()
    return re.findall(r"^\d+ of \d+ · (.*)$", first_round, re.MULTILINE), introduction


def test_a_topic_that_was_not_right_comes_first_the_next_time(repository: Path) -> None:
    questions = posed_questions()
    missed = next(item for item in questions if item.topic == "batch and rate")

    # 1. Everything right but one question: it is asked once more, and the score has its topic.
    child = terminal(repository)
    for question in questions:
        typed = PASS if question is missed else right_answer(question)
        answer(child, typed)
    child.expect("Once more, without counting: 1 question")
    assert missed.text[:40] in answer(child, right_answer(missed))
    code, screen = wait_for_end(child)
    assert code == 0
    assert f"{len(questions) - 1} of {len(questions)} questions right" in screen
    assert f"Kept in {kept_file()}" in re.sub(r"\r\n", "", screen)

    # 2. The second time its topic comes first, and in it this question; it was not counted twice.
    child = terminal(repository)
    screen = answer(child, right_answer(missed))
    assert f"Earlier quizzes: {len(questions) - 1} of {len(questions)} answers right." in screen
    assert "First come the topics that were not right the last time: batch and rate." in screen
    assert f"1 of {len(questions)} · batch and rate" in screen
    assert missed.text[:40] in screen
    child.expect(PROMPT)
    child.sendline("q")
    wait_for_end(child)
    assert kept()[missed.id] == {
        "topic": "batch and rate",
        "asked": 2,
        "right": 1,
        "last": "right",
    }

    # 3. Now that it was right, the order is the file's again.
    topics, introduction = topics_of_session(repository)
    assert topics == [question.topic for question in questions]
    assert "not right the last time" not in "\n".join(introduction)


def test_scores_of_all_quizzes_are_shown_by_topic(repository: Path) -> None:
    topic = posed_questions()[0].topic
    count = sum(question.topic == topic for question in posed_questions())
    first = piped(repository, b"\n" * count + b"q\n").stdout.decode()
    assert f"  to look at again: {topic} (0 of {count})\n" in first
    second = piped(repository, b"\n" * count + b"q\n").stdout.decode()
    assert f"  to look at again: {topic} (0 of {count}; 0 of {2 * count} in all quizzes)" in second


def test_tracks_are_counted_apart(repository: Path) -> None:
    piped(repository, b"\nq\n")
    assert kept("track-b") == {}
    assert len(kept("track-a")) == 1


def test_every_answer_is_kept_even_if_the_quiz_is_killed(repository: Path) -> None:
    first, second, *_ = posed_questions()
    child = terminal(repository)
    answer(child, right_answer(first))
    answer(child, PASS)
    child.expect(PROMPT)
    child.kill(signal.SIGKILL)
    child.wait()
    assert kept()[first.id]["last"] == "right"
    assert kept()[second.id]["last"] == "wrong"
    assert list(kept_file().parent.iterdir()) == [kept_file()]


def test_ctrl_c_among_those_asked_once_more_still_ends_with_the_score(repository: Path) -> None:
    questions = posed_questions()
    child = terminal(repository)
    for question in questions[:-1]:
        answer(child, right_answer(question))
    answer(child, PASS)
    child.expect("Once more")
    child.expect(PROMPT)
    child.sendintr()
    code, screen = wait_for_end(child)
    assert code == 130
    assert f"{len(questions) - 1} of {len(questions)} questions right" in screen


def test_a_quiz_that_is_ended_early_asks_nothing_once_more(repository: Path) -> None:
    out = piped(repository, b"\n\nq\n").stdout.decode()
    assert "Once more" not in out
    assert "0 of 2 questions right" in out


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xfe",
        b"",
        b"[]",
        b'{"schema": "lab.quiz/2", "tracks": {}}',
        b'{"schema": "lab.quiz/1", "tracks": []}',
        b'{"schema": "lab.quiz/1", "tracks": {"track-a": {"staircase": {"topic": "t"}}}}',
        b'{"schema": "lab.quiz/1", "tracks": {"track-a": {"staircase": '
        b'{"topic": "t", "asked": 1, "right": 2, "last": "right"}}}}',
    ],
)
def test_a_damaged_file_is_named_and_left_as_it_is(repository: Path, content: bytes) -> None:
    kept_file().parent.mkdir(parents=True)
    kept_file().write_bytes(content)
    done = piped(repository, b"a\n")
    assert done.returncode == 2
    assert done.stdout == b""
    error, hint = done.stderr.decode().splitlines()
    assert error.startswith(f"error: {kept_file()} is no score of a quiz: ")
    assert hint.startswith(f"next: mv {kept_file()} {kept_file()}.damaged")
    assert kept_file().read_bytes() == content

    # What the hint says helps.
    kept_file().rename(f"{kept_file()}.damaged")
    assert piped(repository, b"\nq\n").returncode == 0
    assert len(kept()) == 1


def test_a_file_that_is_damaged_during_a_quiz_is_not_overwritten(repository: Path) -> None:
    first, second, *_ = posed_questions()
    child = terminal(repository)
    answer(child, right_answer(first))
    child.expect(PROMPT)
    kept_file().write_text("{")
    child.sendline(right_answer(second))
    child.expect("The score is not kept: ")
    child.expect(PROMPT)
    child.sendline("q")
    code, screen = wait_for_end(child)
    assert code == 0
    assert "2 of 2 questions right" in screen
    assert "Kept in" not in screen
    assert kept_file().read_text() == "{"


def test_a_folder_that_cannot_be_written_does_not_stop_the_quiz(repository: Path) -> None:
    Path(ENV["XDG_STATE_HOME"]).write_text("a file where the folder should be")
    first = posed_questions()[0]
    typed = f"{right_answer(first)}\nq\n".encode()
    done = piped(repository, typed)
    assert done.returncode == 0
    assert done.stderr == b""
    out = done.stdout.decode()
    assert f"This quiz is not counted: {kept_file()}: Not a directory" in out
    assert "1 of 1 question right" in out
    assert "The score is not kept" in out


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission_does_not_stop_the_quiz(repository: Path) -> None:
    folder = Path(ENV["XDG_STATE_HOME"])
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    out = piped(repository, b"\nq\n").stdout.decode()
    assert "The score is not kept" in out
    assert "Permission denied" in out


def test_a_file_that_cannot_be_read_is_not_overwritten(repository: Path) -> None:
    kept_file().mkdir(parents=True)  # a folder where the file should be
    out = piped(repository, b"\nq\n").stdout.decode()
    assert "This quiz is not counted" in out
    assert "0 of 1 question right" in out
    assert kept_file().is_dir()


def test_a_link_stays_one(repository: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.json"
    write_tracks(target, {})
    kept_file().parent.mkdir(parents=True)
    kept_file().symlink_to(target)
    piped(repository, b"\nq\n")
    assert kept_file().is_symlink()
    assert len(read_tracks(target)["track-a"]) == 1


def test_the_folder_is_the_one_of_the_specification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    below_home = tmp_path / ".local/state/llm-learning-lab/quiz.json"
    monkeypatch.setenv("XDG_STATE_HOME", "relative/ignored")
    assert quiz_history.default_path() == below_home
    monkeypatch.delenv("XDG_STATE_HOME")
    assert quiz_history.default_path() == below_home
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert quiz_history.default_path() == Path("/var/state/llm-learning-lab/quiz.json")


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    history = open_history("track-a")
    history.add("one", "topic", is_right=True)
    before = history.path.read_bytes()
    with pytest.raises(TypeError):
        write_tracks(history.path, {"track-a": {"two": Tally("topic", 1, {1}, "right")}})  # type: ignore[arg-type]
    assert history.path.read_bytes() == before
    assert list(history.path.parent.iterdir()) == [history.path]


def test_two_quizzes_at_once_lose_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    one, other = open_history("track-a"), open_history("track-b")
    one.add("one", "topic", is_right=True)
    other.add("two", "topic", is_right=False)
    one.add("one", "topic", is_right=False)
    assert read_tracks(one.path) == {
        "track-a": {"one": Tally("topic", 2, 1, "wrong")},
        "track-b": {"two": Tally("topic", 1, 0, "wrong")},
    }


def test_a_damaged_file_is_never_read_as_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "quiz.json"
    assert read_tracks(path) == {}
    path.write_text("null")
    with pytest.raises(DamagedHistoryError, match=r"quiz\.json is no score of a quiz"):
        read_tracks(path)


def test_questions_that_were_missed_come_first_within_their_topic() -> None:
    questions = posed_questions()
    of_topic = [item for item in questions if item.topic == questions[-1].topic]
    missed = of_topic[2]
    tallies = {item.id: Tally(item.topic, 1, 1, "right") for item in questions}
    assert missed_first(questions, tallies) == questions
    tallies[missed.id] = Tally(missed.topic, 3, 2, "wrong")
    order = missed_first(questions, tallies)
    assert order[: len(of_topic)] == [missed, *(item for item in of_topic if item is not missed)]
    assert sorted(item.id for item in order) == sorted(item.id for item in questions)


def test_the_control_without_a_history_file_is_the_order_of_the_file(repository: Path) -> None:
    topics, _ = topics_of_session(repository)
    assert topics == [question.topic for question in posed_questions()]
