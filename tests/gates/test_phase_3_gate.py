"""The exit gate of phase 3 passes five results that hold together.

It sees each one mutated, exchanged or missing, and judges the others where one was waived.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

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
from tests.lab.synthesis import track

GATE = "phase_3/test_phase_3.py"
FEATURES = (*track.FEATURES_B, "FEAT-013")
EXTRACTION, VIEWS, COMPARISON, INDUCTION = track.FEATURES_B
WORDS = "one two three four five six"
LAYERS, TOKENS, HEADS, KEY_HEADS, WIDTH = 3, 12, 6, 2, 8
PLAN = {"seeds": [0, 1, 2], "vocabulary": 64, "loss_share": 0.5}
STEPS = list(range(0, 105, 5))


def save(path: Path, arrays: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def store_extraction(folder: Path) -> dict[str, Measurement]:
    """Write queries, keys and their patterns; return the parity."""
    # 1. Patterns of the true order of the key heads, in float32 as the model has them.
    draw = np.random.default_rng(0)
    queries = draw.normal(size=(LAYERS, TOKENS, HEADS, WIDTH)).astype(np.float32)
    keys = draw.normal(size=(LAYERS, TOKENS, KEY_HEADS, WIDTH)).astype(np.float32)
    each_head = np.repeat(keys, HEADS // KEY_HEADS, axis=2)
    scores = np.einsum("lqhd,lkhd->lhqk", queries, each_head) / np.float32(np.sqrt(WIDTH))
    scores = np.where(np.triu(np.ones((TOKENS, TOKENS), dtype=bool), 1), -np.inf, scores)
    weights = np.exp(scores)
    patterns = (weights / weights.sum(-1, keepdims=True)).astype(np.float32)
    save(folder / "model.safetensors", {"rot_q": queries, "rot_k": keys})

    # 2. What they are held against, and the largest difference.
    pairs, measurements = {}, {}
    for name, error in (("float32", 3e-7), ("float64", 2e-16)):
        recorded = patterns.astype(name)
        reference = recorded + draw.uniform(-error, error, recorded.shape).astype(name)
        pairs |= {f"{name}.recorded": recorded, f"{name}.reference": reference}
        largest = float(np.abs(recorded.astype(np.float64) - reference).max())
        measurements[f"FEAT-010.parity_{name}"] = Measurement.of_estimate(largest, "")
    save(folder / "parity.safetensors", pairs)
    return measurements


def store_views(folder: Path) -> dict[str, Measurement]:
    """Write shares of the first token; return the sink rate."""
    shares = np.random.default_rng(1).uniform(0, 0.7, (4, LAYERS, HEADS, 1))  # [texts, L, H, 1]
    shares = np.repeat(shares, TOKENS, axis=-1).astype(np.float32)
    save(folder / "statistics_natural.safetensors", {"sink": shares})
    rates = 100 * (shares.astype(np.float64).mean(-1) > 0.3).mean((1, 2))
    return {"FEAT-011.sink_rate": Measurement.of_sample(rates.tolist(), "%")}


def store_comparison(folder: Path) -> dict[str, Measurement]:
    """Write divergences [models, heads, prompts]; return their means."""
    draw = np.random.default_rng(2)
    groups = {"tuned": 0.2, "random": 0.05, "between_seeds": 0.15}
    arrays, measurements = {}, {}
    for group, mean in groups.items():
        divergence = draw.gamma(2, mean / 2, (3, LAYERS * HEADS, 5)).astype(np.float32)
        arrays[f"{group}.divergence"] = divergence
        name = {"between_seeds": "seeds"}.get(group, group)
        value = float(divergence.astype(np.float64).mean())
        measurements[f"FEAT-012.js_{name}"] = Measurement.of_estimate(value, "nats")
    save(folder / "arrays.safetensors", arrays)
    return measurements


def store_induction(folder: Path) -> dict[str, Measurement]:
    """Write a curve of each training; return its step and its last losses."""
    losses: dict[str, list[float]] = {"repeats": [], "one_layer": []}
    learnt = []
    for condition, seed in [(name, seed) for name in losses for seed in PLAN["seeds"]]:
        falls_at = 40 + 10 * seed if condition == "repeats" else 1000
        second = np.where(np.array(STEPS) < falls_at, 4.1, 0.5 + 0.1 * seed).astype(np.float32)
        if condition == "repeats":
            learnt.append(float(falls_at))
            second[2] = 0.1  # a fall that does not last
        losses[condition].append(float(second[-1]))
        curve = {"steps": np.array(STEPS), "second": second}
        save(folder / f"runs/{condition}_seed{seed}/curve.safetensors", curve)
    one_layer = Measurement.of_sample(losses["one_layer"], "nats/token")
    return {
        "FEAT-021.learnt_step": Measurement.of_sample(learnt, "steps"),
        "FEAT-021.second_copy_loss": Measurement.of_sample(losses["repeats"], "nats/token"),
        "FEAT-021.second_copy_loss_one_layer": one_layer,
    }


@pytest.fixture(scope="module")
def phase(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Five features' outputs, FEAT-013 really run on the four others; the inputs of the phase."""
    # 1. The four features: artifacts, and results that agree with them.
    folder = tmp_path_factory.mktemp("phase") / "out"
    stores = (store_extraction, store_views, store_comparison, store_induction)
    of_artifacts: dict[str, Measurement] = {}
    for feature, store in zip(track.FEATURES_B, stores, strict=True):
        of_artifacts |= store(folder / feature / "artifacts")
    for feature, measurements in track.measurements(of_artifacts, "track-b").items():
        for name, measurement in of_artifacts.items():
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
            environment={"config": {"plan": PLAN}},
        )
        present.write(folder / feature, result, [])

    # 2. The inputs of the phase, and of FEAT-013.
    plan = folder.parent / "plan.json"
    plan.write_text(json.dumps(track.plan("track-b")))
    entries: dict[str, Any] = {"plan": {"kind": "input", "path": str(plan)}}
    phase_inputs = folder.parent / "phase.json"
    phase_inputs.write_text(json.dumps(entries))
    for feature in track.FEATURES_B:
        receipt = hashlib.sha256(feature.encode()).hexdigest()
        entries[feature] = {
            "kind": "feature",
            "path": str(folder / feature),
            "receipt": f"sha256:{receipt}",
        }
    inputs = folder.parent / "inputs.json"
    inputs.write_text(json.dumps(entries))

    # 3. FEAT-013.
    config = "lab/synthesis/attention.yaml"
    run_experiment("lab.synthesis.attention", config, inputs, folder / "FEAT-013")
    return folder, phase_inputs


