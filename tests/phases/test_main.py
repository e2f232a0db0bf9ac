"""What is loaded where the runner starts: installed libraries, and its own sources."""

from __future__ import annotations

import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from toy import ROOT, Toy, toy_plan, with_shell_gates


def run_python(
    *arguments: str, folder: Path, path: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with one more folder on its path."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def runner_copy(tmp_path: Path) -> Path:
    """Return a folder that holds a copy of the runner, without compiled files."""
    folder = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "phases", folder / "phases", ignore=ignored)
    return folder


#### case I-13: files of the current directory that have the names of libraries

SHADOWS = ("psutil", "platform", "select", "click", "json", "git", "pydantic", "rich", "secrets")
RAISE = 'raise SystemExit("a file of the current directory was loaded")\n'


def write_shadows(folder: Path) -> None:
    """Write files that end whatever loads one of them in place of a library."""
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(RAISE)


def test_i_13_no_command_loads_a_file_of_the_current_directory(
    make_toy: Callable[..., Toy],
) -> None:
    plan = with_shell_gates(toy_plan(features=1))
    # -P, as Python gives a script its own folder: the experiment does not load them either.
    plan["phases"][0]["features"][0]["command"] = f"{sys.executable} -P experiment.py"
    toy = make_toy(plan)
    write_shadows(toy.root)
    toy.run("status")
    toy.run("run", "--next")
    assert toy.states() == {"TOY-001": "verified"}
    for command in ("audit", "verify", "log", "plan"):
        toy.run(command)


def test_i_13_control_a_plain_program_loads_them(tmp_path: Path) -> None:
    write_shadows(tmp_path)
    process = run_python("-c", "import psutil", folder=tmp_path)
    assert "a file of the current directory was loaded" in process.stderr


@pytest.mark.parametrize("options", [[], ["-P"]], ids=["python", "python -P"])
def test_i_13_only_the_current_directory_leaves_the_path(
    runner_copy: Path, tmp_path: Path, options: list[str]
) -> None:
    program = "import json, sys\ndef main(): print(json.dumps(sys.path))\n"
    (runner_copy / "phases/cli.py").write_text(program)
    process = run_python(*options, "-m", "phases", folder=tmp_path, path=runner_copy)
    paths = json.loads(process.stdout)
    assert paths[0] == str(runner_copy)
    assert not {"", str(tmp_path)} & set(paths)


#### case I-14: compiled files beside the runner's sources

PLANTED = ("cli", "errors", "record/state", "record/__init__", "plan/load")


def plant_bytecode(package: Path) -> None:
    """Plant compiled files that Python never compares with their sources."""
    for name in PLANTED:
        source = package / f"{name}.py"
        altered = package.parent / "altered.py"
        altered.write_text('raise SystemExit("a planted file was loaded")\n')
        py_compile.compile(
            str(altered),
            cfile=cache_from_source(str(source)),
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def plant_libraries(package: Path) -> None:
    """Plant extension modules, which Python prefers to sources."""
    for name in PLANTED:
        if not name.endswith("__init__"):
            for suffix in EXTENSION_SUFFIXES:
                (package / f"{name}{suffix}").write_bytes(b"no library")


PLANTS = {"bytecode": plant_bytecode, "libraries": plant_libraries}


@pytest.mark.parametrize("kind", PLANTS)
def test_i_14_the_runner_is_its_sources(runner_copy: Path, halted: Toy, kind: str) -> None:
    PLANTS[kind](runner_copy / "phases")
    for command in ("--version", "status", "audit"):
        process = run_python("-m", "phases", command, folder=halted.root, path=runner_copy)
        assert process.returncode == 0, process.stderr
        assert process.stderr == ""
    # The console script of the package imports the same module.
    script = "import sys; sys.argv = ['phases', 'status']; from phases.__main__ import main; main()"
    process = run_python("-c", script, folder=halted.root, path=runner_copy)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("kind", PLANTS)
def test_i_14_control_a_plain_import_loads_what_is_planted(
    runner_copy: Path, tmp_path: Path, kind: str
) -> None:
    PLANTS[kind](runner_copy / "phases")
    for module in ("phases.cli", "phases.record.state"):
        process = run_python("-c", f"import {module}", folder=tmp_path, path=runner_copy)
        assert process.returncode == 1


def test_i_14_a_compiled_file_without_source_is_no_module(
    runner_copy: Path, tmp_path: Path
) -> None:
    source = runner_copy / "phases/cli.py"
    py_compile.compile(str(source), cfile=str(source.with_suffix(".pyc")))
    source.unlink()
    process = run_python("-m", "phases", "--version", folder=tmp_path, path=runner_copy)
    assert "ModuleNotFoundError: the runner has no source file of phases.cli" in process.stderr


def test_i_14_no_bytecode_is_written(runner_copy: Path, halted: Toy) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "phases", "status"],
        cwd=halted.root,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(runner_copy)},
        check=False,
        capture_output=True,
    )
    assert process.returncode == 0
    written = {path.name.split(".")[0] for path in runner_copy.rglob("*.pyc")}
    assert written == {"__init__", "__main__"}, "what Python loads before the first line"
    assert not list((runner_copy / "phases/record").rglob("*.pyc"))
