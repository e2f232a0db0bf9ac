"""FEAT-021's gate on a real run of small models: it passes, and fails on every mutant."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gates.induction_heads import arrays as gate_arrays
from gates.shared import outputs
from tests.gates import warm
from tests.gates.conftest import ROOT, run_experiment

GATE = "induction_heads/test_induction_heads.py"
SMALL = {
    "vocabulary": 16,
    "width": 32,
    "heads": 2,
    "head_width": 16,
    "length": 16,
    "periods": {"shortest": 4, "longest": 8},
    "steps": 180,
    "learning_rate": 1e-2,
    "warmup": 20,
    "every": 10,
    "checkpoint_every": 60,
    "evaluation": 64,
    "film": 8,
    "film_period": 6,
}


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the outputs of a run in which small models learn to copy, and its inputs: none."""
    folder = tmp_path_factory.mktemp("induction_heads")
    config = yaml.safe_load((ROOT / "lab/induction_heads/experiment.yaml").read_text("utf-8"))
    config["common"]["plan"] |= SMALL
    config["profiles"]["cpu"]["workers"] = 1
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    inputs = folder / "inputs.json"
    inputs.write_text("{}")
    module = "lab.induction_heads.experiment"
    return run_experiment(module, str(folder / "config.yaml"), inputs, folder / "out"), inputs


def test_an_unchanged_run_passes(judged):
    assert warm.failing(GATE, *judged) == set()


def test_the_run_has_something_to_judge(judged):
    measurements = json.loads((judged[0] / "result.json").read_text())["measurements"]
    assert measurements["seeds_learnt"]["value"] == 3
    assert measurements["learnt_step"]["n"] == 3


