"""A gate run on mutant after mutant: with the digests of the files, and one cache for all of them.

Runs are forked: most of a gate's time goes into loading torch and peft.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from tests.forks import run_pytest
from tests.gates.conftest import INI, digests_of, failed_checks, gate_arguments


def fails(check: str, gate: str, out: Path, inputs: Path) -> bool:
    """Run one check of a gate alone; return whether it fails."""
    return check in failing(gate, out, inputs, checks=[check])


def failing(gate: str, out: Path, inputs: Path, *, checks: Collection[str] = ()) -> set[str]:
    """Return which of the checks fail, by default of all but those marked integrity.

    The cache is beside the file of the inputs.
    """
    argv, env = _prepare(gate, out, inputs, checks)
    log = inputs.parent / "gate.log"
    exit_code = run_pytest(argv, out, env, log)
    assert exit_code in {0, 1}, log.read_text()
    return set(failed_checks(inputs.parent / "report.xml", exit_code))


def failing_in_new_process(gate: str, out: Path, inputs: Path) -> set[str]:
    """Return what `failing` returns, from a process that loads what it needs, as the runner's."""
    argv, env = _prepare(gate, out, inputs)
    process = subprocess.run(
        [sys.executable, "-m", "pytest", *argv],
        cwd=out,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode in {0, 1}, process.stdout + process.stderr
    return set(failed_checks(inputs.parent / "report.xml", process.returncode))


def _prepare(
    gate: str, out: Path, inputs: Path, checks: Collection[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """Return the arguments of pytest and the environment of a gate."""
    folder = inputs.parent
    (folder / "cache").mkdir(exist_ok=True)
    (folder / "gate.ini").write_text(INI)
    (folder / "digests.json").write_text(json.dumps(digests_of(out)))
    argv = gate_arguments(gate, folder / "gate.ini", folder / "report.xml", checks)
    env = os.environ | {
        "PHASES_OUT": str(out),
        "PHASES_INPUTS": str(inputs),
        "PHASES_NONCE": "01",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PHASES_GATE_CACHE": str(folder / "cache"),
        "PHASES_DIGESTS": str(folder / "digests.json"),
    }
    return [*argv, "-m", "not integrity"], env


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit the arrays of a safetensors file in place."""
    arrays = load_file(path)
    edit(arrays)
    save_file(arrays, path)


def forge(out: Path) -> None:
    """Make result.json's digests right again, as one who forges an output would."""
    result = json.loads((out / "result.json").read_text())
    for name in result["files"]:
        result["files"][name] = hashlib.sha256((out / name).read_bytes()).hexdigest()
    (out / "result.json").write_text(json.dumps(result))
