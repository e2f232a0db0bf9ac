"""Which stage of a run took how long: intervals without overlap, so their sum is the time spent."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A stretch of one stage; begin and end in seconds since the stopwatch was made."""

    stage: str
    begin: float
    end: float


class Stopwatch:
    """`with clock("training"): …` adds an interval.

    A stage inside another interrupts it; the outer one continues afterwards.
    """

    def __init__(self) -> None:
        self.intervals: list[Interval] = []
        self._started = time.perf_counter()
        # stages from the outside in, each with the time it began or continued
        self._open: list[tuple[str, float]] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a stage."""
        if self._open:
            self._close(self._open[-1])
        self._open.append((stage, self._now()))
        try:
            yield
        finally:
            self._close(self._open.pop())
            if self._open:
                self._open[-1] = (self._open[-1][0], self._now())

    def _now(self) -> float:
        return time.perf_counter() - self._started

    def _close(self, stretch: tuple[str, float]) -> None:
        self.intervals.append(Interval(*stretch, self._now()))


def seconds(intervals: Iterable[Interval]) -> dict[str, float]:
    """Return the seconds of each stage, in the order in which they first ended."""
    total: dict[str, float] = {}
    for interval in intervals:
        total[interval.stage] = total.get(interval.stage, 0.0) + interval.end - interval.begin
    return total
