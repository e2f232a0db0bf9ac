"""Exit gate of phase 3: attention recorded, shown, compared and seen to be learnt; an assessment.

PHASES_OUT holds one folder per feature, without those that were waived. What the features' own
gates computed is not repeated here; a claim of each result is recomputed from its stored files,
and the self-assessment from the results beside it, so that no result can be exchanged for another
after it was judged.
"""

from __future__ import annotations

import math
import os
from typing import Any

import pytest

from gates.shared import assessment, deciding, outputs, standard, stored
from gates.shared.documents import is_published_report, measured_values, shows

EXTRACTION, VIEWS, COMPARISON, INDUCTION = "FEAT-010", "FEAT-011", "FEAT-012", "FEAT-021"
ASSESSED = (EXTRACTION, VIEWS, COMPARISON, INDUCTION)
ASSESSMENT = "FEAT-013"
# A feature that the assessment needs is waived together with it.
WAIVED = os.environ.get("PHASES_WAIVED", "").split()
FEATURES = tuple(name for name in (*ASSESSED, ASSESSMENT) if name not in WAIVED)
PARTS = {
    "experiment",
    "title",
    "question",
    "hypothesis",
    "method",
    "headline",
    "measurements",
    "findings",
    "environment",
    "files",
}
PARITY = 1e-5  # of a weight, in float32
LAYERS = 3  # drawn, whose attention is computed anew
SINK = 0.3  # mean share on the first token from which a head has a sink


def test_at_least_one_feature_was_verified() -> None:
    assert FEATURES, "every feature of the phase was waived"


@pytest.mark.integrity
@pytest.mark.parametrize("feature", FEATURES)
def test_outputs_are_those_that_the_feature_wrote(feature: str) -> None:
    standard.assert_outputs_are_those_of_the_feature(feature)


@pytest.mark.parametrize("feature", FEATURES)
def test_result_is_present_and_well_formed(feature: str) -> None:
    standard.assert_feature_is_whole(feature, PARTS)


@pytest.mark.parametrize("feature", FEATURES)
def test_measurements_are_consistent_in_themselves(feature: str) -> None:
    standard.assert_measurements_are_consistent(feature)


#### one claim of each feature, from its stored files


def trained_runs(condition: str) -> list[str]:
    """Return the curves of a condition's trainings, below the outputs, by seed."""
    seeds = outputs.result(INDUCTION)["environment"]["config"]["plan"]["seeds"]
    runs = f"{INDUCTION}/artifacts/runs"
    return [f"{runs}/{condition}_seed{seed}/curve.safetensors" for seed in seeds]


def test_attention_that_was_recorded_is_the_one_of_its_queries_and_keys() -> None:
    """The tooling's parity: stated as stored, and a sample of layers computed anew."""
    if EXTRACTION in WAIVED:
        return
    folder = f"{EXTRACTION}/artifacts"
    files = [f"{folder}/{name}.safetensors" for name in ("model", "parity")]
    numbers = outputs.cached("phase 3 parity", files, lambda: recompute_parity(*files))
    for name in ("float32", "float64"):
        stated = outputs.value(f"parity_{name}", EXTRACTION)
        # Not assert_agrees: it takes everything below 1e-9 for equal.
        assert math.isclose(stated, numbers[name], rel_tol=1e-5, abs_tol=0.0), (
            f"parity_{name} is {stated}, stored are {numbers[name]}"
        )
    assert numbers["float32"] < PARITY
    assert numbers["recomputed"] < PARITY


