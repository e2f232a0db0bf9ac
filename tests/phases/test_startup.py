"""What a user types most often starts quickly: heavy packages load only where they are needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy import Toy

HEAVY = {
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "matplotlib",
    "jinja2",
    "rich",
    "git",
    "psutil",
    "pytest",
    "yaml",
}

PROGRAM = """
import atexit, json, os, sys

@atexit.register
def write_packages():
    with open(os.environ["LOADED"], "w") as file:
        json.dump(sorted({name.split(".")[0] for name in sys.modules}), file)

sys.argv = ["phases", *sys.argv[1:]]
from phases.__main__ import main
main()
"""


def loaded(toy: Toy, path: Path, *arguments: str) -> tuple[int, set[str]]:
    """Run a command in a process of its own; return its exit code and the packages it loaded."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "LOADED": str(path)}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=toy.root,
        env=env,
        capture_output=True,
        check=False,
    )
    return process.returncode, set(json.loads(path.read_text()))


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "--json"],
        ["--help"],
        ["run", "--help"],
        ["log"],
        ["plan"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_commands_that_show_load_nothing_heavy(
    halted: Toy, tmp_path: Path, arguments: list[str]
) -> None:
    code, packages = loaded(halted, tmp_path / "loaded", *arguments)
    assert code == 0
    assert {"phases", "click"} <= packages
    assert packages & HEAVY == set()


def test_help_does_not_even_read_the_plan(halted: Toy, tmp_path: Path) -> None:
    code, packages = loaded(halted, tmp_path / "loaded", "--help")
    assert code == 0
    assert "pydantic" not in packages


def test_control_audit_loads_gitpython(halted: Toy, tmp_path: Path) -> None:
    code, packages = loaded(halted, tmp_path / "loaded", "audit")
    assert code == 0
    assert packages & HEAVY >= {"git"}
    assert "torch" not in packages
