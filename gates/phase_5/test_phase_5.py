"""Exit gate of phase 5: models of memory and time, and a decision that rests on them.

PHASES_OUT holds one folder per feature, without those that were waived. What the feature's own
gate computed is not repeated here; the error of the memory model is recomputed from the peaks that
were measured, by a closed form of this gate, and that of the time from the seconds of the steps.
The plan is no input of this phase: what was predicted is scored by the runner.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from gates.shared import outputs, standard
from gates.shared.documents import is_published_report, measured_values, shows
from gates.shared.statistics import jackknife_stderr

DECISION = "FEAT-017"
WAIVED = os.environ.get("PHASES_WAIVED", "").split()
FEATURES = tuple(name for name in (DECISION,) if name not in WAIVED)
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
RUNS = f"{DECISION}/artifacts/runs.json"
TIME = f"{DECISION}/figures/time.json"
FIT, HELD_OUT = "fit", "held-out"


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


#### the memory model, from the peaks


@dataclass(frozen=True)
class Peak:
    """A training's bytes: what it added to the loaded process, and what the closed form counts."""

    role: str
    added: float
    counted: float


def peaks() -> list[Peak]:
    """Return the peaks of all trainings, in their order."""
    measured = []
    for run in outputs.read_json(RUNS):
        config = outputs.read_json(f"{DECISION}/artifacts/configs/{run['plan']['shape']}.json")
        added = run["peak"] - run["loaded"]
        measured.append(Peak(run["plan"]["role"], added, counted(config, run["plan"]["setup"])))
    return measured


def counted(config: Mapping[str, Any], setup: Mapping[str, Any]) -> float:
    """Return the bytes that a step in float32 adds to the loaded model, without any workspace.

    Adapters, Adam's two moments, and the larger of two: gradients, or all that waits for the
    backward pass with the logits of one group of at most 128 supervised tokens.
    """
    # 1. What is trained: the linear layers, or adapters on them.
    layers, d, m = (
        config[name] for name in ("num_hidden_layers", "hidden_size", "intermediate_size")
    )
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or d // heads
    q, k = heads * head, config["num_key_value_heads"] * head
    linears = [(d, q), (d, k), (d, k), (q, d), (d, m), (d, m), (m, d)]
    is_full, rank = setup["method"] == "full", setup["rank"]
    trained = layers * sum(a * b if is_full else rank * (a + b) for a, b in linears)

    # 2. What waits for the backward pass, of t tokens of which s are supervised.
    t = setup["batch"] * setup["sequence"]
    s = setup["batch"] * max(1, round(setup["supervised"] * setup["sequence"]))
    values = 2 * d + 3 * q + 2 * k + 4 * m + (0 if is_full else rank * len(linears))
    of_layers = 4 * layers * t * (values + 2 * (d + 1) + heads)
    of_rest = 4 * (2 * head * t + d * s) + 8 * (2 * t + s)
    logits = 8 * config["vocab_size"] * math.ceil(s / math.ceil(s / 128))

    adapters = 0 if is_full else 4 * trained
    return float(adapters + 8 * trained + max(4 * trained, of_layers + of_rest + logits))


def workspace(fitted: Sequence[Peak]) -> float:
    """Return the bytes beside what is counted, by least squares of the relative errors."""
    weights = [1 / peak.added**2 for peak in fitted]
    missing = [peak.added - peak.counted for peak in fitted]
    total = sum(weight * value for weight, value in zip(weights, missing, strict=True))
    return total / sum(weights)


def largest_error(held: Sequence[Peak], fitted: Sequence[Peak]) -> float:
    """Return the largest relative error on trainings that were not fitted to."""
    more = workspace(fitted)
    return max(abs((peak.counted + more) / peak.added - 1) for peak in held)


def recompute_memory() -> dict[str, Any]:
    """Return the error, with what each fitted training changes of it, and that of a constant."""
    every = peaks()
    fitted = [peak for peak in every if peak.role == FIT]
    held = [peak for peak in every if peak.role == HELD_OUT]
    assert len(fitted) > 1, "a model is fitted to more than one training"
    assert held, "no training was held out"
    assert len(fitted) + len(held) == len(every), "a training is neither fitted nor held out"
    without = []
    for left in range(len(fitted)):
        without.append(largest_error(held, fitted[:left] + fitted[left + 1 :]))
    constant = statistics.fmean(peak.added for peak in fitted)
    return {
        "held_out": len(held),
        "memory_workspace": workspace(fitted),
        "memory_error_max": {
            "value": largest_error(held, fitted),
            "stderr": jackknife_stderr(without),
            "n": len(fitted),
        },
        "memory_error_constant": max(abs(constant / peak.added - 1) for peak in held),
    }


def memory() -> dict[str, Any]:
    """Return what was recomputed, from the cache while the files stay."""
    shapes = {run["plan"]["shape"] for run in outputs.read_json(RUNS)}
    files = [RUNS, *(f"{DECISION}/artifacts/configs/{shape}.json" for shape in shapes)]
    return dict(outputs.cached("phase 5 memory", files, recompute_memory))


def test_memory_errors_follow_from_the_measured_peaks() -> None:
    """Also: a constant, which needs no model, is further off."""
    if DECISION in WAIVED:
        return
    numbers = memory()
    for name, number in numbers.items():
        outputs.assert_agrees(name, number, of=DECISION)
    error, control = numbers["memory_error_max"]["value"], numbers["memory_error_constant"]
    assert error < control, f"a constant does as well: {control} against {error}"


#### the time model, from the seconds


def test_time_errors_follow_from_the_measured_seconds() -> None:
    """What the figure says was measured is the median of the steps; its worst error is stated."""
    if DECISION in WAIVED:
        return
    runs = outputs.read_json(RUNS)
    shown = {series["label"]: series for series in outputs.read_json(TIME)["series"]}
    for role in (FIT, HELD_OUT):
        medians = [statistics.median(run["seconds"]) for run in runs if run["plan"]["role"] == role]
        assert outputs.same(shown[role]["x"], medians, 1e-5), f"{role}: steps took {medians} s"
    held = zip(shown[HELD_OUT]["x"], shown[HELD_OUT]["y"], strict=True)
    errors = [abs(predicted / measured - 1) for measured, predicted in held]
    outputs.assert_agrees("time_error_max", {"value": max(errors)}, of=DECISION)


#### the report


def test_decision_reports_how_far_its_models_are_off() -> None:
    """The report HARDWARE-DECISION.md is whole, and states both errors and the recommendation."""
    if DECISION in WAIVED:
        return
    report = (outputs.out() / DECISION / "report.md").read_bytes()
    assert is_published_report(report), f"{DECISION}: report.md was changed"
    values = measured_values(report.decode("utf-8"))
    error = memory()["memory_error_max"]["value"]
    assert shows(values["memory_error_max"], error), f"report.md: {values['memory_error_max']}"
    time_error = outputs.value("time_error_max", DECISION)
    assert shows(values["time_error_max"], time_error), f"report.md: {values['time_error_max']}"
    recommendation = outputs.value("recommendation", DECISION)
    assert recommendation, "nothing is recommended"
    assert values["recommendation"] == recommendation
