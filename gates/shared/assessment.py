"""A self-assessment judged from the results beside it, for the exit gates of phases that have one.

`of` is the feature of the self-assessment, `assessed` the features whose results it rests on; each
has a folder below the outputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from gates.shared import deciding, outputs


def assert_registered(of: str, feature: str) -> None:
    """Check that what was scored of a feature is just what the plan registered."""
    # 1. What the plan registered.
    plan = json.loads(outputs.inputs()["plan"].read_text("utf-8"))
    planned = []
    for phase in plan["phases"]:
        planned += [entry for entry in phase["features"] if entry["id"] == feature]
    assert len(planned) == 1, f"the plan has {len(planned)} features {feature}; expected 1"
    registered = planned[0].get("predictions", [])
    assert registered, f"{feature} predicted nothing"

    # 2. The self-assessment scored just that.
    assessed = {item["id"]: item for item in predictions(of) if item["feature"] == feature}
    assert [prediction["id"] for prediction in registered] == list(assessed)
    for prediction in registered:
        name = prediction["id"]
        for field in ("claim", "measurement", "comparator", "value"):
            assert assessed[name][field] == prediction[field], f"{feature} {name}: another {field}"


def predictions(of: str) -> list[dict[str, Any]]:
    """Return the predictions that the self-assessment scored."""
    stored: list[dict[str, Any]] = outputs.read_json(f"{of}/predictions.json")
    return stored


def recomputed(
    of: str, assessed: Sequence[str], units: deciding.Units = deciding.OVER_SEEDS
) -> dict[str, Any]:
    """Return the self-assessment's measurements, and the effect of each comparison."""
    files = [f"{of}/{name}.json" for name in ("questions", "candidates", "predictions")]
    files += [f"{feature}/result.json" for feature in assessed]

    def compute() -> dict[str, Any]:
        questions = outputs.read_json(f"{of}/questions.json")["questions"]
        candidates = outputs.read_json(f"{of}/candidates.json")
        measurements = results(assessed)
        effects = []
        for candidate in candidates:
            effects.append(deciding.evaluate_candidate(candidate, measurements).effect)
        return {
            "measurements": deciding.compute_measurements(
                questions, candidates, predictions(of), measurements, units
            ),
            "effects": effects,
        }

    return dict(outputs.cached(f"self-assessment {of}", files, compute))


def results(assessed: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return feature -> its measurements."""
    return {feature: outputs.result(feature)["measurements"] for feature in assessed}


def assert_explanations_state(of: str, assessed: Sequence[str], feature: str) -> None:
    """Check that a feature decides a question, and that explanations state its numbers."""
    document = outputs.read_json(f"{of}/questions.json")
    names: set[str] = set()
    for question in document["questions"]:
        names |= deciding.rule_names(question)
    assert any(name.startswith(f"{feature}.") for name in names), (
        f"no question is decided by {feature}"
    )
    misstatements = deciding.find_misstatements(document, results(assessed))
    assert [text for text in misstatements if f"{feature}." in text] == []


def assert_minimum_experiment(of: str, assessed: Sequence[str]) -> None:
    """Check that it is a candidate, has the effect that was measured, and names its receipt."""
    # 1. It is one of the candidates, and its effect is the one that was measured.
    candidates = {item["name"]: item for item in outputs.read_json(f"{of}/candidates.json")}
    name = outputs.value("minimum_experiment", of)
    assert name in candidates
    effect = recomputed(of, assessed)["effects"][list(candidates).index(name)]
    expected = {field: effect.get(field) for field in ("value", "stderr", "n")}
    outputs.assert_agrees(deciding.EFFECT, expected, of=of)

    # 2. The first finding names it, its question and its feature's receipt.
    feature = outputs.value("minimum_experiment_feature", of)
    receipt = outputs.read_json(f"{of}/sources.json")[feature]["receipt"]
    finding = outputs.result(of)["findings"][0]
    assert repr(name) in finding
    assert receipt in finding
    assert candidates[name]["question"] in finding


def assert_rests_on(of: str, feature: str) -> None:
    """Check that the self-assessment names a feature's receipt, and was made from this result."""
    source = outputs.read_json(f"{of}/sources.json")[feature]
    receipt = source["receipt"]
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", receipt), f"{feature} has no receipt: {receipt}"
    digest = outputs.digest_of(outputs.out() / feature / "result.json")
    assert source["result"] == f"sha256:{digest}", (
        f"{feature}: the self-assessment was made from another result"
    )
