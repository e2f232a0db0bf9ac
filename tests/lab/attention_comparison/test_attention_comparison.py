"""FEAT-012's experiment on the tiny model: complete, its nulls and controls true, findings too."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gates.attention_comparison import arrays as gate
from lab.attention_comparison import (
    experiment,
    figures,
    numbers,
    page,
    patterns,
    report,
    tables,
    updates,
)
from lab.attention_comparison.prompts import Prompt
from lab.config import Config, load_config
from lab.contract import Context, Inputs, Measurement
from lab.instruments import adapters, models, trials
from lab.instruments.adapters import LoraSettings
from tests.lab.conftest import write_chats

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "lab/attention_comparison/experiment.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("attention_comparison")


@pytest.fixture(scope="module")
def observations(folder):
    """Return what one process observes; its files are in the folder `out`."""
    config = load_config(CONFIG, "smoke")
    source = str(write_chats(folder / "chats.jsonl"))
    data = {**config["data"], "source": source, "max_tokens": 80}
    ctx = Context(
        config=Config({**config, "data": data}, "test"),
        profile="smoke",
        seed=0,
        inputs=Inputs(),
        out=folder / "out",
        progress=lambda done, total, note: None,
    )
    ctx.out.mkdir()
    observations = experiment.measure(ctx)
    experiment.store(ctx.out / "artifacts", observations)
    return observations


@pytest.fixture(scope="module")
def adapted():
    """Return a tiny model with an adapter that does nothing yet, and prompts of two lengths."""
    model = adapters.attach(models.tiny(0), LoraSettings(r=4, lora_alpha=8), seed=0)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(100, 250, (4, 30), generator=generator).tolist()
    prompts = (
        Prompt("task", tuple(drawn[0][:12])),
        Prompt("task", tuple(drawn[1][:20])),
        Prompt("text", tuple(drawn[2])),
        Prompt("repeated", (1, *drawn[3][:8], *drawn[3][:8])),
    )
    return model, prompts


def replaced(observations, group, **changes):
    """Return the observations with arrays of every model of a group changed."""
    changed = [dataclasses.replace(model, **changes) for model in getattr(observations, group)]
    return dataclasses.replace(observations, **{group: changed})


def sentences(observations, **values):
    """Return the findings as one text, with some measurements' values changed."""
    measurements = numbers.measurements(observations)
    for name, value in values.items():
        measurements[name] = dataclasses.replace(measurements[name], **value)
    return " ".join(report.findings(observations, measurements))


# Patterns and their comparison


def test_padding_changes_nothing(adapted):
    model, prompts = adapted
    together = patterns.batches(prompts)
    alone = patterns.batches(prompts[:1])
    wide = patterns.record(model, together)["task"][:, 0, :, :12, :12]
    narrow = patterns.record(model, alone)["task"][:, 0]
    assert torch.allclose(wide, narrow, atol=1e-6)
    assert together["task"].counted.sum(1).tolist() == [12 - 7, 20 - 7]


def test_a_model_is_nowhere_from_itself_and_somewhere_from_another(adapted):
    model, prompts = adapted
    batches = patterns.batches(prompts)
    base = patterns.record(model, batches)
    assert (patterns.divergences(batches, base, base) == 0).all()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in adapters.parameters(model).items():
        if "lora_B" in name:
            parameter.data.normal_(generator=generator)
    moved = patterns.divergences(batches, base, patterns.record(model, batches))
    assert moved.shape == (8, 3)
    assert (moved > 1e-4).all() and (moved <= np.log(2)).all()
    with model.disable_adapter():
        off = patterns.record(model, batches)
    assert (patterns.divergences(batches, base, off) == 0).all()
    for _, parameter in adapters.parameters(model).items():
        parameter.data.zero_()


