"""Named places where a test can let the runner die or fail: PHASES_FAILPOINT=PLACE:HOW[:N].

HOW is `kill` (SIGKILL to this very process), `raise` (an I/O error) or `enospc` (a full disk); N counts how often the
place is passed before, 1 for the first time. Nothing can be approved, skipped or passed by it: a runner can only die
or fail. The variable is taken out of the environment at once, so that no worker, gate or git sees it; without it a
place costs one comparison.
"""

from __future__ import annotations

import errno
import os
import signal

FAILPOINTS = (
    *(
        "load",
        "lock",
        "recover",
        "recovered",
        "choose",
        "prepare",
        "plan_lock",
        "lock_written",
        "locked",
    ),
    *(
        "start",
        "started",
        "work",
        "collect",
        "judge",
        "judged",
        "record",
        "commit",
        "halt",
        "decided",
    ),
    *(
        "prepared",
        "journalled",
        "entered",
        "files",
        "committed",
        "ref_moved",
        "withdrawn",
        "recorded",
    ),
)
"""Every place, in the order in which a run passes them; the last line stands inside each record."""

HOWS = ("kill", "raise", "enospc")


def _wanted(text: str) -> tuple[str, str, int] | None:
    place, _, how = text.partition(":")
    how, _, count = how.partition(":")
    if not text:
        return None
    if place not in FAILPOINTS or how not in HOWS or not (count or "1").isdecimal():
        raise SystemExit(
            f"PHASES_FAILPOINT={text!r}: wanted PLACE:HOW[:N] with one of {', '.join(FAILPOINTS)}"
        )
    return place, how, int(count or "1")


_WANTED = _wanted(os.environ.pop("PHASES_FAILPOINT", ""))
_passed = 0


def failpoint(name: str) -> None:
    """Dies or fails here if PHASES_FAILPOINT asks for it."""
    if _WANTED is not None and name == _WANTED[0]:
        _hit(*_WANTED)


def _hit(place: str, how: str, count: int) -> None:
    global _passed  # noqa: PLW0603
    _passed += 1
    if _passed != count:
        return
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    number = errno.ENOSPC if how == "enospc" else errno.EIO
    raise OSError(number, os.strerror(number), f"(PHASES_FAILPOINT at {place})")
