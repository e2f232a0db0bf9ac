"""`python -m phases status` in a toy repository against a bare `python -c pass`, as a ratio of wall times.

Alternating runs: each pair is one of either, a moment apart, in an order that changes; so a machine
that slows down slows down both. Both find their compiled modules, as they do in daily use. The A/A
row times the bare interpreter against itself: what it shows beside 1 is noise.
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
LIMIT, AIM = 20.0, 12.0  # times the bare interpreter
PAIRS = 15


@dataclass(frozen=True)
class Ratio:
    """Ratios of paired wall times."""

    name: str
    ratios: tuple[float, ...]
    first_s: float
    """Median of the numerator, seconds."""
    second_s: float

    @property
    def median(self) -> float:
        """The middle one of the pairs' ratios."""
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
    """Times two things in turn, after one unmeasured run of either; each call gives seconds."""
    first(), second()
    times = []
    for number in range(pairs):
        if number % 2:
            b, a = second(), first()
        else:
            a, b = first(), second()
        times.append((a, b))
    middle = [statistics.median(column) for column in zip(*times, strict=True)]
    return Ratio(name, tuple(a / b for a, b in times), middle[0], middle[1])


def command(argv: Sequence[str], folder: Path, env: dict[str, str]) -> Callable[[], float]:
    """A child process to be timed; it must end well."""

    def timed() -> float:
        begin = time.perf_counter()
        subprocess.run(argv, cwd=folder, env=env, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - begin

    return timed


def measure(folder: Path) -> list[Ratio]:
    """All rows, the noise first."""
    sys.path.insert(0, str(ROOT / "tests" / "phases"))
    from toy import Toy

    toy = Toy(folder / "toy")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(folder / "pycache")}
    bare = command([sys.executable, "-c", "pass"], toy.root, env)
    rows = [compare("A/A: python -c pass", bare, bare)]
    for words in (["status"], ["--help"]):
        run = command([sys.executable, "-m", "phases", *words], toy.root, env)
        rows.append(compare(f"phases {' '.join(words)}", run, bare))
    return rows


def main() -> bool:
    """Prints the rows; whether `status` keeps its limit."""
    with tempfile.TemporaryDirectory() as folder:
        noise, status, *others = measure(Path(folder))
    print("median ratio to python -c pass")
    for row in (noise, status, *others):
        print(f"  {row}")
    print(f"status: {status.median:.1f} times; limit {LIMIT:.0f}, aim {AIM:.0f}")
    return status.median <= LIMIT
