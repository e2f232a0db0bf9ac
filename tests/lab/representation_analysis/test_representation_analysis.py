"""FEAT-015's experiment: sees massive activations and outliers where they are made."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lab.config import load_config
from lab.contract import Context, Inputs, Measurement, conduct
from lab.instruments import models, sequences
from lab.representation_analysis import experiment, intervening, numbers, recording, report
from lab.representation_analysis.measured import AnalysisPlan, Observations, Stream, Target

ROOT = Path(__file__).resolve().parents[3]
CONFIG = ROOT / "lab/representation_analysis/experiment.yaml"
LAYERS, BATCH, TOTAL, WIDTH = 6, 3, 20, 16


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Context:
    folder = tmp_path_factory.mktemp("analysis")
    config = load_config(CONFIG, "smoke")
    return Context(config, "smoke", 0, Inputs(), folder, lambda *_: None)


@pytest.fixture(scope="module")
def observations(ctx: Context) -> Observations:
    """Return what a run of the smoke profile observed."""
    return experiment.measure(ctx)[0]


def test_a_run_writes_report_figures_and_artifacts(ctx):
    out = ctx.out / "out"
    out.mkdir()
    conduct(experiment.EXPERIMENT, experiment.run, replace(ctx, out=out))
    result = json.loads((out / "result.json").read_text())
    assert set(result["headline"]) <= set(result["measurements"])
    names = [figure["name"] for figure in result["figures"]]
    taken = {"moved", "layers", "ablation", "over_time", "heads_over_time"}
    assert not taken & set(names), "FEAT-012 publishes figures of these names"
    plan = json.loads((ROOT / "prd/llm-learning-lab.json").read_text())
    features = [feature for phase in plan["phases"] for feature in phase["features"]]
    (feature,) = (one for one in features if one["id"] == "FEAT-015")
    published = {f"figures/{name}.png": f"docs/reports/figures/{name}.png" for name in names}
    assert feature["publish"] == {"report.md": "docs/reports/analysis.md", **published}
    for prediction in feature["predictions"]:
        assert prediction["measurement"] in result["measurements"]


# The stream


def stream(rows: dict[tuple[int, int, int, int], float]) -> torch.Tensor:
    """Return a quiet stream [L + 1, B, T, D] with (depth, sequence, position, dimension) set."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(LAYERS + 1, BATCH, TOTAL, WIDTH, generator=generator)
    for place, value in rows.items():
        states[place] = value
    return states


def test_massive_activations_are_found_where_they_are_and_nowhere_else():
    assert len(recording.stream_of(stream({})).hits) == 0
    places = {(depth, b, 0, 5): 3000.0 for depth in (3, 4, 5) for b in range(BATCH)}
    found = recording.stream_of(stream({**places, (2, 1, 7, 9): -4000.0}))
    expected = {(b, depth - 1, t, d) for depth, b, t, d in places} | {(1, 1, 7, 9)}
    assert {tuple(hit) for hit in found.hits.tolist()} == expected
    assert numbers.massive_run(found) == (1, 4), (
        "in the mean over sequences, layer 1 is massive too"
    )
    assert found.top_dimension[0, 2] == 5 and found.top_position[0, 2] == 0
    measured = numbers._massive_numbers(found)
    assert measured["massive_at_first_token"] == pytest.approx(9 / 10)
    assert measured["massive_value"] == pytest.approx(3000)


def test_both_parts_of_the_criterion_are_needed():
    large_median = stream({}) * 100
    large_median[2, :, 0, 5] = 5000.0
    assert len(recording.stream_of(large_median).hits) == 0, "not 1000 times the median"
    small = stream({}) / 1000
    small[2, :, 0, 5] = 90.0
    assert len(recording.stream_of(small).hits) == 0, "not above 100"


def test_the_longest_run_is_the_first_of_equal_ones():
    def run(tops: list[float]) -> tuple[int, int]:
        top = np.array([tops], dtype=float)
        empty = np.zeros((0, 4), dtype=int)
        return numbers.massive_run(Stream(top, top, top, top, np.full_like(top, 0.5), empty))

    assert run([1, 1, 1]) == (0, 0)
    assert run([900, 1, 900, 900, 1, 900, 900]) == (2, 2)
    assert run([499, 501, 501]) == (1, 2)


def test_growth_is_the_geometric_mean_from_the_first_output_on():
    assert numbers.growth(np.array([500.0, 1, 2, 4, 8])) == pytest.approx(2)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (" the", "word start"),
        ("\nthe", "word start"),
        ("ing", "inside a word"),
        ("x1", "inside a word"),
        ("42", "digit"),
        (" 7", "digit"),
        ("(", "punctuation"),
        (" ->", "punctuation"),
        ("\n\n", "blank"),
        (" ", "blank"),
        ("\ufffd", "punctuation"),
    ],
)
def test_a_kind_goes_by_the_text(text, kind):
    assert recording.kind_of(text) == kind


# Writes, lens, similarity


def test_attributions_add_up_to_the_logit(observations):
    writes = observations.writes
    total = writes.attribution.sum((1, 2)) + writes.embedding
    np.testing.assert_allclose(total, writes.target, atol=1e-4)
    assert abs(writes.target).max() > 0.01


def test_the_last_depth_of_the_lens_is_the_model_and_the_first_is_not(observations):
    assert observations.lens.agrees[:, -1].all()
    assert abs(observations.lens.kl[:, -1]).max() < 1e-5
    assert observations.lens.kl[:, 0].min() > 1e-5
    places = recording.lens_positions(observations.plan.length, observations.plan.every)
    assert places[0] == 7 and observations.lens.kl.shape[2] == len(places) == 4


