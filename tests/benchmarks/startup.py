"""`python -m phases status` in a toy repository against a bare `python -c pass`, by wall time.

The runs alternate: each pair is one of either, a moment apart, in an order that changes, so that a
machine that slows down slows down both. Both find their compiled modules, as they do in daily use.
The A/A row times the bare interpreter against itself: its distance from 1 is noise.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 12.0  # times the bare interpreter
PAIRS = 15


@dataclass(frozen=True)
class Ratio:
    """Ratios of paired wall times."""

    name: str
    ratios: tuple[float, ...]
    first_s: float
    """Median of the numerator, seconds."""
    second_s: float
    """Median of the denominator, seconds."""

    @property
    def median(self) -> float:
        """The median of the pairs' ratios."""
        return statistics.median(self.ratios)

    def __str__(self) -> str:
        low, _, high = statistics.quantiles(self.ratios, n=4)
        spread = (
            f"quartiles {low:.2f} to {high:.2f}, range {min(self.ratios):.2f} to "
            f"{max(self.ratios):.2f}"
        )
        times = f"{self.first_s * 1e3:.0f} ms / {self.second_s * 1e3:.0f} ms"
        return f"{self.name:<26} {self.median:6.2f}  ({spread}, {len(self.ratios)} pairs, {times})"


def compare(
    name: str, first: Callable[[], float], second: Callable[[], float], pairs: int = PAIRS
) -> Ratio:
    """Return the ratios of two commands run in turn, after one unmeasured run of either.

    `first` and `second` run one command each and return its wall time in seconds.
    """
    first(), second()
    first_times, second_times = [], []
    for number in range(pairs):
        # The order changes with each pair, so that neither always runs on a warmer machine.
        if number % 2:
            second_times.append(second())
            first_times.append(first())
        else:
            first_times.append(first())
            second_times.append(second())
    ratios = tuple(a / b for a, b in zip(first_times, second_times, strict=True))
    return Ratio(
        name=name,
        ratios=ratios,
        first_s=statistics.median(first_times),
        second_s=statistics.median(second_times),
    )


def timed_command(argv: Sequence[str], folder: Path, env: dict[str, str]) -> Callable[[], float]:
    """Return a function that runs the command and returns its wall time in seconds."""

    def run() -> float:
        start = time.perf_counter()
        subprocess.run(argv, cwd=folder, env=env, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - start

    return run


def measure(folder: Path) -> list[Ratio]:
    """Return the rows: the noise first, then `status`, then `--help`."""
    sys.path.insert(0, str(ROOT / "tests" / "phases"))
    from toy import Toy

    toy = Toy(folder / "toy")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(folder / "pycache")}
    bare = timed_command([sys.executable, "-c", "pass"], toy.root, env)
    rows = [compare("A/A: python -c pass", bare, bare)]
    for arguments in (["status"], ["--help"]):
        command = timed_command([sys.executable, "-m", "phases", *arguments], toy.root, env)
        rows.append(compare(f"phases {' '.join(arguments)}", command, bare))
    return rows


def main() -> bool:
    """Print the rows; return whether `status` is within its limit."""
    with tempfile.TemporaryDirectory() as folder:
        noise, status, *others = measure(Path(folder))
    print("median ratio to python -c pass")
    for row in (noise, status, *others):
        print(f"  {row}")
    print(f"status: {status.median:.1f} times; limit {LIMIT:.0f}")
    return status.median <= LIMIT
