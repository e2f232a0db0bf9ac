"""What the user sees while a phase runs; everything goes to stderr.

Three views of the same events: a live display on a terminal, lines with a UTC time elsewhere (logs,
CI), nothing for `--json`. A view shows and decides nothing. It escapes all texts, since titles and
notes may come from a worker.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from phases.base.text import format_count, printable, utc_now

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live


class Stage(StrEnum):
    """The parts of a feature's run that take time, in their order."""

    WORK = "work"
    JUDGE = "judge"
    RECORD = "record"
    COMMIT = "commit"


PROGRESS_S = 10.0
"""Seconds between two progress lines, unless a tenth of the work is done sooner."""
REFRESH_PER_SECOND = 2
"""Of the live display: it shows seconds, and to draw it takes milliseconds."""
MAX_LINE = 4000
"""Characters; more than a title may have, so that no title hides what follows it."""

_MARKS = {"verified": "✓", "failed": "✗", "errored": "!"}
_ASCII_MARKS = {"verified": "+", "failed": "x", "errored": "!"}
_STYLES = {"verified": "bold green", "failed": "bold red", "errored": "bold yellow"}


class View(Protocol):
    """Shows events; used as a context manager, so that the terminal is restored at its end."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(self, *_exc: object) -> None:
        """Restore the terminal."""

    def phase_started(self, phase: int, name: str, features: int) -> None:
        """Show that a phase begins, with this many features to run."""

    def feature_started(self, feature: str, title: str, expected_minutes: float | None) -> None:
        """Show that a feature begins; the minutes are the plan author's estimate."""

    def stage(self, stage: Stage) -> None:
        """Show that the feature enters this stage; its progress starts at 0."""

    def progress(self, done: float, total: float, note: str) -> None:
        """Show how much of the stage is done, in any unit; `note` is the worker's text."""

    def feature_finished(self, feature: str, state: str, lines: Sequence[str]) -> None:
        """Show that a feature is verified, failed or errored, with a few lines on its results."""

    def message(self, text: str) -> None:
        """Show a sentence to the user."""


def choose_view(*, silent: bool, stream: TextIO | None = None) -> View:
    """Return the view for a stream (stderr): live on a terminal that can move its cursor."""
    if silent:
        return SilentView()
    stream = stream or sys.stderr
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
        """Show nothing."""

    def feature_started(self, feature: str, title: str, expected_minutes: float | None) -> None:
        """Show nothing."""

    def stage(self, stage: Stage) -> None:
        """Show nothing."""

    def progress(self, done: float, total: float, note: str) -> None:
        """Show nothing."""

    def feature_finished(self, feature: str, state: str, lines: Sequence[str]) -> None:
        """Show nothing."""

    def message(self, text: str) -> None:
        """Show nothing."""


#### lines


