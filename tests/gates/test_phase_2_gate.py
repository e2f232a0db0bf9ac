"""The exit gate of phase 2 passes five results that hold together.

It sees each one damaged, exchanged or missing.
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
from phases.execution.sandbox import NoSandbox
from phases.judge.gate import judge_phase
from phases.judge.gate_run import GateKind, GateSpec
from tests.gates.conftest import ROOT, failing, run_experiment
from tests.lab.synthesis import track

GATE = "phase_2/test_phase_2.py"
FEATURES = (*track.FEATURES, "FEAT-009")
WORDS = "one two three four five six"


def trial(seed: int, rank: int, *, shuffled: bool = False) -> Trial:
    settings = Settings(steps=20, batch_size=8, learning_rate=1e-3, warmup_steps=2)
    return Trial(
        seed, settings, LoraSettings(r=rank, lora_alpha=32), examples=160, shuffled=shuffled
    )


def store(feature: Path, found: Trial | str, mean: float, data: dict[str, str]) -> float:
    """Write a trial's description and its evaluation, drawn around a mean.

    Gives the mean loss that was drawn.
    """
    name = found if isinstance(found, str) else found.name
    folder = feature / "artifacts/trials" / name
    folder.mkdir(parents=True)
    seed = int(hashlib.sha256(f"{feature.name}{name}".encode()).hexdigest()[:8], 16)
    losses = np.random.default_rng(seed).gamma(4, mean / 4, 400).astype(np.float32)
    save_file({"losses": losses}, folder / "evaluation.safetensors")
    described = {} if isinstance(found, str) else {"trial": asdict(found)}
    (folder / "trial.json").write_text(json.dumps({**described, **data}))
    return float(losses.astype(np.float64).mean())


def measured_from_arrays(folder: Path) -> dict[str, Measurement]:
    """Write data and trials of the four features; gives the measurements that follow from them."""
    for feature in track.FEATURES:
        (folder / feature / "artifacts").mkdir(parents=True)
    curves, rates, ranks = (folder / name for name in track.FEATURES[:3])
    data = {}
    for name in ("train", "evaluation"):
        (curves / f"artifacts/{name}.jsonl").write_text(f'{{"of": "{name}"}}\n')
        data[f"{name}_sha256"] = hashlib.sha256(
            (curves / f"artifacts/{name}.jsonl").read_bytes()
        ).hexdigest()
    found = {
        "FEAT-005.base_loss": Measurement.of_estimate(
            store(curves, "base", 4.8, data), "nats/token"
        )
    }
    shapes = dict(
        zip(("healthy", "overfitting", "diverging", "flat"), (2.6, 5.5, 7.0, 4.7), strict=True)
    )
    for place, (name, mean) in enumerate(shapes.items()):
        loss = store(curves, trial(100 + place, 16), mean, data)
        found[f"FEAT-005.eval_loss_{name}"] = Measurement.of_estimate(loss, "nats/token")
    stored = {name: trial(100 + place, 16).name for place, name in enumerate(shapes)}
    (curves / "artifacts/shapes.json").write_text(json.dumps(stored))
    true = [store(curves, trial(seed, 16), 2.6, data) for seed in range(3)]
    mixed = [store(rates, trial(seed, 16, shuffled=True), 3.1, data) for seed in range(3)]
    small = [store(ranks, trial(seed, 8), 2.6, data) for seed in range(3)]
    large = [store(rates, trial(seed, 64), 2.6, data) for seed in range(3)]
    suites = folder / "FEAT-008/artifacts/suites"
    suites.mkdir()
    for name in ("lab_math", "lab_reasoning", "lab_code", "lab_knowledge"):
        (suites / f"{name}.jsonl").write_text("".join(f'{{"item": {i}}}\n' for i in range(100)))
    found["FEAT-008.items"] = Measurement.of_exact(400, "items")
    samples = {
        "FEAT-006.control_gap": [m - t for m, t in zip(mixed, true, strict=True)],
        "FEAT-006.eval_loss_shuffled": mixed,
        "FEAT-007.rank_gap": [b - a for a, b in zip(small, large, strict=True)],
    }
    return found | {
        name: Measurement.of_sample(values, "nats/token") for name, values in samples.items()
    }


@pytest.fixture(scope="module")
def phase(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Five features' outputs, FEAT-009 really run on the four others; the inputs of the phase."""
    folder = tmp_path_factory.mktemp("phase") / "out"
    known = measured_from_arrays(folder)
    for feature, names in track.measured(known).items():
        names |= {
            place.partition(".")[2]: m for place, m in known.items() if place.startswith(feature)
        }
        result = Result(f"lab.{feature}", WORDS, WORDS, WORDS, names, findings=("It fell.",))
        present.write(folder / feature, result, [])
    plan = folder.parent / "plan.json"
    plan.write_text(json.dumps(track.plan()))
    entries: dict[str, Any] = {"plan": {"kind": "input", "path": str(plan)}}
    (folder.parent / "phase.json").write_text(json.dumps(entries))
    for name in track.FEATURES:
        receipt = hashlib.sha256(name.encode()).hexdigest()
        entries[name] = {
            "kind": "feature",
            "path": str(folder / name),
            "receipt": f"sha256:{receipt}",
        }
    given = folder.parent / "inputs.json"
    given.write_text(json.dumps(entries))
    name = "training_dynamics_self_assessment"
    run_experiment(
        f"lab.synthesis.{name}", f"lab/synthesis/{name}.yaml", given, folder / "FEAT-009"
    )
    return folder, folder.parent / "phase.json"


