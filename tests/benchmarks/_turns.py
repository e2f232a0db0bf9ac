"""What the benchmarks of recording share: rows that take turns, each in a process of its own.

A module of rows is started as `python -m MODULE '{"row": …}' OUT`. Ratios are to the floor, the row
that records nothing, of the same round.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WARM_UP = 64  # tokens of the forward passes before the first measured one


@dataclass(frozen=True)
class Job:
    """What a row does: a forward pass of the model in `model` on `ids`, `passes` times."""

    row: str
    model: str
    ids: list[int]
    passes: int
    threads: int


@dataclass(frozen=True)
class RowResult:
    """What a row took.

    seconds, cpu_seconds: of each pass, by the clock and of all threads; added: bytes, the highest
    that the process held in the first pass minus what it held before, with the model loaded and run
    on WARM_UP tokens.
    """

    seconds: list[float]
    cpu_seconds: list[float]
    added: int


Results = Mapping[str, Mapping[int, Sequence[RowResult]]]  # row → tokens → rounds


def time_passes(job: Job, load: Callable[[str, str], Callable[[Any], Any]]) -> RowResult:
    """Load, warm up, and time the passes; the first one's memory is measured.

    load: row and model → its forward pass on ids [1, T], which returns what it recorded.
    """
    import torch

    from lab.instruments import memory

    torch.set_num_threads(job.threads)
    forward = load(job.row, job.model)
    ids = torch.tensor([job.ids])
    seconds, cpu_seconds, added = [], [], 0
    with torch.no_grad():
        for _ in range(2):
            forward(ids[:, :WARM_UP])
        for number in range(job.passes):
            before = memory.resident_bytes()
            memory.reset_peak()
            wall, cpu = time.perf_counter(), time.process_time()
            recorded = forward(ids)
            seconds.append(time.perf_counter() - wall)
            cpu_seconds.append(time.process_time() - cpu)
            if number == 0:
                added = memory.peak_bytes() - before
            del recorded
    return RowResult(seconds, cpu_seconds, added)


def run_job(run: Callable[[Job], RowResult]) -> None:
    """Run the job given as JSON; write its outcome as JSON to the second file."""
    warnings.filterwarnings("ignore")  # the peers', of no consequence for times
    job = Job(**json.loads(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(asdict(run(job))))


def take_turns(
    module: str,
    rows: Sequence[str],
    model: Path,
    ids: Sequence[int],
    *,
    tokens: Sequence[int],
    rounds: int,
    passes: int,
    threads: int,
) -> Results:
    """Time the rows of a module in turn on the first of `ids`, each second round backwards."""
    ran: dict[str, dict[int, list[RowResult]]] = {row: {t: [] for t in tokens} for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        for length in tokens:
            for number in range(rounds):
                for row in rows if number % 2 == 0 else reversed(rows):
                    job = Job(row, str(model), list(ids[:length]), passes, threads)
                    result = _child(module, job, Path(folder) / "row.json")
                    ran[row][length].append(result)
                    taken = statistics.median(result.seconds)
                    print(f"  T = {length}: {row}, {taken:.2f} s", file=sys.stderr, flush=True)
    return ran


def _child(module: str, job: Job, out: Path) -> RowResult:
    argv = [sys.executable, "-m", module, json.dumps(asdict(job)), str(out)]
    env = os.environ | {"OMP_NUM_THREADS": str(job.threads), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{job.row}: {done.stderr[-2000:]}")
    return RowResult(**json.loads(out.read_text()))


class Times:
    """What the rows took, beside a floor."""

    def __init__(self, ran: Results, floor: str, threads: int) -> None:
        self.ran, self.floor, self.threads = ran, floor, threads
        self.tokens = sorted(ran[floor])

    def ratio(self, row: str, tokens: int, field: str = "seconds") -> float:
        """Return the row's time over the floor's, the median of the rounds."""
        rounds = zip(self.ran[row][tokens], self.ran[self.floor][tokens], strict=True)
        return statistics.median(
            statistics.median(getattr(one, field)) / statistics.median(getattr(floor, field))
            for one, floor in rounds
        )

    def added(self, row: str, tokens: int) -> float:
        """Return the bytes that the row needs beyond what the floor needs, median of rounds."""
        rounds = zip(self.ran[row][tokens], self.ran[self.floor][tokens], strict=True)
        return statistics.median(one.added - floor.added for one, floor in rounds)

    def is_faster(self, own: str, peer: str) -> bool:
        """Return whether a row takes less time than a peer at every length."""
        return all(self.ratio(own, tokens) < self.ratio(peer, tokens) for tokens in self.tokens)

    def is_smaller(self, own: str, peer: str) -> bool:
        """Return whether a row adds fewer bytes than a peer at every length."""
        return all(self.added(own, tokens) < self.added(peer, tokens) for tokens in self.tokens)

    def table(self, rows: Sequence[str]) -> list[str]:
        """Return the table of all rows, those that did not run named so, as lines."""
        rounds = len(self.ran[self.floor][self.tokens[0]])
        lines = [
            f"{self.threads} threads, medians of {rounds} rounds; MB beyond the floor's",
            f"{'':<35} {'T':>5} {'s':>7} {'x floor':>7} {'x CPU':>6} {'MB':>7}",
        ]
        for row in rows:
            if row not in self.ran:
                lines.append(f"{row:<35} not measured: {row.split(',')[0]} is not installed")
                continue
            lines += [self._line(row, tokens) for tokens in self.tokens]
        return lines

    def _line(self, row: str, tokens: int) -> str:
        seconds = statistics.median(statistics.median(one.seconds) for one in self.ran[row][tokens])
        return (
            f"{row:<35} {tokens:>5} {seconds:7.3f} {self.ratio(row, tokens):7.2f} "
            f"{self.ratio(row, tokens, 'cpu_seconds'):6.2f} {self.added(row, tokens) / 1e6:7.0f}"
        )
