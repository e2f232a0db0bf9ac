"""FEAT-008's gate on the tiny model with all items: it passes an honest run and no changed one."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from gates.forgetting import arrays as forgetting
from gates.shared import outputs
from tests.gates import warm
from tests.gates.conftest import ROOT, run_experiment

GATE = "forgetting/test_forgetting.py"


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the outputs of a run at the planned size on the tiny model, and its file of inputs."""
    from lab.instruments import models

    folder = tmp_path_factory.mktemp("forgetting")
    models.save(models.tiny(0), folder / "model")
    config = yaml.safe_load((ROOT / "lab/forgetting/experiment.yaml").read_text("utf-8"))
    config["common"]["data"] |= {
        "source": str(chats(folder)),
        "max_tokens": 80,
        "train": 40,
        "evaluation": 24,
    }
    config["common"]["training"] |= {"steps": 4, "warmup_steps": 1}
    config["common"]["examples"] = 32
    config["common"]["intruders"]["blocks"] = [0, 1]
    config["profiles"]["cpu"]["workers"] = 1  # the workers of a small sweep do little but start
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    inputs = folder / "inputs.json"
    inputs.write_text(
        json.dumps({"smollm2-135m": {"kind": "input", "path": str(folder / "model")}})
    )
    module = "lab.forgetting.experiment"
    return run_experiment(module, str(folder / "config.yaml"), inputs, folder / "out"), inputs


def chats(folder: Path) -> Path:
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"{i:03}"},
                {"role": "assistant", "content": f"answer {i}"},
            ]
        }
        for i in range(200)
    ]
    (folder / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "chats.jsonl"


def change_scores(out: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    path = out / forgetting.SCORES
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)
    warm.forge(out)


def rewrite(out: Path, file: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    path = out / file
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    warm.forge(out)


def test_a_true_run_passes(judged):
    assert warm.failing_in_new_process(GATE, *judged) == set()


def test_nothing_at_all_fails_every_number(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    names = warm.failing(GATE, tmp_path / "empty", judged[1])
    assert {
        f"test_measurement_follows_from_what_was_stored[{name}]" for name in forgetting.RECOMPUTED
    } < names


def test_likelihoods_that_the_weights_do_not_give_are_seen(judged, mutant):
    def better(arrays):
        for name in arrays:
            if name.endswith("log_likelihoods"):
                # of all choices alike: no margin and no accuracy moves much
                arrays[name] += np.float32(0.1)

    change_scores(mutant, better)
    assert warm.fails("test_stored_scores_agree_with_the_weights", GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("part", "check"),
    [
        ("norms", "test_norms_agree_with_the_adapters"),
        ("similarities", "test_similarities_agree_with_the_weights"),
        ("divergences", "test_stored_scores_agree_with_the_weights"),
        ("losses", "test_stored_scores_agree_with_the_weights"),
    ],
)
def test_noise_in_one_kind_of_array_is_seen_without_comparing_digests(judged, mutant, part, check):
    draw = np.random.default_rng(0)

    def noise(arrays):
        for name, t in arrays.items():
            if name.endswith(part):
                arrays[name] = (t + np.abs(draw.standard_normal(t.shape))).astype(t.dtype)

    change_scores(mutant, noise)
    assert warm.fails(check, GATE, mutant, judged[1])


def test_the_base_in_place_of_an_adapter_is_seen(judged, mutant):
    def nothing_forgotten(arrays):
        for name in list(arrays):
            if not name.startswith("base."):
                arrays[name] = arrays[f"base.{name.rpartition('.')[2]}"].copy()

    change_scores(mutant, nothing_forgotten)
    assert warm.fails("test_norms_agree_with_the_adapters", GATE, mutant, judged[1])


def test_text_that_the_base_did_not_write_is_seen(judged, mutant):
    def other(rows):
        for row in rows:
            row["ids"] = row["ids"][: -row["drawn"]] + [3 + i % 5 for i in range(row["drawn"])]

    rewrite(mutant, forgetting.TEXT, other)
    checks = {"test_the_text_is_what_the_base_says", "test_stored_scores_agree_with_the_weights"}
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_a_wrong_answer_is_seen(judged, mutant):
    rewrite(
        mutant,
        "artifacts/suites/lab_math.jsonl",
        lambda rows: rows[7].update(gold=(rows[7]["gold"] + 1) % 4),
    )
    assert warm.fails("test_items_are_what_they_claim", GATE, mutant, judged[1])


def test_adapters_that_changed_their_names_are_seen(judged, mutant):
    path = mutant / forgetting.MODELS
    document = json.loads(path.read_text())
    one, two = list(document["models"])[:2]
    models = document["models"]
    models[one], models[two] = models[two], models[one]
    path.write_text(json.dumps(document))
    assert warm.fails("test_adapters_are_the_trials_that_the_config_names", GATE, mutant, judged[1])


@pytest.mark.parametrize("name", ["frontier", "divergence", "suites"])
def test_a_figure_of_other_numbers_is_seen(judged, mutant, name):
    path = mutant / f"figures/{name}.json"
    figure = json.loads(path.read_text())
    figure["series"][0]["y"][0] += 0.01
    path.write_text(json.dumps(figure))
    assert warm.fails(f"test_figure_shows_the_numbers[{name}]", GATE, mutant, judged[1])


def test_a_changed_table_and_a_changed_sentence_are_seen(judged, mutant):
    path = mutant / "result.json"
    document = json.loads(path.read_text())
    document["tables"][0]["rows"][2][4] *= 1.01
    document["findings"] = [line.replace("none.", "r16 5e-3.") for line in document["findings"]][
        :-1
    ]
    path.write_text(json.dumps(document))
    checks = {
        "test_table_follows_from_what_was_stored[0]",
        "test_sentences_name_what_the_numbers_say",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


@pytest.mark.parametrize("name", forgetting.RECOMPUTED)
def test_a_measurement_changed_alone_is_seen(name, judged, monkeypatch, tmp_path):
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    monkeypatch.setenv("PHASES_OUT", str(judged[0]))
    expected = forgetting.recomputed()["numbers"][name]
    outputs.assert_agrees(name, expected)
    true = json.loads((judged[0] / "result.json").read_text())
    value = true["measurements"][name]["value"]
    monkeypatch.setenv("PHASES_OUT", str(tmp_path))
    for other in (value * 1.05 or 0.05, value * 0.95 or -0.05, 10 * value + 1):
        changed = copy.deepcopy(true)
        changed["measurements"][name]["value"] = other
        (tmp_path / "result.json").write_text(json.dumps(changed))
        with pytest.raises(AssertionError):
            outputs.assert_agrees(name, expected)
