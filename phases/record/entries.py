"""The lines of each kind of entry: what progress.txt says. Pure; `state` reads back what these write.

A worker's words appear only behind a fixed first word (`found`, `reason`), so that no measurement's name or message
can be read as a fact that the runner states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phases.base.text import printable

SHOWN_MEASUREMENTS = 6
MISSED_FIRST = {"MISSED": 0, "INCONCLUSIVE": 1, "HELD": 2}


@dataclass(frozen=True)
class RecordedFile:
    """A committed file by digest."""

    sha256: str
    path: str

    def line(self, word: str) -> str:
        """`receipt sha256:… lab/results/FEAT-001/receipt.json`."""
        return f"{word} sha256:{self.sha256} {self.path}"


def genesis(project: str, root_commit: str) -> tuple[str, ...]:
    """The first entry binds the ledger to a project and a history."""
    return (f"project {printable(project)}", f"root {root_commit}")


def locked(
    lock: RecordedFile, head: str, again: Sequence[str] = (), why: Sequence[str] = ()
) -> tuple[str, ...]:
    """LOCKED: what may not change from here on; after a relock also why, and what runs again."""
    return (*why, lock.line("lock"), f"head {head}", *runs_again(again))


def runs_again(features: Sequence[str]) -> tuple[str, ...]:
    """One line per feature that becomes pending."""
    return tuple(f"runs again: {feature}" for feature in features)


def started(
    what: str, attempt: int, seed: int, profile: str, sandbox: str, head: str, txn: str
) -> tuple[str, ...]:
    """STARTED: what is about to run, and on which commit."""
    return (
        f"attempt {attempt}, {printable(what)}, seed {seed}, profile {profile}, sandbox {sandbox}",
        f"head {head}",
        f"txn {txn}",
    )


def ran(what: str, seconds: float, attempt: int, seed: int, profile: str, sandbox: str) -> str:
    """The line on what was run; `state.RAN` reads it."""
    return (
        f"ran {printable(what, 120)} for {max(1, round(seconds))} s: attempt {attempt}, seed {seed}, "
        f"profile {profile}, sandbox {sandbox}"
    )


def found(measurements: Mapping[str, Any]) -> tuple[str, ...]:
    """The first measurements, as the experiment reported them."""
    shown = [
        f"{printable(name, 60)} {number(item)}"
        for name, item in list(measurements.items())[:SHOWN_MEASUREMENTS]
    ]
    more = len(measurements) - len(shown)
    if not shown:
        return ()
    return (
        printable(
            "found " + " · ".join(shown) + (f" · {more} more" if more > 0 else ""), 500
        ).strip(),
    )


def number(measurement: Mapping[str, Any]) -> str:
    """A measurement for people: `2.31 ± 0.02 nats (n=3)`."""
    value, unit = measurement.get("value"), measurement.get("unit") or ""
    text = figure(value)
    if (stderr := measurement.get("stderr")) is not None:
        text += f" ± {figure(stderr, 2)}"
    if unit:
        text += f" {printable(str(unit), 40)}"
    return text + (f" (n={measurement['n']})" if measurement.get("n") else "")


def figure(value: Any, digits: int = 4) -> str:
    """A value in few characters."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.{digits}g}"
    return printable(str(value), 40)


def predictions(outcomes: Sequence[str]) -> tuple[str, ...]:
    """`predictions: 2 held, 1 missed`; nothing where none were written."""
    words = {"HELD": "held", "MISSED": "missed", "INCONCLUSIVE": "inconclusive"}
    counts = [f"{outcomes.count(key)} {word}" for key, word in words.items() if key in outcomes]
    return (f"predictions: {', '.join(counts)}",) if counts else ()


def gate(
    name: str,
    passed: int,
    failed: int,
    coverage: tuple[int, int, int] | None,
    caught: tuple[int, int],
    unjudged: Sequence[str],
) -> tuple[str, ...]:
    """The lines on the judgement; `state.COVERAGE` reads the first."""
    checks = f"{passed} passed" + (f", {failed} failed" if failed else "")
    parts = [f"gate {printable(name, 120)}: {checks}"]
    if coverage is not None:
        parts.append(f"coverage {coverage[0]} + {coverage[1]} of {coverage[2]}")
    if caught[1]:
        parts.append(f"fails on {caught[0]} of {caught[1]} negative copies")
    waived = (f"unjudged by the plan's own word: {', '.join(unjudged)}",) if unjudged else ()
    return ("; ".join(parts), *waived)


def _worded(word: str, text: str) -> str:
    """A fixed word and a worker's text; an entry's line has no blanks at its end, and a text may be empty."""
    return f"{word} {printable(text, 300).strip() or '(without a word)'}"


def failing(checks: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """One line per failed check (id, message), at most three."""
    lines = [_worded("failing", f"{name}: {message}") for name, message in checks[:3]]
    return (*lines, f"failing … and {len(checks) - 3} more") if len(checks) > 3 else tuple(lines)


def reasons(texts: Sequence[str]) -> tuple[str, ...]:
    """One line per reason, at most five."""
    lines = [_worded("reason", text) for text in texts[:5]]
    return (*lines, f"reason … and {len(texts) - 5} more") if len(texts) > 5 else tuple(lines)
