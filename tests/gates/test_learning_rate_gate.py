"""FEAT-006's gate on a real sweep of the tiny model: it passes, and every mutant fails."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from gates.learning_rate import arrays
from gates.shared import outputs
from tests.gates import warm
from tests.gates.conftest import ROOT, run_experiment, write_chats

GATE = "learning_rate/test_learning_rate.py"
SMALLEST = "r16-a32-lr1e-05-b8-s20-n160-seed0"  # the run at the smallest rate
NEEDS_A_REAL_MODEL = {"test_true_answers_beat_shuffled_ones"}


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the outputs of a sweep that took six trials over, and its file of inputs."""
    folder = tmp_path_factory.mktemp("learning_rates")
    config = yaml.safe_load((ROOT / "lab/learning_rate/experiment.yaml").read_text("utf-8"))
    config["common"]["data"] |= {"source": str(write_chats(folder)), "max_tokens": 80}
    config["profiles"]["cpu"]["workers"] = 1  # the workers of a small sweep do little but start
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    run_earlier_feature(folder, config["common"])
    entries = {
        "smollm2-135m": {"kind": "input", "path": str(folder / "model")},
        "FEAT-005": {"kind": "feature", "path": str(folder / "FEAT-005"), "receipt": "sha256:00"},
    }
    inputs = folder / "inputs.json"
    inputs.write_text(json.dumps(entries))
    module = "lab.learning_rate.experiment"
    return run_experiment(module, str(folder / "config.yaml"), inputs, folder / "out"), inputs


def run_earlier_feature(folder: Path, config: dict) -> None:
    """Store the data and run two of the rates, as FEAT-005 does."""
    from lab.instruments import data, models, trials
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings

    # 1. The model and the data.
    model = models.tiny(0)
    models.save(model, folder / "model")
    sizes = config["data"]
    pool = data.load(sizes["source"], model.tokenizer, max_tokens=sizes["max_tokens"])
    sets = data.split(pool, train=sizes["train"], evaluation=sizes["evaluation"])
    artifacts = folder / "FEAT-005/artifacts"
    artifacts.mkdir(parents=True)
    data.write_examples(artifacts / "train.jsonl", sets.train)
    data.write_examples(artifacts / "evaluation.jsonl", sets.evaluation)

    # 2. The base and six trials.
    sweep_context = trials.SweepContext(
        model=folder / "model",
        train=artifacts / "train.jsonl",
        evaluation=artifacts / "evaluation.jsonl",
        dtype="float32",
        device="cpu",
        curve=sizes["curve"],
    )
    trials.base(sweep_context, artifacts)
    planned_trials = []
    for rate in (2e-4, 1e-3):
        training = Settings(**config["training"] | {"learning_rate": rate})
        planned_trials += [
            trials.Trial(seed, training, LoraSettings(16, 32), 160) for seed in config["seeds"]
        ]
    trials.run(planned_trials, sweep_context, artifacts, workers=1)


def own_trials(out: Path) -> list[Path]:
    return sorted((out / "artifacts/trials").iterdir())


def test_six_trials_were_taken_over_and_the_others_run(judged):
    environment = json.loads((judged[0] / "result.json").read_text())["environment"]
    assert environment["taken_over"] == 6
    assert len(own_trials(judged[0])) == 18


def test_a_true_sweep_passes_but_for_what_a_random_model_cannot_learn(judged):
    assert warm.failing(GATE, *judged) <= NEEDS_A_REAL_MODEL


