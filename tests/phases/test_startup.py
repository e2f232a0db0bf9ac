"""What a person types most often starts quickly: the heavy packages are loaded by the commands that need them."""

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

CHILD = """
import atexit, json, os, sys

@atexit.register
def tell():
    with open(os.environ["LOADED"], "w") as file:
        json.dump(sorted({name.split(".")[0] for name in sys.modules}), file)

sys.argv = ["phases", *sys.argv[1:]]
from phases.__main__ import main
main()
"""


def loaded(toy: Toy, place: Path, *words: str) -> tuple[int, set[str]]:
    """Runs the command in a process of its own; its exit code, and the packages it had loaded at its end."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "LOADED": str(place)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *words],
        cwd=toy.root,
        env=env,
        capture_output=True,
        check=False,
    )
    return done.returncode, set(json.loads(place.read_text()))


@pytest.mark.parametrize(
    "words", [["status"], ["status", "--json"], ["--help"], ["run", "--help"], ["log"], ["plan"], ["--version"]],
    ids=" ".join,
)  # fmt: skip
def test_reading_commands_load_nothing_heavy(halted: Toy, tmp_path: Path, words: list[str]) -> None:
    code, packages = loaded(halted, tmp_path / "loaded", *words)
    assert code == 0
    assert {"phases", "click"} <= packages
    assert packages & HEAVY == set()


def test_help_does_not_even_read_the_plan(halted: Toy, tmp_path: Path) -> None:
    _, packages = loaded(halted, tmp_path / "loaded", "--help")
    assert "pydantic" not in packages


@pytest.mark.parametrize("words", [["status"], ["log"]], ids=" ".join)
def test_a_plan_that_was_checked_is_shown_without_pydantic(
    halted: Toy, tmp_path: Path, words: list[str]
) -> None:
    _, packages = loaded(halted, tmp_path / "loaded", *words)
    assert "pydantic" not in packages
    (halted.root / ".git/phases/plan-checked").unlink()
    _, packages = loaded(halted, tmp_path / "again", *words)
    assert "pydantic" in packages


def test_the_control_audit_does_load_gitpython(halted: Toy, tmp_path: Path) -> None:
    code, packages = loaded(halted, tmp_path / "loaded", "audit")
    assert code == 0
    assert packages & HEAVY >= {"git"}
    assert "torch" not in packages
