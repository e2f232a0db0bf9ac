"""How the tests go on the original: their times, and which way each takes through each function."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutation import plugin
from tests.mutation.judge import Job
from tests.mutation.mutants import Mutant

QUICK_S = 0.15
"""Seconds below which a test is quick: every mutant of what it runs meets it first."""
KEPT_AUDITS = "tests/mutation/kept_audits.py"


@dataclass
class Baseline:
    """How the tests went on the original."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Each test that passed -> its time, fixtures included."""
    ways: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    """`path:function` -> each test that ran it, also in processes -> the blocks that it ran."""

    def job(self, mutant: Mutant, limit: float) -> Job:
        """Return a mutant with its tests, as many as take no longer together.

        First come the quick tests and the quickest one of each way through the function, then each
        second one.
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
        """Return (how many quicker tests go the same way, seconds, test) of each test.

        Of a quick test the number is 0: all of them cost less than one that starts a runner.
        """
        seen: Counter[frozenset[str]] = Counter()
        ranked = []
        for test in sorted(ways, key=lambda test: (self.seconds[test], test)):
            way = frozenset(ways[test])
            is_quick = self.seconds[test] < QUICK_S
            ranked.append((0 if is_quick else seen[way], self.seconds[test], test))
            seen[way] += 1
        return ranked

    def _tests_of_file(self, path: str) -> set[str]:
        found: set[str] = set()
        for function, ways in self.ways.items():
            if function.startswith(f"{path}:"):
                found |= set(ways)
        return found


def measure(copy: Path, files: Iterable[str], tests: Sequence[str]) -> Baseline:
    """Run the tests on the original in a copy; return their times and what each of them ran."""
    originals = {name: (copy / name).read_text("utf-8") for name in files}
    hits = copy / plugin.HITS
    (copy / plugin.HITS_MODULE).write_text(plugin.HITS_CODE.format(path=str(hits)))
    for name, code in originals.items():
        (copy / name).write_text(_with_hits(name, code), "utf-8")
    options = (*plugin.OPTIONS, "-p", plugin.__name__, f"--basetemp={copy.parent / 'tmp'}")
    for files_of_tests in (tests, [KEPT_AUDITS]):  # the second audits what the first kept
        process = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *files_of_tests],
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
