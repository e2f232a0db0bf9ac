"""FEAT-005's gate on a real run of the tiny model: it passes, and fails on every mutant."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gates.loss_curves import arrays as gate_arrays
from gates.shared import outputs
from tests.gates import warm
from tests.gates.conftest import ROOT, run_experiment, write_chats

GATE = "loss_curves/test_loss_curves.py"
TABLES = ("shapes", "seeds", "significance", "gradients")


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the outputs of a run at the planned size, and the file of its inputs."""
    from lab.instruments import models

    folder = tmp_path_factory.mktemp("loss_curves")
    models.save(models.tiny(0), folder / "model")
    config = yaml.safe_load((ROOT / "lab/loss_curves/experiment.yaml").read_text("utf-8"))
    config["common"]["data"] |= {"source": str(write_chats(folder)), "max_tokens": 80}
    config["common"]["lora"] = {"r": 4, "lora_alpha": 8}
    config["profiles"]["cpu"]["workers"] = 1  # the workers of a small sweep do little but start
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    inputs = folder / "inputs.json"
    inputs.write_text(
        json.dumps({"smollm2-135m": {"kind": "input", "path": str(folder / "model")}})
    )
    module = "lab.loss_curves.experiment"
    return run_experiment(module, str(folder / "config.yaml"), inputs, folder / "out"), inputs


def trial_folder(out: Path, shape: str) -> Path:
    names = json.loads((out / "artifacts/shapes.json").read_text())
    return out / "artifacts/trials" / names[shape]


def test_an_unchanged_run_passes(judged):
    assert warm.failing(GATE, *judged) == set()


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


@pytest.mark.parametrize("part", ["evaluation", "steps", "adapter_model"])
def test_noise_in_a_single_trial_is_seen_without_comparing_digests(judged, mutant, part):
    warm.change(trial_folder(mutant, "healthy") / f"{part}.safetensors", replace_by_noise)
    assert warm.failing(GATE, mutant, judged[1])


def test_noise_in_each_of_the_arrays_is_seen_by_a_check_of_its_own(judged, mutant):
    for name in ("line", "gradient_products", "repeated_base"):
        warm.change(mutant / f"artifacts/{name}.safetensors", replace_by_noise)
    checks = {
        "test_line_goes_as_far_as_planned",
        "test_products_can_be_those_of_gradients[start]",
        "test_base_on_the_repeated_examples_agrees_with_the_weights",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_better_numbers_than_the_weights_give_are_seen(judged, mutant):
    """Small changes, and digests that match again: only the model can tell."""

    def better_losses(arrays: dict[str, np.ndarray]) -> None:
        arrays["losses"] -= np.float32(0.02)

    def better_lines(arrays: dict[str, np.ndarray]) -> None:
        # the base and the trained model stay: they are compared with the evaluations
        rest = [i for i, alpha in enumerate(arrays["alphas"]) if alpha not in {0.0, 1.0}]
        for run in gate_arrays.RUNS_ALONG_UPDATE:
            arrays[run][rest] -= np.float32(0.02)

    def larger_products(arrays: dict[str, np.ndarray]) -> None:
        for name in arrays:
            arrays[name] *= 1.05

    artifacts = mutant / "artifacts"
    warm.change(artifacts / "trials/base/evaluation.safetensors", better_losses)
    warm.change(artifacts / "repeated_base.safetensors", better_losses)
    warm.change(artifacts / "line.safetensors", better_lines)
    warm.change(artifacts / "gradient_products.safetensors", larger_products)
    warm.forge(mutant)
    checks = {
        "test_evaluation_agrees_with_the_weights[0]",
        "test_base_on_the_repeated_examples_agrees_with_the_weights",
        *(f"test_line_agrees_with_the_weights[{run}]" for run in gate_arrays.RUNS_ALONG_UPDATE),
        "test_products_agree_with_the_weights",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_a_run_under_the_name_of_another_is_seen(judged, mutant):
    path = mutant / "artifacts/shapes.json"
    names = json.loads(path.read_text())
    names["healthy"], names["flat"] = names["flat"], names["healthy"]
    path.write_text(json.dumps(names))
    checks = {f"test_shape_is_the_run_that_the_config_describes[{s}]" for s in ("healthy", "flat")}
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_a_missing_trial_is_seen(judged, mutant):
    next(
        path
        for path in sorted((mutant / "artifacts/trials").iterdir())
        if path.name.endswith("seed2")
    ).rename(mutant / "artifacts/elsewhere")
    assert warm.fails("test_every_trial_is_there_and_no_other", GATE, mutant, judged[1])


def test_evaluation_data_in_the_training_data_is_seen(judged, mutant):
    path = mutant / "artifacts/train.jsonl"
    rows = path.read_text().splitlines()
    rows[3] = (mutant / "artifacts/evaluation.jsonl").read_text().splitlines()[0]
    path.write_text("\n".join(rows) + "\n")
    assert warm.fails("test_no_evaluation_data_in_the_training_data", GATE, mutant, judged[1])


def test_a_changed_cell_of_a_table_or_point_of_a_figure_is_seen(judged, mutant):
    result = json.loads((mutant / "result.json").read_text())
    for table, column in zip(result["tables"], (6, 5, 5, 1), strict=True):
        table["rows"][1][column] *= 1.01
    (mutant / "result.json").write_text(json.dumps(result))
    names = [figure["name"] for figure in result["figures"]]
    for name in names:
        path = mutant / f"figures/{name}.json"
        figure = json.loads(path.read_text())
        figure["series"][0]["y"][1] += 0.01
        path.write_text(json.dumps(figure))
    assert warm.failing(GATE, mutant, judged[1]) == {
        *(f"test_table_follows_from_what_was_stored[{name}]" for name in TABLES),
        *(f"test_figure_shows_what_was_stored[{name}]" for name in names),
    }


@pytest.fixture(scope="module")
def changed_out(judged: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy whose result.json each test overwrites."""
    return Path(shutil.copytree(judged[0], tmp_path_factory.mktemp("changed") / "out"))


@pytest.mark.parametrize("name", gate_arrays.MEASUREMENTS)
def test_a_measurement_changed_alone_is_seen(name, judged, changed_out, monkeypatch):
    monkeypatch.setenv("PHASES_OUT", str(changed_out))
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    original = json.loads((judged[0] / "result.json").read_text())
    value = original["measurements"][name]["value"]

    def fails(new: Any) -> bool:
        changed = copy.deepcopy(original)
        changed["measurements"][name]["value"] = new
        (changed_out / "result.json").write_text(json.dumps(changed))
        try:
            outputs.assert_agrees(name, gate_arrays.measurements()[name])
        except AssertionError:
            return True
        return False

    assert not fails(value), "the original value must pass"
    if isinstance(value, str):
        assert fails(value + "+flat")
    elif isinstance(value, int):
        assert fails(value + 1)
    else:
        assert fails(value * 1.05 or 0.05)
