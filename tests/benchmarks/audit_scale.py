"""`audit` of honest records of 1,000, 5,000 and 10,000 entries, a fifth as many commits.

The records are made by `tests/phases/long_record.py` in a minute: one attempt of each kind is
really run, the others repeat it, and the runner's own functions compose what is recorded. So the
audit has all to recompute and finds nothing. They end at a checkpoint, where `run --next` verifies
ledger, journal and history and refuses. Also measured: `status`, and `python -c pass` as the floor.

`python -m tests.benchmarks.audit_scale 300 600` does the same with records of these sizes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks._processes import Usage, describe_machine, measure, medians

ROOT = Path(__file__).parents[2]
SIZES = (1_000, 5_000, 10_000)  # entries
ROUNDS = 3
AIM_S, AIM_MB = 10.0, 300.0  # aim: of an audit of the largest record
COMMANDS = {
    "audit": (("audit",), 0),
    "run --next": (("run", "--next"), 4),
    "status": (("status",), 0),
}
"""Row -> what follows `python -m phases`, and the exit code."""
FLOOR = "python -c pass"


@dataclass(frozen=True)
class Record:
    """One record and what the commands took on it."""

    entries: int
    commits: int
    usages: Mapping[str, Usage]
    """Row -> medians of the rounds."""


def measure_record(folder: Path, entries: int, rounds: int = ROUNDS) -> Record:
    """Make a record of at least so many entries, and time the commands on it in turn."""
    from long_record import write_long_record

    begin = time.perf_counter()
    toy = write_long_record(folder / "long", entries)
    _report(f"{entries} entries made in {time.perf_counter() - begin:.0f} s")

    # 1. The record is honest, and it is all covered.
    printed = toy.run("audit").stdout.splitlines()
    if len(printed) != 2 or printed[1] != "audit: ok":
        raise RuntimeError("\n".join(printed))

    # 2. The rows take turns, each second round backwards.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(folder / "pycache")}
    usages: dict[str, list[Usage]] = {row: [] for row in (FLOOR, *COMMANDS)}
    for number in range(rounds):
        for row in usages if number % 2 == 0 else reversed(usages):
            arguments, code = COMMANDS.get(row, ((), 0))
            command = ["-m", "phases", *arguments] if row in COMMANDS else ["-c", "pass"]
            usages[row].append(measure([sys.executable, *command], toy.root, env, codes=(code,)))
    return Record(
        entries=toy.progress.count("\n### "),
        commits=int(toy.git("rev-list", "--count", "HEAD")),
        usages={row: medians(of_row) for row, of_row in usages.items()},
    )


def lines(records: Sequence[Record]) -> list[str]:
    """Return the table."""
    table = [
        "| entries | commits | row | s | own CPU s | CPU s with children | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for record in records:
        for row, usage in record.usages.items():
            table.append(
                f"| {record.entries:,} | {record.commits:,} | {row} | {usage.wall_s:.2f} | "
                f"{usage.own_cpu_s:.2f} | {usage.cpu_s:.2f} | {usage.peak_mb:.0f} |"
            )
    return table


def main(*sizes: int) -> bool:
    """Print the table; return whether the audit of the largest record is within its aims."""
    sys.path.insert(0, str(ROOT / "tests" / "phases"))
    records = []
    for entries in sizes or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            records.append(measure_record(Path(folder), entries))
    print(f"medians of {ROUNDS} rounds; {describe_machine()}\n")
    print("\n".join(lines(records)))
    largest = records[-1]
    audit = largest.usages["audit"]
    print(
        f"\naudit of {largest.entries:,} entries: {audit.wall_s:.1f} s, aim {AIM_S:.0f}; "
        f"{audit.peak_mb:.0f} MB, aim {AIM_MB:.0f}"
    )
    return audit.wall_s <= AIM_S and audit.peak_mb <= AIM_MB


def _report(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(not main(*map(int, sys.argv[1:])))
