"""Outputs to judge, made once a session by the experiments, and a gate run as a user runs it."""

import hashlib
import json
import os
import random
import re
import shutil
import string
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from gates.shared import standard
from phases.execution.sandbox import NoSandbox
from phases.judge.gate import judge_feature, judge_phase
from phases.judge.gate_run import GateKind, GateSpec
from tests.forks import run_module, run_pytest

ROOT = Path(__file__).resolve().parents[2]
INI = f"[pytest]\npythonpath = {ROOT}\nmarkers =\n    integrity: compares digests\n"

TIMEOUT_S = 600
"""Of one run of a gate, as in the plan: a first run takes a minute, longer on a busy machine."""

INTEGRITY_CHECKS = {
    standard.test_files_are_those_of_the_result.__name__,
    standard.test_report_was_made_from_the_result.__name__,
    standard.test_figures_were_drawn_from_their_data.__name__,
}
"""The checks that a forger satisfies who writes every file and digest anew."""


def run_experiment(module: str, config: str, inputs: Path, out: Path) -> Path:
    """Run an experiment of the lab by its own command line and return `out`."""
    argv = ["--config", config, "--profile", "cpu", "--inputs", str(inputs), "--out", str(out)]
    log = out.with_name(f"{out.name}.experiment.log")
    exit_code = run_module(module, argv, ROOT, log)
    assert exit_code == 0, log.read_text()
    return out


def gate_arguments(gate: str, ini: Path, report: Path, checks: Collection[str] = ()) -> list[str]:
    """Return pytest's arguments for a gate, or for some checks of it, reported as JUnit XML."""
    path = str(ROOT / "gates" / gate)
    selected = [f"{path}::{check}" for check in sorted(checks)] or [path]
    options = ["-c", str(ini), "--rootdir", str(ROOT), "--noconftest", "-q"]
    options += ["-p", "no:cacheprovider", f"--junitxml={report}", "--strict-markers"]
    options.append("--tb=line")  # the default takes 0.1 s for each check that fails
    return [*selected, *options]


def failed_checks(report: Path, exit_code: int | None) -> list[str]:
    """Return the checks that failed by a gate's report, which must agree with its exit code."""
    cases = list(ET.parse(report).iter("testcase"))
    assert cases
    failures = []
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            failures.append(case.get("name", ""))
    assert exit_code == (1 if failures else 0)
    return failures


def failing(gate: str, out: Path, inputs: Path, *options: str) -> list[str]:
    """Run a gate with no more set than a user has to, and return the checks that failed."""
    ini = out.parent / "gate.ini"
    ini.write_text(INI)
    env = {name: text for name, text in os.environ.items() if not name.startswith("PHASES_")}
    env |= {"PHASES_OUT": str(out), "PHASES_INPUTS": str(inputs), "PYTHONDONTWRITEBYTECODE": "1"}
    report = out.parent / f"{out.name}.xml"
    log = out.parent / f"{out.name}.log"
    exit_code = run_pytest([*gate_arguments(gate, ini, report), *options], out, env, log)
    assert exit_code in {0, 1}, log.read_text()
    return failed_checks(report, exit_code)


def assert_judges_every_measurement(gate: str, out: Path, inputs: Path, gates_dir: Path) -> None:
    """Check that the runner verifies outputs, every mutant, and each measurement changed alone."""
    with tempfile.TemporaryDirectory() as workspace:
        judgement = judge_feature(
            GateSpec(GateKind.PYTEST, f"gates/{gate}", TIMEOUT_S),
            gates_dir=gates_dir,
            out=out,
            outputs=digests_of(out),
            inputs_file=inputs,
            workspace=Path(workspace) / "workspace",
            env={},
            sandbox=NoSandbox(),
            root=ROOT,
            blocked=("lab",),
        )
    assert judgement.state == "verified", judgement.reasons
    assert [(item.kind, item.outcome) for item in judgement.mutants if not item.killed] == []
    assert judgement.coverage is not None
    measurements = json.loads((out / "result.json").read_text())["measurements"]
    assert set(judgement.coverage.recomputed) == set(measurements)


