"""Results, receipts and a plan with a prediction of each fate, for what is asked next.

FEAT-006 trains over seeds, FEAT-011 reads texts, FEAT-016 reads others' results, FEAT-017 has the
models of cost.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lab import present
from lab.contract import Measurement, Result
from tests.lab.hardware.machine import small_machine

LLAMA = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}
TRAINING_CONFIG = {
    "data": {"max_tokens": 26, "evaluation": 256},
    "lora": {"r": 16},
    "rates": [1e-5, 2e-4, 1e-3, 5e-3],
    "second": {"r": 64, "rates": [2e-4, 1e-3, 5e-3]},
    "training": {"batch_size": 8},
    "examples": 160,
    "seeds": [0, 1, 2],
}
ESTIMATE, EXACT, SAMPLE = Measurement.of_estimate, Measurement.of_exact, Measurement.of_sample
FEATURES: dict[str, tuple[dict[str, Any], tuple[str, ...], dict[str, Measurement]]] = {
    # feature -> config, headline, measurements
    "FEAT-006": (
        TRAINING_CONFIG,
        ("best_rate", "optimum_shift", "format_share"),
        {
            "best_rate": EXACT(5e-4),
            "best_rate_lead": SAMPLE((0.02, 0.09, -0.01), "nats/token"),
            "optimum_shift": SAMPLE((0.1, 0.5, 0.2), ""),
            "format_share": SAMPLE((0.71, 0.69, 0.72), ""),
            "gradient_spikes": EXACT(2, "steps"),
            "last_loss": ESTIMATE(2.5, "nats/token"),
            "eval_loss": ESTIMATE(2.9, "nats/token", stderr=0.08, n=256),
            "flat": SAMPLE((0.5, 0.5002, 0.1), ""),
        },
    ),
    "FEAT-011": (
        {"sequences": {"count": 8, "length": 64}},
        ("sink_rate", "entropy_highest_layer"),
        {
            "sink_rate": ESTIMATE(51.0, "%", stderr=2.0, n=8),
            "copy_loss": ESTIMATE(0.52, "nats/token", stderr=0.03, n=4),
            "entropy_highest_layer": EXACT(3),
            "starts_first": EXACT(value=False),
            "tiny": ESTIMATE(0.2, "", stderr=0.4, n=8),
            "gone": ESTIMATE(None, ""),
        },
    ),
    "FEAT-016": (
        {"features": ["FEAT-011"]},
        ("held_share",),
        {"held_share": EXACT(0.4)},
    ),
    "FEAT-017": (
        {"repeats": 7},
        ("time_error_max", "gemm"),
        {
            "time_error_max": ESTIMATE(0.31, ""),
            "gemm": ESTIMATE(140.0, "GFLOP/s", stderr=6.0, n=7),
        },
    ),
}
PREDICTIONS: dict[str, list[dict[str, Any]]] = {
    "FEAT-006": [
        {"id": "winner", "measurement": "best_rate", "comparator": "==", "value": 1e-3},
        {
            "id": "leads",
            "measurement": "best_rate",
            "comparator": "==",
            "value": 5e-4,
            "margin": "best_rate_lead",
        },
        {
            "id": "no-move",
            "measurement": "optimum_shift",
            "comparator": "within",
            "value": [-0.35, 0.35],
        },
        {"id": "format", "measurement": "format_share", "comparator": ">=", "value": 0.5},
        {"id": "spikes", "measurement": "gradient_spikes", "comparator": "==", "value": 0},
        {"id": "last", "measurement": "last_loss", "comparator": "<", "value": 2.6},
        {"id": "eval", "measurement": "eval_loss", "comparator": "<", "value": 2.8},
        {"id": "equal", "measurement": "eval_loss", "comparator": "==", "value": 2.8},
        {"id": "far", "measurement": "flat", "comparator": ">", "value": 0.3667},
    ],
    "FEAT-011": [
        {"id": "sink", "measurement": "sink_rate", "comparator": "within", "value": [60, 85]},
        {"id": "copy", "measurement": "copy_loss", "comparator": "<", "value": 0.5},
        {
            "id": "entropy",
            "measurement": "entropy_highest_layer",
            "comparator": "!=",
            "value": 3,
        },
        {"id": "order", "measurement": "starts_first", "comparator": "==", "value": True},
        {"id": "gone", "measurement": "gone", "comparator": ">", "value": 1},
        {"id": "absent", "measurement": "not_there", "comparator": ">", "value": 1},
    ],
    "FEAT-016": [{"id": "holds", "measurement": "held_share", "comparator": ">=", "value": 0.6}],
    "FEAT-017": [{"id": "time", "measurement": "time_error_max", "comparator": "<", "value": 0.25}],
}


def plan() -> dict[str, Any]:
    """Return a plan with these predictions, each with a claim in words."""
    features = []
    for feature, predictions in PREDICTIONS.items():
        full = [{"claim": f"claim of {one['id']}", **one} for one in predictions]
        features.append(
            {
                "id": feature,
                "title": f"Experiment {feature}",
                "module": "lab.topic.experiment",
                "config": "lab/topic/experiment.yaml",
                "outputs": ["result.json", "report.md"],
                "gate": {"pytest": "gates/topic/test_topic.py"},
                "predictions": full,
            }
        )
    return {"phases": [{"id": 1, "features": features}]}


def write_inputs(
    folder: Path,
    *,
    without: tuple[str, ...] = (),
    changes: dict[str, Measurement] | None = None,
) -> Path:
    """Write results with receipts, the plan and the file of the inputs below a folder.

    without: features that are not there, as if waived; changes: FEATURE.name -> what it is instead.
    """
    entries: dict[str, Any] = {}
    for number, (feature, (config, headline, measured)) in enumerate(FEATURES.items()):
        if feature in without:
            continue
        measurements = dict(measured)
        for name in measured:
            if changes and f"{feature}.{name}" in changes:
                measurements[name] = changes[f"{feature}.{name}"]
        environment: dict[str, Any] = {"config": config}
        if feature == "FEAT-017":
            environment["machine"] = small_machine().to_json()
        out = folder / feature
        (out / "artifacts/configs").mkdir(parents=True)
        (out / "artifacts/configs/base.json").write_text(json.dumps(LLAMA))
        result = Result(
            experiment=f"lab.{feature}",
            title=f"Experiment {feature}",
            question="Why is it so?",
            hypothesis="Because.",
            method="So.",
            headline=headline,
            measurements=measurements,
            environment=environment,
        )
        present.write(out, result)
        digest = write_receipt(out, 100.0 * (number + 1))
        entries[feature] = {"kind": "feature", "path": str(out), "receipt": digest}
    (folder / "plan.json").write_text(json.dumps(plan()))
    entries["plan"] = {"kind": "input", "path": str(folder / "plan.json")}
    (folder / "inputs.json").write_text(json.dumps(entries))
    return folder / "inputs.json"


def write_receipt(out: Path, seconds: float) -> str:
    """Write a receipt that names the result and what its process took; return its digest."""
    digest = hashlib.sha256((out / "result.json").read_bytes()).hexdigest()
    process = {"seconds": seconds, "cpuSeconds": seconds, "peakMemoryBytes": 1_500_000_000}
    receipt = {
        "subject": [{"name": "result.json", "digest": {"sha256": digest}}],
        "predicate": {"runDetails": {"byproducts": [{"name": "process", "content": process}]}},
    }
    (out / "receipt.json").write_text(json.dumps(receipt))
    return f"sha256:{hashlib.sha256((out / 'receipt.json').read_bytes()).hexdigest()}"