@pytest.fixture
def copy(phase: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(phase[0], tmp_path / "out"))


def test_the_runner_finds_the_exit_gate_able_to_fail_for_each_feature(
    phase: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, given = phase

    def digests(part: Path) -> dict[str, str]:
        files = [path for path in part.rglob("*") if path.is_file()]
        return {
            p.relative_to(part).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in files
        }

    judgement = judge_phase(
        GateSpec(GateKind.PYTEST, f"gates/{GATE}", 120),
        gates_dir=ROOT,
        features={name: folder / name for name in FEATURES},
        outputs={name: digests(folder / name) for name in FEATURES},
        inputs_file=given,
        workspace=tmp_path / "workspace",
        env={},
        sandbox=NoSandbox(),
    )
    assert judgement.state == "verified", [
        c for c in judgement.true_run.checks if not c.passed
    ] or judgement.reasons
    assert {item.kind for item in judgement.mutants} == {
        "empty",
        *(f"measurements:{name}" for name in FEATURES),
    }
    assert all(item.killed and item.outcome == "failed" for item in judgement.mutants)


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
    (place,) = (copy / feature / "artifacts/trials").glob(f"{pattern}/evaluation.safetensors")
    scale(place, 1.01)
    assert check in failing(GATE, copy, phase[1], "-m", "not integrity")


def test_an_item_that_stands_there_twice_is_seen(phase: tuple[Path, Path], copy: Path) -> None:
    place = copy / "FEAT-008/artifacts/suites/lab_code.jsonl"
    place.write_text(place.read_text().replace('"item": 7}', '"item": 8}'))
    checks = failing(GATE, copy, phase[1], "-m", "not integrity")
    assert checks == ["test_forgetting_was_asked_in_as_many_items_as_were_stored"]


def test_an_assessment_of_other_results_is_seen(phase: tuple[Path, Path], copy: Path) -> None:
    """Results exchanged after the assessment, each in itself in order."""
    place = copy / "FEAT-006"
    document = json.loads((place / "result.json").read_text())
    document["measurements"]["format_share"]["unit"] = "another run's"
    present.write(place, Result.from_json(document | {"files": {}}), [])
    failed = failing(GATE, copy, phase[1])
    assert failed == ["test_self_assessment_names_this_result_and_its_receipt[FEAT-006]"]


def test_predictions_that_were_not_registered_are_seen(
    phase: tuple[Path, Path], copy: Path, tmp_path: Path
) -> None:
    plan = track.plan()
    plan["phases"][1]["features"][1]["predictions"][0]["value"] = 0.9
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "given.json").write_text(
        json.dumps({"plan": {"kind": "input", "path": str(tmp_path / "plan.json")}})
    )
    failed = failing(GATE, copy, tmp_path / "given.json", "-m", "not integrity")
    assert failed == ["test_experiment_registered_what_it_expected[FEAT-006]"]


def test_a_trial_on_other_data_is_seen(phase: tuple[Path, Path], copy: Path) -> None:
    place = next((copy / "FEAT-007/artifacts/trials").glob("*/trial.json"))
    place.write_text(place.read_text().replace('"train_sha256": "', '"train_sha256": "0'))
    checks = failing(GATE, copy, phase[1], "-m", "not integrity")
    assert "test_every_experiment_used_the_data_that_the_first_one_froze[FEAT-007]" in checks


def test_a_run_by_hand_has_no_receipt_and_is_no_answer(
    phase: tuple[Path, Path], copy: Path
) -> None:
    place = copy / "FEAT-009/sources.json"
    sources = json.loads(place.read_text())
    sources["FEAT-005"]["receipt"] = "none"
    place.write_text(json.dumps(sources))
    checks = failing(GATE, copy, phase[1])
    assert "test_self_assessment_names_this_result_and_its_receipt[FEAT-005]" in checks
