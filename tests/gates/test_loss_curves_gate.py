"""FEAT-005's gate on a real run of the tiny model: it believes it, and nothing changed in it."""

import copy
import json
import random
import shutil
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from gates.loss_curves import arrays as loss_curves
from gates.shared import outputs
from tests.gates import warm
from tests.gates.conftest import ROOT, run_experiment

GATE = "loss_curves/test_loss_curves.py"


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give the outputs of a run at the planned size, and the file of its inputs."""
    from lab.instruments import models

    folder = tmp_path_factory.mktemp("loss_curves")
    models.save(models.tiny(0), folder / "model")
    draw = random.Random(0)
    words = sorted({"".join(draw.choices(string.ascii_lowercase, k=6)) for _ in range(1700)})
    chats = [
        {"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]}
        for a, b in zip(words[::2], words[1::2], strict=False)
    ]
    (folder / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    config = yaml.safe_load((ROOT / "lab/loss_curves/experiment.yaml").read_text("utf-8"))
    config["common"]["data"] |= {"source": str(folder / "chats.jsonl"), "max_tokens": 80}
    config["common"]["lora"] = {"r": 4, "lora_alpha": 8}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    inputs = folder / "inputs.json"
    inputs.write_text(
        json.dumps({"smollm2-135m": {"kind": "input", "path": str(folder / "model")}})
    )
    module = "lab.loss_curves.experiment"
    return run_experiment(module, str(folder / "config.yaml"), inputs, folder / "out"), inputs


@pytest.fixture
def damaged(judged: tuple[Path, Path], tmp_path: Path) -> Path:
    """Give a copy to damage."""
    return Path(shutil.copytree(judged[0], tmp_path / "copy"))


def change(path: Path, by: Callable[[dict[str, np.ndarray]], Any]) -> None:
    arrays = load_file(path)
    by(arrays)
    save_file(arrays, path)


def trial(out: Path, shape: str) -> Path:
    return out / "artifacts/trials" / json.loads((out / "artifacts/shapes.json").read_text())[shape]


def test_a_true_run_passes(judged):
    assert warm.failing(GATE, *judged) == set()


def test_nothing_at_all_fails_every_measurement(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    names = warm.failing(GATE, tmp_path / "empty", judged[1])
    assert {
        f"test_measurement_follows_from_what_was_stored[{name}]" for name in loss_curves.NAMES
    } < names


def noise(arrays: dict[str, np.ndarray]) -> None:
    draw = np.random.default_rng(0)
    for key, array in arrays.items():
        arrays[key] = (draw.standard_normal(array.shape) * array.std() + array.mean()).astype(
            array.dtype
        )


@pytest.mark.parametrize("part", ["evaluation", "steps", "adapter_model"])
def test_noise_in_a_single_trial_is_seen_without_comparing_digests(judged, damaged, part):
    change(trial(damaged, "healthy") / f"{part}.safetensors", noise)
    assert warm.failing(GATE, damaged, judged[1])


def test_noise_in_each_of_the_arrays_is_seen_by_a_check_of_its_own(judged, damaged):
    for name in ("line", "gradient_products", "repeated_base"):
        change(damaged / f"artifacts/{name}.safetensors", noise)
    assert {
        "test_line_goes_as_far_as_planned",
        "test_products_can_be_those_of_gradients[start]",
        "test_base_on_the_repeated_examples_agrees_with_the_weights",
    } <= warm.failing(GATE, damaged, judged[1])


def test_better_numbers_than_the_weights_give_are_seen(judged, damaged):
    """Small changes, and the digests made right again: only the model can tell."""

    def better_losses(arrays: dict[str, np.ndarray]) -> None:
        arrays["losses"] -= np.float32(0.02)

    def better_lines(arrays: dict[str, np.ndarray]) -> None:
        # its two known points stay
        rest = [i for i, t in enumerate(arrays["at"]) if t not in {0.0, 1.0}]
        for run in loss_curves.LINES:
            arrays[run][rest] -= np.float32(0.02)

    def larger_products(arrays: dict[str, np.ndarray]) -> None:
        for name in arrays:
            arrays[name] *= 1.05

    artifacts = damaged / "artifacts"
    change(artifacts / "trials/base/evaluation.safetensors", better_losses)
    change(artifacts / "repeated_base.safetensors", better_losses)
    change(artifacts / "line.safetensors", better_lines)
    change(artifacts / "gradient_products.safetensors", larger_products)
    warm.forge(damaged)
    assert {
        "test_evaluation_agrees_with_the_weights[0]",
        "test_base_on_the_repeated_examples_agrees_with_the_weights",
        *(f"test_line_agrees_with_the_weights[{run}]" for run in loss_curves.LINES),
        "test_products_agree_with_the_weights",
    } <= warm.failing(GATE, damaged, judged[1])


def test_a_run_under_the_name_of_another_is_seen(judged, damaged):
    path = damaged / "artifacts/shapes.json"
    names = json.loads(path.read_text())
    names["healthy"], names["flat"] = names["flat"], names["healthy"]
    path.write_text(json.dumps(names))
    assert {
        f"test_shape_is_the_run_that_the_config_describes[{s}]" for s in ("healthy", "flat")
    } <= warm.failing(GATE, damaged, judged[1])


def test_a_missing_trial_is_seen(judged, damaged):
    next(
        path
        for path in sorted((damaged / "artifacts/trials").iterdir())
        if path.name.endswith("seed2")
    ).rename(damaged / "artifacts/elsewhere")
    assert "test_every_trial_is_there_and_no_other" in warm.failing(GATE, damaged, judged[1])


def test_evaluation_data_in_the_training_data_is_seen(judged, damaged):
    place = damaged / "artifacts/train.jsonl"
    rows = place.read_text().splitlines()
    rows[3] = (damaged / "artifacts/evaluation.jsonl").read_text().splitlines()[0]
    place.write_text("\n".join(rows) + "\n")
    assert "test_no_evaluation_data_in_the_training_data" in warm.failing(GATE, damaged, judged[1])


def test_a_changed_cell_of_a_table_or_point_of_a_figure_is_seen(judged, damaged):
    told = json.loads((damaged / "result.json").read_text())
    for table, column in zip(told["tables"], (6, 5, 5, 1), strict=True):
        table["rows"][1][column] *= 1.01
    (damaged / "result.json").write_text(json.dumps(told))
    names = [figure["name"] for figure in told["figures"]]
    for name in names:
        path = damaged / f"figures/{name}.json"
        shown = json.loads(path.read_text())
        shown["series"][0]["y"][1] += 0.01
        path.write_text(json.dumps(shown))
    assert warm.failing(GATE, damaged, judged[1]) == {
        *(f"test_table_follows_from_what_was_stored[{place}]" for place in range(4)),
        *(f"test_figure_shows_what_was_stored[{name}]" for name in names),
    }


@pytest.fixture(scope="module")
def place(judged: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy whose result.json is changed again and again."""
    return Path(shutil.copytree(judged[0], tmp_path_factory.mktemp("changed") / "out"))


@pytest.mark.parametrize("name", loss_curves.NAMES)
def test_a_measurement_changed_alone_is_seen(name, judged, place, monkeypatch):
    monkeypatch.setenv("PHASES_OUT", str(place))
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    true = json.loads((judged[0] / "result.json").read_text())
    value = true["measurements"][name]["value"]

    def seen(new: Any) -> bool:
        changed = copy.deepcopy(true)
        changed["measurements"][name]["value"] = new
        (place / "result.json").write_text(json.dumps(changed))
        try:
            outputs.assert_agrees(name, loss_curves.numbers()[name])
        except AssertionError:
            return True
        return False

    assert not seen(value), "the true value must pass"
    if isinstance(value, str):
        assert seen(value + "+flat")
    elif isinstance(value, int):
        assert seen(value + 1)
    else:
        assert seen(value * 1.05 or 0.05)
