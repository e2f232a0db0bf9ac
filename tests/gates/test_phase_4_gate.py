"""The exit gate of phase 4 passes three results that hold together.

It sees each one mutated, exchanged or missing, and judges the others where one was waived.
"""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lab import present
from lab.contract import Measurement, Result
from lab.stats.jackknife import jackknife_stderr
from tests.gates.conftest import (
    assert_able_to_fail_for_each,
    failing,
    run_experiment,
)
from tests.lab.synthesis import track

GATE = "phase_4/test_phase_4.py"
FEATURES = (*track.FEATURES_C, "FEAT-016")
EXTRACTION, ANALYSIS = track.FEATURES_C
WORDS = "one two three four five six"
LAYERS, TOKENS, WIDTH = 4, 6, 8
SEQUENCES = 3

STREAM = "test_stream_is_the_sum_of_what_was_written"
MASSIVE = "test_massive_activations_follow_from_the_stored_extremes"
RATIOS = "test_analysis_reports_what_the_one_number_costs"


def save(path: Path, arrays: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def store_extraction(folder: Path) -> dict[str, Measurement]:
    """Write a stream that is a sum in float32; return its errors."""
    # 1. The stream, layer by layer.
    draw = np.random.default_rng(0)
    shape = (LAYERS, TOKENS, WIDTH)
    attention, mlp = (draw.normal(size=shape).astype(np.float32) for _ in range(2))
    before, after = np.empty(shape, np.float32), np.empty(shape, np.float32)
    stream = draw.normal(size=shape[1:]).astype(np.float32)
    for layer in range(LAYERS):
        before[layer] = stream
        stream = stream + attention[layer] + mlp[layer]
        after[layer] = stream
    normed = before / np.sqrt(np.square(before).mean(-1, keepdims=True))
    hidden = np.concatenate([before, normed[:1]])
    arrays = {
        "resid_pre": before,
        "attn_out": attention,
        "mlp_out": mlp,
        "resid_post": after,
        "normed": normed,
        "hidden_states": hidden,
    }
    save(folder / "model.safetensors", arrays)

    # 2. What it states.
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    length = np.linalg.norm(wide["resid_post"], axis=-1)
    errors = []
    for start in ("resid_pre", "normed"):
        rest = wide["resid_post"] - wide[start] - wide["attn_out"] - wide["mlp_out"]
        errors.append(np.linalg.norm(rest, axis=-1) / length)
    exact = Measurement.of_exact
    return {
        "FEAT-014.residual_error": exact(float(errors[0].max()), "share"),
        "FEAT-014.misplaced_error": exact(float(errors[1].max(axis=1).min()), "share"),
        "FEAT-014.chain_error": exact(0.0),
        "FEAT-014.last_hidden_state_gap": exact(
            float(np.abs(wide["hidden_states"][-1] - wide["resid_post"][-1]).max())
        ),
    }


def store_analysis(folder: Path) -> dict[str, Measurement]:
    """Write extremes with a run of two massive layers, and losses; return what they say."""
    draw = np.random.default_rng(1)
    top = np.array([[50.0, 150.0, 5000.0, 5000.0]] * SEQUENCES, np.float32)
    stream = {
        "top": top,
        "median": np.ones_like(top),
        "hits": np.array([[0, 2, 0, 5], [0, 3, 0, 5], [1, 2, 0, 5], [2, 3, 1, 7]]),
    }
    save(folder / "stream.safetensors", stream)

    shape = (SEQUENCES, TOKENS)
    losses = {"losses.base": draw.gamma(9, 0.3, shape)}
    for name, rise in {"zeroed": 6.0, "mean": 0.001, "other_0": 0.002, "other_1": -0.02}.items():
        losses[f"losses.{name}"] = losses["losses.base"] + draw.normal(rise, 0.1, shape)
    losses = {name: array.astype(np.float32) for name, array in losses.items()}
    save(folder / "interventions.safetensors", losses)
    exact = Measurement.of_exact
    measurements = {
        "FEAT-015.massive_layers": exact(2, "layers"),
        "FEAT-015.massive_dimensions": exact(2, "dimensions"),
    }
    return measurements | ratios_of(losses)


def ratios_of(losses: dict[str, Any]) -> dict[str, Measurement]:
    """Return the ratios of perplexity that losses say, with their errors over sequences."""
    wide = {name: array.astype(np.float64) for name, array in losses.items()}

    def ratio(name: str, kept: list[int]) -> float:
        rise = wide[f"losses.{name}"][kept] - wide["losses.base"][kept]
        return math.exp(float(rise.mean()))

    names = {"zeroed_ratio": "zeroed", "mean_ratio": "mean", "other_dimension_ratio": "other_1"}
    every = list(range(SEQUENCES))
    measurements = {}
    for measured, name in names.items():
        left_out = [ratio(name, [i for i in every if i != sequence]) for sequence in every]
        measurements[f"FEAT-015.{measured}"] = Measurement.of_estimate(
            ratio(name, every), "times", stderr=jackknife_stderr(left_out), n=SEQUENCES
        )
    return measurements


@pytest.fixture(scope="module")
def phase(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Three features' outputs, FEAT-016 really run on the others; the inputs of the phase."""
    # 1. The two features: artifacts, and results that agree with them.
    folder = tmp_path_factory.mktemp("phase") / "out"
    stores = (store_extraction, store_analysis)
    of_artifacts: dict[str, Measurement] = {}
    for feature, store in zip(track.FEATURES_C, stores, strict=True):
        of_artifacts |= store(folder / feature / "artifacts")
    for feature, measurements in track.measurements(of_artifacts, "track-c").items():
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
            findings=("It is there.",),
        )
        present.write(folder / feature, result, [])

    # 2. The inputs of the phase, and of FEAT-016.
    plan = folder.parent / "plan.json"
    plan.write_text(json.dumps(track.plan("track-c")))
    entries: dict[str, Any] = {"plan": {"kind": "input", "path": str(plan)}}
    phase_inputs = folder.parent / "phase.json"
    phase_inputs.write_text(json.dumps(entries))
    for feature in track.FEATURES_C:
        receipt = hashlib.sha256(feature.encode()).hexdigest()
        entries[feature] = {
            "kind": "feature",
            "path": str(folder / feature),
            "receipt": f"sha256:{receipt}",
        }
    inputs = folder.parent / "inputs.json"
    inputs.write_text(json.dumps(entries))

    # 3. FEAT-016.
    config = "lab/synthesis/representations.yaml"
    run_experiment("lab.synthesis.representations", config, inputs, folder / "FEAT-016")
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
        "FEAT-016",
        pytest.param("FEAT-014 FEAT-016", marks=pytest.mark.soak),
        pytest.param("FEAT-015 FEAT-016", marks=pytest.mark.soak),
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
        ("FEAT-014/artifacts/model.safetensors", "mlp_out", STREAM),
        ("FEAT-014/artifacts/model.safetensors", "normed", STREAM),
        ("FEAT-014/artifacts/model.safetensors", "hidden_states", STREAM),
        ("FEAT-015/artifacts/stream.safetensors", "top", MASSIVE),
        ("FEAT-015/artifacts/stream.safetensors", "hits", MASSIVE),
        ("FEAT-015/artifacts/interventions.safetensors", "losses.mean", RATIOS),
        ("FEAT-015/artifacts/interventions.safetensors", "losses.other_1", RATIOS),
    ],
)
def test_other_arrays_are_seen(
    phase: tuple[Path, Path], copy: Path, file: str, array: str, check: str
) -> None:
    arrays = load_file(copy / file)
    if array in ("top", "hits"):  # these decide only where they cross a limit, or by who is there
        arrays[array][:, 3] = 1
    else:
        arrays[array] = arrays[array] * np.float32(1.01)
    save_file(arrays, copy / file)
    assert failures(copy, phase[1]) == [check]


