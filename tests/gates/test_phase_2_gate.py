"""The exit gate of phase 2 passes five results that hold together.

It sees each one mutated, exchanged or missing.
"""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lab import present
from lab.contract import Measurement, Result
from lab.instruments.adapters import LoraSettings
from lab.instruments.training import Settings
from lab.instruments.trials import Trial
from tests.gates.conftest import (
    assert_able_to_fail_for_each,
    failing,
    run_experiment,
)
from tests.lab.synthesis import track

GATE = "phase_2/test_phase_2.py"
FEATURES = (*track.FEATURES, "FEAT-009")
WORDS = "one two three four five six"


def trial(seed: int, rank: int, *, shuffled: bool = False) -> Trial:
    settings = Settings(steps=20, batch_size=8, learning_rate=1e-3, warmup_steps=2)
    return Trial(
        seed, settings, LoraSettings(r=rank, lora_alpha=32), examples=160, shuffled=shuffled
    )


def store(feature: Path, stored: Trial | str, mean: float, digests: dict[str, str]) -> float:
    """Write a trial's description and its evaluation, drawn around a mean.

    Return the mean loss that was drawn.
    """
    name = stored
    description: dict[str, Any] = dict(digests)
    if isinstance(stored, Trial):
        name = stored.name
        description["trial"] = asdict(stored)
    folder = feature / "artifacts/trials" / str(name)
    folder.mkdir(parents=True)
    seed = int(hashlib.sha256(f"{feature.name}{name}".encode()).hexdigest()[:8], 16)
    losses = np.random.default_rng(seed).gamma(4, mean / 4, 400).astype(np.float32)
    save_file({"losses": losses}, folder / "evaluation.safetensors")
    (folder / "trial.json").write_text(json.dumps(description))
    return float(losses.astype(np.float64).mean())


