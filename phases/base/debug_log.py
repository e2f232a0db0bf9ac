"""The debug log: git calls, child processes and errors, for whoever looks for a fault.

Modules write with `logging.getLogger("phases")` or a child of it. The messages go to a capped
file, to stderr, or nowhere. A message is one printable line; no caller puts the value of an
environment variable into it.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from phases.base.regular_file import path_problem
from phases.base.text import printable

MAX_BYTES = 1_000_000
"""Size at which the file becomes `runner.log.1`; that one replaces the backup before it."""
MAX_MESSAGE = 2000  # characters

_LOGGER = logging.getLogger("phases")


def log_to_file(path: Path) -> None:
    """Write the debug log to `path` too; where that is impossible, do without it."""
    try:
        if path_problem(path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _CappedFile(
            path, maxBytes=MAX_BYTES, backupCount=1, encoding="utf-8", errors="backslashreplace"
        )
    except OSError:
        return
    _attach(handler, "file")


def log_to_stderr() -> None:
    """Write the debug log to stderr too."""
    _attach(logging.StreamHandler(sys.stderr), "stderr")


def _attach(handler: logging.Handler, name: str) -> None:
    # 1. One handler of each name: a second command in one process replaces the first one's.
    for previous in list(_LOGGER.handlers):
        if previous.name == name:
            _LOGGER.removeHandler(previous)
            previous.close()
    # 2. The new one.
    handler.name = name
    handler.setFormatter(_OneLineFormatter())
    _LOGGER.addHandler(handler)
    # 3. Every level, and nothing to the root logger, which other packages may print.
    _LOGGER.setLevel(logging.DEBUG)
    _LOGGER.propagate = False


class _CappedFile(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Drop the record: a full disk or a read-only folder must not end a command."""


class _OneLineFormatter(logging.Formatter):
    """UTC time, process id, level, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(process)d %(levelname)s %(message)s")

    def formatTime(  # noqa: N802
        self, record: logging.LogRecord, datefmt: str | None = None
    ) -> str:
        """Return `2026-11-28T10:54:54.123Z`."""
        time = datetime.fromtimestamp(record.created, UTC)
        return time.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line; a traceback follows it on lines of its own."""
        # Cut in the middle: the end of a command's line is its exit status and its time.
        message = record.message
        if len(message) > MAX_MESSAGE:
            message = f"{message[: MAX_MESSAGE // 2]} … {message[-MAX_MESSAGE // 2 :]}"
        record.message = printable(message, 10 * MAX_MESSAGE)
        return super().formatMessage(record)
