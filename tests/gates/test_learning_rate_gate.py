"""FEAT-006's gate on a real sweep of the tiny model: it believes it, and nothing changed in it."""

import copy
import json
import random
import shutil
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from gates.learning_rate import arrays as learning_rates
from gates.shared import outputs
from tests.gates import warm
from tests.gates.conftest import ROOT, run_experiment

GATE = "learning_rate/test_learning_rate.py"
SMALLEST = "r16-a32-lr1e-05-b8-s20-n160-seed0"  # the run at the smallest rate
NEEDS_A_REAL_MODEL = {"test_true_answers_beat_shuffled_ones"}


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give the outputs of a sweep as planned that took six runs over, and its file of inputs."""
    folder = tmp_path_factory.mktemp("learning_rates")
    config = yaml.safe_load((ROOT / "lab/learning_rate/experiment.yaml").read_text("utf-8"))
    config["common"]["data"] |= {"source": str(chats(folder)), "max_tokens": 80}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    earlier(folder, config["common"])
    entries = {
        "smollm2-135m": {"kind": "input", "path": str(folder / "model")},
        "FEAT-005": {"kind": "feature", "path": str(folder / "FEAT-005"), "receipt": "sha256:00"},
    }
    inputs = folder / "inputs.json"
    inputs.write_text(json.dumps(entries))
    module = "lab.learning_rate.experiment"
    return run_experiment(module, str(folder / "config.yaml"), inputs, folder / "out"), inputs


def chats(folder: Path) -> Path:
    draw = random.Random(0)
    words = sorted({"".join(draw.choices(string.ascii_lowercase, k=6)) for _ in range(1700)})
    lines = [
        {"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]}
        for a, b in zip(words[::2], words[1::2], strict=False)
    ]
    (folder / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "chats.jsonl"


def earlier(folder: Path, config: dict) -> None:
    """Freeze the data and run two of the rates, as the track's first feature does."""
    from lab.instruments import data, models, trials
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings

    model, artifacts, sizes = models.tiny(0), folder / "FEAT-005/artifacts", config["data"]
    models.save(model, folder / "model")
    pool = data.load(sizes["source"], model.tokenizer, max_tokens=sizes["max_tokens"])
    drawn = data.split(pool, train=sizes["train"], evaluation=sizes["evaluation"])
    artifacts.mkdir(parents=True)
    data.freeze(artifacts / "train.jsonl", drawn.train)
    data.freeze(artifacts / "evaluation.jsonl", drawn.evaluation)
    frozen = [artifacts / f"{kind}.jsonl" for kind in ("train", "evaluation")]
    sweep_context = trials.SweepContext(folder / "model", *frozen, "float32", "cpu", sizes["curve"])
    trials.base(sweep_context, artifacts)
    wanted = [
        trials.Trial(
            seed,
            Settings(**config["training"] | {"learning_rate": rate}),
            LoraSettings(16, 32),
            160,
        )
        for rate in (2e-4, 1e-3)
        for seed in config["seeds"]
    ]
    trials.run(wanted, sweep_context, artifacts, workers=1)


@pytest.fixture
def damaged(judged: tuple[Path, Path], tmp_path: Path) -> Path:
    """Give a copy to damage."""
    return Path(shutil.copytree(judged[0], tmp_path / "copy"))


def own(out: Path) -> list[Path]:
    return sorted((out / "artifacts/trials").iterdir())


def change(path: Path, by: Callable[[dict[str, np.ndarray]], None]) -> None:
    arrays = load_file(path)
    by(arrays)
    save_file(arrays, path)


def test_six_runs_were_taken_over_and_the_others_run(judged):
    told = json.loads((judged[0] / "result.json").read_text())["environment"]
    assert told["taken_over"] == 6
    assert len(own(judged[0])) == 18


def test_a_true_sweep_passes_but_for_what_a_random_model_cannot_learn(judged):
    assert warm.failing(GATE, *judged) <= NEEDS_A_REAL_MODEL


