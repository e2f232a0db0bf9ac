"""The wheel has every file of the runner, and the runner works where the wheel is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]

RUN_A_COMMAND = """
import contextlib
import sys
from pathlib import Path
import psutil
from phases.execution import process

supervisors = set()

def note_supervisor():
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it may have ended
            supervisors.update(word for word in child.cmdline() if word.endswith("supervisor.py"))

result = process.run(
    [sys.executable, "-c", "import time; time.sleep(1); print('done')"],
    cwd=Path.cwd(),
    env=process.clean_environment({}),
    log=Path("log"),
    timeout_s=60,
    on_tick=note_supervisor,
)
assert result.exit_code == 0, Path("log").read_text()
print(process.__file__, *supervisors)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the project's wheel from a copy, without network; return its path."""
    folder = tmp_path_factory.mktemp("wheel")
    # A build writes into the source tree.
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "phases", source / "phases")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([*PIP, "wheel", "--quiet", *options, str(source)], check=True)
    wheels = list(folder.glob("*.whl"))
    assert len(wheels) == 1
    return wheels[0]


def test_every_file_of_the_runner_is_in_the_wheel(wheel: Path) -> None:
    files = set()
    for path in (ROOT / "phases").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            files.add(path.relative_to(ROOT).as_posix())
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.startswith("phases/")}
    assert "phases/execution/supervisor.py" in files
    assert names == files


def test_an_installed_runner_starts_its_own_supervisor(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    options = ["--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*PIP, "install", "--quiet", *options, str(wheel)], check=True)
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    child = subprocess.run(
        [sys.executable, "-c", RUN_A_COMMAND],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    execution = target / "phases/execution"
    assert child.stdout.split() == [
        str(execution / "process.py"),
        str(execution / "supervisor.py"),
    ]
    assert (cwd / "log").read_text() == "done\n"
