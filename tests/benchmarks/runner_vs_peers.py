"""The runner against make, doit, Snakemake and DVC: the same 200 tasks, one after the other.

A task writes one small file by a script that every tool watches. Each tool has its defaults, one
job at a time, and a fresh folder with a repository; the tools take turns, each second round
backwards. CPU time is that of the tool's own process, without and with its children. What each of
them does for a task differs: make compares times; doit and Snakemake also keep what they ran; DVC
hashes and stores outputs; this runner runs the commit in a copy of it, judges the output by a gate,
runs the gate on mutants of the output, and commits receipt, verdict and entry with fsync.

`python -m tests.benchmarks.runner_vs_peers 1000` does the same with 1,000 tasks. Needs
`pip install -e '.[test,bench]'` and the machine alone; a tool that is not installed is named.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks._processes import Usage, describe_machine, measure, medians, precise_cpu
from tests.benchmarks._runner_rows import (
    DOIT,
    DVC,
    PHASES,
    PHASES_COMMAND,
    SNAKEMAKE,
    TOOLS,
    Tool,
    git,
    prepare,
)

ROOT = Path(__file__).parents[2]
TASKS, ROUNDS = 200, 3
QUICK_RUNS = 3
"""How often a no-op and a status are run in each round."""
OWN_CPU_S = 0.05  # aim: the runner's own, of each feature
TIMES_SNAKEMAKE = 3.0  # aim: of its first run
IDLE_SHARE = 0.01  # aim: of one core, while a worker sleeps
IDLE_S = 20.0
WAITING = 4
"""Exit code: the phase waits for its approver."""


@dataclass(frozen=True)
class Row:
    """What one tool took in one round, or the medians of the rounds."""

    first: Usage
    waiting: Usage | None
    """Of a run at a checkpoint that was not approved yet."""
    no_op: Usage | None
    status: Usage | None


Rows = Mapping[str, Row]


def measure_round(tools: Sequence[Tool], folder: Path, tasks: int) -> dict[str, Row]:
    """Run each tool in a fresh folder, then again with everything done."""
    env = environment(folder)
    rows = {}
    for tool in tools:
        place = folder / tool.name.replace(" ", "-")
        prepare(tool, place, tasks)
        first = measure(tool.run, place, env)
        waiting = no_op = status = None
        if tool.name == PHASES:
            waiting = measure(tool.run, place, env, codes=(WAITING,))
            approve(place, env)
        if tool.has_no_op:
            no_op = medians([measure(tool.run, place, env) for _ in range(QUICK_RUNS)])
        if tool.status:
            status = medians([measure(tool.status, place, env) for _ in range(QUICK_RUNS)])
        rows[tool.name] = Row(first, waiting, no_op, status)
        _report(f"{tool.name}, {first.wall_s:.1f} s")
    return rows


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of every tool: compiled modules are found, files are temporary."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    return env | {
        "PYTHONPATH": str(ROOT),
        "PYTHONPYCACHEPREFIX": str(folder.parent / "pycache"),
        "TMPDIR": str(folder / "tmp"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def approve(folder: Path, env: Mapping[str, str]) -> None:
    """Approve the only phase at a terminal, so that everything is done."""
    sys.path.insert(0, str(ROOT / "tests" / "phases"))
    from terminal_user import as_asked, at_terminal

    code, screen = at_terminal(
        folder, "approve", "1", answer=as_asked, env=dict(env), timeout_s=1800
    )
    if code != 0:
        raise RuntimeError(screen)


#### the runner's time while it waits


def idle_share(folder: Path) -> float:
    """Return the share of a core that the runner and its helpers take while a worker sleeps."""
    seconds = IDLE_S + 10
    (folder / "sleeping").mkdir(parents=True)
    place = folder / "sleeping"
    feature = {
        "id": "SLEEP",
        "title": "Sleep",
        "command": f"sleep {seconds:.0f}; echo '{{}}' > $PHASES_OUT/slept.json",
        "outputs": ["slept.json"],
        "expect": {"minutes": 1, "memory_gb": 0.01},
        "gate": {"shell": "test \"$(cat slept.json)\" = '{}'"},
    }
    phases = [{"id": 1, "name": "Sleeping", "features": [feature]}]
    (place / "prd").mkdir()
    plan = json.dumps({"schema": 1, "project": "Idle", "phases": phases})
    (place / "prd/plan.json").write_text(plan)
    (place / ".gitignore").write_text(".phases/\n")
    git(place, "init", "-q", "-b", "main")
    git(place, "config", "user.name", "Bench")
    git(place, "config", "user.email", "bench@example.org")
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", "sleep")
    process = subprocess.Popen(
        [*PHASES_COMMAND, "run", "--next"],
        cwd=place,
        env=environment(folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        tree = _wait_for_sleep(psutil.Process(process.pid))
        time.sleep(1)
        before, begin = sum(precise_cpu(pid) for pid in tree), time.perf_counter()
        time.sleep(IDLE_S)
        used = sum(precise_cpu(pid) for pid in tree) - before
        return used / (time.perf_counter() - begin)
    finally:
        process.terminate()
        process.wait()


def _wait_for_sleep(runner: psutil.Process) -> list[int]:
    """Return the runner and its descendants once one of them is the worker that sleeps."""
    for _ in range(300):
        children = runner.children(recursive=True)
        if any(child.name() == "sleep" for child in children):
            return [runner.pid, *(child.pid for child in children)]
        time.sleep(0.1)
    message = "the worker has not begun"
    raise RuntimeError(message)


#### the table


def lines(tools: Sequence[Tool], rows: Rows, tasks: int) -> list[str]:
    """Return the table of all tools."""
    table = [
        "| row | first run s | s/task | own CPU s | CPU s with children | no-op s | status s | "
        "peak MB | started/task |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for tool in tools:
        if tool.name not in rows:
            table.append(f"| {tool.name} | not installed | | | | | | | |")
            continue
        row = rows[tool.name]
        first = row.first
        no_op, status = (f"{item.wall_s:.2f}" if item else "" for item in (row.no_op, row.status))
        table.append(
            f"| {tool.describe()} | {first.wall_s:.2f} | {first.wall_s / tasks:.4f} | "
            f"{first.own_cpu_s:.2f} | {first.cpu_s:.2f} | {no_op} | {status} | "
            f"{first.peak_mb:.0f} | {first.started / tasks:.1f} |"
        )
    return table


def aims(rows: Rows, tasks: int, idle: float) -> list[tuple[str, bool]]:
    """Return each aim, with what was measured, and whether it is met."""
    ours = rows[PHASES]
    own = ours.first.own_cpu_s / tasks
    found = [
        (f"own CPU of a feature {own:.3f} s; aim {OWN_CPU_S}", own <= OWN_CPU_S),
        (
            f"of a core while a worker sleeps {idle:.2%}; aim {IDLE_SHARE:.0%}",
            idle <= IDLE_SHARE,
        ),
    ]
    for name, limit in ((DVC, 1.0), (SNAKEMAKE, TIMES_SNAKEMAKE)):
        if name in rows:
            ratio = ours.first.wall_s / rows[name].first.wall_s
            text = f"first run {ratio:.2f} times that of {name}; aim below {limit:.0f}"
            found.append((text, ratio < limit))
    peer = rows[DOIT].no_op if DOIT in rows else None
    if peer is not None and ours.no_op is not None:
        ratio = ours.no_op.wall_s / peer.wall_s
        found.append((f"no-op {ratio:.2f} times that of {DOIT}; aim below 1", ratio < 1))
    return found


def main(tasks: int = TASKS, rounds: int = ROUNDS) -> bool:
    """Print the table; return whether all aims are met."""
    tools = [tool for tool in TOOLS if tool.is_installed]
    measured: list[dict[str, Row]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measure_round(tools, folder / "warm-up", 2)
        for number in range(rounds):
            order = tools if number % 2 == 0 else tools[::-1]
            measured.append(measure_round(order, folder / f"round-{number}", tasks))
        idle = idle_share(folder / "idle")
    rows = {tool.name: _median_row([one[tool.name] for one in measured]) for tool in tools}
    print(f"{tasks} tasks, medians of {rounds} rounds; {describe_machine()}\n")
    print("\n".join(lines(TOOLS, rows, tasks)))
    own = [one[PHASES].first.own_cpu_s / tasks for one in measured]
    print(f"\nown CPU of a feature in the rounds: {' '.join(f'{value:.3f}' for value in own)} s")
    waiting = rows[PHASES].waiting
    if waiting is not None:
        print(f"run --next at the checkpoint: {waiting.wall_s:.2f} s")
    met = aims(rows, tasks, idle)
    for text, is_met in met:
        print(f"{text}: {'met' if is_met else 'missed'}")
    return all(is_met for _, is_met in met)


def _median_row(rounds: Sequence[Row]) -> Row:
    def median(name: str) -> Usage | None:
        usages = [getattr(row, name) for row in rounds]
        return medians(usages) if all(usages) else None

    first = medians([row.first for row in rounds])
    return Row(first, median("waiting"), median("no_op"), median("status"))


def _report(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(not main(*map(int, sys.argv[1:])))
