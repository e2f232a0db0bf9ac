"""Exit gate of phase 2: four experiments with registered hypotheses, a self-assessment from them.

PHASES_OUT holds one folder per feature. What the features' own gates computed is not repeated here;
one claim of each result is recomputed from its stored files, and the self-assessment from the four
results beside it, so that no result can be exchanged for another after it was judged.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from typing import Any

import pytest

from gates.shared import assessment, deciding, outputs, standard

EXPERIMENTS = ("FEAT-005", "FEAT-006", "FEAT-007", "FEAT-008")
CURVES, RATES, RANKS, FORGETTING = EXPERIMENTS
ASSESSMENT = "FEAT-009"
FEATURES = (*EXPERIMENTS, ASSESSMENT)
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
SUITES = ("lab_math", "lab_reasoning", "lab_code", "lab_knowledge")
SHAPES = ("healthy", "overfitting", "diverging", "flat")
MIN_ITEMS = 100  # of a suite


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


#### one claim of each experiment, from its stored files


def trial_files(feature: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (folder name, content of trial.json) of each trial folder of a feature."""
    folder = outputs.out() / feature / "artifacts" / "trials"
    for path in sorted(folder.glob("*/trial.json")):
        yield path.parent.name, json.loads(path.read_text("utf-8"))


def trials(feature: str) -> dict[str, dict[str, Any]]:
    """Return name -> description of the trials that a feature stored itself."""
    descriptions = {}
    for name, content in trial_files(feature):
        if "trial" in content:
            descriptions[name] = content["trial"]
    return descriptions


def mean_loss(feature: str, name: str) -> float:
    """Return the mean held-out loss of a stored evaluation, in nats per token."""
    path = f"{feature}/artifacts/trials/{name}/evaluation.safetensors"

    def compute() -> float:
        import numpy as np
        from safetensors.numpy import load_file

        losses = load_file(outputs.out() / path)["losses"]  # [supervised tokens]
        return float(losses.astype(np.float64).mean())

    return float(outputs.cached("phase 2 loss", [path], compute))


def find_trial(trial: dict[str, Any], **changes: Any) -> tuple[str, str]:
    """Return (feature, name) of the stored trial that differs from `trial` only in `changes`."""
    expected = {**trial, **changes}
    for feature in EXPERIMENTS:
        for name, description in trials(feature).items():
            if description == expected:
                return feature, name
    msg = f"no feature stored the trial {expected}"
    raise AssertionError(msg)


def assert_close(stated: float, recomputed: float, abs_tol: float = 0.0) -> None:
    assert math.isclose(stated, recomputed, rel_tol=1e-5, abs_tol=abs_tol), (
        f"stated {stated}, recomputed {recomputed}"
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_curves_end_where_their_evaluations_say(shape: str) -> None:
    names = outputs.read_json(f"{CURVES}/artifacts/shapes.json")
    assert sorted(names) == sorted(SHAPES)
    assert_close(outputs.value(f"eval_loss_{shape}", CURVES), mean_loss(CURVES, names[shape]))
    assert_close(outputs.value("base_loss", CURVES), mean_loss(CURVES, "base"))


def test_control_gap_follows_from_the_stored_evaluations() -> None:
    losses, gaps = [], []
    for name, trial in trials(RATES).items():
        if trial["shuffled"]:
            loss = mean_loss(RATES, name)
            losses.append(loss)
            gaps.append(loss - mean_loss(*find_trial(trial, shuffled=False)))
    assert losses, f"{RATES} stored no run with shuffled answers"
    assert_close(outputs.value("control_gap", RATES), statistics.fmean(gaps), abs_tol=1e-9)
    assert_close(outputs.value("eval_loss_shuffled", RATES), statistics.fmean(losses))


def test_rank_gap_follows_from_the_stored_evaluations() -> None:
    gaps = []
    for name, trial in trials(RANKS).items():
        if trial["lora"]["r"] == 8:
            of_rank_64 = find_trial(trial, lora={**trial["lora"], "r": 64})
            gaps.append(mean_loss(*of_rank_64) - mean_loss(RANKS, name))
    assert gaps, f"{RANKS} stored no run of rank 8"
    assert_close(outputs.value("rank_gap", RANKS), statistics.fmean(gaps), abs_tol=1e-9)


def test_forgetting_was_asked_in_as_many_items_as_were_stored() -> None:
    total = 0
    for suite in SUITES:
        path = outputs.out() / FORGETTING / "artifacts" / "suites" / f"{suite}.jsonl"
        items = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        count = len({json.dumps(item, sort_keys=True) for item in items})
        assert count == len(items) >= MIN_ITEMS, (
            f"{suite}: {len(items)} items, {count} different ones"
        )
        total += count
    assert outputs.value("items", FORGETTING) == total


@pytest.mark.parametrize("feature", EXPERIMENTS[1:])
def test_every_experiment_used_the_data_that_the_first_one_froze(feature: str) -> None:
    folder = outputs.out() / CURVES / "artifacts"
    digests = {}
    for data in ("train", "evaluation"):
        digests[f"{data}_sha256"] = outputs.digest_of(folder / f"{data}.jsonl")
    for name, content in trial_files(feature):
        stated = {field: content[field] for field in digests}
        assert stated == digests, f"{feature}: {name}"


#### registered before, assessed after


@pytest.mark.parametrize("feature", EXPERIMENTS)
def test_experiment_registered_what_it_expected(feature: str) -> None:
    assessment.assert_registered(ASSESSMENT, feature)


@pytest.mark.parametrize("name", deciding.COMPUTED)
def test_self_assessment_follows_from_the_results_beside_it(name: str) -> None:
    numbers = assessment.recomputed(ASSESSMENT, EXPERIMENTS)["measurements"]
    outputs.assert_agrees(name, numbers[name], of=ASSESSMENT)


@pytest.mark.parametrize("feature", EXPERIMENTS)
def test_explanations_state_the_numbers_of_this_phase(feature: str) -> None:
    assessment.assert_explanations_state(ASSESSMENT, EXPERIMENTS, feature)


def test_minimum_interesting_experiment_is_named_and_answered_by_a_receipt() -> None:
    assessment.assert_minimum_experiment(ASSESSMENT, EXPERIMENTS)


@pytest.mark.integrity
@pytest.mark.parametrize("feature", EXPERIMENTS)
def test_self_assessment_names_this_result_and_its_receipt(feature: str) -> None:
    assessment.assert_rests_on(ASSESSMENT, feature)
