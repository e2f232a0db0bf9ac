"""FEAT-014's experiment on the tiny model: complete, repeatable, sentences true to numbers."""

import dataclasses
import json

import numpy as np
import pytest

from lab.activation_extraction import experiment, figures, numbers, report
from lab.config import load_config
from lab.contract import Context, Inputs, Measurement, conduct
from tests.gates.conftest import ROOT

CONFIG = ROOT / "lab/activation_extraction/experiment.yaml"


def context(out):
    out.mkdir()
    return Context(
        load_config(CONFIG, "smoke"), "smoke", 0, Inputs(), out, lambda done, total, note: None
    )


@pytest.fixture(scope="module")
def observations(tmp_path_factory):
    return experiment.measure(context(tmp_path_factory.mktemp("activations") / "a"))[0]


@pytest.fixture(scope="module")
def measurements(observations):
    return numbers.measurements(observations)


def test_a_run_writes_everything_and_repeats_itself(tmp_path, measurements):
    conduct(experiment.EXPERIMENT, experiment.run, context(tmp_path / "b"))
    result = json.loads((tmp_path / "b/result.json").read_text())
    assert result["measurements"].keys() == measurements.keys()
    for name, measurement in measurements.items():
        assert result["measurements"][name]["value"] == measurement.value, name
    assert {
        "artifacts/model.safetensors",
        "artifacts/families/gemma2.safetensors",
        "artifacts/guards.json",
        "figures/lens.png",
    } < set(result["files"])


def test_the_instrument_is_right_here_too(measurements):
    value = {name: measurement.value for name, measurement in measurements.items()}
    assert value["families_with_identity"] == value["families"] == 10
    assert 0 < value["residual_error"] < 1e-6
    for name in ("chain_error", "hidden_states_error", "logits_change", "stopped_error"):
        assert value[name] == 0, name
    assert value["silent_write"] == 0 < value["silent_least_other_write"]
    assert value["misplaced_error"] > 0.1
    assert value["stop_layers_run"] == 1 < value["layers_recorded"] == 2
    refusals = [value[name] for name in value if name.endswith("_refused")]
    assert refusals == [True] * 5


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("attn_out", "residual_error"),
        ("mlp_out", "residual_error"),
        ("resid_mid", "mid_error"),
        ("resid_pre", "hidden_states_error"),
        ("resid_post", "chain_error"),
    ],
)
def test_a_wrong_record_shows_in_the_numbers(observations, name, error):
    """Each identity is broken in turn: its number must notice."""
    model = observations.model
    spoiled = model.stream[name].copy()
    spoiled[0, 5] *= 1.5
    broken = dataclasses.replace(model, stream={**model.stream, name: spoiled})
    assert numbers.identities(broken)[error].number > 1e-4


def test_a_lens_that_is_off_shows_in_the_numbers(observations):
    model = observations.model
    lens = model.logits.lens + np.linspace(0, 1, model.logits.lens.shape[-1], dtype=np.float32)
    broken = dataclasses.replace(model, logits=dataclasses.replace(model.logits, lens=lens))
    assert numbers.lens(model)["lens_kl_last"].number < 1e-6
    assert numbers.lens(broken)["lens_kl_last"].number > 1e-3


def test_statistics_that_are_off_show_in_the_numbers(observations):
    counted = observations.statistics["mlp_out"]
    for name in ("mean", "variance", "mean_norm", "mean_median", "largest"):
        streamed = {**counted.streamed, name: counted.streamed[name] * 1.01}
        errors = numbers.statistic_errors(dataclasses.replace(counted, streamed=streamed))
        assert errors[name] == pytest.approx(0.01, rel=1e-3)


def test_a_family_that_is_off_is_not_counted(observations):
    arrays = observations.families["olmo2"]
    assert numbers.family_row(arrays).has_identity
    wide = {**arrays.float64, "attn_out": arrays.float64["attn_out"] * (1 + 1e-9)}
    assert not numbers.family_row(dataclasses.replace(arrays, float64=wide)).has_identity


def test_the_first_token_s_length_is_that_of_the_stream(observations):
    streamed = observations.statistics["resid_post"].streamed
    total = observations.model.ids.shape[1]
    first = numbers.first_lengths(observations, "resid_post")
    again = (first + (total - 1) * streamed["mean_norm_without_first"]) / total
    np.testing.assert_allclose(again, streamed["mean_norm"], rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"residual_error": 1e-3}, "the sum is NOT the stream"),
        ({"misplaced_error": 1e-3}, "which does NOT show in every layer"),
        ({"hidden_states_error": 0.5}, "they are NOT the stream"),
        ({"lens_kl_last": 0.5}, "the lens is NOT the model"),
        ({"double_norm_kl": 0.05}, "hardly noticed"),
        ({"double_norm_kl": 0.5}, "away: wrong"),
        ({"logits_change": 0.5}, "recording CHANGED the logits by up to 0.500"),
        ({"silent_write": 0.5}, "was made silent WRITES up to 0.500"),
        ({"hooks_left": 2}, "2 hooks are left"),
        ({"second_pass_refused": False}, "4 of 5 misuses are refused"),
    ],
)
def test_sentences_follow_the_numbers(measurements, changes, words):
    changed = dict(measurements)
    for name, value in changes.items():
        changed[name] = dataclasses.replace(measurements[name], value=value)
    assert words in " ".join(report.findings(changed))
    if changes.keys() != {"double_norm_kl"}:
        assert words not in " ".join(report.findings(measurements))


def test_the_caption_names_the_count_of_layers(observations, measurements):
    changed = {**measurements, "double_norm_layers": Measurement.of_exact(1, "layers")}
    assert "in 1 of 2 layers" in figures.lens_figure(observations, changed).caption
