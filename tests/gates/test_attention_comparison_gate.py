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
WEIGHTS = "test_drawn_models_agree_with_the_weights"


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


@pytest.mark.parametrize("group", ["tuned", "random", "snapshots", "snapshots_random"])
def test_attention_that_the_weights_do_not_give_is_seen(judged, mutant, group):
    def more(arrays):
        for name in arrays:
            if name.startswith(f"{group}.") and name.endswith(("divergence", "sink")):
                arrays[name] *= 1.2

    change(mutant, comparison.ARRAYS, more)
    # of tuned and random one model is drawn; the identity of the last snapshot sees the others
    seen = warm.failing(GATE, mutant, judged[1])
    assert seen & {WEIGHTS, "test_repeated_training_ends_at_the_stored_adapter"}


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


@pytest.mark.parametrize("name", ["ablation.tuned", "ablation.base", "snapshots.losses"])
def test_losses_that_the_weights_do_not_give_are_seen(judged, mutant, name):
    def worse(arrays):
        arrays[name] += np.float32(0.1)

    change(mutant, comparison.ARRAYS, worse)
    assert warm.fails("test_losses_agree_with_the_weights", GATE, mutant, judged[1])


def test_other_heads_than_those_that_moved_are_seen(judged, mutant):
    path = mutant / comparison.HEADS
    document = json.loads(path.read_text())
    document["moved"], document["random"][0] = document["random"][0], document["moved"]
    path.write_text(json.dumps(document))
    warm.forge(mutant)
    assert warm.fails("test_ablated_heads_are_those_that_moved_most", GATE, mutant, judged[1])


def test_snapshots_of_another_training_are_seen(judged, mutant):
    def last_is_first(arrays):
        for name in list(arrays):
            if name.startswith("20."):
                arrays[name] = arrays[f"2.{name.removeprefix('20.')}"].copy()

    change(mutant, "artifacts/snapshots.safetensors", last_is_first)
    check = "test_repeated_training_ends_at_the_stored_adapter"
    assert warm.fails(check, GATE, mutant, judged[1])


def test_text_that_is_no_text_is_seen(judged, mutant):
    path = mutant / comparison.PROMPTS
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["kind"] == "text":
            row["ids"].reverse()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    warm.forge(mutant)
    assert warm.fails("test_prompts_are_what_they_claim", GATE, mutant, judged[1])


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


def test_a_conclusion_that_the_numbers_deny_is_seen(judged, mutant):
    path = mutant / "result.json"
    result = json.loads(path.read_text())
    text = json.dumps(result["findings"])
    for word, other in (("The loss fell first", "Attention moved first"), ("further", "less far")):
        text = text.replace(word, other)
    result["findings"] = json.loads(text)
    path.write_text(json.dumps(result))
    check = "test_findings_draw_the_conclusions_of_the_numbers"
    assert warm.fails(check, GATE, mutant, judged[1])
