"""What a person sees while a phase runs; everything goes to stderr.

Three views of the same events: a live display on a terminal, timestamped lines elsewhere (logs, CI), nothing for
`--json`. A view shows and decides nothing. All texts are escaped, since titles and notes may come from a worker.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from phases.base.text import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

STAGES = ("work", "judge", "record", "commit")
"""The parts of a feature's path that take time, in their order."""

_PAUSE = 10.0  # seconds between two progress lines, unless a tenth of the work is done sooner


class View(Protocol):
    """Shows events; used as a context manager, so that the terminal is left in order."""

    def __enter__(self) -> Self:
        """Begins to show."""

    def __exit__(self, *_exc: object) -> None:
        """Leaves the terminal as it was."""

    def phase_started(self, phase: int, name: str, features: int) -> None:
        """A phase begins, with this many features to run."""

    def feature_started(self, feature: str, title: str, expected_minutes: float | None) -> None:
        """A feature begins; the minutes are the PRD author's guess."""

    def stage(self, name: str) -> None:
        """The feature enters one of STAGES; progress starts anew."""

    def progress(self, done: float, total: float, note: str) -> None:
        """So much of the stage is done, in any unit; `note` is the worker's text."""

    def feature_finished(self, feature: str, state: str, lines: Sequence[str]) -> None:
        """A feature ended as verified, failed or errored, with a few lines on what was found."""

    def message(self, text: str) -> None:
        """A sentence to the person."""


def choose_view(*, silent: bool, stream: TextIO | None = None) -> View:
    """The view that fits: silent for --json, live on a terminal that can move its cursor, lines elsewhere."""
    stream = sys.stderr if stream is None else stream
    if silent:
        return SilentView()
    if stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown"):
        return TerminalView(stream)
    return LineView(stream)


class SilentView:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        pass

    def phase_started(self, phase: int, name: str, features: int) -> None:
        """Nothing."""

    def feature_started(self, feature: str, title: str, expected_minutes: float | None) -> None:
        """Nothing."""

    def stage(self, name: str) -> None:
        """Nothing."""

    def progress(self, done: float, total: float, note: str) -> None:
        """Nothing."""

    def feature_finished(self, feature: str, state: str, lines: Sequence[str]) -> None:
        """Nothing."""

    def message(self, text: str) -> None:
        """Nothing."""


