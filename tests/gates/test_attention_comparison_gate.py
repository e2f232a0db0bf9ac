"""FEAT-012's gate on the tiny model at the planned size: it passes an honest run and no mutant."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file, save_file

from gates.attention_comparison import arrays as comparison
from tests.gates import warm
from tests.gates.conftest import ROOT, run_experiment, write_chats

if TYPE_CHECKING:
    from lab.instruments.models import Loaded

GATE = "attention_comparison/test_attention_comparison.py"
WEIGHTS = "test_attention_of_every_model_agrees_with_the_weights"
SETS = "test_ablated_heads_are_those_that_moved_most_and_drawn_ones"
FINDINGS = "test_findings_say_what_the_numbers_say"


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the outputs of a run at the planned size on the tiny model, and its file of inputs."""
    from lab.instruments import models

    folder = tmp_path_factory.mktemp("attention_comparison")
    models.save(larger(models.tiny(0)), folder / "model")
    config = yaml.safe_load((ROOT / "lab/attention_comparison/experiment.yaml").read_text("utf-8"))
    config["common"]["data"] |= {
        "source": str(write_chats(folder)),
        "max_tokens": 80,
        "train": 40,
        "evaluation": 80,
        "curve": 8,
    }
    config["common"]["examples"] = 32
    config["profiles"]["cpu"]["workers"] = 1  # the workers of a small run do little but start
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    inputs = folder / "inputs.json"
    inputs.write_text(
        json.dumps({"smollm2-135m": {"kind": "input", "path": str(folder / "model")}})
    )
    module = "lab.attention_comparison.experiment"
    return run_experiment(module, str(folder / "config.yaml"), inputs, folder / "out"), inputs


def larger(tiny: Loaded) -> Loaded:
    """Return a random model of 6 layers of 4 heads, so that ten heads leave ten others."""
    from transformers import LlamaForCausalLM

    config = tiny.model.config
    config.num_hidden_layers = 6
    torch.manual_seed(0)
    return replace(tiny, model=LlamaForCausalLM(config).eval())


def change(out: Path, file: str, edit: Callable[[dict[str, np.ndarray]], None]) -> None:
    arrays = load_file(out / file)
    edit(arrays)
    save_file(arrays, out / file)
    warm.forge(out)


def test_a_true_run_passes(judged):
    assert warm.failing_in_new_process(GATE, *judged) == set()


def test_nothing_at_all_fails_every_number(judged, tmp_path):
    (tmp_path / "empty").mkdir()
    names = warm.failing(GATE, tmp_path / "empty", judged[1])
    assert {
        f"test_measurement_follows_from_what_was_stored[{name}]" for name in comparison.RECOMPUTED
    } < names


GROUPS = ["tuned", "random", "snapshots", "snapshots_random"]


def test_the_gate_has_the_settings_of_the_experiment():
    config = yaml.safe_load((ROOT / "lab/attention_comparison/experiment.yaml").read_text("utf-8"))
    config["common"]["training"]["learning_rate"] = 1e-3  # YAML reads 1e-3 as a text
    assert {name: config["common"][name] for name in comparison.PLANNED} == comparison.PLANNED


@pytest.mark.parametrize("group", [*GROUPS, "between_seeds"])
def test_attention_that_the_weights_do_not_give_is_seen(judged, mutant, group):
    def less(arrays):
        arrays[f"{group}.divergence"] /= 20

    change(mutant, comparison.ARRAYS, less)
    assert warm.fails(WEIGHTS, GATE, mutant, judged[1])


@pytest.mark.parametrize("group", ["snapshots", "between_seeds"])
def test_one_head_of_one_model_that_moved_otherwise_is_seen(judged, mutant, group):
    def exchange(arrays):
        arrays[f"{group}.divergence"][-1, [5, 17]] = arrays[f"{group}.divergence"][-1, [17, 5]]

    change(mutant, comparison.ARRAYS, exchange)
    assert warm.fails(WEIGHTS, GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("tuned", "sink"),
        ("tuned", "induction"),
        ("random", "entropy"),
        ("snapshots", "distance"),
        ("snapshots_random", "distance_without_sink"),
    ],
)
def test_a_shift_of_a_statistic_that_the_weights_do_not_give_is_seen(judged, mutant, group, name):
    def shift(arrays):
        arrays[f"{group}.{name}"] *= 0.999

    change(mutant, comparison.ARRAYS, shift)
    assert warm.fails(WEIGHTS, GATE, mutant, judged[1])


def test_a_random_update_that_is_a_copy_of_another_is_seen(judged, mutant):
    def copy(arrays):
        for name in arrays:
            if name.startswith("random."):
                arrays[name][1::2] = arrays[name][::2]

    change(mutant, comparison.ARRAYS, copy)
    assert warm.fails(WEIGHTS, GATE, mutant, judged[1])


def edit_result(out: Path, edit: Callable[[dict], None]) -> None:
    result = json.loads((out / "result.json").read_text())
    edit(result)
    (out / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("seeds", [0, 1, 3]), ("draws", 1), ("snapshot_every", 5), ("ablation", {"heads": 10})],
)
def test_other_settings_than_the_planned_ones_are_seen(judged, mutant, setting, value):
    edit_result(mutant, lambda result: result["environment"]["config"].update({setting: value}))
    assert warm.fails("test_run_was_the_planned_one", GATE, mutant, judged[1])


