"""One line of the debug log for each git call and each child process of the runner."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence

from phases.base.text import printable

MAX_ARGUMENT = 200  # characters of one argument in a line

log = logging.getLogger(__name__)


def log_command(argv: Sequence[str], *, status: object, seconds: float) -> None:
    """Log one command that ended, at level DEBUG; no variable of its environment is logged.

    Args:
        argv: the command; each argument is quoted as for a shell, made printable and cut. For git
            without the options that every call gets.
        status: how it ended, such as its exit status.
        seconds: its wall time.
    """
    # A commit can name thousands of paths: they are not formatted for a log that is off.
    if log.isEnabledFor(logging.DEBUG):
        line = " ".join(printable(shlex.quote(argument), MAX_ARGUMENT) for argument in argv)
        log.debug("%s: %s, %.3f s", line, status, seconds)
