"""Exit gate of phase 2: four experiments with registered hypotheses, a self-assessment from them.

PHASES_OUT holds one folder per feature. What the features' own gates computed is not repeated here;
one claim of each result is computed anew from its stored files, and the self-assessment from the
four results beside it, so that no result can be exchanged for another after it was judged.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from gates.shared import deciding as self_assessment
from gates.shared import outputs
from gates.shared.deciding import COUNTED, EFFECT

EXPERIMENTS = ("FEAT-005", "FEAT-006", "FEAT-007", "FEAT-008")
CURVES, RATES, RANKS, FORGETTING = EXPERIMENTS
ASSESSMENT = "FEAT-009"
FEATURES = (*EXPERIMENTS, ASSESSMENT)
PARTS = {
    "experiment",
    "question",
    "hypothesis",
    "method",
    "measurements",
    "findings",
    "environment",
    "files",
}
SUITES = ("lab_math", "lab_reasoning", "lab_code", "lab_knowledge")
SHAPES = ("healthy", "overfitting", "diverging", "flat")


@pytest.mark.integrity
@pytest.mark.parametrize("feature", FEATURES)
def test_outputs_are_those_that_the_feature_wrote(feature: str) -> None:
    outputs.assert_files_match(feature)
    outputs.assert_report_matches(feature)
    outputs.assert_figures_match(feature)


@pytest.mark.parametrize("feature", FEATURES)
def test_result_is_present_and_well_formed(feature: str) -> None:
    result = outputs.result(feature)
    assert set(result) >= PARTS, f"{feature} lacks {sorted(PARTS - set(result))}"
    assert result["measurements"] and result["findings"]
    for part in ("question", "hypothesis", "method"):
        assert len(result[part].split()) >= 5, f"{feature}: {part} says too little"


@pytest.mark.parametrize("feature", FEATURES)
def test_measurements_are_consistent_in_themselves(feature: str) -> None:
    for name, found in outputs.result(feature)["measurements"].items():
        values = found.get("values")
        assert isinstance(found["unit"], str), f"{feature} {name} has no unit"
        if values is not None:
            assert found["n"] == len(values), (
                f"{feature} {name} has {len(values)} values and n = {found['n']}"
            )
            wanted = outputs.sample(values)
            assert outputs.same(found["value"], wanted["value"], 1e-6), (
                f"{feature} {name} is not the mean of its values"
            )
            assert outputs.same(found["stderr"], wanted["stderr"], 1e-6), (
                f"{feature} {name}: standard error"
            )


# One claim of each experiment, from its stored files


def trials(feature: str) -> dict[str, dict[str, Any]]:
    """Give name -> description of the trials that a feature stored itself."""
    places = sorted((outputs.out() / feature / "artifacts" / "trials").glob("*/trial.json"))
    found = {path.parent.name: json.loads(path.read_text("utf-8")) for path in places}
    return {name: raw["trial"] for name, raw in found.items() if "trial" in raw}


def loss(feature: str, name: str) -> float:
    """Give the mean held-out loss of a stored evaluation, in nats per token."""
    path = f"{feature}/artifacts/trials/{name}/evaluation.safetensors"

    def compute() -> float:
        import numpy as np
        from safetensors.numpy import load_file

        return float(load_file(outputs.out() / path)["losses"].astype(np.float64).mean())

    return float(outputs.cached("phase 2 loss", [path], compute))


def same_but(trial: dict[str, Any], **changed: Any) -> tuple[str, str]:
    """Give (feature, name) of the stored trial that differs from `trial` only in what is named."""
    wanted = {**trial, **changed}
    for feature in EXPERIMENTS:
        for name, found in trials(feature).items():
            if found == wanted:
                return feature, name
    msg = f"no feature stored the trial {wanted}"
    raise AssertionError(msg)


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_curves_end_where_their_evaluations_say(shape: str) -> None:
    names = outputs.read_json(f"{CURVES}/artifacts/shapes.json")
    assert sorted(names) == sorted(SHAPES)
    again = loss(CURVES, names[shape])
    assert math.isclose(outputs.value(f"eval_loss_{shape}", CURVES), again, rel_tol=1e-5)
    assert math.isclose(outputs.value("base_loss", CURVES), loss(CURVES, "base"), rel_tol=1e-5)


def test_control_gap_follows_from_the_stored_evaluations() -> None:
    controls = {name: trial for name, trial in trials(RATES).items() if trial["shuffled"]}
    assert controls, f"{RATES} stored no run with shuffled answers"
    gaps = [
        loss(RATES, name) - loss(*same_but(trial, shuffled=False))
        for name, trial in controls.items()
    ]
    assert math.isclose(
        outputs.value("control_gap", RATES), statistics.fmean(gaps), rel_tol=1e-5, abs_tol=1e-9
    )
    mean = statistics.fmean(loss(RATES, name) for name in controls)
    assert math.isclose(outputs.value("eval_loss_shuffled", RATES), mean, rel_tol=1e-5)


def test_rank_gap_follows_from_the_stored_evaluations() -> None:
    small = {name: trial for name, trial in trials(RANKS).items() if trial["lora"]["r"] == 8}
    assert small, f"{RANKS} stored no run of rank 8"
    gaps = [
        loss(*same_but(t, lora={**t["lora"], "r": 64})) - loss(RANKS, name)
        for name, t in small.items()
    ]
    assert math.isclose(
        outputs.value("rank_gap", RANKS), statistics.fmean(gaps), rel_tol=1e-5, abs_tol=1e-9
    )


def test_forgetting_was_asked_in_as_many_items_as_were_stored() -> None:
    counts = {}
    for suite in SUITES:
        path = outputs.out() / FORGETTING / "artifacts" / "suites" / f"{suite}.jsonl"
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        counts[suite] = len({json.dumps(line, sort_keys=True) for line in lines})
        assert counts[suite] == len(lines) >= 100, (
            f"{suite}: {len(lines)} items, {counts[suite]} different ones"
        )
    assert outputs.value("items", FORGETTING) == sum(counts.values())


@pytest.mark.parametrize("feature", EXPERIMENTS[1:])
def test_every_experiment_used_the_data_that_the_first_one_froze(feature: str) -> None:
    frozen = {
        n: outputs.digest_of(outputs.out() / CURVES / f"artifacts/{n}.jsonl")
        for n in ("train", "evaluation")
    }
    places = sorted((outputs.out() / feature / "artifacts" / "trials").glob("*/trial.json"))
    for path in places:
        stated = json.loads(path.read_text("utf-8"))
        assert {name: stated[f"{name}_sha256"] for name in frozen} == frozen, (
            f"{feature}: {path.parent.name}"
        )


# Registered before, assessed after


def claims() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = outputs.read_json(f"{ASSESSMENT}/predictions.json")
    return found


def again() -> dict[str, Any]:
    """Give what the self-assessment must hold: its counts, and the sizes of the comparisons."""
    own = [f"{ASSESSMENT}/{name}.json" for name in ("questions", "candidates", "predictions")]
    files = [*own, *(f"{feature}/result.json" for feature in EXPERIMENTS)]
    return dict(outputs.cached("phase 2 self-assessment", files, _again))


def _again() -> dict[str, Any]:
    results = {feature: outputs.result(feature)["measurements"] for feature in EXPERIMENTS}
    asked = outputs.read_json(f"{ASSESSMENT}/questions.json")["asked"]
    candidates = outputs.read_json(f"{ASSESSMENT}/candidates.json")
    return {
        "counted": self_assessment.counted(asked, candidates, claims(), results),
        "sized": [self_assessment.sized(candidate, results) for candidate in candidates],
    }


@pytest.mark.parametrize("feature", EXPERIMENTS)
def test_experiment_registered_what_it_expected(feature: str) -> None:
    plan = json.loads(Path(outputs.inputs()["plan"]).read_text("utf-8"))
    planned = [f for phase in plan["phases"] for f in phase["features"] if f["id"] == feature]
    (registered,) = [f.get("predictions", []) for f in planned]
    assert registered, f"{feature} predicted nothing"
    assessed = {claim["id"]: claim for claim in claims() if claim["feature"] == feature}
    assert [claim["id"] for claim in registered] == list(assessed)
    for claim in registered:
        for field in ("claim", "measurement", "comparator", "value"):
            assert assessed[claim["id"]][field] == claim[field], (
                f"{feature} {claim['id']}: another {field}"
            )


@pytest.mark.parametrize("name", COUNTED)
def test_self_assessment_follows_from_the_results_beside_it(name: str) -> None:
    outputs.assert_agrees(name, again()["counted"][name], of=ASSESSMENT)


@pytest.mark.parametrize("feature", EXPERIMENTS)
def test_explanations_state_the_numbers_of_this_phase(feature: str) -> None:
    document = outputs.read_json(f"{ASSESSMENT}/questions.json")
    results = {name: outputs.result(name)["measurements"] for name in EXPERIMENTS}
    used = {place for question in document["asked"] for place in self_assessment.deciding(question)}
    assert any(place.startswith(f"{feature}.") for place in used), (
        f"no question is decided by {feature}"
    )
    wrong = [text for text in self_assessment.misstated(document, results) if f"{feature}." in text]
    assert wrong == []


def test_minimum_interesting_experiment_is_named_and_answered_by_a_receipt() -> None:
    candidates = {item["name"]: item for item in outputs.read_json(f"{ASSESSMENT}/candidates.json")}
    name = outputs.value("minimum_experiment", ASSESSMENT)
    assert name in candidates
    effect = again()["sized"][list(candidates).index(name)]["effect"]
    outputs.assert_agrees(
        EFFECT, {field: effect.get(field) for field in ("value", "stderr", "n")}, of=ASSESSMENT
    )
    feature = outputs.value("minimum_experiment_feature", ASSESSMENT)
    receipt = outputs.read_json(f"{ASSESSMENT}/sources.json")[feature]["receipt"]
    told = outputs.result(ASSESSMENT)["findings"][0]
    assert repr(name) in told and receipt in told and candidates[name]["question"] in told


@pytest.mark.integrity
@pytest.mark.parametrize("feature", EXPERIMENTS)
def test_self_assessment_names_this_result_and_its_receipt(feature: str) -> None:
    source = outputs.read_json(f"{ASSESSMENT}/sources.json")[feature]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", source["receipt"]), (
        f"{feature} has no receipt: {source['receipt']}"
    )
    digest = outputs.digest_of(outputs.out() / feature / "result.json")
    assert source["result"] == f"sha256:{digest}", (
        f"{feature}: the self-assessment was made from another result"
    )