def test_another_seed_than_the_planned_one_is_seen(judged, mutant):
    edit_result(mutant, lambda result: result["environment"].update(seed=1))
    assert warm.fails("test_run_was_the_planned_one", GATE, mutant, judged[1])
    assert warm.fails(SETS, GATE, mutant, judged[1])


@pytest.mark.parametrize("name", ["between_seeds.divergence", "random.sink", "ablation.tuned"])
def test_fewer_models_or_sets_than_planned_are_seen(judged, mutant, name):
    def drop(arrays):
        arrays[name] = arrays[name][:-1].copy()

    change(mutant, comparison.ARRAYS, drop)
    assert warm.fails("test_run_was_the_planned_one", GATE, mutant, judged[1])


def test_a_looser_arithmetic_than_that_of_the_adapters_is_seen(judged, mutant):
    edit_result(mutant, lambda result: result["environment"]["config"].update(dtype="bfloat16"))
    check = "test_adapters_are_the_trials_that_the_config_names"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_random_updates_of_another_norm_are_seen(judged, mutant):
    def smaller(arrays):
        arrays["random.norms"] *= 0.5

    change(mutant, comparison.ARRAYS, smaller)
    check = "test_random_updates_have_the_norms_of_the_trained_ones"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_an_adapter_that_is_not_off_is_seen(judged, mutant):
    def leak(arrays):
        arrays["adapter_off.divergence"][0, 0] = 1e-9

    change(mutant, comparison.ARRAYS, leak)
    assert warm.fails("test_base_against_itself_is_exactly_nothing", GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ablation.tuned", "tuned"), ("ablation.base", "base"), ("snapshots.losses", "held_out")],
)
@pytest.mark.parametrize("row", [0, 7])
def test_losses_that_the_weights_do_not_give_are_seen(judged, mutant, *, name, kind, row):
    def worse(arrays):
        arrays[name][row] += np.float32(0.002)

    change(mutant, comparison.ARRAYS, worse)
    checks = ["test_losses_agree_with_the_weights"]
    assert warm.failing(GATE, mutant, judged[1], checks=checks) == {f"{checks[0]}[{kind}]"}


def test_tokens_of_other_examples_are_seen(judged, mutant):
    def reverse(arrays):
        arrays["token_examples"] = arrays["token_examples"][::-1].copy()

    change(mutant, comparison.ARRAYS, reverse)
    check = "test_tokens_are_counted_to_their_examples"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_other_heads_than_those_that_moved_are_seen(judged, mutant):
    path = mutant / comparison.HEADS
    document = json.loads(path.read_text())
    document["moved"], document["random"][0] = document["random"][0], document["moved"]
    path.write_text(json.dumps(document))
    warm.forge(mutant)
    assert warm.fails(SETS, GATE, mutant, judged[1])


def test_random_sets_that_were_chosen_are_seen(judged, mutant):
    """Of the right size, of heads that did not move most, all different: and not the drawn ones."""
    path = mutant / comparison.HEADS
    document = json.loads(path.read_text())
    others = sorted(set(range(24)) - set(document["moved"]))
    document["random"] = [sorted([*others[:i], *others[i + 1 :]])[:10] for i in range(6)]
    path.write_text(json.dumps(document))
    warm.forge(mutant)
    assert warm.fails(SETS, GATE, mutant, judged[1])


def test_a_snapshot_of_no_step_of_the_training_is_seen(judged, mutant):
    def ahead(arrays):
        for name in list(arrays):
            if name.startswith("6."):
                arrays[name] = arrays[f"12.{name.removeprefix('6.')}"].copy()

    change(mutant, "artifacts/snapshots.safetensors", ahead)
    check = "test_snapshots_have_the_losses_of_their_training"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_snapshots_of_another_training_are_seen(judged, mutant):
    def last_is_first(arrays):
        for name in list(arrays):
            if name.startswith("20."):
                arrays[name] = arrays[f"2.{name.removeprefix('20.')}"].copy()

    change(mutant, "artifacts/snapshots.safetensors", last_is_first)
    check = "test_repeated_training_ends_at_the_stored_adapter"
    assert warm.fails(check, GATE, mutant, judged[1])


