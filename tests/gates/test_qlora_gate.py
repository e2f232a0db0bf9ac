"""The gate of FEAT-001 on a true run of the tiny model, and on damaged and forged copies of it.

The tiny model is random, so nothing can follow from its prompts: the one check that its run must
fail is the one that asks for a gain over the control. All others pass, and each kind of damage is
seen by the check that is made for it.
"""

import copy
import hashlib
import json
import os
import random
import shutil
import string
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from gates.qlora import arrays as qlora_arrays
from gates.qlora import measurements as gate
from gates.shared import outputs
from tests.gates.conftest import INI, ROOT, run_experiment

NEEDS_A_REAL_MODEL = {"test_run_beats_its_control"}
MEASUREMENTS = (*gate.RECOMPUTED, *gate.BOUNDED)


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give the outputs of a run on the tiny model at the planned size, and its file of inputs."""
    from lab.instruments import models

    folder = tmp_path_factory.mktemp("qlora")
    models.save(models.tiny(0), folder / "model")
    draw = random.Random(0)
    words = sorted({"".join(draw.choices(string.ascii_lowercase, k=6)) for _ in range(1700)})
    chats = [
        {"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]}
        for a, b in zip(words[::2], words[1::2], strict=False)
    ]
    (folder / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    config = yaml.safe_load((ROOT / "lab/qlora/experiment.yaml").read_text("utf-8"))
    config["common"]["data"] |= {"source": str(folder / "chats.jsonl"), "max_tokens": 80}
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


@pytest.fixture
def damaged(judged: tuple[Path, Path], tmp_path: Path) -> Path:
    """Give a copy to damage."""
    return Path(shutil.copytree(judged[0], tmp_path / "copy"))


def failing(out: Path, inputs: Path) -> list[str]:
    """Give the checks that fail without those of integrity.

    The gate's cache is kept from one copy to the next.
    """
    place = inputs.parent
    (place / "cache").mkdir(exist_ok=True)
    (place / "gate.ini").write_text(INI)
    files = [path for path in out.rglob("*") if path.is_file()]
    digests = {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
    (place / "digests.json").write_text(json.dumps(digests))
    report = place / "report.xml"
    argv = [
        sys.executable,
        "-m",
        "pytest",
        str(ROOT / "gates/qlora/test_qlora.py"),
        "-c",
        str(place / "gate.ini"),
    ]
    argv += [
        "--rootdir",
        str(ROOT),
        "--noconftest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
    ]
    env = {
        "PHASES_OUT": str(out),
        "PHASES_INPUTS": str(inputs),
        "PHASES_NONCE": "01",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    env |= {
        "PHASES_GATE_CACHE": str(place / "cache"),
        "PHASES_DIGESTS": str(place / "digests.json"),
    }
    done = subprocess.run(
        [*argv, "-m", "not integrity"],
        cwd=out,
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    cases = list(ET.parse(report).iter("testcase"))
    return [
        case.get("name", "")
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]


def forge(out: Path) -> None:
    """Make result.json's digests right again, as one who forges an output would."""
    result = json.loads((out / "result.json").read_text())
    result["files"] = {
        name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in result["files"]
    }
    (out / "result.json").write_text(json.dumps(result))


def unmarked(names: list[str]) -> set[str]:
    return {name.partition("[")[0] for name in names}


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_true_run_passes_but_for_what_a_random_model_cannot_learn(judged):
    assert unmarked(failing(*judged)) == NEEDS_A_REAL_MODEL


