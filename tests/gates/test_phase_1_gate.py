"""The exit gate of phase 1 passes four results that hold together.

It sees each one mutated, exchanged or missing.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lab import present
from lab.contract import Measurement, Result
from tests.gates.conftest import (
    assert_able_to_fail_for_each,
    failing,
    run_experiment,
)

GATE = "phase_1/test_phase_1.py"
FEATURES = ("FEAT-001", "FEAT-002", "FEAT-003", "FEAT-004")
BEATS_CONTROL = "test_instrumented_run_beats_its_control"


def write_qlora(out: Path, names: list[str], *, shift: float = 0.5) -> Path:
    """Write outputs with the shape of FEAT-001's, with measurements of these names.

    Their losses are drawn so that the control is `shift` nats above the run.
    """
    # 1. Token losses of 64 examples with 12 tokens each, [64 * 12].
    rng = np.random.default_rng(0)
    example_ids = np.repeat(np.arange(64, dtype=np.int32), 12)
    base = rng.gamma(4, 0.9, example_ids.size).astype(np.float32)
    true = (base * 0.6).astype(np.float32)
    shuffled = (true + shift + rng.normal(0, 0.1, example_ids.size)).astype(np.float32)
    arrays = {
        "example_ids": example_ids,
        "base.losses": base,
        "true.losses": true,
        "shuffled.losses": shuffled,
    }
    (out / "artifacts").mkdir(parents=True)
    save_file(arrays, out / "artifacts/evaluation.safetensors")

    # 2. The measurements that follow from them; the others may be anything.
    measurements = {name: Measurement.of_estimate(1.5, "nats", stderr=0.1, n=64) for name in names}
    means = {}
    for name in ("base", "true", "shuffled"):
        means[name] = float(arrays[f"{name}.losses"].astype(np.float64).mean())
        measurements[f"eval_loss_{name}"] = Measurement.of_estimate(means[name], "nats/token")
    gap = means["shuffled"] - means["true"]
    measurements["control_gap"] = Measurement.of_estimate(gap, "nats/token")

    # 3. The result.
    words = "one two three four five six"
    result = Result(
        experiment="lab.qlora.experiment",
        title="Instrumented QLoRA run",
        question=words,
        hypothesis=words,
        method=words,
        headline=("control_gap",),
        measurements=measurements,
        findings=("It fell.",),
    )
    present.write(out, result, [])
    return out


@pytest.fixture(scope="module")
def phase(
    outputs_of: Callable[[str], Path], inputs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Four features' outputs; FEAT-002 rendered with the numbers of FEAT-001."""
    # 1. FEAT-001 has whatever the shipped documents ask of it.
    folder = tmp_path_factory.mktemp("phase") / "out"
    entries = json.loads(inputs.read_text())
    write_qlora(folder / "FEAT-001", measurement_names(Path(entries["FEAT-001"]["path"])))

    # 2. FEAT-003 and FEAT-004 do not depend on it, FEAT-002 does.
    shutil.copytree(outputs_of("questions"), folder / "FEAT-003")
    shutil.copytree(outputs_of("template"), folder / "FEAT-004")
    entries["FEAT-001"]["path"] = str(folder / "FEAT-001")
    inputs_file = folder.parent / "inputs.json"
    inputs_file.write_text(json.dumps(entries))
    config = "lab/documentation/experiment.yaml"
    run_experiment("lab.documentation.experiment", config, inputs_file, folder / "FEAT-002")
    return folder


def measurement_names(folder: Path) -> list[str]:
    return list(json.loads((folder / "result.json").read_text())["measurements"])


@pytest.fixture
def copy(phase: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(phase, tmp_path / "out"))


def test_the_runner_finds_the_exit_gate_able_to_fail_for_each_feature(
    phase: Path, inputs: Path, gates_dir: Path
) -> None:
    assert_able_to_fail_for_each(GATE, phase, inputs, gates_dir, features=FEATURES)


@pytest.mark.parametrize("feature", FEATURES)
def test_a_missing_feature_is_seen(copy: Path, inputs: Path, feature: str) -> None:
    shutil.rmtree(copy / feature)
    assert any(feature in check for check in failing(GATE, copy, inputs, "-m", "not integrity"))


def test_a_run_that_does_not_beat_its_control_is_seen(copy: Path, inputs: Path) -> None:
    names = measurement_names(copy / "FEAT-001")
    shutil.rmtree(copy / "FEAT-001")
    write_qlora(copy / "FEAT-001", names, shift=0.1)
    assert BEATS_CONTROL in failing(GATE, copy, inputs, "-m", "not integrity")


def test_losses_exchanged_between_run_and_control_are_seen(copy: Path, inputs: Path) -> None:
    path = copy / "FEAT-001/artifacts/evaluation.safetensors"
    arrays = load_file(path)
    true, shuffled = arrays["true.losses"], arrays["shuffled.losses"]
    save_file(arrays | {"true.losses": shuffled, "shuffled.losses": true}, path)
    assert BEATS_CONTROL in failing(GATE, copy, inputs, "-m", "not integrity")


def test_documents_of_another_run_are_seen(
    copy: Path, outputs_of: Callable[[str], Path], inputs: Path
) -> None:
    shutil.rmtree(copy / "FEAT-002")
    shutil.copytree(outputs_of("documentation"), copy / "FEAT-002")
    assert failing(GATE, copy, inputs) == ["test_documents_show_the_numbers_of_this_phase"]
