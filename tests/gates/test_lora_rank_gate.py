"""FEAT-007's gate on a comparison of the tiny model: it passes, and every change in it fails."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from gates.lora_rank import arrays as gate_arrays
from gates.shared import outputs
from lab.config import read_document
from tests.gates import warm
from tests.gates.conftest import ROOT, run_experiment, write_chats

GATE = "lora_rank/test_lora_rank.py"


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the outputs of a comparison at the planned size, and the file of its inputs.

    Some of its trials are reused.
    """
    folder = tmp_path_factory.mktemp("lora_ranks")
    config = read_document(ROOT / "lab/lora_rank/experiment.yaml")
    config["common"]["data"] |= {"source": str(write_chats(folder)), "max_tokens": 80}
    config["profiles"]["cpu"]["workers"] = 1  # the workers of a small sweep do little but start
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    run_earlier_features(folder, config["common"])
    entries = {
        "smollm2-135m": {"kind": "input", "path": str(folder / "model")},
        "FEAT-005": {"kind": "feature", "path": str(folder / "FEAT-005"), "receipt": "sha256:00"},
        "FEAT-006": {"kind": "feature", "path": str(folder / "FEAT-006"), "receipt": "sha256:00"},
    }
    inputs = folder / "inputs.json"
    inputs.write_text(json.dumps(entries))
    return run_experiment(
        "lab.lora_rank.experiment", str(folder / "config.yaml"), inputs, folder / "out"
    ), inputs


def run_earlier_features(folder: Path, config: dict) -> None:
    """Store the data and run r = 16 as the track's first feature does, r = 64 as its second."""
    from lab.instruments import data, models, trials
    from lab.instruments.adapters import LoraSettings
    from lab.instruments.training import Settings

    model, sizes = models.tiny(0), config["data"]
    models.save(model, folder / "model")
    pool = data.load(sizes["source"], model.tokenizer, max_tokens=sizes["max_tokens"])
    drawn = data.split(pool, train=sizes["train"], evaluation=sizes["evaluation"])
    for feature, rank in (("FEAT-005", 16), ("FEAT-006", 64)):
        artifacts = folder / feature / "artifacts"
        artifacts.mkdir(parents=True)
        frozen = [folder / f"FEAT-005/artifacts/{kind}.jsonl" for kind in ("train", "evaluation")]
        if rank == 16:
            data.write_examples(frozen[0], drawn.train)
            data.write_examples(frozen[1], drawn.evaluation)
        sweep_context = trials.SweepContext(
            folder / "model", *frozen, "float32", "cpu", sizes["curve"]
        )
        if rank == 16:
            trials.base(sweep_context, artifacts)
        settings = Settings(**config["training"])
        planned_trials = [
            trials.Trial(seed, settings, LoraSettings(rank, 32), config["examples"])
            for seed in config["seeds"]
        ]
        trials.run(planned_trials, sweep_context, artifacts, workers=1)


def own_trials(out: Path) -> list[Path]:
    return sorted((out / "artifacts/trials").iterdir())


def test_six_trials_were_taken_over_and_the_others_run(judged):
    environment = json.loads((judged[0] / "result.json").read_text())["environment"]
    assert len(environment["taken_over"]) == 6
    assert len(own_trials(judged[0])) == 12


def test_a_true_comparison_passes(judged):
    assert warm.failing(GATE, *judged) == set()


