"""A gate run as the runner runs it on copy after copy.

With the digests of the files, and a cache that stays.
"""

import hashlib
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.gates.conftest import INI, ROOT


def failing(gate: str, out: Path, inputs: Path) -> set[str]:
    """Give the checks that fail, those marked integrity left out.

    The cache lies beside the file of the inputs.
    """
    place = inputs.parent
    (place / "cache").mkdir(exist_ok=True)
    (place / "gate.ini").write_text(INI)
    files = [path for path in out.rglob("*") if path.is_file()]
    digests = {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    (place / "digests.json").write_text(json.dumps(digests))
    report = place / "report.xml"
    argv = [
        sys.executable,
        "-m",
        "pytest",
        str(ROOT / "gates" / gate),
        "-c",
        str(place / "gate.ini"),
    ]
    argv += [
        "--rootdir",
        str(ROOT),
        "--noconftest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
    ]
    env = {
        "PHASES_OUT": str(out),
        "PHASES_INPUTS": str(inputs),
        "PHASES_NONCE": "01",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    env |= {
        "PHASES_GATE_CACHE": str(place / "cache"),
        "PHASES_DIGESTS": str(place / "digests.json"),
    }
    done = subprocess.run(
        [*argv, "-m", "not integrity"],
        cwd=out,
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    cases = list(ET.parse(report).iter("testcase"))
    return {
        case.get("name", "")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }


def forge(out: Path) -> None:
    """Make result.json's digests right again, as one who forges an output would."""
    result = json.loads((out / "result.json").read_text())
    result["files"] = {
        name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in result["files"]
    }
    (out / "result.json").write_text(json.dumps(result))
