"""The gate of FEAT-001 on a true run of the tiny model, and on mutants and forgeries of it.

The tiny model is random, so nothing can follow from its prompts: the one check that its run must
fail is the one that expects a gain over the control. All others pass, and each kind of mutant is
killed by the check that is made for it.
"""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from gates.qlora import arrays
from gates.qlora import measurements as gate
from gates.shared import outputs
from tests.gates import warm
from tests.gates.conftest import ROOT, run_experiment, write_chats

GATE = "qlora/test_qlora.py"
NEEDS_A_REAL_MODEL = {"test_run_beats_its_control"}
MEASUREMENTS = (*gate.RECOMPUTED, *gate.BOUNDED)


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the outputs of a run on the tiny model at the planned size, and its file of inputs."""
    from lab.instruments import models

    folder = tmp_path_factory.mktemp("qlora")
    models.save(models.tiny(0), folder / "model")
    config = yaml.safe_load((ROOT / "lab/qlora/experiment.yaml").read_text("utf-8"))
    config["common"]["data"] |= {"source": str(write_chats(folder)), "max_tokens": 80}
    config["common"]["lora"] = {"r": 4, "lora_alpha": 8}
    config["common"]["training"]["learning_rate"] = 0.001
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    inputs = folder / "inputs.json"
    inputs.write_text(
        json.dumps({"smollm2-135m": {"kind": "input", "path": str(folder / "model")}})
    )
    return run_experiment(
        "lab.qlora.experiment", str(folder / "config.yaml"), inputs, folder / "out"
    ), inputs


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_true_run_passes_but_for_what_a_random_model_cannot_learn(judged):
    assert warm.failing_in_new_process(GATE, *judged) == NEEDS_A_REAL_MODEL


def test_nothing_at_all_fails_every_check(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    names = warm.failing(GATE, tmp_path / "empty", judged[1])
    assert {
        f"test_measurement_follows_from_what_was_stored[{name}]" for name in gate.RECOMPUTED
    } < names
    assert "test_run_beats_its_control" in names


@pytest.mark.parametrize(
    "name", ["evaluation", "training", "quantisation", "adapter_true/adapter_model"]
)
def test_noise_in_the_arrays_is_seen_without_comparing_digests(judged, mutant, name):
    path = mutant / f"artifacts/{name}.safetensors"
    draw = np.random.default_rng(0)
    noise = {}
    for key, tensor in load_file(path).items():
        normal = draw.standard_normal(tensor.shape) * tensor.std() + tensor.mean()
        noise[key] = normal.astype(tensor.dtype)
    save_file(noise, path)
    assert warm.failing(GATE, mutant, judged[1]) - NEEDS_A_REAL_MODEL


@pytest.mark.parametrize(
    ("evaluation", "check"),
    [
        ("true", "test_evaluation_agrees_with_the_weights[true]"),
        ("base", "test_evaluation_agrees_with_the_weights[base]"),
    ],
)
def test_better_losses_than_the_weights_give_are_seen(judged, mutant, evaluation, check):
    path = mutant / "artifacts/evaluation.safetensors"
    tensors = load_file(path)
    tensors[f"{evaluation}.losses"] -= np.float32(0.02)
    save_file(tensors, path)
    warm.forge(mutant)
    assert warm.fails(check, GATE, mutant, judged[1])


def test_an_adapter_that_was_not_trained_is_seen(judged, mutant):
    folder, file = mutant / "artifacts", "adapter_model.safetensors"
    shutil.copy(folder / "adapter_initial" / file, folder / "adapter_true" / file)
    warm.forge(mutant)
    checks = {
        "test_training_began_at_the_base_and_moved_every_layer",
        "test_evaluation_agrees_with_the_weights[true]",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_evaluation_data_in_the_training_data_is_seen(judged, mutant):
    leak = json.loads((mutant / "artifacts/evaluation.jsonl").read_text().splitlines()[0])
    rewrite(mutant / "artifacts/train.jsonl", lambda rows: rows.__setitem__(3, leak))
    assert warm.fails("test_no_evaluation_data_in_the_training_data", GATE, mutant, judged[1])


def test_a_control_that_is_not_shuffled_is_seen(judged, mutant):
    shutil.copy(mutant / "artifacts/train.jsonl", mutant / "artifacts/control.jsonl")
    check = "test_control_has_the_same_prompts_and_answers_otherwise_assigned"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_a_loss_on_the_prompt_is_seen(judged, mutant):
    rewrite(
        mutant / "artifacts/train.jsonl",
        lambda rows: [
            row.__setitem__("labels", [row["ids"][0], *row["labels"][1:]]) for row in rows
        ],
    )
    check = "test_loss_counts_the_answer_and_nothing_else[train]"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_an_answer_that_was_not_decoded_greedily_is_seen(judged, mutant):
    path = mutant / "artifacts/generations.json"
    generations = json.loads(path.read_text())
    generations[0]["after"][0] = (generations[0]["after"][0] + 1) % 200 + 3
    path.write_text(json.dumps(generations))
    warm.forge(mutant)
    assert warm.fails("test_answers_are_greedy[after]", GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("field", "value"), [("index", 1000), ("tokens", 1), ("supervised", 1), ("logits", 1)]
)
def test_another_batch_than_the_widest_is_seen(judged, mutant, field, value):
    path = mutant / "artifacts/memory.json"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {field: value}))
    warm.forge(mutant)
    assert warm.fails("test_activations_are_possible", GATE, mutant, judged[1])


def test_other_activations_than_those_stored_are_seen(judged, mutant):
    path = mutant / "artifacts/memory.json"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"activations": entry["activations"][1:]}))
    warm.forge(mutant)
    check = "test_measurement_follows_from_what_was_stored[memory_activations]"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_activations_that_fit_the_sum_but_not_the_model_are_seen(judged, mutant):
    path = mutant / "artifacts/memory.json"
    entry = json.loads(path.read_text())
    total = sum(entry["activations"])
    path.write_text(json.dumps(entry | {"activations": [100]}))
    result = json.loads((mutant / "result.json").read_text())
    result["measurements"]["memory_activations"]["value"] = 100
    result["measurements"]["memory_other"]["value"] += total - 100
    (mutant / "result.json").write_text(json.dumps(result))
    warm.forge(mutant)
    assert warm.fails("test_activations_are_possible", GATE, mutant, judged[1])


@pytest.fixture(scope="module")
def copied(judged: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy whose result.json is changed by each test."""
    return Path(shutil.copytree(judged[0], tmp_path_factory.mktemp("changed") / "out"))


