"""Failpoints: named places where a test makes the runner die or fail.

PHASES_FAILPOINT=NAME:ACTION[:N] selects one. ACTION is `kill` (SIGKILL to this very process),
`raise` (an I/O error) or `enospc` (a full disk); it happens at the N-th hit, by default the first.
A failpoint can only make a runner die or fail: it approves, skips and passes nothing. The variable
is taken out of the environment at once, so no worker, gate or git process sees it. Without it a
failpoint costs one comparison.
"""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass
from enum import StrEnum

FAILPOINTS = (
    # at the start of a run
    "load", "lock", "recover", "pulled", "recovered", "choose", "prepare", "plan_lock",
    "lock_written", "locked",
    # in an attempt, at a halt, in a decision
    "start", "started", "work", "collect", "judge", "judged", "record", "commit", "halt", "decided",
    # inside each record
    "copied", "bound", "prepared", "journalled", "entered", "files", "committed", "ref_moved",
    "withdrawn", "removed", "recorded",
)  # fmt: skip
"""Every failpoint, in the order in which a run passes them."""


class FailpointAction(StrEnum):
    """What happens at the selected failpoint."""

    KILL = "kill"
    RAISE = "raise"
    ENOSPC = "enospc"


def failpoint(name: str) -> None:
    """Die or fail here if PHASES_FAILPOINT selects this failpoint."""
    if _SELECTION is not None and name == _SELECTION.name:
        _SELECTION.hit()


@dataclass
class _Selection:
    """The failpoint that PHASES_FAILPOINT selects, and how often it was hit."""

    name: str
    action: FailpointAction
    count: int
    hits: int = 0

    def hit(self) -> None:
        """Count this hit; die or fail if it is the N-th."""
        self.hits += 1
        if self.hits != self.count:
            return
        if self.action == FailpointAction.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        number = errno.EIO
        if self.action == FailpointAction.ENOSPC:
            number = errno.ENOSPC
        raise OSError(number, os.strerror(number), f"(PHASES_FAILPOINT at {self.name})")


def _parse_selection(text: str) -> _Selection | None:
    """Parse the variable; SystemExit if it selects nothing that exists."""
    if not text:
        return None
    name, _, rest = text.partition(":")
    action, _, digits = rest.partition(":")
    count = digits or "1"
    if name not in FAILPOINTS or action not in list(FailpointAction) or not count.isdecimal():
        raise SystemExit(
            f"PHASES_FAILPOINT: got {text!r}; expected NAME:ACTION[:N] with an ACTION of "
            f"{', '.join(FailpointAction)} and a NAME of {', '.join(FAILPOINTS)}"
        )
    return _Selection(name, FailpointAction(action), int(count))


_SELECTION = _parse_selection(os.environ.pop("PHASES_FAILPOINT", ""))
