"""The debug log has one line for each git call and each child process, and nothing secret."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from phases.base.command_log import log_command
from phases.base.text import is_printable
from phases.execution import process
from phases.git.probe import run_git
from phases.git.repo import Repo


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Return the list that the lines of the runner's debug log are added to."""
    messages: list[str] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert record.levelno == logging.DEBUG
            messages.append(record.getMessage())

    logger, handler = logging.getLogger("phases"), Recorder()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a git repository without a commit."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def run_python(code: str, folder: Path, **environment: str) -> None:
    process.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=process.clean_environment(environment),
        log=folder / "log",
        timeout_s=60,
    )


def test_a_plain_git_call_is_one_line(repository: Path, lines: list[str]) -> None:
    run_git(repository, "rev-parse", "--verify", "HEAD")
    assert len(lines) == 1
    assert lines[0].startswith("git rev-parse --verify HEAD: 128, ")
    assert " rev-parse --verify HEAD: 128, 0." in lines[0]
    assert lines[0].endswith(" s")


def test_a_call_through_gitpython_is_one_line(repository: Path, lines: list[str]) -> None:
    repo = Repo(repository)
    lines.clear()
    assert not repo.has_ref("refs/phases/log")
    assert len(lines) == 1
    assert "show-ref --verify --quiet refs/phases/log: 1, 0." in lines[0]


def test_a_child_process_is_one_line_without_its_environment(
    tmp_path: Path, lines: list[str]
) -> None:
    run_python("raise SystemExit(3)", tmp_path, TOKEN="a-secret-value")
    run_python("import os; os.kill(os.getpid(), 9)", tmp_path)
    assert len(lines) == 2
    assert lines[0].startswith(f"{sys.executable} -c 'raise SystemExit(3)': 3, ")
    assert ": signal 9, " in lines[1]
    assert "a-secret-value" not in "".join(lines)


def test_a_line_is_printable_and_long_arguments_are_cut(lines: list[str]) -> None:
    log_command(["echo", "two\nlines", "\x1b[31m", "x" * 10_000], status=0, seconds=1.5)
    assert len(lines) == 1
    assert is_printable(lines[0])
    assert r"'two\x0alines' '\x1b[31m' xxx" in lines[0]
    assert len(lines[0]) < 300
    assert lines[0].endswith("…: 0, 1.500 s")


def test_nothing_is_formatted_for_a_log_that_is_off(lines: list[str]) -> None:
    logging.getLogger("phases").setLevel(logging.INFO)
    log_command([None], status=0, seconds=0)  # type: ignore[list-item]
    assert lines == []