def store_data(feature: Path) -> dict[str, str]:
    """Write the data of the first experiment; return the digests that every trial states."""
    digests = {}
    for name in ("train", "evaluation"):
        path = feature / f"artifacts/{name}.jsonl"
        path.write_text(f'{{"of": "{name}"}}\n')
        digests[f"{name}_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def store_shapes(feature: Path, digests: dict[str, str]) -> dict[str, Measurement]:
    """Write the four runs of FEAT-005 and their names; return their measurements."""
    measurements, names = {}, {}
    means = {"healthy": 2.6, "overfitting": 5.5, "diverging": 7.0, "flat": 4.7}
    for number, (shape, mean) in enumerate(means.items()):
        stored = trial(100 + number, 16)
        loss = store(feature, stored, mean, digests)
        names[shape] = stored.name
        measurements[f"FEAT-005.eval_loss_{shape}"] = Measurement.of_estimate(loss, "nats/token")
    (feature / "artifacts/shapes.json").write_text(json.dumps(names))
    return measurements


def store_artifacts(folder: Path) -> dict[str, Measurement]:
    """Write data and trials of the four features; return the measurements that they decide."""
    for feature in track.FEATURES:
        (folder / feature / "artifacts").mkdir(parents=True)
    curves, rates, ranks, forgetting = (folder / name for name in track.FEATURES)

    # 1. Loss curves: the data, the base and four shapes.
    digests = store_data(curves)
    base_loss = store(curves, "base", 4.8, digests)
    measurements = store_shapes(curves, digests)
    measurements["FEAT-005.base_loss"] = Measurement.of_estimate(base_loss, "nats/token")

    # 2. Rates and ranks: three seeds each.
    true, mixed, small, large = [], [], [], []
    for seed in range(3):
        true.append(store(curves, trial(seed, 16), 2.6, digests))
        mixed.append(store(rates, trial(seed, 16, shuffled=True), 3.1, digests))
        small.append(store(ranks, trial(seed, 8), 2.6, digests))
        large.append(store(rates, trial(seed, 64), 2.6, digests))
    samples = {
        "FEAT-006.control_gap": np.subtract(mixed, true),
        "FEAT-006.eval_loss_shuffled": np.array(mixed),
        "FEAT-007.rank_gap": np.subtract(large, small),
    }
    for name, values in samples.items():
        measurements[name] = Measurement.of_sample(values.tolist(), "nats/token")

    # 3. Forgetting: four suites.
    suites = forgetting / "artifacts/suites"
    suites.mkdir()
    items = "".join(f'{{"item": {i}}}\n' for i in range(100))
    for name in ("lab_math", "lab_reasoning", "lab_code", "lab_knowledge"):
        (suites / f"{name}.jsonl").write_text(items)
    measurements["FEAT-008.items"] = Measurement.of_exact(400, "items")
    return measurements


@pytest.fixture(scope="module")
def phase(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Five features' outputs, FEAT-009 really run on the four others; the inputs of the phase."""
    # 1. The four experiments: artifacts, and results that agree with them.
    folder = tmp_path_factory.mktemp("phase") / "out"
    stored = store_artifacts(folder)
    for feature, measurements in track.measurements(stored).items():
        for name, measurement in stored.items():
            if name.startswith(feature):
                measurements[name.partition(".")[2]] = measurement
        result = Result(
            experiment=f"lab.{feature}",
            title=f"Experiment {feature}",
            question=WORDS,
            hypothesis=WORDS,
            method=WORDS,
            headline=(),
            measurements=measurements,
            findings=("It fell.",),
        )
        present.write(folder / feature, result, [])

    # 2. The inputs of the phase, and of FEAT-009.
    plan = folder.parent / "plan.json"
    plan.write_text(json.dumps(track.plan()))
    entries: dict[str, Any] = {"plan": {"kind": "input", "path": str(plan)}}
    phase_inputs = folder.parent / "phase.json"
    phase_inputs.write_text(json.dumps(entries))
    for feature in track.FEATURES:
        receipt = hashlib.sha256(feature.encode()).hexdigest()
        entries[feature] = {
            "kind": "feature",
            "path": str(folder / feature),
            "receipt": f"sha256:{receipt}",
        }
    inputs = folder.parent / "inputs.json"
    inputs.write_text(json.dumps(entries))

    # 3. FEAT-009.
    config = "lab/synthesis/experiment.yaml"
    run_experiment("lab.synthesis.experiment", config, inputs, folder / "FEAT-009")
    return folder, phase_inputs


@pytest.fixture
def copy(phase: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(phase[0], tmp_path / "out"))


def test_the_runner_finds_the_exit_gate_able_to_fail_for_each_feature(
    phase: tuple[Path, Path], gates_dir: Path
) -> None:
    folder, inputs = phase
    assert_able_to_fail_for_each(GATE, folder, inputs, gates_dir, features=FEATURES)


@pytest.mark.parametrize("feature", FEATURES)
def test_a_missing_feature_is_seen(phase: tuple[Path, Path], copy: Path, feature: str) -> None:
    shutil.rmtree(copy / feature)
    assert any(feature in check for check in failing(GATE, copy, phase[1], "-m", "not integrity"))


def scale(path: Path, factor: float) -> None:
    arrays = load_file(path)
    save_file({name: array * np.float32(factor) for name, array in arrays.items()}, path)


@pytest.mark.parametrize(
    ("feature", "pattern", "check"),
    [
        ("FEAT-005", "base", "test_loss_curves_end_where_their_evaluations_say[flat]"),
        ("FEAT-005", "*seed101", "test_loss_curves_end_where_their_evaluations_say[overfitting]"),
        ("FEAT-006", "*shuffled-seed2", "test_control_gap_follows_from_the_stored_evaluations"),
        ("FEAT-007", "r8-*seed0", "test_rank_gap_follows_from_the_stored_evaluations"),
    ],
)
def test_another_evaluation_is_seen(
    phase: tuple[Path, Path], copy: Path, feature: str, pattern: str, check: str
) -> None:
    (path,) = (copy / feature / "artifacts/trials").glob(f"{pattern}/evaluation.safetensors")
    scale(path, 1.01)
    assert check in failing(GATE, copy, phase[1], "-m", "not integrity")


def test_an_item_that_is_stored_twice_is_seen(phase: tuple[Path, Path], copy: Path) -> None:
    path = copy / "FEAT-008/artifacts/suites/lab_code.jsonl"
    path.write_text(path.read_text().replace('"item": 7}', '"item": 8}'))
    checks = failing(GATE, copy, phase[1], "-m", "not integrity")
    assert checks == ["test_forgetting_was_asked_in_as_many_items_as_were_stored"]


def test_an_assessment_of_other_results_is_seen(phase: tuple[Path, Path], copy: Path) -> None:
    """Results exchanged after the assessment, each of them consistent."""
    folder = copy / "FEAT-006"
    document = json.loads((folder / "result.json").read_text())
    document["measurements"]["format_share"]["unit"] = "another run's"
    present.write(folder, Result.from_json(document | {"files": {}}), [])
    failed = failing(GATE, copy, phase[1])
    assert failed == ["test_self_assessment_names_this_result_and_its_receipt[FEAT-006]"]


def test_predictions_that_were_not_registered_are_seen(
    phase: tuple[Path, Path], copy: Path, tmp_path: Path
) -> None:
    plan = track.plan()
    plan["phases"][1]["features"][1]["predictions"][0]["value"] = 0.9
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "inputs.json").write_text(
        json.dumps({"plan": {"kind": "input", "path": str(tmp_path / "plan.json")}})
    )
    failed = failing(GATE, copy, tmp_path / "inputs.json", "-m", "not integrity")
    assert failed == ["test_experiment_registered_what_it_expected[FEAT-006]"]


def test_a_trial_on_other_data_is_seen(phase: tuple[Path, Path], copy: Path) -> None:
    path = next((copy / "FEAT-007/artifacts/trials").glob("*/trial.json"))
    path.write_text(path.read_text().replace('"train_sha256": "', '"train_sha256": "0'))
    checks = failing(GATE, copy, phase[1], "-m", "not integrity")
    assert "test_every_experiment_used_the_data_that_the_first_one_froze[FEAT-007]" in checks


def test_a_run_by_hand_has_no_receipt_and_is_no_answer(
    phase: tuple[Path, Path], copy: Path
) -> None:
    path = copy / "FEAT-009/sources.json"
    sources = json.loads(path.read_text())
    sources["FEAT-005"]["receipt"] = "none"
    path.write_text(json.dumps(sources))
    checks = failing(GATE, copy, phase[1])
    assert "test_self_assessment_names_this_result_and_its_receipt[FEAT-005]" in checks
