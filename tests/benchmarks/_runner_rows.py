"""The same N tasks for each tool: write one small file by a script that the tool watches."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCRIPT = """printf '{"number": %d}\\n' "$1" > "$2"\n"""
"""`sh write.sh 17 out/17.json`."""


@dataclass(frozen=True)
class Tool:
    """A row of the benchmark."""

    name: str
    write: Callable[[Path, int], None]
    """Writes what describes N tasks into a folder that has the script, `out/` and a repository."""
    run: tuple[str, ...]
    status: tuple[str, ...] = ()
    """Says what would be done; empty where the tool has no such command."""
    version: tuple[str, ...] = ()
    has_no_op: bool = True
    """Whether it sees that everything is done."""

    @property
    def is_installed(self) -> bool:
        """Whether the program is there."""
        return shutil.which(self.run[0]) is not None

    def describe(self) -> str:
        """Return name and version."""
        if not self.version:
            return self.name
        done = subprocess.run(self.version, capture_output=True, text=True, check=False)
        return f"{self.name} {done.stdout.split(chr(10))[0].split()[-1]}"


def prepare(tool: Tool, folder: Path, tasks: int) -> None:
    """Make a folder in which nothing was done yet."""
    (folder / "out").mkdir(parents=True)
    (folder / "write.sh").write_text(SCRIPT)
    git(folder, "init", "-q", "-b", "main")
    git(folder, "config", "user.name", "Bench")
    git(folder, "config", "user.email", "bench@example.org")
    tool.write(folder, tasks)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "tasks")


def git(folder: Path, *arguments: str) -> None:
    """Run git in a folder."""
    subprocess.run(["git", *arguments], cwd=folder, check=True)


#### the tools' own files


def _write_shells(folder: Path, tasks: int) -> None:
    lines = [f"sh write.sh {number} out/{number}.json" for number in range(tasks)]
    (folder / "run.sh").write_text("\n".join(lines) + "\n")


def _write_make(folder: Path, tasks: int) -> None:
    files = " ".join(f"out/{number}.json" for number in range(tasks))
    rule = "out/%.json: write.sh\n\t@sh write.sh $* $@\n"
    (folder / "Makefile").write_text(f"all: {files}\n{rule}")


def _write_doit(folder: Path, tasks: int) -> None:
    text = f"""
def task_write():
    for number in range({tasks}):
        target = f"out/{{number}}.json"
        yield {{
            "name": str(number),
            "file_dep": ["write.sh"],
            "targets": [target],
            "actions": [f"sh write.sh {{number}} {{target}}"],
        }}
"""
    (folder / "dodo.py").write_text(text)


def _write_snakemake(folder: Path, tasks: int) -> None:
    text = f"""
rule all:
    input: expand("out/{{number}}.json", number=range({tasks}))

rule write:
    input: "write.sh"
    output: "out/{{number}}.json"
    shell: "sh write.sh {{wildcards.number}} {{output}}"
"""
    (folder / "Snakefile").write_text(text)


def _write_dvc(folder: Path, tasks: int) -> None:
    dvc = [_program("dvc")]
    subprocess.run([*dvc, "init", "-q"], cwd=folder, check=True)
    # Both would ask a server.
    for name in ("core.analytics", "core.check_update"):
        subprocess.run([*dvc, "config", name, "false"], cwd=folder, check=True)
    stage = {
        "cmd": "sh write.sh ${item} out/${item}.json",
        "deps": ["write.sh"],
        "outs": ["out/${item}.json"],
    }
    stages = {"write": {"foreach": list(range(tasks)), "do": stage}}
    (folder / "dvc.yaml").write_text(json.dumps({"stages": stages}))  # JSON is YAML


def _write_phases(folder: Path, tasks: int) -> None:
    features = []
    for number in range(tasks):
        features.append(
            {
                "id": f"TASK-{number:04d}",
                "title": f"Write number {number}",
                "command": f"sh write.sh {number} $PHASES_OUT/number.json",
                "outputs": ["number.json"],
                "expect": {"minutes": 0.01, "memory_gb": 0.01},
                "gate": {"shell": f'test "$(cat number.json)" = \'{{"number": {number}}}\''},
            }
        )
    phases = [{"id": 1, "name": "Numbers", "features": features}]
    (folder / "prd").mkdir()
    plan = {"schema": 1, "project": "Bench", "phases": phases}
    (folder / "prd/plan.json").write_text(json.dumps(plan))
    (folder / ".gitignore").write_text(".phases/\n")


def _program(name: str) -> str:
    """Return a program of this environment, or the name where there is none."""
    program = Path(sys.executable).with_name(name)
    return str(program) if program.is_file() else name


PHASES = "phases"
PHASES_COMMAND = (sys.executable, "-m", "phases")
DOIT, SNAKEMAKE, DVC = "doit", "Snakemake", "DVC"

TOOLS = (
    Tool("plain shells", _write_shells, ("sh", "run.sh"), has_no_op=False),
    Tool("make", _write_make, ("make", "-j1"), ("make", "-q"), ("make", "--version")),
    Tool(
        DOIT,
        _write_doit,
        (_program("doit"),),
        (_program("doit"), "list", "--all", "-s"),
        (_program("doit"), "--version"),
    ),
    Tool(
        SNAKEMAKE,
        _write_snakemake,
        (_program("snakemake"), "--cores", "1"),
        (_program("snakemake"), "-n"),
        (_program("snakemake"), "--version"),
    ),
    Tool(
        DVC,
        _write_dvc,
        (_program("dvc"), "repro"),
        (_program("dvc"), "status"),
        (_program("dvc"), "--version"),
    ),
    Tool(
        PHASES,
        _write_phases,
        (*PHASES_COMMAND, "run", "--next"),
        (*PHASES_COMMAND, "status"),
        (*PHASES_COMMAND, "--version"),
    ),
)
