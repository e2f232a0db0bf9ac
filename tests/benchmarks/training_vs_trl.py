"""LoRA training: this loop against trl.SFTTrainer and a plain PEFT loop, in tokens/s at equal loss.

Same model, examples, order, adapters, optimizer and steps. The frozen weights are bfloat16 where
this machine multiplies bfloat16 matrices faster than float32 ones, else float32, for all rows
alike; adapters are float32. Every row runs in a process of its own, and the rows take turns, so
that a machine that slows down slows down all. Tokens are real ones: padding is not counted, nor
what a row saves by computing less. Needs `pip install -e '.[bench]'`, the pretrained model, and the
machine alone for about twenty minutes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tests.benchmarks._training_rows import OURS, ROWS, TRL, Job, RowResult

ROOT = Path(__file__).parents[2]
LIMIT, AIM = 2.0, 3.0  # times the tokens/s of the best row of TRL
SHARE = 0.55  # aim: of the machine's matrix product
STEPS, ROUNDS, MAX_TOKENS = 12, 3, 120
UNCOUNTED = 1  # first steps: memory is asked for, kernels are chosen


class Outcome:
    """All that was measured, and the table made of it."""

    def __init__(
        self,
        ran: Mapping[str, Sequence[RowResult]],
        peaks: Sequence[Mapping[str, float]],
        losses: Mapping[str, Mapping[str, np.ndarray]],
        threads: int,
        dtype: str,
    ) -> None:
        self.ran, self.peaks, self.losses, self.threads, self.dtype = (
            ran,
            peaks,
            losses,
            threads,
            dtype,
        )
        self.best = max(TRL, key=self.speed)

    def speed(self, row: str) -> float:
        """Real tokens per second: the median of the rounds."""
        return statistics.median(speed(one) for one in self.ran[row])

    @property
    def ratios(self) -> list[float]:
        """Return this loop's speed over that of TRL's best row, round by round."""
        return [
            speed(a) / speed(b) for a, b in zip(self.ran[OURS], self.ran[self.best], strict=True)
        ]

    def share(self) -> float:
        """Return the share of the measured matrix product's FLOP/s that this loop reached."""
        rates = [
            sum(one.flops[UNCOUNTED:]) / sum(one.seconds[UNCOUNTED:]) for one in self.ran[OURS]
        ]
        return statistics.median(rates) / max(peak[self.dtype] for peak in self.peaks)

    def difference(self, row: str) -> tuple[float, float, float]:
        """Loss of `row` minus ours in nats/token, paired, and its 95 % interval over examples."""
        from lab.stats.tokens import token_mean

        ours, theirs = self.losses[OURS], self.losses[row]
        changes = theirs["losses"].astype(np.float64) - ours["losses"]
        mean = token_mean(changes, ours["example_ids"])
        half = 1.96 * mean.stderr
        return mean.value, mean.value - half, mean.value + half

    def lines(self) -> list[str]:
        """Return the table as lines."""
        lines = [
            f"{self.dtype} weights, {self.threads} threads, medians of {len(self.peaks)} rounds of "
            f"{len(self.ran[OURS][0].seconds)} steps",
            f"{'':<31} {'tokens/s':>8} {'superv./s':>9} {'s/step':>6} {'peak MB':>7} {'added':>6} "
            f"{'eval':>7}  minus ours [95 %]",
        ]
        for row in ROWS:
            of_row = self.ran[row]
            supervised = statistics.median(speed(one, one.supervised) for one in of_row)
            step = statistics.median(s for one in of_row for s in one.seconds[UNCOUNTED:])
            peak, added = (
                statistics.median(getattr(one, n) for one in of_row) / 1e6
                for n in ("peak", "added")
            )
            loss = float(self.losses[row]["losses"].mean(dtype="float64"))
            value, low, high = self.difference(row)
            lines.append(
                f"{row:<31} {self.speed(row):8.1f} {supervised:9.1f} {step:6.2f} {peak:7.0f} "
                f"{added:6.0f} {loss:7.4f}  {value:+.4f} [{low:+.4f}, {high:+.4f}]"
            )
        rates = ", ".join(
            f"{d} {max(p[d] for p in self.peaks) / 1e9:.1f} GFLOP/s"
            for d in ("float32", "bfloat16")
        )
        lines.append(
            f"matrix product: {rates}; this loop uses {self.share():.0%} of {self.dtype}, "
            f"aim {SHARE:.0%}"
        )
        each = " ".join(f"{ratio:.2f}" for ratio in self.ratios)
        lines.append(
            f"against '{self.best}': {statistics.median(self.ratios):.2f} times ({each}); limit "
            f"{LIMIT}, aim {AIM}"
        )
        return lines

    def holds(self) -> bool:
        """Return whether the limit is met at an evaluation loss that does not differ from TRL's."""
        _, low, high = self.difference(self.best)
        return statistics.median(self.ratios) >= LIMIT and low <= 0 <= high


def measure(
    model: Path, *, steps: int = STEPS, rounds: int = ROUNDS, threads: int | None = None
) -> Outcome:
    """All rows in turn, `rounds` times; each second round backwards. The first also evaluates."""
    threads = threads or len(os.sched_getaffinity(0))
    ran: dict[str, list[RowResult]] = {row: [] for row in ROWS}
    peaks: list[dict[str, float]] = []
    losses = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            peaks.append(_child({"row": "gemm", "threads": threads}, Path(folder) / "gemm.json"))
            dtype = max(peaks[0], key=peaks[0].__getitem__)
            for row in ROWS if number % 2 == 0 else reversed(ROWS):
                out = Path(folder) / "row.json"
                job = Job(row, str(model), dtype, steps, MAX_TOKENS, threads, evaluate=number == 0)
                ran[row].append(RowResult(**_child(asdict(job), out)))
                if number == 0:
                    with np.load(out.with_suffix(".npz")) as arrays:
                        losses[row] = dict(arrays)
                print(
                    f"  round {number + 1}: {row}, {speed(ran[row][-1]):.1f} tokens/s",
                    file=sys.stderr,
                    flush=True,
                )
    return Outcome(ran, peaks, losses, threads, dtype)


def _child(job: Mapping[str, object], out: Path) -> dict:
    argv = [sys.executable, "-m", "tests.benchmarks._training_rows", json.dumps(job), str(out)]
    env = os.environ | {"OMP_NUM_THREADS": str(job["threads"]), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{job['row']}: {done.stderr[-2000:]}")
    return json.loads(out.read_text())


def speed(ran: RowResult, tokens: Sequence[int] | None = None) -> float:
    """Real tokens per second over the counted steps; of all tokens unless others are given."""
    counted = (tokens or ran.total)[UNCOUNTED:]
    return sum(counted) / sum(ran.seconds[UNCOUNTED:])


def main() -> bool:
    """Print the table; return whether the limit is met."""
    from lab.instruments import pretrained

    pretrained.fetch(pretrained.cache_folder())
    outcome = measure(pretrained.cache_folder() / pretrained.NAME)
    print("\n".join(outcome.lines()))
    return outcome.holds()