def test_statistics_of_patterns_that_are_known(adapted):
    _, prompts = adapted
    batches = patterns.batches(prompts)
    recorded = {}
    for kind, batch in batches.items():
        count, length = batch.ids.shape
        previous = torch.zeros(1, count, 2, length, length)
        previous[..., 0, 0] = 1
        for q in range(1, length):
            previous[:, :, 0, q, q - 1] = 1  # the first head looks at the token before
            previous[:, :, 1, q, 0] = 1  # the second at the first token
        recorded[kind] = previous
    # the head that looks 8 - 1 tokens back copies
    recorded["repeated"][:, :, 0] = torch.diag(torch.ones(10), -7)
    seen = patterns.statistics(batches, recorded, period=8)
    assert seen["sink"].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert np.allclose(seen["entropy"], 0)
    assert seen["distance"][0].tolist() == [1, 1, 1]
    assert seen["distance"][1].tolist() == [np.mean(range(7, n)) for n in (12, 20, 30)]
    assert seen["distance_without_sink"].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert seen["induction"].tolist() == [[1], [0]]


def test_random_updates_have_the_norms_and_nothing_else(adapted):
    model, _ = adapted
    tensors = adapters.state(model)
    linears = [name for name, _ in models.linear_weights(models.tiny(0).model)]
    generator = torch.Generator().manual_seed(2)
    for tensor in tensors.values():
        tensor.normal_(generator=generator)
    one, other = (
        updates.random_like(tensors, linears, seed=(0, draw), scale=2.0) for draw in (0, 1)
    )
    wanted = updates.norms(tensors, linears, 2.0)
    A, B = (tensors[key] for key in updates.keys(linears[0]))
    assert wanted[0] == pytest.approx(float((2.0 * B @ A).norm()), rel=1e-5)
    for drawn in (one, other):
        assert set(drawn) == set(tensors)
        assert updates.norms(drawn, linears, 2.0) == pytest.approx(wanted, rel=1e-5)
    key = updates.keys(linears[0])[0]
    assert not torch.equal(one[key], other[key])
    again = updates.random_like(tensors, linears, seed=(0, 0), scale=2.0)
    assert torch.equal(again[key], one[key])


# The whole run


def test_the_gate_judges_exactly_what_is_measured(observations):
    assert set(numbers.measurements(observations)) == {*gate.RECOMPUTED, "replay_gap"}
    assert set(experiment.EXPERIMENT.headline) <= set(gate.RECOMPUTED)