def test_nothing_at_all_fails_every_check(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    names = failing(tmp_path / "empty", judged[1])
    assert {
        f"test_measurement_follows_from_what_was_stored[{name}]" for name in gate.RECOMPUTED
    } < set(names)
    assert "test_run_beats_its_control" in names


@pytest.mark.parametrize(
    "name", ["evaluation", "training", "quantisation", "adapter_true/adapter_model"]
)
def test_noise_in_the_arrays_is_seen_without_comparing_digests(judged, damaged, name):
    path = damaged / f"artifacts/{name}.safetensors"
    draw = np.random.default_rng(0)
    tensors = load_file(path)
    noise = {
        k: (draw.standard_normal(t.shape) * t.std() + t.mean()).astype(t.dtype)
        for k, t in tensors.items()
    }
    save_file(noise, path)
    assert set(failing(damaged, judged[1])) - NEEDS_A_REAL_MODEL


@pytest.mark.parametrize(
    ("of", "check"),
    [
        ("true", "test_evaluation_agrees_with_the_weights[true]"),
        ("base", "test_evaluation_agrees_with_the_weights[base]"),
    ],
)
def test_better_losses_than_the_weights_give_are_seen(judged, damaged, of, check):
    path = damaged / "artifacts/evaluation.safetensors"
    arrays = load_file(path)
    arrays[f"{of}.losses"] -= np.float32(0.02)
    save_file(arrays, path)
    forge(damaged)
    assert check in failing(damaged, judged[1])


def test_an_adapter_that_was_not_trained_is_seen(judged, damaged):
    folder, file = damaged / "artifacts", "adapter_model.safetensors"
    shutil.copy(folder / "adapter_initial" / file, folder / "adapter_true" / file)
    forge(damaged)
    names = failing(damaged, judged[1])
    assert "test_training_began_at_the_base_and_moved_every_layer" in names
    assert "test_evaluation_agrees_with_the_weights[true]" in names


def test_evaluation_data_in_the_training_data_is_seen(judged, damaged):
    leak = json.loads((damaged / "artifacts/evaluation.jsonl").read_text().splitlines()[0])
    rewrite(damaged / "artifacts/train.jsonl", lambda rows: rows.__setitem__(3, leak))
    assert "test_no_evaluation_data_in_the_training_data" in failing(damaged, judged[1])


def test_a_control_that_is_not_shuffled_is_seen(judged, damaged):
    shutil.copy(damaged / "artifacts/train.jsonl", damaged / "artifacts/control.jsonl")
    names = failing(damaged, judged[1])
    assert "test_control_has_the_same_prompts_and_answers_otherwise_assigned" in names


def test_a_loss_on_the_prompt_is_seen(judged, damaged):
    rewrite(
        damaged / "artifacts/train.jsonl",
        lambda rows: [
            row.__setitem__("labels", [row["ids"][0], *row["labels"][1:]]) for row in rows
        ],
    )
    names = failing(damaged, judged[1])
    assert "test_loss_counts_the_answer_and_nothing_else[train]" in names


def test_an_answer_that_was_not_decoded_greedily_is_seen(judged, damaged):
    path = damaged / "artifacts/generations.json"
    spoken = json.loads(path.read_text())
    spoken[0]["after"][0] = (spoken[0]["after"][0] + 1) % 200 + 3
    path.write_text(json.dumps(spoken))
    forge(damaged)
    assert "test_answers_are_greedy[after]" in failing(damaged, judged[1])


@pytest.fixture(scope="module")
def place(judged: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy whose result.json is changed again and again."""
    return Path(shutil.copytree(judged[0], tmp_path_factory.mktemp("changed") / "out"))


def caught(name: str) -> bool:
    """Say whether a check sees result.json as it stands.

    In this process, as each check takes milliseconds.
    """
    checks = [
        gate.assert_weights_have_their_shapes,
        gate.assert_memory_adds_up,
        gate.assert_memory_is_possible,
    ]
    if name in gate.RECOMPUTED:
        checks.append(lambda: outputs.assert_agrees(name, qlora_arrays.numbers()[name]))
    for check in checks:
        try:
            check()
        except AssertionError:
            return True
    return False


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_a_measurement_changed_alone_is_seen(name, judged, place, monkeypatch):
    monkeypatch.setenv("PHASES_OUT", str(place))
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    true = json.loads((judged[0] / "result.json").read_text())
    value = true["measurements"][name]["value"]
    whole = isinstance(value, int)

    def seen(new: float) -> bool:
        changed = copy.deepcopy(true)
        changed["measurements"][name]["value"] = round(new) if whole else new
        (place / "result.json").write_text(json.dumps(changed))
        return caught(name)

    assert not seen(value), "the true value must pass"
    assert seen(10 * value + 1) and seen(-10 * value - 1)
    small = max(value * 1.05, value + 1) if whole else value * 1.05 or 0.05
    # nothing tells a second time how much the process held before it loaded a model
    assert seen(small) or name == "memory_process"
