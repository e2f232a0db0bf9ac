"""FEAT-021's gate on a real run of small models: it passes, and fails on every mutant."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gates.induction_heads import arrays as gate_arrays
from gates.induction_heads.plan import CONDITIONS, PLANNED
from gates.shared import outputs
from lab.config import read_document
from tests.forks import run_module
from tests.gates import warm
from tests.gates.conftest import ROOT

GATE = "induction_heads/test_induction_heads.py"
SMALL = {
    "vocabulary": 24,
    "width": 32,
    "heads": 2,
    "head_width": 16,
    "length": 16,
    "periods": {"shortest": 4, "longest": 8},
    "steps": 300,
    "learning_rate": 4e-3,
    "warmup": 40,
    "every": 10,
    "checkpoint_every": 60,
    "evaluation": 128,
    "film": 8,
    "film_period": 6,
}


# The gate wants the planned size, at which trainings take minutes
SIZE = "test_run_was_of_the_planned_size"
REPLAYED = "test_run_is_the_training_of_its_seed"
STARTS = "test_run_starts_from_its_seed"
RESTS = "test_every_run_moves_from_step_to_step"


@pytest.fixture(scope="session")
def conducted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a lie to the outputs of an experiment that tells it."""
    folder = tmp_path_factory.mktemp("induction_heads")
    config = yaml.safe_load((ROOT / "lab/induction_heads/experiment.yaml").read_text("utf-8"))
    config["common"]["plan"] |= SMALL
    config["profiles"]["cpu"]["workers"] = 1
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "inputs.json").write_text("{}")

    def conduct(lie: str) -> Path:
        out = folder / lie
        argv = [lie, str(folder / "observed.pickle"), "--config", str(folder / "config.yaml")]
        argv += ["--profile", "cpu", "--inputs", str(folder / "inputs.json"), "--out", str(out)]
        log = folder / f"{lie}.log"
        exit_code = run_module("tests.gates.induction_forgery", argv, ROOT, log)
        assert exit_code == 0, log.read_text()
        return out

    return conduct


@pytest.fixture(scope="session")
def judged(conducted: Callable[[str], Path]) -> tuple[Path, Path]:
    """Return the outputs of a run in which small models learn to copy, and its inputs: none."""
    out = conducted("honest")
    return out, out.parent / "inputs.json"


def test_an_unchanged_run_passes(judged):
    assert warm.failing(GATE, *judged) == {SIZE}


def test_the_planned_size_is_that_of_the_config(judged, mutant):
    config = read_document(ROOT / "lab/induction_heads/experiment.yaml")
    assert config["common"]["plan"] == PLANNED

    def fails(**changes: Any) -> bool:
        result = json.loads((mutant / "result.json").read_text())
        result["environment"]["config"]["plan"] = PLANNED | changes
        (mutant / "result.json").write_text(json.dumps(result))
        return warm.fails(SIZE, GATE, mutant, judged[1])

    assert not fails()
    assert fails(head_score=0.2)
    assert fails(steps=800)


@pytest.mark.parametrize(
    ("lie", "checks"),
    [
        ("course_invented", {f"{REPLAYED}[repeats-1]"}),
        ("course_shifted", {f"{REPLAYED}[repeats-2]"}),
        ("film_invented", {f"{REPLAYED}[repeats-0]"}),
        ("controls_untrained", {f"{REPLAYED}[no_repeats-1]", f"{REPLAYED}[one_layer-2]", RESTS}),
        ("control_stopped", {f"{REPLAYED}[no_repeats-0]", RESTS}),
        ("control_at_another_rate", {f"{REPLAYED}[one_layer-1]"}),
        (
            "seed_copied",
            {
                *(f"{REPLAYED}[{condition}-2]" for condition in CONDITIONS),
                *(f"{STARTS}[{condition}-2]" for condition in CONDITIONS),
                "test_no_two_runs_share_what_they_learnt",
            },
        ),
        ("seed_chosen", {f"{REPLAYED}[repeats-1]", f"{STARTS}[repeats-1]"}),
        (
            "nothing_learnt",
            {
                *(f"{REPLAYED}[repeats-{seed}]" for seed in range(3)),
                "test_no_two_runs_share_what_they_learnt",
            },
        ),
        ("head_made_needless", {"test_ablations_agree_with_the_weights[1]"}),
    ],
)
def test_a_lie_that_is_whole_is_seen(lie, checks, conducted, judged):
    """All else follows from the lie, so that no other check can see it."""
    assert warm.failing(GATE, conducted(lie), judged[1]) == checks | {SIZE}


