"""The exit gate of phase 1 passes four results that hold together.

It sees each one damaged, exchanged or missing.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lab import present
from lab.contract import Measurement, Result
from phases.execution.sandbox import NoSandbox
from phases.judge.gate import judge_phase
from phases.judge.gate_run import GateKind, GateSpec
from tests.gates.conftest import ROOT, failing, run_experiment

GATE = "phase_1/test_phase_1.py"
FEATURES = ("FEAT-001", "FEAT-002", "FEAT-003", "FEAT-004")
SEEN = "test_instrumented_run_beats_its_control"


def qlora(out: Path, names: list[str], *, shift: float = 0.5) -> Path:
    """Write outputs with the shape of FEAT-001's.

    Their losses are drawn so that the control lies `shift` above the run.
    """
    rng = np.random.default_rng(0)
    example_ids = np.repeat(np.arange(64, dtype=np.int32), 12)
    base = rng.gamma(4, 0.9, example_ids.size).astype(np.float32)
    true = (base * 0.6).astype(np.float32)
    shuffled = (true + shift + rng.normal(0, 0.1, example_ids.size)).astype(np.float32)
    losses = {"base": base, "true": true, "shuffled": shuffled}
    (out / "artifacts").mkdir(parents=True)
    save_file(
        {"example_ids": example_ids, **{f"{n}.losses": a for n, a in losses.items()}},
        out / "artifacts/evaluation.safetensors",
    )
    found = {name: Measurement.of_estimate(1.5, "nats", stderr=0.1, n=64) for name in names}
    means = {name: float(array.astype(np.float64).mean()) for name, array in losses.items()}
    found |= {
        f"eval_loss_{name}": Measurement.of_estimate(mean, "nats/token")
        for name, mean in means.items()
    }
    found["control_gap"] = Measurement.of_estimate(means["shuffled"] - means["true"], "nats/token")
    words = "one two three four five six"
    present.write(
        out,
        Result("lab.qlora.experiment", words, words, words, found, findings=("It fell.",)),
        [],
    )
    return out


@pytest.fixture(scope="module")
def phase(
    foundation: Callable[[str], Path], inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Four features' outputs; FEAT-002 rendered with the numbers of FEAT-001."""
    folder = tmp_path_factory.mktemp("phase") / "out"
    entries = json.loads(inputs.read_text())
    asked = json.loads((Path(entries["FEAT-001"]["path"]) / "result.json").read_text())[
        "measurements"
    ]
    qlora(folder / "FEAT-001", list(asked))
    shutil.copytree(foundation("questions"), folder / "FEAT-003")
    shutil.copytree(foundation("template"), folder / "FEAT-004")
    entries["FEAT-001"]["path"] = str(folder / "FEAT-001")
    given = folder.parent / "inputs.json"
    given.write_text(json.dumps(entries))
    config = "lab/documentation/experiment.yaml"
    run_experiment("lab.documentation.experiment", config, given, folder / "FEAT-002")
    return folder


@pytest.fixture
def copy(phase: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(phase, tmp_path / "out"))


def test_the_runner_finds_the_exit_gate_able_to_fail_for_each_feature(
    phase: Path, inputs: Path, tmp_path: Path
) -> None:
    def digests(folder: Path) -> dict[str, str]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {
            p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in files
        }

    judgement = judge_phase(
        GateSpec(GateKind.PYTEST, f"gates/{GATE}", 120),
        gates_dir=ROOT,
        features={name: phase / name for name in FEATURES},
        outputs={name: digests(phase / name) for name in FEATURES},
        inputs_file=inputs,
        workspace=tmp_path / "workspace",
        env={},
        sandbox=NoSandbox(),
    )
    assert judgement.state == "verified", judgement.reasons
    assert {item.kind for item in judgement.mutants} == {
        "empty",
        *(f"measurements:{name}" for name in FEATURES),
    }
    assert all(item.killed and item.outcome == "failed" for item in judgement.mutants)


@pytest.mark.parametrize("feature", FEATURES)
def test_a_missing_feature_is_seen(copy: Path, inputs: Path, feature: str) -> None:
    shutil.rmtree(copy / feature)
    assert any(feature in check for check in failing(GATE, copy, inputs, "-m", "not integrity"))


def test_a_run_that_does_not_beat_its_control_is_seen(copy: Path, inputs: Path) -> None:
    asked = json.loads((copy / "FEAT-001/result.json").read_text())["measurements"]
    shutil.rmtree(copy / "FEAT-001")
    qlora(copy / "FEAT-001", list(asked), shift=0.1)
    assert SEEN in failing(GATE, copy, inputs, "-m", "not integrity")


def test_losses_exchanged_between_run_and_control_are_seen(copy: Path, inputs: Path) -> None:
    place = copy / "FEAT-001/artifacts/evaluation.safetensors"
    arrays = load_file(place)
    save_file(
        arrays
        | {"true.losses": arrays["shuffled.losses"], "shuffled.losses": arrays["true.losses"]},
        place,
    )
    assert SEEN in failing(GATE, copy, inputs, "-m", "not integrity")


def test_documents_of_another_run_are_seen(
    copy: Path, foundation: Callable[[str], Path], inputs: Path
) -> None:
    shutil.rmtree(copy / "FEAT-002")
    shutil.copytree(foundation("documentation"), copy / "FEAT-002")
    assert failing(GATE, copy, inputs) == ["test_documents_show_the_numbers_of_this_phase"]
