"""Mutation test: `python -m tests.mutation [FILE …]`; pyproject.toml says of what, by which tests.

Exit 1 if the tests kill less than the least share of the mutants of a group.
"""

from __future__ import annotations

import ast
import difflib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.mutation import plugin
from tests.mutation.judge import Job
from tests.mutation.mutants import Mutant, make_mutants

ROOT = Path(__file__).resolve().parents[2]
SURVIVORS = ROOT / "build" / "mutation" / "survivors.txt"


@dataclass
class Baseline:
    """How the tests went on the original."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Each test that passed -> its time, fixtures included."""
    ways: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    """`path:function` -> each test that ran it, also in processes -> the blocks that it ran."""

    def job(self, mutant: Mutant, limit: float) -> Job:
        """Return a mutant with its tests, as many as take no longer together.

        First comes the quickest test of each way through the function, then each second one.
        """
        if mutant.function is None:
            ranked = [(0, self.seconds[test], test) for test in self._tests_of_file(mutant.path)]
        else:
            ranked = self._rank(self.ways.get(f"{mutant.path}:{mutant.function}", {}))
        chosen, total = [], 0.0
        for _, seconds, test in sorted(ranked):
            if chosen and total + seconds > limit:
                break
            chosen.append(test)
            total += seconds
        return Job(mutant, tuple(chosen), total)

    def _rank(self, ways: Mapping[str, set[str]]) -> list[tuple[int, float, str]]:
        """Return (how many quicker tests go the same way, seconds, test) of each test."""
        seen: Counter[frozenset[str]] = Counter()
        ranked = []
        for test in sorted(ways, key=lambda test: (self.seconds[test], test)):
            way = frozenset(ways[test])
            ranked.append((seen[way], self.seconds[test], test))
            seen[way] += 1
        return ranked

    def _tests_of_file(self, path: str) -> set[str]:
        found: set[str] = set()
        for function, ways in self.ways.items():
            if function.startswith(f"{path}:"):
                found |= set(ways)
        return found


def copy_repository(folder: Path) -> Path:
    """Copy what git has or would add of the repository into a new folder; return the copy."""
    copy = folder / "repository"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listing.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


def measure(copy: Path, files: Iterable[str], tests: Sequence[str]) -> Baseline:
    """Run the tests on the original in a copy; return their times and what each of them ran."""
    originals = {name: (copy / name).read_text("utf-8") for name in files}
    hits = copy / plugin.HITS
    (copy / plugin.HITS_MODULE).write_text(plugin.HITS_CODE.format(path=str(hits)))
    for name, code in originals.items():
        (copy / name).write_text(_with_hits(name, code), "utf-8")
    options = (*plugin.OPTIONS, "-p", plugin.__name__, f"--basetemp={copy.parent / 'tmp'}")
    process = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=copy,
        env={**os.environ, "MUTATION_TIMES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if process.returncode != 0:
        sys.exit(f"the tests fail without any mutant:\n{process.stdout[-5000:]}")
    for name, code in originals.items():
        (copy / name).write_text(code, "utf-8")
    baseline = Baseline()
    for line in (copy / plugin.TIMES).read_text().splitlines():
        test, _, seconds = line.rpartition("\t")
        baseline.seconds[test] = baseline.seconds.get(test, 0) + float(seconds)
    for line in hits.read_text().splitlines():
        test, function, block = line.rsplit("\t", 2)
        if test in baseline.seconds:
            baseline.ways.setdefault(function, {}).setdefault(test, set()).add(block)
    return baseline


def _with_hits(path: str, code: str) -> str:
    """Return the code with a call at the start of each block that notes which test runs it."""
    tree = ast.parse(code)
    for parent in ast.walk(tree):
        if not isinstance(parent, ast.Module | ast.ClassDef):
            continue
        prefix = "" if isinstance(parent, ast.Module) else f"{parent.name}."
        for node in parent.body:
            if isinstance(node, ast.FunctionDef):
                _add_hits(node, f"{path}:{prefix}{node.name}")
    return ast.unparse(ast.fix_missing_locations(tree))


def _add_hits(function: ast.FunctionDef, name: str) -> None:
    """Add the calls to a function: to its body, and to each block inside."""
    blocks = []
    for node in ast.walk(function):
        for field_name in ("body", "orelse", "finalbody"):
            block = getattr(node, field_name, None)
            if isinstance(block, list) and block and not isinstance(node, ast.ClassDef):
                blocks.append(block)
    for number, block in enumerate(blocks):
        call = ast.parse(plugin.HIT.format(function=name, block=number)).body[0]
        block.insert(1 if _is_docstring(block[0]) else 0, call)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


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
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutation"]
    groups = {}
    for group, patterns in config["groups"].items():
        found = {path for pattern in patterns for path in ROOT.glob(pattern)}
        names = sorted(path.relative_to(ROOT).as_posix() for path in found)
        groups[group] = [name for name in names if name in sys.argv[1:] or not sys.argv[1:]]
    files = [name for names in groups.values() for name in names]
    mutants = []
    for name in files:
        mutants += make_mutants(name, (ROOT / name).read_text("utf-8"))
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy = copy_repository(Path(folder) / "original")
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