class LineView(SilentView):
    """One timestamped line per event; progress at most every ten seconds or every tenth of the work."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._feature = ""
        self._stage = ""
        self._shown_at = self._begin = time.monotonic()
        self._shown_share = 0.0

    def phase_started(self, phase: int, name: str, features: int) -> None:
        """`Phase 2 NAME: 4 features to run`."""
        self._line(f"Phase {phase} {printable(name)}: {count(features, 'feature')} to run")

    def feature_started(self, feature: str, title: str, expected_minutes: float | None) -> None:
        """`FEAT-006 TITLE: started, about 14 min expected`."""
        self._feature, self._begin = feature, time.monotonic()
        self._line(
            f"{printable(feature)} {printable(title)}: started{_expectation(expected_minutes)}"
        )

    def stage(self, name: str) -> None:
        """`FEAT-006 judge`."""
        self._stage, self._shown_at, self._shown_share = name, time.monotonic(), 0.0
        self._line(f"{printable(self._feature)} {printable(name)}")

    def progress(self, done: float, total: float, note: str) -> None:
        """`FEAT-006 work 12/60 (20 %) NOTE`."""
        now, part = time.monotonic(), share(done, total)
        if now - self._shown_at < _PAUSE and part - self._shown_share < 0.1:
            return
        self._shown_at, self._shown_share = now, part
        self._line(
            f"{printable(self._feature)} {printable(self._stage)} {done:g}/{total:g} ({part:.0%}) {printable(note)}"
        )

    def feature_finished(self, feature: str, state: str, lines: Sequence[str]) -> None:
        """`FEAT-006 verified after 6 min 52 s`, then the lines."""
        self._line(
            f"{printable(feature)} {printable(state)} after {duration(time.monotonic() - self._begin)}"
        )
        for text in lines:
            self._line(f"  {printable(text)}")

    def message(self, text: str) -> None:
        """Each line of the text."""
        for line in text.splitlines():
            self._line(printable(line))

    def _line(self, text: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        line = f"{stamp} {text}".rstrip()
        encoding = self._stream.encoding or "utf-8"  # an ASCII terminal must not end the run
        print(
            line.encode(encoding, "backslashreplace").decode(encoding),
            file=self._stream,
            flush=True,
        )


class TerminalView(SilentView):
    """A live display: what is done stays above, the running feature moves below. Colour unless NO_COLOR is set."""

    def __init__(self, stream: TextIO):
        from rich.console import Console

        self._console: Console = Console(file=stream, highlight=False)
        self._ascii = self._console.options.ascii_only
        self._live: Live | None = None
        self._feature = self._title = self._stage = self._note = ""
        self._expected: float | None = None
        self._begin = time.monotonic()
        self._done = self._total = 0.0

    def __exit__(self, *_exc: object) -> None:
        self._stop()

    def phase_started(self, phase: int, name: str, features: int) -> None:
        """A headline."""
        self._print(
            f"Phase {phase} · {printable(name)} · {count(features, 'feature')}", style="bold"
        )

    def feature_started(self, feature: str, title: str, expected_minutes: float | None) -> None:
        """Opens the moving part."""
        from rich.live import Live

        self._stop()
        self._feature, self._title, self._expected = feature, title, expected_minutes
        self._begin = time.monotonic()
        self._reset("")
        # stdout is left alone: it may be a pipe that somebody reads.
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
        )
        self._live.start()

    def stage(self, name: str) -> None:
        """Marks the stage and empties the bar."""
        self._reset(name)

    def progress(self, done: float, total: float, note: str) -> None:
        """Moves the bar; drawn four times a second."""
        self._done, self._total, self._note = done, total, note

    def feature_finished(self, feature: str, state: str, lines: Sequence[str]) -> None:
        """Replaces the moving part by lines that stay."""
        self._stop()
        mark = _MARKS.get(state, ("-", "-"))[1 if self._ascii else 0]
        took = duration(time.monotonic() - self._begin)
        line = (
            f"{mark} {printable(feature)} {printable(self._title)}: {printable(state)} after {took}"
        )
        self._print(line, _STYLES.get(state, "bold"))
        for text in lines:
            self._print(f"    {printable(text)}")

    def message(self, text: str) -> None:
        """Plain lines, above the moving part."""
        for line in text.splitlines():
            self._print(printable(line))

    def _print(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(text, style=style))

    def _reset(self, stage: str) -> None:
        self._stage, self._note, self._done, self._total = stage, "", 0.0, 0.0

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _render(self) -> RenderableType:
        """The moving part: title and stages, bar with times, note."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Text(
            f"{'>' if self._ascii else '▸'} {printable(self._feature)} {printable(self._title)}  ",
            "bold",
        )
        for name in STAGES:
            head.append(f" {name} ", "reverse" if name == self._stage else "dim")
        seconds = time.monotonic() - self._begin
        part = share(self._done, self._total)
        times = f"{duration(seconds)}{_expectation(self._expected)}"
        bar = Table.grid(padding=(0, 1))
        done = f"{self._done:g}/{self._total:g} {part:.0%}" if self._total else "working"
        pulse = not self._total
        bar.add_row(
            "  ",
            ProgressBar(
                1.0, part, width=40, pulse=pulse, complete_style="cyan", finished_style="cyan"
            ),
            done,
            Text(times, "dim"),
        )
        return Group(
            head, bar, Text(f"   {printable(self._note)}", no_wrap=True, overflow="ellipsis")
        )


_MARKS = {"verified": ("✓", "+"), "failed": ("✗", "x"), "errored": ("!", "!")}
_STYLES = {"verified": "bold green", "failed": "bold red", "errored": "bold yellow"}


def share(done: float, total: float) -> float:
    """The part that is done, between 0 and 1; 0 where the total tells nothing."""
    return min(1.0, max(0.0, done / total)) if total > 0 else 0.0


def duration(seconds: float) -> str:
    """`48 s`, `6 min 52 s` or `2 h 05 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole // 60 % 60:02d} min"


def count(number: int, noun: str) -> str:
    """`1 feature`, `4 features`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _expectation(minutes: float | None) -> str:
    return "" if minutes is None else f", about {minutes:g} min expected"