def test_nothing_at_all_fails_every_check(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    names = warm.failing(GATE, tmp_path / "empty", judged[1])
    assert {
        f"test_measurement_follows_from_what_was_stored[{name}]"
        for name in learning_rates.RECOMPUTED
    } < names


def test_noise_in_one_run_is_seen_without_comparing_digests(judged, damaged):
    """In each of its files, and by a check of its own, whether the nonce draws this run or not."""
    draw = np.random.default_rng(0)

    def noise(arrays: dict[str, np.ndarray]) -> None:
        for name, t in arrays.items():
            if t.size:
                arrays[name] = (draw.standard_normal(t.shape) * t.std() + t.mean()).astype(t.dtype)

    for part in ("steps", "evaluation", "adapter_model"):
        change(damaged / "artifacts/trials" / SMALLEST / f"{part}.safetensors", noise)
    names = warm.failing(GATE, damaged, judged[1])
    assert {
        "test_every_run_is_whole",
        "test_measurement_follows_from_what_was_stored[eval_loss_r16_lr1e_5]",
        "test_adapters_moved_as_far_as_their_rates_allow",
    } <= names


def test_better_losses_than_the_weights_give_are_seen(judged, damaged):
    for folder in own(damaged):
        change(
            folder / "evaluation.safetensors",
            lambda a: a.update(losses=a["losses"] - np.float32(0.02)),
        )
    warm.forge(damaged)
    assert "test_evaluations_agree_with_the_weights" in warm.failing(GATE, damaged, judged[1])


def test_curves_that_nobody_trained_are_seen(judged, damaged):
    for folder in own(damaged):
        change(folder / "steps.safetensors", lambda a: a.update(loss=a["loss"] * 0.97))
    warm.forge(damaged)
    assert "test_first_steps_of_a_run_were_made" in warm.failing(GATE, damaged, judged[1])


def test_a_run_at_a_larger_rate_than_it_claims_is_seen(judged, damaged):
    large = SMALLEST.replace("1e-05", "0.005")
    for part in ("adapter_model.safetensors", "evaluation.safetensors"):
        shutil.copy(
            damaged / "artifacts/trials" / large / part,
            damaged / "artifacts/trials" / SMALLEST / part,
        )
    warm.forge(damaged)
    names = warm.failing(GATE, damaged, judged[1])
    assert "test_adapters_moved_as_far_as_their_rates_allow" in names
    assert "test_every_run_has_an_adapter_of_its_own" in names


def test_a_run_that_was_left_out_is_seen(judged, damaged):
    shutil.rmtree(own(damaged)[0])
    assert "test_runs_are_those_of_the_plan" in warm.failing(GATE, damaged, judged[1])


def test_another_schedule_than_the_plan_is_seen(judged, damaged):
    place = own(damaged)[0] / "trial.json"
    place.write_text(place.read_text().replace('"warmup_steps": 2', '"warmup_steps": 0'))
    warm.forge(damaged)
    names = warm.failing(GATE, damaged, judged[1])
    assert {"test_runs_are_those_of_the_plan", "test_every_run_is_whole"} <= names


def test_every_cell_and_every_point_is_judged(judged, damaged, monkeypatch):
    """Each number of the tables and figures, changed alone by 5 %.

    In this process, as each takes milliseconds.
    """
    monkeypatch.setenv("PHASES_OUT", str(judged[0]))
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    again = learning_rates.found()
    tables = json.loads((damaged / "result.json").read_text())["tables"]
    for table, right in zip(tables, again["tables"], strict=True):
        assert outputs.same(table["rows"], right, 1e-5)
        for row, wanted in zip(table["rows"], right, strict=True):
            for i, cell in enumerate(row):
                other = f"{cell}!" if isinstance(cell, str) else (cell or 1) * 1.05
                assert not outputs.same([*row[:i], other, *row[i + 1 :]], wanted, 1e-5)
    for name, right in again["figures"].items():
        for series, (_, y) in zip(
            json.loads((damaged / f"figures/{name}.json").read_text())["series"], right, strict=True
        ):
            assert outputs.same(series["y"], y, 1e-5)


@pytest.fixture(scope="module")
def place(judged: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy whose result.json is changed again and again."""
    return Path(shutil.copytree(judged[0], tmp_path_factory.mktemp("changed") / "out"))


@pytest.mark.parametrize("name", learning_rates.RECOMPUTED)
def test_a_measurement_changed_alone_is_seen(name, judged, place, monkeypatch):
    monkeypatch.setenv("PHASES_OUT", str(place))
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    true = json.loads((judged[0] / "result.json").read_text())
    (place / "result.json").write_text(json.dumps(true))
    wanted = learning_rates.found()["numbers"][name]
    outputs.assert_agrees(name, wanted)
    value = true["measurements"][name]["value"]
    changed = copy.deepcopy(true)
    small = value + 1 if isinstance(value, int) else (value or 1) * 1.05
    changed["measurements"][name]["value"] = small
    (place / "result.json").write_text(json.dumps(changed))
    with pytest.raises(AssertionError, match=name):
        outputs.assert_agrees(name, wanted)