def recompute_parity(model_file: str, parity_file: str) -> dict[str, float]:
    """Return the largest differences to eager attention as stored, and one computed here."""
    import numpy as np

    # 1. As stored.
    pairs = stored.read_arrays(outputs.out() / parity_file)
    numbers = {name: max(stored.pair_differences(pairs, name)) for name in ("float32", "float64")}

    # 2. A sample of layers: softmax(q·k / √d) with each key head for its group of query heads.
    model = stored.read_arrays(outputs.out() / model_file)
    layers, tokens, heads, width = model["rot_q"].shape
    drawn = outputs.rng().sample(range(layers), min(LAYERS, layers))
    group = heads // model["rot_k"].shape[2]
    later = np.triu(np.full((tokens, tokens), -np.inf), 1)
    largest = 0.0
    for layer in drawn:
        for head in range(heads):
            query = model["rot_q"][layer, :, head].astype(np.float64)  # [T, D]
            key = model["rot_k"][layer, :, head // group].astype(np.float64)
            weights = np.exp(query @ key.T / math.sqrt(width) + later)  # [T, T]
            weights /= weights.sum(-1, keepdims=True)
            difference = np.abs(weights - pairs["float32.recorded"][layer, head]).max()
            largest = max(largest, float(difference))
    return numbers | {"recomputed": largest}


def test_sink_rate_follows_from_the_stored_statistics() -> None:
    if VIEWS in WAIVED:
        return
    file = f"{VIEWS}/artifacts/statistics_natural.safetensors"

    def compute() -> dict[str, Any]:
        sink = stored.read_arrays(outputs.out() / file)["sink"]  # [texts, layers, heads, queries]
        has_sink = sink.astype("float64").mean(-1) > SINK
        return outputs.sample((100 * has_sink.mean((1, 2))).tolist())

    outputs.assert_agrees("sink_rate", outputs.cached("phase 3 sink", [file], compute), of=VIEWS)


def test_comparison_reports_what_its_stored_divergences_say() -> None:
    """The report base_vs_finetuned.md states the movement and both of its nulls."""
    if COMPARISON in WAIVED:
        return
    # 1. The mean divergence over models, heads and prompts.
    file = f"{COMPARISON}/artifacts/arrays.safetensors"

    def compute() -> dict[str, float]:
        arrays = stored.read_arrays(outputs.out() / file)
        groups = {"tuned": "tuned", "seeds": "between_seeds", "random": "random"}
        means = {}
        for name, group in groups.items():
            means[f"js_{name}"] = float(arrays[f"{group}.divergence"].astype("float64").mean())
        return means

    means = outputs.cached("phase 3 divergences", [file], compute)
    for name, mean in means.items():
        outputs.assert_agrees(name, mean, of=COMPARISON)

    # 2. The report is whole and states them.
    report = (outputs.out() / COMPARISON / "report.md").read_bytes()
    assert is_published_report(report), f"{COMPARISON}: report.md was changed"
    values = measured_values(report.decode("utf-8"))
    for name, mean in means.items():
        assert shows(values[name], mean), f"report.md: {name} = {values[name]}, recomputed {mean}"


def test_step_of_copying_follows_from_the_stored_curves() -> None:
    if INDUCTION in WAIVED:
        return
    plan = outputs.result(INDUCTION)["environment"]["config"]["plan"]
    files = [*trained_runs("repeats"), *trained_runs("one_layer")]
    threshold = plan["loss_share"] * math.log(plan["vocabulary"])

    def compute() -> dict[str, Any]:
        curves = [stored.read_arrays(outputs.out() / file) for file in files]
        losses = [float(curve["second"][-1]) for curve in curves]
        steps = []
        for curve in curves[: len(curves) // 2]:
            step = lasting_step(curve["steps"].tolist(), (curve["second"] < threshold).tolist())
            if step is not None:
                steps.append(float(step))
        half = len(losses) // 2
        return {
            "learnt_step": outputs.sample(steps) if steps else {"value": None},
            "second_copy_loss": outputs.sample(losses[:half]),
            "second_copy_loss_one_layer": outputs.sample(losses[half:]),
        }

    for name, expected in outputs.cached("phase 3 copying", files, compute).items():
        outputs.assert_agrees(name, expected, of=INDUCTION)


def lasting_step(steps: list[int], is_below: list[bool]) -> int | None:
    """Return the first evaluated step from which on the loss stays below; None without one."""
    lasting = None
    for step, below in zip(reversed(steps), reversed(is_below), strict=True):
        if not below:
            break
        lasting = step
    return lasting


#### registered before, assessed after

# What needs a waived feature is waived with it, so the self-assessment has all or is not there.
JUDGED = ASSESSED if ASSESSMENT in FEATURES else ()


def test_features_registered_what_they_expected() -> None:
    for feature in JUDGED:
        assessment.assert_registered(ASSESSMENT, feature)


def test_self_assessment_follows_from_the_results_beside_it() -> None:
    if JUDGED:
        numbers = assessment.recomputed(ASSESSMENT, JUDGED)["measurements"]
        for name in deciding.COMPUTED:
            outputs.assert_agrees(name, numbers[name], of=ASSESSMENT)


def test_explanations_state_the_numbers_of_this_phase() -> None:
    for feature in JUDGED:
        assessment.assert_explanations_state(ASSESSMENT, JUDGED, feature)


def test_minimum_interesting_experiment_is_named_and_answered_by_a_receipt() -> None:
    if JUDGED:
        assessment.assert_minimum_experiment(ASSESSMENT, JUDGED)


@pytest.mark.integrity
def test_self_assessment_names_each_result_and_its_receipt() -> None:
    for feature in JUDGED:
        assessment.assert_rests_on(ASSESSMENT, feature)