def test_the_run_has_something_to_judge(judged):
    measurements = json.loads((judged[0] / "result.json").read_text())["measurements"]
    assert measurements["seeds_learnt"]["value"] == 3
    assert measurements["learnt_step"]["n"] == 3


def test_words_that_do_not_follow_are_seen(judged, mutant):
    original = (mutant / "result.json").read_text()
    verdicts = {
        "steps before the loss": "steps after the loss",
        "above chance": "below chance",
        "above what knowing": "below what knowing",
        "the previous-token heads by": "all other heads by",
        "3 of 3 two-layer models": "2 of 3 two-layer models",
    }
    for verdict, other in verdicts.items():
        assert verdict in original or verdict.replace("before", "after") in original
        changed = original.replace(verdict, other)
        if changed == original:
            changed = original.replace(other, verdict)
        (mutant / "result.json").write_text(changed)
        assert warm.fails("test_findings_say_what_was_recomputed", GATE, mutant, judged[1]), other


def test_words_of_a_caption_that_do_not_follow_are_seen(judged, mutant):
    path = mutant / "figures/film_induction_heads.json"
    figure = json.loads(path.read_text())
    layer, _, head = figure["title"].partition("L1H")
    figure["title"] = f"{layer}L1H{1 - int(head[0])}{head[1:]}"
    path.write_text(json.dumps(figure))
    assert warm.fails("test_captions_say_what_was_recomputed", GATE, mutant, judged[1])


@pytest.mark.parametrize("name", ["loss", "scores", "ablation"])
def test_labels_of_other_series_are_seen(name, judged, mutant):
    path = mutant / f"figures/{name}.json"
    figure = json.loads(path.read_text())
    first, last = figure["series"][0], figure["series"][-1]
    first["label"], last["label"] = last["label"], first["label"]
    path.write_text(json.dumps(figure))
    assert warm.fails(f"test_figure_shows_what_was_stored[{name}]", GATE, mutant, judged[1])


def test_columns_of_other_numbers_are_seen(judged, mutant):
    result = json.loads((mutant / "result.json").read_text())
    columns = result["tables"][1]["columns"]
    columns[-1], columns[-2] = columns[-2], columns[-1]
    (mutant / "result.json").write_text(json.dumps(result))
    assert warm.fails("test_table_follows_from_what_was_stored[ends]", GATE, mutant, judged[1])


def test_a_file_that_nobody_judges_is_seen(judged, mutant):
    runs = mutant / "artifacts/runs"
    shutil.copy(runs / "repeats_seed0/patterns.safetensors", runs / "one_layer_seed0")
    assert warm.fails("test_runs_are_those_of_the_plan", GATE, mutant, judged[1])


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
        "runs/repeats_seed2/patterns",
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
    warm.change(runs / "repeats_seed1/patterns.safetensors", sharper_stripes)
    warm.change(runs / "repeats_seed2/ablation.safetensors", larger_effects)
    warm.forge(mutant)
    checks = {
        "test_stored_steps_agree_with_the_weights[repeats-0]",
        "test_stored_steps_agree_with_the_weights[repeats-1]",
        "test_stored_steps_agree_with_the_weights[one_layer-1]",
        "test_ablations_agree_with_the_weights[2]",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_a_control_that_saw_repeats_is_seen(judged, mutant):
    """The two-layer run's files under the name of the control without repeats."""
    runs = mutant / "artifacts/runs"
    for part in ("curve", "weights"):
        source = runs / f"repeats_seed0/{part}.safetensors"
        shutil.copy(source, runs / f"no_repeats_seed0/{part}.safetensors")
    checks = {
        "test_without_repeats_nothing_is_learnt",
        "test_no_two_runs_share_what_they_learnt",
        f"{REPLAYED}[no_repeats-0]",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_a_control_from_another_start_is_seen(judged, mutant):
    runs = mutant / "artifacts/runs"
    source = runs / "no_repeats_seed1/weights.safetensors"
    shutil.copy(source, runs / "no_repeats_seed0/weights.safetensors")
    check = f"{STARTS}[no_repeats-0]"
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
        SIZE,
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