def test_outliers_make_layers_alike_that_are_not():
    plan = AnalysisPlan(BATCH, TOTAL, 1, 2, 1, 8, (1, 4), 1)
    generator = torch.Generator().manual_seed(1)
    control = torch.randn(LAYERS + 1, BATCH, TOTAL, WIDTH, generator=generator)
    quiet = recording.similarity_of(stream({}), control, plan, 0)
    huge = {(depth, b, 0, 3): 1e4 for depth in range(LAYERS + 1) for b in range(BATCH)}
    huge |= {(depth, 0, 1, 3): 1e4 for depth in range(LAYERS + 1)}
    loud = recording.similarity_of(stream(huge), control, plan, 0)
    assert quiet.outliers.sum() == 0 and loud.outliers.sum() == BATCH + 1
    assert loud.pair["raw"] > 0.99 and loud.pair["without_first"] > 0.99
    assert quiet.pair["raw"] < 0.5 and loud.pair["without_outliers"] < 0.5
    assert len(loud.left_out["raw"]) == BATCH


# Interventions


def test_losses_are_those_of_the_changed_stream(tiny):
    """A write replaced by its own mean in a text of one repeated write costs nothing."""
    plan = AnalysisPlan(2, 12, 3, 12, 2, 4, (0, 1), 1)
    ids = sequences.random_tokens(259, 3, 12, seed=0)
    recorded = recording.record(tiny.model, sequences.random_tokens(259, 2, 12, seed=1))
    target = Target(layer=0, dimension=4, mean=100.0, others=(9,))
    found = intervening.interventions_of(tiny.model, ids, target, recorded.writes, plan)
    base = found.losses["base"]
    assert base.shape == (3, 11) and found.ablated.shape == (2, 2, 2, 11)
    assert np.array_equal(base, intervening.token_losses(tiny.model, ids)), "nothing is left"
    assert abs(found.losses["mean"] - base).max() > 1e-3, "100 is far from what it was"
    assert abs(found.losses["zeroed"] - base).max() > 0
    assert abs(found.ablated[:, 1, 1, 0] - base[:2, 0]).max() < 1e-6, "the first token is kept"
    assert abs(found.ablated[:, 1, 1, 1:] - base[:2, 1:]).max() > 1e-5


def test_the_target_is_the_largest_mean_and_controls_are_others():
    places = {(3, b, 0, 5): 3000.0 + b for b in range(BATCH)}
    states = stream(places)
    plan = AnalysisPlan(BATCH, TOTAL, 1, 2, 1, 8, (1, 4), 5)
    found = intervening.target_of(2, recording.stream_of(states), states, plan, 0)
    assert (found.layer, found.dimension, found.mean) == (2, 5, 3001.0)
    assert len(set(found.others)) == 5 and 5 not in found.others


# Sentences


def test_verdicts_follow_the_numbers(observations):
    measured = numbers.measurements(observations)

    def findings(stderr: float = 0.1, **values: float) -> str:
        changed = {}
        for name, value in values.items():
            changed[name] = replace(measured[name], value=value, stderr=stderr)
        return " ".join(report.findings(observations, {**measured, **changed}))

    bias = "the model needs this number, but not what it says about the text"
    assert bias in findings(zeroed_ratio=1e4, mean_ratio=1.01)
    assert "and its mean is not enough" in findings(zeroed_ratio=1e4, mean_ratio=3.0)
    assert "the model does not need this number" in findings(zeroed_ratio=1.01, mean_ratio=1.0)
    assert "does not tell what it is worth" in findings(norm_ablation_correlation=0.1)
    assert "tells little of what it is worth" in findings(norm_ablation_correlation=0.5)
    assert "does not tell what it is worth" in findings(0.3, norm_ablation_correlation=0.5)
    assert "long writes are those" in findings(norm_ablation_correlation=0.9)
    gap = {"cka_outlier_gap": 0.4}
    assert "not the first ones alone" in findings(**gap, cka_first_token_gap=0.01)
    assert "the first tokens make" in findings(**gap, cka_first_token_gap=0.3)
    assert "not that of a few tokens" in findings(cka_outlier_gap=0.01)


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (23968.9, 402.0, "24,000 ± 400"),
        (286717.3, 111774.0, "290,000 ± 110,000"),
        (1.108031, 4.2e-4, "1.1080 ± 0.0004"),
        (-0.03955, 0.0021, "-0.040 ± 0.002"),
        (0.55651, 0.01273, "0.557 ± 0.013"),
        (0.5, 0.0, "0.5000"),
        (0.5, None, "0.5000"),
        (None, None, "not measured"),
    ],
)
def test_a_number_has_the_digits_that_its_error_leaves(value, stderr, text):
    n = None if stderr is None else 3
    assert report.stated(Measurement.of_estimate(value, "", stderr=stderr, n=n)) == text


def test_errors_are_those_of_sequences_left_out(observations):
    measured = numbers.measurements(observations)
    assert all(isinstance(one, Measurement) for one in measured.values())
    assert measured["norm_growth"].n == observations.plan.count
    assert measured["zeroed_ratio"].n == observations.plan.test_count
    assert measured["mlp_rise"].n == observations.plan.ablated
    rest = numbers.without_text(observations, 1)
    assert len(rest.ids) == len(rest.stream.norms) == len(rest.writes.norms) == 3
    assert len(rest.interventions.losses["base"]) == observations.plan.test_count


def test_random_weights_are_others_and_repeat(tiny):
    first, again = (recording.untrained(tiny.model, 5) for _ in range(2))
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first.get_parameter(name), again.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), tiny.model.get_parameter(name))
    assert models.architecture(first.config).mlp == "mlp"