def test_nothing_at_all_fails_every_measurement(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    names = warm.failing(GATE, tmp_path / "empty", judged[1])
    assert {
        f"test_measurement_follows_from_what_was_stored[{name}]"
        for name in gate_arrays.MEASUREMENTS
    } < names


def replace_by_noise(arrays: dict[str, np.ndarray]) -> None:
    """Replace each array by noise with its mean and standard deviation."""
    rng = np.random.default_rng(0)
    for key, array in arrays.items():
        noise = rng.standard_normal(array.shape) * array.std() + array.mean()
        arrays[key] = noise.astype(array.dtype)


@pytest.mark.parametrize(
    "part",
    [
        "evaluation",
        "runs/repeats_seed1/curve",
        "runs/no_repeats_seed2/patterns",
        "runs/one_layer_seed0/weights",
        "runs/repeats_seed2/ablation",
    ],
)
def test_noise_is_seen_without_comparing_digests(judged, mutant, part):
    warm.change(mutant / f"artifacts/{part}.safetensors", replace_by_noise)
    assert warm.failing(GATE, mutant, judged[1])


def test_better_numbers_than_the_weights_give_are_seen(judged, mutant):
    """Small changes, and digests that match again: only the model can tell."""

    def better_losses(arrays: dict[str, np.ndarray]) -> None:
        arrays["second"] -= 0.01

    def stronger_heads(arrays: dict[str, np.ndarray]) -> None:
        arrays["induction"] *= 1.05

    def larger_effects(arrays: dict[str, np.ndarray]) -> None:
        arrays["induction_heads"] += 0.05

    def sharper_stripes(arrays: dict[str, np.ndarray]) -> None:
        patterns = arrays["patterns"]  # [E, layers, heads, T, T]
        patterns[..., -1, 0] += 0.01
        patterns[..., -1, 1] -= np.minimum(patterns[..., -1, 1], 0.01)

    runs = mutant / "artifacts/runs"
    warm.change(runs / "repeats_seed0/curve.safetensors", better_losses)
    warm.change(runs / "one_layer_seed1/curve.safetensors", stronger_heads)
    warm.change(runs / "no_repeats_seed0/patterns.safetensors", sharper_stripes)
    warm.change(runs / "repeats_seed2/ablation.safetensors", larger_effects)
    warm.forge(mutant)
    checks = {
        "test_end_agrees_with_the_weights[repeats-0]",
        "test_end_agrees_with_the_weights[one_layer-1]",
        "test_end_agrees_with_the_weights[no_repeats-0]",
        "test_drawn_step_agrees_with_the_weights[repeats-0]",
        "test_ablations_agree_with_the_weights[2]",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_a_control_that_saw_repeats_is_seen(judged, mutant):
    """The two-layer run's files under the name of the control without repeats."""
    runs = mutant / "artifacts/runs"
    for part in ("curve", "patterns", "weights"):
        source = runs / f"repeats_seed0/{part}.safetensors"
        shutil.copy(source, runs / f"no_repeats_seed0/{part}.safetensors")
    checks = {
        "test_without_repeats_nothing_is_learnt",
        "test_controls_start_from_the_same_weights[0]",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_a_control_from_another_start_is_seen(judged, mutant):
    runs = mutant / "artifacts/runs"
    source = runs / "no_repeats_seed1/weights.safetensors"
    shutil.copy(source, runs / "no_repeats_seed0/weights.safetensors")
    check = "test_controls_start_from_the_same_weights[0]"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_sequences_of_one_period_are_seen(judged, mutant):
    def one_period(arrays: dict[str, np.ndarray]) -> None:
        arrays["periods"][:] = 6
        arrays["ids"] = arrays["ids"][:, np.arange(16) % 6]

    warm.change(mutant / "artifacts/evaluation.safetensors", one_period)
    assert warm.fails("test_no_fixed_distance_is_right", GATE, mutant, judged[1])


def test_sequences_that_do_not_repeat_are_seen(judged, mutant):
    def shuffled(arrays: dict[str, np.ndarray]) -> None:
        arrays["ids"] = np.random.default_rng(0).permuted(arrays["ids"], axis=1)

    warm.change(mutant / "artifacts/evaluation.safetensors", shuffled)
    check = "test_sequences_repeat_and_are_random_otherwise"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_a_missing_run_is_seen(judged, mutant):
    (mutant / "artifacts/runs/one_layer_seed1").rename(mutant / "artifacts/elsewhere")
    assert warm.fails("test_runs_are_those_of_the_plan", GATE, mutant, judged[1])


def test_a_time_that_cannot_be_is_seen(judged, mutant):
    path = mutant / "artifacts/seconds.json"
    seconds = json.loads(path.read_text())
    seconds["all"] = max(seconds["runs"].values()) / 2
    path.write_text(json.dumps(seconds))
    result = json.loads((mutant / "result.json").read_text())
    result["measurements"]["training_seconds"]["value"] = seconds["all"]
    (mutant / "result.json").write_text(json.dumps(result))
    assert warm.fails("test_time_is_that_of_the_trainings", GATE, mutant, judged[1])


def test_a_changed_cell_of_a_table_or_point_of_a_figure_is_seen(judged, mutant):
    result = json.loads((mutant / "result.json").read_text())
    for table, column in zip(result["tables"], (4, 3, 3, 4), strict=True):
        table["rows"][1][column] *= 1.01
    (mutant / "result.json").write_text(json.dumps(result))
    for name in ("loss", "scores", "ablation"):
        path = mutant / f"figures/{name}.json"
        figure = json.loads(path.read_text())
        figure["series"][0]["y"][1] += 0.01
        path.write_text(json.dumps(figure))
    for name in ("film_induction_heads", "film_previous_token_heads"):
        path = mutant / f"figures/{name}.json"
        figure = json.loads(path.read_text())
        figure["panels"][2]["values"][5][3] += 0.01
        path.write_text(json.dumps(figure))
    assert warm.failing(GATE, mutant, judged[1]) == {
        *(
            f"test_table_follows_from_what_was_stored[{table}]"
            for table in ("steps", "ends", "groups", "heads")
        ),
        *(f"test_figure_shows_what_was_stored[{name}]" for name in ("loss", "scores", "ablation")),
        "test_film_shows_what_was_stored[film_induction_heads]",
        "test_film_shows_what_was_stored[film_previous_token_heads]",
    }


@pytest.mark.parametrize("name", gate_arrays.MEASUREMENTS)
def test_a_measurement_changed_alone_is_seen(name, judged, mutant, monkeypatch):
    monkeypatch.setenv("PHASES_OUT", str(mutant))
    original = json.loads((judged[0] / "result.json").read_text())
    value = original["measurements"][name]["value"]

    def fails(new: Any) -> bool:
        changed = copy.deepcopy(original)
        changed["measurements"][name]["value"] = new
        (mutant / "result.json").write_text(json.dumps(changed))
        try:
            outputs.assert_agrees(name, gate_arrays.measurements()[name])
        except AssertionError:
            return True
        return False

    assert not fails(value), "the original value must pass"
    if isinstance(value, int):
        assert fails(value + 1)
    elif value is None:
        assert fails(1.0)
    else:
        assert fails(value * 1.05 or 0.05)