@pytest.mark.parametrize("kind", ["task", "text", "repeated"])
def test_prompts_that_were_chosen_are_seen(judged, mutant, kind):
    path = mutant / comparison.PROMPTS
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    of_kind = [row for row in rows if row["kind"] == kind]
    of_kind[-1]["ids"] = of_kind[0]["ids"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    warm.forge(mutant)
    assert warm.fails("test_prompts_are_those_of_the_settings", GATE, mutant, judged[1])


def test_a_page_of_other_patterns_is_seen(judged, mutant):
    path = mutant / "attention_over_time.html"
    text = path.read_text()
    shares = re.findall(r'"shares":"([^"]+)"', text)
    assert len(shares) == 11
    for one in shares[1:]:
        text = text.replace(f'"shares":"{one}"', f'"shares":"{shares[0]}"')
    first = text.index(f'"shares":"{shares[0]}"')
    text = text[:first] + text[first:].replace(shares[0], shares[-1])
    path.write_text(text)
    warm.forge(mutant)
    assert warm.fails("test_page_shows_the_patterns", GATE, mutant, judged[1])


def test_a_page_with_another_program_is_seen(judged, mutant):
    path = mutant / "attention_over_time.html"
    text = path.read_text()
    assert "sharesOf(kept.variant, now.layer," in text
    path.write_text(text.replace("now.layer,", "data.layers - 1 - now.layer,"))
    warm.forge(mutant)
    assert warm.fails("test_page_is_that_of_the_lab", GATE, mutant, judged[1])


def test_a_page_of_other_numbers_is_seen(judged, mutant):
    path = mutant / "attention_over_time.html"
    path.write_text(path.read_text().replace('"sink":[[0.', '"sink":[[0.1'))
    warm.forge(mutant)
    assert warm.fails("test_page_shows_the_numbers", GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("pattern", "other"),
    [
        (r'"first_head":\[\d+,', '"first_head":[9,'),
        (r'"first_variant":\d+', '"first_variant":0'),
        (r"layer \d+, head \d+\.", "layer 9, head 9."),
    ],
)
def test_a_page_that_opens_elsewhere_is_seen(judged, mutant, pattern, other):
    path = mutant / "attention_over_time.html"
    text, count = re.subn(pattern, other, path.read_text())
    assert count == 1
    path.write_text(text)
    warm.forge(mutant)
    assert warm.fails("test_page_shows_the_numbers", GATE, mutant, judged[1])


@pytest.mark.parametrize("name", ["moved", "heads_over_time"])
def test_a_heatmap_of_other_numbers_is_seen(judged, mutant, name):
    path = mutant / f"figures/{name}.json"
    document = json.loads(path.read_text())
    document["panels"][-1]["values"][0][0] += 1
    path.write_text(json.dumps(document))
    warm.forge(mutant)
    check = f"test_heatmap_shows_the_numbers[{name}]"
    assert check in warm.failing(GATE, mutant, judged[1], checks=["test_heatmap_shows_the_numbers"])


def test_columns_of_a_table_that_were_exchanged_are_seen(judged, mutant):
    def exchange(result):
        columns = result["tables"][0]["columns"]
        columns[4], columns[5] = columns[5], columns[4]

    edit_result(mutant, exchange)
    check = "test_table_follows_from_what_was_stored"
    assert warm.failing(GATE, mutant, judged[1], checks=[check]) == {f"{check}[0]"}


@pytest.mark.parametrize(
    ("words", "other"),
    [
        ("The loss fell first", "Attention moved first"),
        ("further than that", "less far than that"),
        ("more than independent moves would", "less than independent moves would"),
        ("in the later half", "in the earlier half"),
        ("moved more on held-out", "moved less on held-out"),
        ("sink fell", "sink rose"),
        (", more than without random ones", ", less than without random ones"),
        ("Tuning made these heads matter more", "Tuning made these heads matter less"),
        ("bit for bit", "up to 0.001 per number"),
        ("held-out loss was half", "attention was half"),
        ("Fine-tuning moved", "As expected, fine-tuning moved"),
    ],
)
def test_words_that_the_numbers_deny_are_seen(judged, mutant, words, other):
    def exchange(result):
        text = json.dumps(result["findings"])
        assert words in text
        result["findings"] = json.loads(text.replace(words, other))

    edit_result(mutant, exchange)
    assert warm.fails(FINDINGS, GATE, mutant, judged[1])


def test_numbers_that_were_exchanged_in_a_finding_are_seen(judged, mutant):
    def exchange(result):
        tuned, random = result["findings"][0], result["findings"][2]
        one, other = (re.findall(r"attention by (\S+)", text)[0] for text in (tuned, random))
        result["findings"][0] = tuned.replace(one, other)
        result["findings"][2] = random.replace(other, one)

    edit_result(mutant, exchange)
    assert warm.fails(FINDINGS, GATE, mutant, judged[1])


@pytest.mark.parametrize(
    ("name", "words", "other"),
    [
        ("moved", "between two seeds", "between base and random"),
        ("layers", "layer", "head"),
        ("ablation", "in the base", "in the tuned model"),
        ("over_time", "the loss at step", "attention at step"),
        ("heads_over_time", "of one training", "of three trainings"),
    ],
)
def test_other_words_of_a_figure_are_seen(judged, mutant, *, name, words, other):
    path = mutant / f"figures/{name}.json"
    text = path.read_text()
    assert words in text
    path.write_text(text.replace(words, other))
    warm.forge(mutant)
    check = "test_caption_and_axes_are_those_of_the_figure"
    assert f"{check}[{name}]" in warm.failing(GATE, mutant, judged[1], checks=[check])


def test_a_finding_that_was_left_out_is_seen(judged, mutant):
    edit_result(mutant, lambda result: result["findings"].pop())
    assert warm.fails(FINDINGS, GATE, mutant, judged[1])