class LineView(SilentView):
    """One line with a UTC time per event; progress every ten seconds or tenth of the work."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._feature = ""
        self._stage = ""
        self._start = self._last_line_at = time.monotonic()
        self._last_fraction = 0.0

    def phase_started(self, phase: int, name: str, features: int) -> None:
        """Write `Phase 2 NAME: 4 features to run`."""
        self._write(f"Phase {phase} {name}: {format_count(features, 'feature')} to run")

    def feature_started(self, feature: str, title: str, expected_minutes: float | None) -> None:
        """Write `FEAT-006 TITLE: started, about 14 min expected`."""
        self._feature = feature
        self._start = time.monotonic()
        self._write(f"{feature} {title}: started{_expected_time(expected_minutes)}")

    def stage(self, stage: Stage) -> None:
        """Write `FEAT-006 judge`."""
        self._stage = stage
        self._last_line_at = time.monotonic()
        self._last_fraction = 0.0
        self._write(f"{self._feature} {stage}")

    def progress(self, done: float, total: float, note: str) -> None:
        """Write `FEAT-006 work 12/60 (20%) NOTE`."""
        now = time.monotonic()
        fraction = completed_fraction(done, total)
        if now - self._last_line_at < PROGRESS_S and fraction - self._last_fraction < 0.1:
            return
        self._last_line_at = now
        self._last_fraction = fraction
        amount = f"{done:g}/{total:g} ({fraction:.0%})"
        self._write(f"{self._feature} {self._stage} {amount} {printable(note)}")

    def feature_finished(self, feature: str, state: str, lines: Sequence[str]) -> None:
        """Write `FEAT-006 verified after 6 min 52 s`, then the lines."""
        duration = format_duration(time.monotonic() - self._start)
        self._write(f"{feature} {state} after {duration}")
        for line in lines:
            self._write(f"  {line}")

    def message(self, text: str) -> None:
        """Write each line of the text."""
        for line in text.splitlines():
            self._write(line)

    def _write(self, text: str) -> None:
        line = f"{utc_now()} {printable(text, MAX_LINE)}".rstrip()
        # An ASCII terminal must not end the run.
        encoding = self._stream.encoding or "utf-8"
        line = line.encode(encoding, "backslashreplace").decode(encoding)
        print(line, file=self._stream, flush=True)


#### terminal


class TerminalView(SilentView):
    """A live display: what is done stays above, the running feature moves below.

    Colour unless NO_COLOR is set.
    """

    def __init__(self, stream: TextIO):
        from rich.console import Console

        self._console: Console = Console(file=stream, highlight=False)
        self._ascii = self._console.options.ascii_only
        self._live: Live | None = None
        self._feature = self._title = self._stage = self._note = ""
        self._expected_minutes: float | None = None
        self._start = time.monotonic()
        self._done = self._total = 0.0

    def __exit__(self, *_exc: object) -> None:
        self._stop()

    def phase_started(self, phase: int, name: str, features: int) -> None:
        """Print a headline."""
        self._print(f"Phase {phase} · {name} · {format_count(features, 'feature')}", style="bold")

    def feature_started(self, feature: str, title: str, expected_minutes: float | None) -> None:
        """Start the moving part."""
        from rich.live import Live

        self._stop()
        self._feature = feature
        self._title = title
        self._expected_minutes = expected_minutes
        self._start = time.monotonic()
        self._reset("")
        # stdout is not redirected: it may be a pipe that another program reads.
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            redirect_stdout=False,
        )
        self._live.start()

    def stage(self, stage: Stage) -> None:
        """Mark the stage and empty the bar."""
        self._reset(stage)

    def progress(self, done: float, total: float, note: str) -> None:
        """Move the bar; it is drawn with the next refresh."""
        self._done, self._total, self._note = done, total, note

    def feature_finished(self, feature: str, state: str, lines: Sequence[str]) -> None:
        """Replace the moving part by lines that stay."""
        self._stop()
        marks = _MARKS
        if self._ascii:
            marks = _ASCII_MARKS
        mark = marks.get(state, "-")
        duration = format_duration(time.monotonic() - self._start)
        headline = f"{mark} {feature} {self._title}: {state} after {duration}"
        self._print(headline, style=_STYLES.get(state, "bold"))
        for line in lines:
            self._print(f"    {line}")

    def message(self, text: str) -> None:
        """Print plain lines above the moving part."""
        for line in text.splitlines():
            self._print(line)

    def _print(self, text: str, style: str = "") -> None:
        # `Text`, because a plain string would be read as rich's markup.
        from rich.text import Text

        self._console.print(Text(printable(text, MAX_LINE), style=style))

    def _reset(self, stage: str) -> None:
        self._stage = stage
        self._note = ""
        self._done = self._total = 0.0

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _render(self) -> RenderableType:
        """Return the moving part: title and stages, bar with times, note."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        # 1. The title, and the stages with the present one marked.
        arrow = ">" if self._ascii else "▸"
        headline = Text(printable(f"{arrow} {self._feature} {self._title}"), "bold")
        headline.append("  ")
        for stage in Stage:
            style = "reverse" if stage == self._stage else "dim"
            headline.append(f" {stage} ", style)

        # 2. The bar; it pulses where no total is known.
        fraction = completed_fraction(self._done, self._total)
        amount = "working"
        if self._total:
            amount = f"{self._done:g}/{self._total:g} {fraction:.0%}"
        bar = ProgressBar(
            total=1.0,
            completed=fraction,
            width=40,
            pulse=not self._total,
            complete_style="cyan",
            finished_style="cyan",
        )
        duration = format_duration(time.monotonic() - self._start)
        times = Text(f"{duration}{_expected_time(self._expected_minutes)}", "dim")
        row = Table.grid(padding=(0, 1))
        row.add_row("  ", bar, amount, times)

        # 3. The worker's note.
        note = Text(f"   {printable(self._note)}", no_wrap=True, overflow="ellipsis")
        return Group(headline, row, note)


#### numbers


def completed_fraction(done: float, total: float) -> float:
    """Return the part that is done, between 0 and 1; 0 where the total is 0 or less."""
    if total <= 0:
        return 0.0
    return min(1.0, max(0.0, done / total))


def format_duration(seconds: float) -> str:
    """Return `48 s`, `6 min 52 s` or `2 h 05 min`."""
    minutes, seconds_left = divmod(int(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left:02d} min"
    if minutes:
        return f"{minutes} min {seconds_left:02d} s"
    return f"{seconds_left} s"


def _expected_time(minutes: float | None) -> str:
    if minutes is None:
        return ""
    return f", about {minutes:g} min expected"
