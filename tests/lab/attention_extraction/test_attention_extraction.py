"""FEAT-010's experiment on the tiny model: complete, repeatable, sentences true to numbers."""

import dataclasses
import json

import numpy as np
import pytest

from lab.attention_extraction import experiment, figures, numbers, report
from lab.config import load_config
from lab.contract import Context, Inputs, Measurement, conduct
from lab.instruments.families import CHANGES
from lab.present import Heatmap
from tests.gates.conftest import ROOT

CONFIG = ROOT / "lab/attention_extraction/experiment.yaml"


def context(out, seed=0):
    out.mkdir()
    return Context(
        load_config(CONFIG, "smoke"), "smoke", seed, Inputs(), out, lambda done, total, note: None
    )


@pytest.fixture(scope="module")
def observations(tmp_path_factory):
    return experiment.measure(context(tmp_path_factory.mktemp("extraction") / "a"))


@pytest.fixture(scope="module")
def measurements(observations):
    return numbers.measurements(observations)


def test_a_run_writes_everything_and_repeats_itself(tmp_path, measurements):
    conduct(experiment.EXPERIMENT, experiment.run, context(tmp_path / "b"))
    result = json.loads((tmp_path / "b/result.json").read_text())
    assert result["measurements"].keys() == measurements.keys()
    for name, measurement in measurements.items():
        assert result["measurements"][name]["value"] == measurement.value, name
    assert {"artifacts/model.safetensors", "artifacts/guards.json", "figures/orders.png"} < set(
        result["files"]
    )
    for family in CHANGES:
        assert f"artifacts/families/{family}/model.safetensors" in result["files"]


def test_the_instrument_is_right_here_too(measurements):
    value = {name: measurement.value for name, measurement in measurements.items()}
    assert value["families_in_parity"] == value["families"] == 10
    assert value["parity_float32"] < 1e-5
    assert value["logits_change"] == value["later_key_share"] == value["padded_key_share"] == 0
    assert value["tiled_error"] > 100 * value["interleaved_error"]
    assert value["stretch_change"] > 100 * value["shift_change"]
    assert value["layers_recorded"] == value["layers"] == 2
    assert value["checkpointing_refused"] is value["second_run_refused"] is True


def test_a_wrong_record_shows_in_the_numbers(observations):
    """Each identity is broken in turn: its number must notice."""
    model = observations.model
    for field, name in (
        ("z", "z_error"),
        ("rot_q", "rotation_error"),
        ("entropy", "statistics_error"),
        ("sink", "statistics_error"),
    ):
        broken = dataclasses.replace(model, **{field: getattr(model, field) + 0.5})
        assert numbers.identities(broken)[name].number > 0.05, name
    seen = dataclasses.replace(model, padded=model.padded + 0.01)
    assert numbers.identities(seen)["padded_key_share"].number > 0
    later = dataclasses.replace(model, pattern=model.pattern + 0.01)
    assert numbers.identities(later)["later_key_share"].number > 0


def test_heads_that_are_alike_are_seen_and_others_are_not(observations):
    model = observations.model
    heads, shared = model.pattern.shape[1], model.rot_k.shape[2]
    draw = np.random.default_rng(0)
    groups = draw.random((2, shared, 1, 64, 64))
    alike = np.broadcast_to(groups, (2, shared, heads // shared, 64, 64))
    for pattern, has_gap in (
        (alike.reshape(2, heads, 64, 64), True),
        (draw.random((2, heads, 64, 64)), False),
    ):
        same, other = numbers.group_cosines(dataclasses.replace(model, pattern=pattern))
        assert ((same - other).min() > 0.1) == has_gap


def test_sentences_follow_the_numbers(measurements):
    def sentences(**changes):
        changed = {
            name: dataclasses.replace(measurements[name], value=value)
            for name, value in changes.items()
        }
        return " ".join(report.findings({**measurements, **changed}))

    assert "bit for bit" in sentences(logits_change=0.0)
    assert "LOGITS CHANGED by up to 0.500" in sentences(logits_change=0.5)
    assert "MORE THAN ROUNDING" in sentences(parity_orders=1.0)
    assert "MORE THAN ROUNDING" not in sentences(parity_orders=9.0, parity_float32=1e-6)
    assert "are more alike than" in sentences(gqa_gap=0.1)
    assert "are NOT more alike than" in sentences(gqa_gap=-0.1)
    assert "is mostly not fetched" in sentences(sink_value_ratio=0.3)
    assert "is FETCHED as much as from other tokens" in sentences(sink_value_ratio=5.0)


def test_the_caption_names_the_count_of_layers(observations, measurements):
    changed = {**measurements, "gqa_layers_with_gap": Measurement.of_exact(1, "layers")}
    assert "in 1 of 2 layers" in figures.groups_figure(observations, changed).caption


def test_the_map_shows_no_later_key(observations, measurements):
    heatmap = figures.orders_figure(observations.model, measurements)
    assert isinstance(heatmap, Heatmap)
    rows = heatmap.panels[0].values
    assert rows[0][1:] == (None,) * (figures.SHOWN - 1)
    assert None not in rows[-1]