@pytest.fixture
def copy(phase: tuple[Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(phase[0], tmp_path / "out"))


def failures(out: Path, inputs: Path) -> list[str]:
    """Return the checks that fail beside those that compare digests."""
    return failing(GATE, out, inputs, "-m", "not integrity")


@pytest.mark.parametrize(
    "waived",
    [
        "",
        "FEAT-013",
        pytest.param("FEAT-010 FEAT-013", marks=pytest.mark.soak),
        "FEAT-011 FEAT-012 FEAT-013 FEAT-021",
        pytest.param("FEAT-010 FEAT-011 FEAT-012 FEAT-013", marks=pytest.mark.soak),
    ],
)
def test_the_runner_finds_the_exit_gate_able_to_fail_for_each_feature_that_is_not_waived(
    phase: tuple[Path, Path], gates_dir: Path, waived: str
) -> None:
    folder, inputs = phase
    assert_able_to_fail_for_each(GATE, folder, inputs, gates_dir, features=FEATURES, waived=waived)


@pytest.mark.parametrize("feature", FEATURES)
def test_a_missing_feature_is_seen(phase: tuple[Path, Path], copy: Path, feature: str) -> None:
    shutil.rmtree(copy / feature)
    assert any(feature in check for check in failures(copy, phase[1]))


@pytest.mark.parametrize(
    ("file", "array", "check"),
    [
        (
            "FEAT-010/artifacts/model.safetensors",
            "rot_k",
            "test_attention_that_was_recorded_is_the_one_of_its_queries_and_keys",
        ),
        (
            "FEAT-010/artifacts/parity.safetensors",
            "float64.reference",
            "test_attention_that_was_recorded_is_the_one_of_its_queries_and_keys",
        ),
        (
            "FEAT-011/artifacts/statistics_natural.safetensors",
            "sink",
            "test_sink_rate_follows_from_the_stored_statistics",
        ),
        (
            "FEAT-012/artifacts/arrays.safetensors",
            "between_seeds.divergence",
            "test_comparison_reports_what_its_stored_divergences_say",
        ),
        (
            "FEAT-021/artifacts/runs/repeats_seed1/curve.safetensors",
            "second",
            "test_step_of_copying_follows_from_the_stored_curves",
        ),
        (
            "FEAT-021/artifacts/runs/one_layer_seed2/curve.safetensors",
            "second",
            "test_step_of_copying_follows_from_the_stored_curves",
        ),
    ],
)
def test_other_arrays_are_seen(
    phase: tuple[Path, Path], copy: Path, file: str, array: str, check: str
) -> None:
    arrays = load_file(copy / file)
    arrays[array] = arrays[array] * 1.01
    if array == "sink":
        arrays[array][0] = 0  # a rate changes only where a head crosses the limit
    save_file(arrays, copy / file)
    assert failures(copy, phase[1]) == [check]


def test_key_heads_in_the_tiled_order_are_seen(phase: tuple[Path, Path], copy: Path) -> None:
    path = copy / "FEAT-010/artifacts/parity.safetensors"
    arrays = load_file(path)
    # Query head h of the tiled order has the keys of head h mod 2: exchange the patterns so.
    order = [0, 3, 1, 4, 2, 5]
    for side in ("recorded", "reference"):
        patterns = arrays[f"float32.{side}"]
        arrays[f"float32.{side}"] = np.ascontiguousarray(patterns[:, order])
    save_file(arrays, path)
    check = "test_attention_that_was_recorded_is_the_one_of_its_queries_and_keys"
    assert failures(copy, phase[1]) == [check]


def test_another_number_in_the_report_of_the_comparison_is_seen(
    phase: tuple[Path, Path], copy: Path
) -> None:
    path = copy / "FEAT-012/report.md"
    text = path.read_text()
    value = outputs_value(copy, "FEAT-012", "js_tuned")
    assert f"{value:.4f}" in text
    path.write_text(text.replace(f"{value:.4f}", f"{2 * value:.4f}"))
    check = "test_comparison_reports_what_its_stored_divergences_say"
    assert failures(copy, phase[1]) == [check]


def outputs_value(out: Path, feature: str, name: str) -> float:
    document = json.loads((out / feature / "result.json").read_text())
    return float(document["measurements"][name]["value"])


def test_a_parity_that_is_too_coarse_is_seen_even_if_it_is_stated(
    phase: tuple[Path, Path], copy: Path
) -> None:
    path = copy / "FEAT-010/artifacts/parity.safetensors"
    arrays = load_file(path)
    arrays["float32.reference"] = arrays["float32.recorded"] + np.float32(1e-3)
    save_file(arrays, path)
    difference = arrays["float32.reference"] - arrays["float32.recorded"].astype(np.float64)
    document = json.loads((copy / "FEAT-010/result.json").read_text())
    document["measurements"]["parity_float32"]["value"] = float(np.abs(difference).max())
    present.write(copy / "FEAT-010", Result.from_json(document | {"files": {}}), [])
    check = "test_attention_that_was_recorded_is_the_one_of_its_queries_and_keys"
    assert check in failures(copy, phase[1])


def test_an_assessment_of_other_results_is_seen(phase: tuple[Path, Path], copy: Path) -> None:
    """Results exchanged after the assessment, each of them consistent."""
    folder = copy / "FEAT-012"
    document = json.loads((folder / "result.json").read_text())
    document["measurements"]["shared_share"]["unit"] = "another run's"
    present.write(folder, Result.from_json(document | {"files": {}}), [])
    failed = failing(GATE, copy, phase[1])
    assert failed == ["test_self_assessment_names_each_result_and_its_receipt"]


def test_predictions_that_were_not_registered_are_seen(
    phase: tuple[Path, Path], copy: Path, tmp_path: Path
) -> None:
    plan = track.plan("track-b")
    plan["phases"][1]["features"][1]["predictions"][0]["value"] = 0.9
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    entries = {"plan": {"kind": "input", "path": str(tmp_path / "plan.json")}}
    (tmp_path / "inputs.json").write_text(json.dumps(entries))
    failed = failures(copy, tmp_path / "inputs.json")
    assert failed == ["test_features_registered_what_they_expected"]
