"""A gate run as the runner runs it on mutant after mutant.

With the digests of the files, and one cache for all of them.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tests.gates.conftest import INI, digests_of, run_gate


def fails(check: str, gate: str, out: Path, inputs: Path) -> bool:
    """Run one check of a gate alone, with all its parameters; return whether it fails."""
    name = check.partition("[")[0]
    return check in failing(gate, out, inputs, options=["-k", name])


def failing(
    gate: str, out: Path, inputs: Path, *, options: Sequence[str] = ("-m", "not integrity")
) -> set[str]:
    """Return the checks that fail, those marked integrity left out.

    The cache is beside the file of the inputs.
    """
    folder = inputs.parent
    (folder / "cache").mkdir(exist_ok=True)
    (folder / "gate.ini").write_text(INI)
    (folder / "digests.json").write_text(json.dumps(digests_of(out)))
    env = os.environ | {
        "PHASES_OUT": str(out),
        "PHASES_INPUTS": str(inputs),
        "PHASES_NONCE": "01",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PHASES_GATE_CACHE": str(folder / "cache"),
        "PHASES_DIGESTS": str(folder / "digests.json"),
    }
    report = folder / "report.xml"
    return set(run_gate(gate, folder / "gate.ini", report, list(options), env))


def forge(out: Path) -> None:
    """Make result.json's digests right again, as one who forges an output would."""
    result = json.loads((out / "result.json").read_text())
    for name in result["files"]:
        result["files"][name] = hashlib.sha256((out / name).read_bytes()).hexdigest()
    (out / "result.json").write_text(json.dumps(result))
