"""Outputs to judge, made once a session by the experiments, and a gate run as a person runs it."""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INI = "[pytest]\nmarkers =\n    integrity: compares digests\n"


def run_experiment(module: str, config: str, inputs: Path, out: Path) -> Path:
    """Run an experiment of the lab by its own command line; gives `out`."""
    argv = ["--config", config, "--profile", "cpu", "--inputs", str(inputs), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", module, *argv], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


def failing(gate: str, out: Path, inputs: Path, *options: str) -> list[str]:
    """Run a gate in a process of its own, with no more set than a person has to.

    Gives the checks that failed.
    """
    report = out.parent / f"{out.name}.xml"
    ini = out.parent / "gate.ini"
    ini.write_text(INI)
    argv = [
        "-m",
        "pytest",
        str(ROOT / "gates" / gate),
        "-c",
        str(ini),
        "--rootdir",
        str(ROOT),
        "--noconftest",
    ]
    argv += ["-q", "-p", "no:cacheprovider", "--strict-markers", f"--junitxml={report}", *options]
    env = {name: text for name, text in os.environ.items() if not name.startswith("PHASES_")}
    env |= {"PHASES_OUT": str(out), "PHASES_INPUTS": str(inputs), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *argv], cwd=out, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    cases = list(ET.parse(report).iter("testcase"))
    assert cases
    bad = [
        case.get("name", "")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    assert (done.returncode == 1) == bool(bad)
    return bad


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the foundation's features are given.

    FEAT-001 measured whatever the shipped documents ask of it.
    """
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("concepts", "QUESTIONS.md"):
        source = ROOT / "docs" / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(
            source, folder / name
        )
    texts = "".join(path.read_text("utf-8") for path in (folder / "concepts").glob("*.md"))
    names = sorted(set(re.findall(r"\{\{FEAT-001\.(\w+)\}\}", texts)))
    measured = {
        name: {"value": 2 + i / 7, "unit": "nats", "stderr": 0.1, "n": 3}
        for i, name in enumerate(names)
    }
    (folder / "FEAT-001").mkdir()
    (folder / "FEAT-001/result.json").write_text(json.dumps({"measurements": measured}))
    entries = {
        "concepts": {"kind": "input", "path": str(folder / "concepts")},
        "questions": {"kind": "input", "path": str(folder / "QUESTIONS.md")},
        "FEAT-001": {"kind": "feature", "path": str(folder / "FEAT-001"), "receipt": "sha256:00"},
    }
    (folder / "inputs.json").write_text(json.dumps(entries))
    return folder / "inputs.json"


@pytest.fixture(scope="session")
def foundation(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the outputs of a foundation experiment, run at the first call.

    The experiments are documentation, questions and template.
    """
    made: dict[str, Path] = {}

    def outputs(name: str) -> Path:
        if name not in made:
            out = tmp_path_factory.mktemp(name) / "out"
            made[name] = run_experiment(
                f"lab.{name}.experiment", f"lab/{name}/experiment.yaml", inputs, out
            )
        return made[name]

    return outputs