def test_nothing_at_all_fails_every_check(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    names = warm.failing(GATE, tmp_path / "empty", judged[1])
    checks = {
        f"test_measurement_follows_from_what_was_stored[{name}]" for name in arrays.RECOMPUTED
    }
    assert checks < names


def test_noise_in_one_run_is_seen_without_comparing_digests(judged, mutant):
    """In each of its files, and by a check of its own, whether the nonce draws this run or not."""
    draw = np.random.default_rng(0)

    def add_noise(tensors: dict[str, np.ndarray]) -> None:
        for name, t in tensors.items():
            if t.size:
                noise = draw.standard_normal(t.shape) * t.std() + t.mean()
                tensors[name] = noise.astype(t.dtype)

    for part in ("steps", "evaluation", "adapter_model"):
        warm.change(mutant / "artifacts/trials" / SMALLEST / f"{part}.safetensors", add_noise)
    checks = {
        "test_every_run_is_whole",
        "test_measurement_follows_from_what_was_stored[eval_loss_r16_lr1e_5]",
        "test_adapters_moved_as_far_as_their_rates_allow",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_better_losses_than_the_weights_give_are_seen(judged, mutant):
    for folder in own_trials(mutant):
        warm.change(
            folder / "evaluation.safetensors",
            lambda a: a.update(losses=a["losses"] - np.float32(0.02)),
        )
    warm.forge(mutant)
    assert warm.fails("test_evaluations_agree_with_the_weights", GATE, mutant, judged[1])


def test_curves_of_no_training_run_are_seen(judged, mutant):
    for folder in own_trials(mutant):
        warm.change(folder / "steps.safetensors", lambda a: a.update(loss=a["loss"] * 0.97))
    warm.forge(mutant)
    assert warm.fails("test_first_steps_of_a_run_were_made", GATE, mutant, judged[1])


def test_a_run_at_a_larger_rate_than_it_claims_is_seen(judged, mutant):
    large = SMALLEST.replace("1e-05", "0.005")
    for part in ("adapter_model.safetensors", "evaluation.safetensors"):
        shutil.copy(
            mutant / "artifacts/trials" / large / part,
            mutant / "artifacts/trials" / SMALLEST / part,
        )
    warm.forge(mutant)
    checks = {
        "test_adapters_moved_as_far_as_their_rates_allow",
        "test_every_run_has_an_adapter_of_its_own",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_a_run_that_was_left_out_is_seen(judged, mutant):
    shutil.rmtree(own_trials(mutant)[0])
    assert warm.fails("test_runs_are_those_of_the_plan", GATE, mutant, judged[1])


def test_another_schedule_than_the_plan_is_seen(judged, mutant):
    path = own_trials(mutant)[0] / "trial.json"
    path.write_text(path.read_text().replace('"warmup_steps": 2', '"warmup_steps": 0'))
    warm.forge(mutant)
    checks = {"test_runs_are_those_of_the_plan", "test_every_run_is_whole"}
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_every_cell_and_every_point_is_judged(judged, mutant, monkeypatch):
    """Each number of the tables and figures, changed alone by 5 %.

    In this process, as each takes milliseconds.
    """
    monkeypatch.setenv("PHASES_OUT", str(judged[0]))
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    recomputed = arrays.recompute()

    # 1. Every cell of the tables.
    tables = json.loads((mutant / "result.json").read_text())["tables"]
    for table, expected_rows in zip(tables, recomputed["tables"], strict=True):
        assert outputs.same(table["rows"], expected_rows, 1e-5)
        for row, expected in zip(table["rows"], expected_rows, strict=True):
            for i in range(len(row)):
                assert not outputs.same(with_other_cell(row, i), expected, 1e-5)

    # 2. Every point of the figures.
    for name, expected_series in recomputed["figures"].items():
        figure = json.loads((mutant / f"figures/{name}.json").read_text())
        for series, (_, y) in zip(figure["series"], expected_series, strict=True):
            assert outputs.same(series["y"], y, 1e-5)
            for i in range(len(y)):
                assert not outputs.same(with_other_cell(series["y"], i), y, 1e-5)


def with_other_cell(row: list, i: int) -> list:
    """Return a row, or a figure's points, with `i` changed: a number by 5 %, a text by a letter."""
    cell = row[i]
    other = f"{cell}!" if isinstance(cell, str) else (cell or 1) * 1.05
    return [*row[:i], other, *row[i + 1 :]]


@pytest.fixture(scope="module")
def changed_out(judged: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the outputs whose result.json every test overwrites."""
    return Path(shutil.copytree(judged[0], tmp_path_factory.mktemp("changed") / "out"))


@pytest.mark.parametrize("name", arrays.RECOMPUTED)
def test_a_measurement_changed_alone_is_seen(name, judged, changed_out, monkeypatch):
    monkeypatch.setenv("PHASES_OUT", str(changed_out))
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    original = json.loads((judged[0] / "result.json").read_text())
    (changed_out / "result.json").write_text(json.dumps(original))
    expected = arrays.recompute()["numbers"][name]
    outputs.assert_agrees(name, expected)

    value = original["measurements"][name]["value"]
    other = value + 1 if isinstance(value, int) else (value or 1) * 1.05
    changed = copy.deepcopy(original)
    changed["measurements"][name]["value"] = other
    (changed_out / "result.json").write_text(json.dumps(changed))
    with pytest.raises(AssertionError, match=name):
        outputs.assert_agrees(name, expected)
