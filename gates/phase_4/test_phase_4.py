"""Exit gate of phase 4: the residual stream recorded and analysed; a self-assessment.

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

from gates.shared import assessment, deciding, outputs, standard, statistics, stored
from gates.shared.documents import is_published_report, measured_values, shows

EXTRACTION, ANALYSIS = "FEAT-014", "FEAT-015"
ASSESSED = (EXTRACTION, ANALYSIS)
ASSESSMENT = "FEAT-016"
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
IDENTITY = 1e-6  # of the stream's length, in float32
SEEN = 0.01  # of it: what the sum of a wrong place is off by
# Sun et al. 2024, arXiv:2402.17762: massive is above both
MASSIVE, TIMES_MEDIAN = 100.0, 1000.0


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


def test_stream_is_the_sum_of_what_was_written() -> None:
    """The identity of every layer, and the control: the same sum from behind the input norm."""
    if EXTRACTION in WAIVED:
        return
    file = f"{EXTRACTION}/artifacts/model.safetensors"
    numbers = outputs.cached("phase 4 stream", [file], lambda: recompute_stream(file))
    for name, number in numbers.items():
        stated = outputs.value(name, EXTRACTION)
        # Not assert_agrees: it takes everything below 1e-9 for equal.
        assert math.isclose(stated, number, rel_tol=1e-5, abs_tol=0.0), (
            f"{name} is {stated}, stored are {number}"
        )
    assert numbers["residual_error"] < IDENTITY
    assert numbers["chain_error"] == 0
    assert numbers["misplaced_error"] > SEEN


def recompute_stream(file: str) -> dict[str, float]:
    """Return the errors of a stored stream [L, T, D] and of its control."""
    import numpy as np

    arrays = stored.read_arrays(outputs.out() / file)
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    writes, after = wide["attn_out"] + wide["mlp_out"], wide["resid_post"]
    length = np.linalg.norm(after, axis=-1)  # [L, T]
    errors = np.linalg.norm(after - wide["resid_pre"] - writes, axis=-1) / length
    misplaced = np.linalg.norm(after - wide["normed"] - writes, axis=-1) / length
    return {
        "residual_error": float(errors.max()),
        "chain_error": float(np.abs(after[:-1] - wide["resid_pre"][1:]).max()),
        "misplaced_error": float(misplaced.max(axis=1).min()),
        "last_hidden_state_gap": float(np.abs(wide["hidden_states"][-1] - after[-1]).max()),
    }


def test_massive_activations_follow_from_the_stored_extremes() -> None:
    if ANALYSIS in WAIVED:
        return
    file = f"{ANALYSIS}/artifacts/stream.safetensors"
    numbers = outputs.cached("phase 4 massive", [file], lambda: recompute_massive(file))
    for name, number in numbers.items():
        outputs.assert_agrees(name, number, of=ANALYSIS)


def recompute_massive(file: str) -> dict[str, int]:
    """Return the longest run of layers with a massive activation, and the dimensions of all."""
    arrays = stored.read_arrays(outputs.out() / file)
    largest = arrays["top"].astype("float64").mean(0)  # [L]
    median = arrays["median"].astype("float64").mean(0)
    longest, run = 0, 0
    for top, middle in zip(largest.tolist(), median.tolist(), strict=True):
        run = run + 1 if top > MASSIVE and top > TIMES_MEDIAN * middle else 0
        longest = max(longest, run)
    dimensions = len(set(arrays["hits"][:, 3].tolist()))
    return {"massive_layers": longest, "massive_dimensions": dimensions}


def test_analysis_reports_what_the_one_number_costs() -> None:
    """The report analysis.md states both perplexities and the control, from stored losses."""
    if ANALYSIS in WAIVED:
        return
    # 1. The ratios of perplexity, with the error over sequences.
    file = f"{ANALYSIS}/artifacts/interventions.safetensors"
    ratios = outputs.cached("phase 4 ratios", [file], lambda: recompute_ratios(file))
    for name, ratio in ratios.items():
        outputs.assert_agrees(name, ratio, of=ANALYSIS)

    # 2. The report is whole and states them.
    report = (outputs.out() / ANALYSIS / "report.md").read_bytes()
    assert is_published_report(report), f"{ANALYSIS}: report.md was changed"
    values = measured_values(report.decode("utf-8"))
    for name, ratio in ratios.items():
        stated = values[name]
        assert shows(stated, ratio["value"]), f"report.md: {name} = {stated}, recomputed {ratio}"


def recompute_ratios(file: str) -> dict[str, dict[str, Any]]:
    """Return the ratios of perplexity that the stored losses give, with their errors."""
    import numpy as np

    arrays = stored.read_arrays(outputs.out() / file)
    base = arrays["losses.base"].astype("float64")  # [B, T - 1]
    rises = {}
    for name, array in arrays.items():
        kind, _, intervention = name.partition(".")
        if kind == "losses" and intervention != "base":
            rises[intervention] = (array.astype("float64") - base).mean(1)  # [B]

    def ratios(kept: Any) -> dict[str, float]:
        of_all = {name: float(rise[kept].mean()) for name, rise in rises.items()}
        others = [rise for name, rise in of_all.items() if name.startswith("other_")]
        return {
            "zeroed_ratio": math.exp(of_all["zeroed"]),
            "mean_ratio": math.exp(of_all["mean"]),
            "other_dimension_ratio": math.exp(max(others, key=abs)),
        }

    every = np.arange(len(base))
    left_out = [ratios(every[every != sequence]) for sequence in every]
    numbers = {}
    for name, ratio in ratios(every).items():
        stderr = statistics.jackknife_stderr([part[name] for part in left_out])
        numbers[name] = {"value": ratio, "stderr": stderr, "n": len(base)}
    return numbers


#### registered before, assessed after

# What needs a waived feature is waived with it, so the self-assessment has all or is not there.
JUDGED = ASSESSED if ASSESSMENT in FEATURES else ()


def test_features_registered_what_they_expected() -> None:
    for feature in JUDGED:
        assessment.assert_registered(ASSESSMENT, feature)


def test_self_assessment_follows_from_the_results_beside_it() -> None:
    if JUDGED:
        units = deciding.OVER_TEXTS
        numbers = assessment.recomputed(ASSESSMENT, JUDGED, units)["measurements"]
        for name in units.computed:
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