def is_killed(name: str) -> bool:
    """Return whether a check fails on result.json as it is now.

    In this process, as each check takes milliseconds.
    """
    checks = [
        gate.assert_weights_have_their_shapes,
        gate.assert_memory_adds_up,
        gate.assert_memory_is_possible,
        gate.assert_activations_are_possible,
    ]
    if name in gate.RECOMPUTED:
        checks.append(lambda: outputs.assert_agrees(name, arrays.measurements()[name]))
    for check in checks:
        try:
            check()
        except AssertionError:
            return True
    return False


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_changed_alone_is_seen(name, judged, copied, monkeypatch):
    monkeypatch.setenv("PHASES_OUT", str(copied))
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    result = json.loads((judged[0] / "result.json").read_text())
    value = result["measurements"][name]["value"]
    is_count = isinstance(value, int)

    def killed_with(new: float) -> bool:
        changed = copy.deepcopy(result)
        if is_count:
            new = round(new)
        changed["measurements"][name]["value"] = new
        (copied / "result.json").write_text(json.dumps(changed))
        return is_killed(name)

    assert not killed_with(value), "the true value must pass"
    assert killed_with(10 * value + 1)
    assert killed_with(-10 * value - 1)
    small = value * 1.05 or 0.05
    if is_count:
        small = max(value * 1.05, value + 1)
    assert killed_with(small)