def assert_able_to_fail_for_each(
    gate: str,
    folder: Path,
    inputs: Path,
    gates_dir: Path,
    *,
    features: Collection[str],
    waived: str = "",
) -> None:
    """Check that the runner verifies a phase's outputs, one folder per feature, and every mutant.

    waived: the features that the person waived, with blanks between; they are not judged.
    """
    judged = [name for name in features if name not in waived.split()]
    with tempfile.TemporaryDirectory() as workspace:
        judgement = judge_phase(
            GateSpec(GateKind.PYTEST, f"gates/{gate}", TIMEOUT_S),
            gates_dir=gates_dir,
            features={name: folder / name for name in judged},
            outputs={name: digests_of(folder / name) for name in judged},
            inputs_file=inputs,
            workspace=Path(workspace) / "workspace",
            env={"PHASES_WAIVED": waived},
            sandbox=NoSandbox(),
            root=ROOT,
            blocked=("lab",),
        )
    failed = [check for check in judgement.true_run.checks if not check.passed]
    assert judgement.state == "verified", failed or judgement.reasons
    assert {item.mutation.name for item in judgement.mutants} == {
        "empty",
        *(f"measurements {name}" for name in judged),
    }
    assert all(item.killed and item.outcome == "failed" for item in judgement.mutants)


def write_chats(folder: Path) -> Path:
    """Write some 800 chats of random words below a folder; return the file."""
    draw = random.Random(0)
    words = sorted({"".join(draw.choices(string.ascii_lowercase, k=6)) for _ in range(1700)})
    lines = []
    for question, answer in zip(words[::2], words[1::2], strict=False):
        messages = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        lines.append(json.dumps({"messages": messages}) + "\n")
    (folder / "chats.jsonl").write_text("".join(lines))
    return folder / "chats.jsonl"


def digests_of(folder: Path) -> dict[str, str]:
    """Return path -> SHA-256 of every file below a folder."""
    digests = {}
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            digests[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


@pytest.fixture
def mutant(judged: tuple[Path, Path], tmp_path: Path) -> Path:
    """Return a copy to change of the outputs that the test's module judges."""
    return Path(shutil.copytree(judged[0], tmp_path / "copy"))


@pytest.fixture(scope="session")
def gates_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy `gates/` into a folder that only this process judges with, as the runner does.

    In the checkout, another process can compile a gate at any time: the runner calls that a change.
    """
    folder = tmp_path_factory.mktemp("judged")
    shutil.copytree(ROOT / "gates", folder / "gates", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the inputs of documentation and questions, and return the runner's JSON file.

    FEAT-001 measured whatever the shipped documents ask of it.
    """
    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(ROOT / "docs/concepts", folder / "concepts")
    shutil.copy(ROOT / "docs/QUESTIONS.md", folder / "QUESTIONS.md")

    texts = "".join(path.read_text("utf-8") for path in (folder / "concepts").glob("*.md"))
    names = sorted(set(re.findall(r"\{\{FEAT-001\.(\w+)\}\}", texts)))
    measurements = {}
    for i, name in enumerate(names):
        measurements[name] = {"value": 2 + i / 7, "unit": "nats", "stderr": 0.1, "n": 3}
    (folder / "FEAT-001").mkdir()
    (folder / "FEAT-001/result.json").write_text(json.dumps({"measurements": measurements}))

    entries = {
        "concepts": {"kind": "input", "path": str(folder / "concepts")},
        "questions": {"kind": "input", "path": str(folder / "QUESTIONS.md")},
        "FEAT-001": {"kind": "feature", "path": str(folder / "FEAT-001"), "receipt": "sha256:00"},
    }
    (folder / "inputs.json").write_text(json.dumps(entries))
    return folder / "inputs.json"


@pytest.fixture(scope="session")
def outputs_of(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the outputs of documentation, questions or template, run at the first call."""
    folders: dict[str, Path] = {}

    def outputs(name: str) -> Path:
        if name not in folders:
            out = tmp_path_factory.mktemp(name) / "out"
            config = f"lab/{name}/experiment.yaml"
            folders[name] = run_experiment(f"lab.{name}.experiment", config, inputs, out)
        return folders[name]

    return outputs
