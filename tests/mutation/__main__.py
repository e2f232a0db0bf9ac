"""Mutation test: `python -m tests.mutation [--sample COUNT] [FILE …]`.

pyproject.toml says of what, and by which tests. A sample is drawn of each group, always the same
one. Exit 1 if the tests kill less than the least share of the mutants of a group.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.mutation.baseline import measure
from tests.mutation.judge import Job
from tests.mutation.mutants import Mutant, make_mutants

ROOT = Path(__file__).resolve().parents[2]
SAMPLE_SEED = 15
SURVIVORS = ROOT / "build" / "mutation" / "survivors.txt"
ONE_RUNNER = """

@cache
def runner_digest() -> str:
    return "0" * 64
"""
"""Goes into the copies' `phases/plan/lock.py`: else each mutant is another version of the runner,
which `audit` says of a plan lock, and a test that compares it would kill mutants of no effect."""


def copy_repository(folder: Path) -> Path:
    """Copy what git has or would add of the repository into a new folder; return the copy."""
    copy = folder / "repository"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    with (copy / "phases/plan/lock.py").open("a") as file:
        file.write(ONE_RUNNER)
    return copy


def judge(jobs: Sequence[Job], folder: Path, processes: int) -> list[dict[str, Any]]:
    """Judge the mutants, in so many processes; return the verdicts."""
    workers, verdicts = [], []
    for number in range(processes):
        copy = copy_repository(folder / str(number))
        mine = [asdict(job) for job in jobs[number::processes]]
        (copy / "jobs.json").write_text(json.dumps(mine))
        verdicts.append(copy / "verdicts.jsonl")
        command = [sys.executable, "-m", "tests.mutation.judge", "jobs.json", "verdicts.jsonl"]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        compiled = [sys.executable, "-m", "compileall", "-q", "phases", "tests"]
        subprocess.run(compiled, cwd=copy, check=False)
        with (copy / "output.txt").open("w") as output:
            workers.append(
                subprocess.Popen(command, cwd=copy, env=environment, stdout=output, stderr=output)
            )
    for worker, path in zip(workers, verdicts, strict=True):
        if worker.wait() != 0:
            output = path.with_name("output.txt").read_text(errors="replace")
            sys.exit(f"the judge ended with {worker.returncode}:\n{output[-5000:]}")
    lines = [line for path in verdicts for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def report(
    groups: Mapping[str, Collection[str]], counts: Mapping[str, Counter[str]], least: float
) -> bool:
    """Print the table; return whether every group has the least share."""
    is_enough = True
    row = "{:34}{:>9}{:>9}{:>10}{:>10}{:>9}"
    print(row.format("", "mutants", "killed", "timeouts", "survived", "share"))
    for group, files in groups.items():
        total: Counter[str] = Counter()
        for name in files:
            total += counts[name]
            _print_row(row, name, counts[name])
        _print_row(row, f"= {group}", total)
        is_enough = is_enough and _share(total) >= least
    return is_enough


def _print_row(row: str, name: str, count: Counter[str]) -> None:
    numbers = (count["killed"], count["timeout"], count["survived"])
    print(row.format(name, count.total(), *numbers, f"{_share(count):.1%}"))


def _share(count: Counter[str]) -> float:
    return 1 - count["survived"] / count.total() if count else 1.0


def describe(mutant: Mutant, tests: int) -> str:
    """Return a survivor with its change."""
    original = (ROOT / mutant.path).read_text("utf-8").splitlines()
    lines = list(difflib.unified_diff(original, mutant.code.splitlines(), lineterm="", n=1))[2:]
    heading = f"{mutant.path}:{mutant.line} {mutant.function or 'at import'}, {tests} tests"
    return "\n".join((heading, *lines, ""))


def main() -> None:
    """Make the mutants, run their tests, print the table, write the survivors to a file."""
    start = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--sample", type=int, help="how many mutants of each group; default: all")
    options = parser.parse_args()
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutation"]
    groups = {}
    for group, patterns in config["groups"].items():
        found = {path for pattern in patterns for path in ROOT.glob(pattern)}
        names = sorted(path.relative_to(ROOT).as_posix() for path in found)
        chosen = [name for name in names if name in options.files or not options.files]
        if chosen:
            groups[group] = chosen
    files = [name for names in groups.values() for name in names]
    mutants = []
    for names in groups.values():
        of_group = []
        for name in names:
            of_group += make_mutants(name, (ROOT / name).read_text("utf-8"))
        if options.sample is not None and options.sample < len(of_group):
            of_group = random.Random(SAMPLE_SEED).sample(of_group, options.sample)
        mutants += of_group
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = copy_repository(Path(folder) / "original")
        kept = Path(folder) / "audits"
        kept.mkdir()
        os.environ["KEPT_AUDITS"] = str(kept)
        baseline = measure(copy, files, config["tests"])
        jobs = [baseline.job(mutant, config["seconds"]) for mutant in mutants]
        print(f"{len(mutants)} mutants, {len(baseline.seconds)} tests", flush=True)
        verdicts = judge(jobs, Path(folder), config["processes"])
    counts: dict[str, Counter[str]] = {name: Counter() for name in files}
    survivors = []
    by_number = {(mutant.path, mutant.number): mutant for mutant in mutants}
    for verdict in verdicts:
        counts[verdict["path"]][verdict["state"]] += 1
        if verdict["state"] == "survived":
            mutant = by_number[verdict["path"], verdict["number"]]
            survivors.append((mutant.path, mutant.number, describe(mutant, verdict["tests"])))
    is_enough = report(groups, counts, config["least"])
    SURVIVORS.parent.mkdir(parents=True, exist_ok=True)
    SURVIVORS.write_text("\n".join(text for _, _, text in sorted(survivors)), "utf-8")
    minutes = (time.monotonic() - start) / 60
    print(f"survivors: {SURVIVORS.relative_to(ROOT)}; {minutes:.0f} minutes")
    if not is_enough:
        sys.exit(f"the tests kill less than {config['least']:.0%} of a group's mutants")


if __name__ == "__main__":
    main()