def test_the_controls_hold(observations, folder):
    assert (observations.adapter_off == 0).all()
    assert observations.snapshots.replay_gap == 0
    stored = trials.read(folder / "out/artifacts/trials" / observations.trials[0])
    losses = [step.loss for step in stored.steps]
    assert observations.snapshots.training_losses.tolist() == losses
    for one, other in (
        (observations.snapshots.trained[-1], observations.tuned[0]),
        (observations.snapshots.random[-1], observations.random[0]),
    ):
        assert np.allclose(one.divergence, other.divergence, atol=1e-12)
        assert np.allclose(one.norms, other.norms)
    for i, model in enumerate(observations.random):
        tuned = observations.tuned[i // observations.plan.draws]
        assert np.allclose(model.norms, tuned.norms, rtol=1e-4)
    ablation = observations.ablation
    assert np.allclose(ablation.base[0], observations.snapshots.losses[0], atol=1e-5)
    assert np.allclose(ablation.tuned[0], observations.snapshots.losses[-1], atol=1e-4)


def test_moved_heads_and_random_ones_are_apart(observations):
    ablation = observations.ablation
    movement = observations.tuned[0].divergence.mean(1)
    assert movement[list(ablation.moved)].min() >= np.delete(movement, ablation.moved).max()
    for drawn in ablation.random:
        assert len(drawn) == len(ablation.moved)
        assert not set(drawn) & set(ablation.moved)


def test_snapshots_are_stored_under_their_steps(observations, folder):
    stored = load_file(folder / "out/artifacts/snapshots.safetensors")
    assert {int(name.partition(".")[0]) for name in stored} == set(observations.plan.steps)


def test_page_tables_and_figures_are_made(observations):
    html = page.page(observations)
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    labels = [variant["label"].partition(",")[0] for variant in data["texts"][0]["variants"]]
    assert labels == ["base", "step 2", "step 4"]
    assert len(html.encode()) < 2_000_000
    assert [len(table.rows) for table in tables.tables(observations)] == [8, 2, 5, 4, 3]
    made = figures.figures(observations, numbers.measurements(observations))
    assert len({figure.name for figure in made}) == len(made) == 5


# Numbers and sentences


def test_a_model_that_did_not_move_has_no_moved_heads(observations):
    nothing = np.zeros_like(observations.adapter_off)
    still = replaced(observations, "tuned", divergence=nothing)
    above_seeds, above_random = numbers.moved(still)
    assert not above_seeds.any() and not above_random.any()
    far = replaced(observations, "tuned", divergence=nothing + observations.adapter_off + 0.5)
    drawn = np.random.default_rng(0).normal(0.5, 0.01, nothing.shape)
    far = replaced(far, "tuned", divergence=drawn)
    above_seeds, above_random = numbers.moved(far)
    assert above_seeds.all() and above_random.all()


@pytest.mark.parametrize(("factor", "share"), [(2.0, 0.0), (0.0, 1.0)])
def test_shared_share_of_independent_and_of_equal_moves(observations, factor, share):
    tuned = numbers.divergences(observations.tuned).mean(0)
    pairs = np.stack([factor * tuned])
    changed = dataclasses.replace(observations, between_seeds=pairs)
    assert numbers.measurements(changed)["shared_share"].value == pytest.approx(share)


def test_half_of_the_way():
    steps = (0, 2, 4, 6)
    assert numbers.half_step(steps, np.array([0, 1.0, 2.0, 4.0])) == 4
    assert numbers.half_step(steps, np.array([0, 4.0, 4.0, 4.0])) == 1
    assert numbers.half_step(steps, np.array([0, -1.0, -1.0, -1.0])) is None


def test_rises_are_paired_with_the_intact_model():
    losses = np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [1.5, 2.5, 3.5], [1.0, 2.0, 3.0]])
    seen = numbers.rise(losses, np.array([0, 0, 1]))
    assert seen.intact.value == 2.0
    assert seen.moved.value == 1.0 and seen.moved.stderr == 0
    assert seen.random == (0.5, 0.0)
    assert seen.excess == [0.5, 1.0]


def test_sentences_follow_their_numbers(observations):
    def said(name, value, stderr=0.001, n=32):
        return sentences(observations, **{name: {"value": value, "stderr": stderr, "n": n}})

    assert "further than that: 4.00 times" in said("random_ratio", 4.0)
    assert "less far than that: 0.500 times" in said("random_ratio", 0.5)
    assert "about as far as that" in said("random_ratio", 1.0)
    assert "moved less on held-out examples" in said("task_excess", -0.1)
    assert "in the earlier half" in said("movement_depth", 0.2)
    assert "in the later half" in said("movement_depth", 0.8)
    assert "less than without random ones" in said("ablation_excess_tuned", -0.1)
    assert "Tuning made these heads matter more" in said("ablation_interaction", 0.1)
    assert "Tuning made these heads matter less" in said("ablation_interaction", -0.1)
    assert "Attention moved first" in said("attention_lag", -2.0)
    assert "sink rose" in said("sink_shift", 0.1) and "sink fell" in said("sink_shift", -0.1)
    text = sentences(observations, replay_gap={"value": 0.25})
    assert "up to 0.250 per number" in text and "bit for bit" not in text
    assert "The held-out loss did not fall" in sentences(
        observations, attention_lag={"value": None}
    )


def test_captions_follow_their_numbers(observations):
    measurements = numbers.measurements(observations)
    measurements["heads_moved"] = Measurement.of_exact(7, "heads")
    measurements["most_moved_head"] = Measurement.of_exact("L0H1")
    made = {figure.name: figure for figure in figures.figures(observations, measurements)}
    assert "L0H1 moved furthest; 7 of 8 heads" in made["moved"].caption