def test_nothing_at_all_fails_every_check(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    names = warm.failing(GATE, tmp_path / "empty", judged[1])
    assert {
        f"test_measurement_follows_from_what_was_stored[{name}]" for name in gate_arrays.RECOMPUTED
    } < names


@pytest.mark.parametrize(
    ("file", "check"),
    [
        ("updates", "test_spectra_are_those_of_the_adapters"),
        ("overlaps", "test_overlaps_are_those_of_the_adapters"),
        ("first_step", "test_first_steps_follow_from_the_real_gradient"),
        ("full/training", "test_full_spectrum_is_that_of_the_update"),
        ("full/evaluation", "test_full_evaluation_agrees_with_the_update[full]"),
    ],
)
def test_noise_in_an_array_is_seen_by_the_check_made_for_it(judged, mutant, file, check):
    generator = np.random.default_rng(0)

    def noise(arrays: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            if name == "example_ids":
                continue
            spread = array.std() or 1.0
            noisy = generator.standard_normal(array.shape) * spread + array.mean()
            arrays[name] = noisy.astype(array.dtype)

    warm.change(mutant / f"artifacts/{file}.safetensors", noise)
    warm.forge(mutant)
    assert warm.fails(check, GATE, mutant, judged[1])


def test_an_update_that_was_not_evaluated_is_seen(judged, mutant):
    """The update twice as large: other losses, another spectrum, larger steps than rates allow."""
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    path = mutant / "artifacts/full/update.safetensors"
    save_torch({name: 2 * delta for name, delta in load_torch(path).items()}, path)
    warm.forge(mutant)
    checks = {
        "test_full_evaluation_agrees_with_the_update[full]",
        "test_full_spectrum_is_that_of_the_update",
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


def test_first_steps_of_another_gradient_than_the_trials_had_are_seen(judged, mutant):
    def other(arrays: dict[str, np.ndarray]) -> None:
        arrays["adapter_gradient_norms"] = arrays["adapter_gradient_norms"] * 1.05

    warm.change(mutant / "artifacts/first_step.safetensors", other)
    warm.forge(mutant)
    checks = {
        "test_trials_began_with_that_gradient",
        "test_first_steps_follow_from_the_real_gradient",
    }
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == checks


def test_a_control_in_no_random_directions_is_seen(judged, mutant):
    def best(arrays: dict[str, np.ndarray]) -> None:
        arrays["null"] = arrays["learned"]

    warm.change(mutant / "artifacts/overlaps.safetensors", best)
    warm.forge(mutant)
    assert warm.fails("test_random_directions_overlap_as_chance_has_it", GATE, mutant, judged[1])


def test_a_trial_that_was_left_out_is_seen(judged, mutant):
    shutil.rmtree(own_trials(mutant)[0])
    assert warm.fails("test_trials_are_those_of_the_plan", GATE, mutant, judged[1])


def test_another_sentence_than_the_numbers_make_is_seen(judged, mutant):
    text = (mutant / "result.json").read_text()
    swapped = text.replace("could not be shown to be equivalent within", "are equivalent within")
    if swapped == text:
        swapped = text.replace(
            "are equivalent within", "could not be shown to be equivalent within"
        )
    (mutant / "result.json").write_text(swapped)
    assert warm.failing(GATE, mutant, judged[1]) == {"test_sentences_say_what_the_numbers_do"}


@pytest.fixture(scope="module")
def copied_outputs(judged: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the outputs whose result.json each test changes."""
    return Path(shutil.copytree(judged[0], tmp_path_factory.mktemp("changed") / "out"))


@pytest.mark.parametrize("name", gate_arrays.RECOMPUTED)
def test_a_measurement_changed_alone_is_seen(name, judged, copied_outputs, monkeypatch):
    monkeypatch.setenv("PHASES_OUT", str(copied_outputs))
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    true = json.loads((judged[0] / "result.json").read_text())
    (copied_outputs / "result.json").write_text(json.dumps(true))
    expected = gate_arrays.recompute()["numbers"][name]
    outputs.assert_agrees(name, expected)
    value = true["measurements"][name]["value"]
    changed = copy.deepcopy(true)
    if isinstance(value, int):
        changed["measurements"][name]["value"] = value + 1
    else:
        changed["measurements"][name]["value"] = (value or 1) * 1.05
    (copied_outputs / "result.json").write_text(json.dumps(changed))
    with pytest.raises(AssertionError, match=name):
        outputs.assert_agrees(name, expected)


def test_every_cell_and_every_point_is_judged(judged, monkeypatch):
    """Each number of the tables, changed alone by 5 %.

    In this process, as each takes milliseconds.
    """
    monkeypatch.setenv("PHASES_OUT", str(judged[0]))
    monkeypatch.setenv("PHASES_INPUTS", str(judged[1]))
    tables = zip(outputs.result()["tables"], gate_arrays.recompute()["tables"], strict=True)
    for table, expected_rows in tables:
        assert outputs.same(table["rows"], expected_rows, 1e-5)
        for row, expected in zip(table["rows"], expected_rows, strict=True):
            for i, cell in enumerate(row):
                other = f"{cell}!" if isinstance(cell, str) else (cell or 1) * 1.05
                assert not outputs.same([*row[:i], other, *row[i + 1 :]], expected, 1e-5)