def state(out: Path, feature: str, measurements: dict[str, Measurement]) -> None:
    """Write other measurements into a feature's result, and seal it anew."""
    document = json.loads((out / feature / "result.json").read_text())
    for name, measurement in measurements.items():
        document["measurements"][name.partition(".")[2]] = measurement.to_json()
    present.write(out / feature, Result.from_json(document | {"files": {}}), [])


def test_a_sum_that_is_off_is_seen_even_if_it_is_stated(
    phase: tuple[Path, Path], copy: Path
) -> None:
    path = copy / "FEAT-014/artifacts/model.safetensors"
    arrays = load_file(path)
    arrays["attn_out"] = arrays["attn_out"] * np.float32(1.001)
    save_file(arrays, path)
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    rest = wide["resid_post"] - wide["resid_pre"] - wide["attn_out"] - wide["mlp_out"]
    error = np.linalg.norm(rest, axis=-1) / np.linalg.norm(wide["resid_post"], axis=-1)
    state(copy, EXTRACTION, {"FEAT-014.residual_error": Measurement.of_exact(float(error.max()))})
    assert STREAM in failures(copy, phase[1])


def test_an_error_of_the_ratio_that_is_too_small_is_seen(
    phase: tuple[Path, Path], copy: Path
) -> None:
    """The value as stored, its standard error halved: predictions would be decided by it."""
    losses = load_file(copy / "FEAT-015/artifacts/interventions.safetensors")
    name = "FEAT-015.zeroed_ratio"
    honest = ratios_of(losses)[name]
    assert honest.stderr is not None
    forged = Measurement.of_estimate(
        honest.value, honest.unit, stderr=honest.stderr / 2, n=honest.n
    )
    state(copy, ANALYSIS, {name: forged})
    assert RATIOS in failures(copy, phase[1])


def test_another_number_in_the_report_of_the_analysis_is_seen(
    phase: tuple[Path, Path], copy: Path
) -> None:
    path = copy / "FEAT-015/report.md"
    text = path.read_text()
    document = json.loads((copy / "FEAT-015/result.json").read_text())
    shown = f"{document['measurements']['other_dimension_ratio']['value']:.4f}"
    assert shown in text
    path.write_text(text.replace(shown, "0.5000"))
    assert failures(copy, phase[1]) == [RATIOS]


def test_an_assessment_of_other_results_is_seen(phase: tuple[Path, Path], copy: Path) -> None:
    """Results exchanged after the assessment, each of them consistent."""
    folder = copy / "FEAT-015"
    document = json.loads((folder / "result.json").read_text())
    document["measurements"]["norm_growth"]["unit"] = "another run's"
    present.write(folder, Result.from_json(document | {"files": {}}), [])
    failed = failing(GATE, copy, phase[1])
    assert failed == ["test_self_assessment_names_each_result_and_its_receipt"]


def test_predictions_that_were_not_registered_are_seen(
    phase: tuple[Path, Path], copy: Path, tmp_path: Path
) -> None:
    plan = track.plan("track-c")
    plan["phases"][1]["features"][1]["predictions"][0]["value"] = 0.9
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    entries = {"plan": {"kind": "input", "path": str(tmp_path / "plan.json")}}
    (tmp_path / "inputs.json").write_text(json.dumps(entries))
    failed = failures(copy, tmp_path / "inputs.json")
    assert failed == ["test_features_registered_what_they_expected"]
