"""Plausible results of a track, made from the names that its questions read.

FEAT-009, FEAT-013, FEAT-016 and the quiz are tested on them. Without another name they are track
A's.
"""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from lab import present
from lab.contract import Measurement, Result
from lab.synthesis.evidence import measurement_names
from lab.synthesis.questions import read_questions
from lab.synthesis.tracks import TRACKS

FEATURES = ("FEAT-005", "FEAT-006", "FEAT-007", "FEAT-008")
FEATURES_B = ("FEAT-010", "FEAT-011", "FEAT-012", "FEAT-021")
FEATURES_C = ("FEAT-014", "FEAT-015")
TRACK_FEATURES = {"track-a": FEATURES, "track-b": FEATURES_B, "track-c": FEATURES_C}
EXACT: dict[str, Any] = {
    "FEAT-006.best_rate": 0.001,
    "FEAT-006.gradient_spikes": 0,
    "FEAT-006.formula_rate": 1.32e-3,
    "FEAT-006.winner_unchanged_seeds": 2,
}
SAMPLES: dict[str, tuple[float, ...]] = {
    "FEAT-006.control_gap": (0.5, 0.52, 0.49),
    "FEAT-006.eval_loss_r16_lr1e_3": (2.6, 2.62, 2.58),
    "FEAT-006.eval_loss_r16_lr2e_4": (2.9, 2.95, 2.91),
    "FEAT-006.eval_loss_r16_lr5e_3": (2.9, 3.3, 2.7),
    "FEAT-005.staircase_share": (0.85, 0.9, 0.95),
    "FEAT-007.rank_gap": (0.01, -0.02, 0.005),
}

Changes = dict[str, Measurement]  # FEATURE.measurement -> what it is instead


@functools.cache
def track_names(track: str) -> list[str]:
    """Return every FEATURE.measurement that a track's file names, in questions and candidates."""
    questions, document = read_questions(TRACKS[track].questions)
    names = set(measurement_names(yaml.safe_dump(document["candidates"])))
    for question in questions:
        names.update(question.all_names)
    return sorted(names)


def measurements(
    changes: Changes | None = None, track: str = "track-a"
) -> dict[str, dict[str, Measurement]]:
    """Return all of them, by feature; what is not listed above gets values made from its name."""
    evidence: dict[str, dict[str, Measurement]] = {name: {} for name in TRACK_FEATURES[track]}
    for name in track_names(track):
        feature, _, key = name.partition(".")
        evidence[feature][key] = _measurement(name)
        if changes and name in changes:
            evidence[feature][key] = changes[name]
    return evidence


def _measurement(name: str) -> Measurement:
    if name in EXACT:
        return Measurement.of_exact(EXACT[name])
    if name in SAMPLES:
        return Measurement.of_sample(SAMPLES[name], "nats/token")
    digest = int(hashlib.sha256(name.encode()).hexdigest(), 16)
    base = 0.5 + digest % 900 / 100
    return Measurement.of_sample((base, base * 1.1, base * 0.95), "nats/token")


def write_results(
    folder: Path,
    changes: Changes | None = None,
    *,
    receipts: bool = True,
    track: str = "track-a",
) -> Path:
    """Write results and receipts of four features below `folder`, as the runner does; return it."""
    for feature, of_feature in measurements(changes, track).items():
        out = folder / feature
        out.mkdir(parents=True)
        result = Result(
            experiment=f"lab.{feature}",
            title=f"Experiment {feature}",
            question="Why is it so?",
            hypothesis="Because.",
            method="So.",
            headline=(),
            measurements=of_feature,
            findings=(f"{feature} found something.", "It has a control."),
        )
        present.write(out, result)
        if receipts:
            write_receipt(out)
    return folder


def write_receipt(folder: Path) -> None:
    """Write a receipt that names the result of a folder."""
    digest = hashlib.sha256((folder / "result.json").read_bytes()).hexdigest()
    receipt = {"subject": [{"name": "result.json", "digest": {"sha256": digest}}]}
    (folder / "receipt.json").write_text(json.dumps(receipt))


def plan(track: str = "track-a") -> dict[str, Any]:
    """Return a plan with predictions on a track; on track A of each comparator and outcome."""
    predictions = {
        "FEAT-005": [_prediction("stairs", "staircase_share", ">", 0.5, source="seen before")],
        "FEAT-006": [
            _prediction("gap", "control_gap", ">=", 0.2),
            _prediction("rate", "best_rate", "==", 0.0002),
            _prediction("led", "best_rate", "==", 0.001, margin="control_gap"),
        ],
        "FEAT-007": [_prediction("rank", "rank_gap", "within", [-0.1, 0.1])],
        "FEAT-008": [_prediction("unknown", "not_there", "<", 1)],
    }
    if track != "track-a":
        predictions = {}
        for feature in TRACK_FEATURES[track]:
            predictions[feature] = [_first_prediction(feature, track)]
    features = []
    for name, of_feature in predictions.items():
        features.append({"id": name, "title": name, "predictions": of_feature})
    return {
        "phases": [
            {"id": 1, "features": [{"id": "FEAT-001"}]},
            {"id": 2, "features": features},
        ]
    }


def _first_prediction(feature: str, track: str) -> dict[str, Any]:
    """Return a prediction of the first measurement of a feature of a track."""
    name = next(name for name in track_names(track) if name.startswith(feature))
    key = name.partition(".")[2]
    return _prediction(key.replace("_", "-"), key, ">", 0)


def _prediction(
    identifier: str, measurement: str, comparator: str, value: Any, **more: Any
) -> dict[str, Any]:
    prediction = {
        "id": identifier,
        "claim": f"{measurement} {comparator} {value}",
        "measurement": measurement,
        "comparator": comparator,
        "value": value,
    }
    return prediction | more


def write_inputs(folder: Path, changes: Changes | None = None, track: str = "track-a") -> Path:
    """Write results, plan and the file of --inputs; return the path of the latter."""
    write_results(folder, changes, receipts=False, track=track)
    (folder / "plan.json").write_text(json.dumps(plan(track)))
    entries = {"plan": {"kind": "input", "path": str(folder / "plan.json")}}
    for number, feature in enumerate(TRACK_FEATURES[track]):
        entries[feature] = {
            "kind": "feature",
            "path": str(folder / feature),
            "receipt": f"sha256:{number:064d}",
        }
    (folder / "inputs.json").write_text(json.dumps(entries))
    return folder / "inputs.json"
