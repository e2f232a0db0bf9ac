"""The debug log: what a real run writes to it, and that no disk makes it end a command."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from toy import Toy, toy_plan, with_shell_gates

from phases.base import debug_log
from phases.base.debug_log import MAX_BYTES, log_to_file

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \d+ [A-Z]+ \S.*")
SECRET = "a-value-of-the-environment"


def runner_log(toy: Toy) -> Path:
    return toy.root / ".phases/logs/runner.log"


#### in a real run


def test_a_run_logs_git_calls_and_the_child_process(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(toy_plan(features=1, env={"TOY_SECRET": SECRET}))
    toy.run("run", "--next", env={"ANOTHER_SECRET": SECRET})
    text = runner_log(toy).read_text()
    lines = text.splitlines()
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert any(" git " in line and " commit " in line for line in lines)
    assert any("experiment.py" in line and "git" not in line for line in lines)
    assert SECRET not in text
    assert 0 < runner_log(toy).stat().st_size <= MAX_BYTES


def test_commands_that_prove_or_decide_log_too(halted: Toy) -> None:
    verify = ["verify", "TOY-001"]
    for arguments, code in ((["audit"], 0), (verify, 0), (["approve", "1"], 4)):
        runner_log(halted).unlink()
        halted.run(*arguments, code=code)
        assert " git " in runner_log(halted).read_text()


def test_commands_that_show_log_nothing(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy()
    for arguments in (["status"], ["log"], ["plan"], ["doctor"], ["run", "--next", "--dry-run"]):
        toy.call(*arguments)
    toy.call("show", "TOY-001")
    toy.call("why", "TOY-001")
    toy.call("audit", "--help")
    assert not (toy.root / ".phases").exists()


def test_a_folder_without_a_project_gets_no_log(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy()
    toy.write("other/README.md", "no project")
    toy.run("--root", "other", "audit", code=7)
    assert not (toy.root / "other/.phases").exists()


def test_an_error_is_logged_with_its_traceback(halted: Toy) -> None:
    runner_log(halted).unlink()
    halted.run("run", "--next", code=4)
    text = runner_log(halted).read_text()
    assert "ended by WaitingForHumanError" in text
    assert "Traceback (most recent call last):" in text


def test_debug_shows_git_calls_on_stderr(halted: Toy) -> None:
    process = halted.run("--debug", "status")
    assert any(LINE.fullmatch(line) and " git " in line for line in process.stderr.splitlines())
    assert halted.run("status").stderr == ""
    assert halted.run("--debug", "status", "--json").stdout == halted.run("status", "--json").stdout


def test_debug_shows_the_traceback_and_keeps_the_exit_code(halted: Toy) -> None:
    stderr = halted.run("--debug", "show", "NOPE", code=2).stderr
    assert stderr.count("Traceback (most recent call last):") == 1
    assert "error: no feature 'NOPE' in the plan" in stderr
    assert "Traceback" not in halted.run("show", "NOPE", code=2).stderr


#### a log that cannot be written


def test_a_log_that_cannot_be_opened_ends_nothing(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(with_shell_gates(toy_plan(features=1)))
    (runner_log(toy) / "folder").mkdir(parents=True)  # its name is taken by a folder
    toy.run("run", "--next")
    assert toy.states() == {"TOY-001": "verified"}


def test_a_folder_that_cannot_be_made_ends_nothing(halted: Toy) -> None:
    logs = runner_log(halted).parent
    logs.rename(halted.root / ".phases/old-logs")
    logs.write_text("a file where the folder of the logs would be")
    assert halted.run("audit").stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
def test_a_full_disk_ends_nothing(make_toy: Callable[..., Toy]) -> None:
    toy = make_toy(with_shell_gates(toy_plan(features=1)))
    runner_log(toy).parent.mkdir(parents=True)
    runner_log(toy).symlink_to("/dev/full")
    process = toy.run("run", "--next")
    assert toy.states() == {"TOY-001": "verified"}
    assert "Logging error" not in process.stderr


#### the handlers


@pytest.fixture
def log(tmp_path: Path) -> Iterator[logging.Logger]:
    """Yield the package's logger with a log file; restore its handlers afterwards."""
    logger = logging.getLogger("phases")
    state = list(logger.handlers), logger.level, logger.propagate
    logger.handlers.clear()
    log_to_file(tmp_path / "logs/runner.log")
    yield logger
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.level, logger.propagate = state


def test_the_file_is_capped_with_one_backup(log: logging.Logger, tmp_path: Path) -> None:
    message = "\x1b" * debug_log.MAX_MESSAGE  # written as \x1b: four bytes each
    for _ in range(3 * MAX_BYTES // (4 * len(message))):
        log.debug(message)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "logs").iterdir()}
    assert set(sizes) == {"runner.log", "runner.log.1"}
    assert max(sizes.values()) <= MAX_BYTES


def test_a_message_is_one_printable_line(log: logging.Logger, tmp_path: Path) -> None:
    log.debug("git commit -m %s", "two\nlines \x1b[2J")
    log.debug("%s: 128, 0.5 s", "x" * 10_000)
    first, second = (tmp_path / "logs/runner.log").read_text().splitlines()
    assert first.endswith(r"DEBUG git commit -m two\x0alines \x1b[2J")
    assert len(second) < 2 * debug_log.MAX_MESSAGE
    assert second.endswith(" … " + "x" * (debug_log.MAX_MESSAGE // 2 - 12) + ": 128, 0.5 s")


def test_a_second_file_replaces_the_first(log: logging.Logger, tmp_path: Path) -> None:
    log_to_file(tmp_path / "other/runner.log")
    logging.getLogger("phases.git").debug("once")
    assert (tmp_path / "logs/runner.log").read_text() == ""
    assert (tmp_path / "other/runner.log").read_text().endswith("DEBUG once\n")


def test_nothing_reaches_the_root_logger(log: logging.Logger) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logging.root.addHandler(handler)
    try:
        log.debug("only in the file")
        logging.getLogger("another package").warning("control")
    finally:
        logging.root.removeHandler(handler)
    assert [record.getMessage() for record in records] == ["control"]
