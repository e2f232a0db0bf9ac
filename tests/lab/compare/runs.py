"""Small runs to compare: results with receipts, as the runner leaves them."""

import hashlib
import json
from pathlib import Path
from typing import Any

from lab import present
from lab.contract import Measurement, Result

HOST = {
    "name": "vm",
    "system": "Linux-6.1-x86_64",
    "machine": "x86_64",
    "cpus": 2,
    "memoryBytes": 16 * 2**30,
    "python": "3.11.7",
    "executable": "/usr/bin/python",
}
PACKAGES = {"torch": "2.13.0", "numpy": "2.4.6", "certifi": "2026.1"}
ENVIRONMENT = {
    "packages": {"torch": "2.13.0"},
    "threads": 2,
    "profile": "cpu",
    "seed": 0,
    "inputs": {},
    "config": {"seeds": [0, 1, 2], "training": {"steps": 20}},
    "data": {"train": "d0" * 32},
}
EXACT, SAMPLE, ESTIMATE = Measurement.of_exact, Measurement.of_sample, Measurement.of_estimate
RATES = {
    "best_rate": EXACT(0.001),
    "spikes": EXACT(3, "steps"),
    "winner": EXACT("r16"),
    "gap": SAMPLE((0.50, 0.52, 0.49), "nats/token"),
    "loss": SAMPLE((2.60, 2.62, 2.58), "nats/token"),
    "first_loss": ESTIMATE(4.8, "nats/token"),
    "seconds": ESTIMATE(60.0, "s"),
    "weights": EXACT(1000, "bytes"),
}


def write_run(
    folder: Path,
    features: dict[str, dict[str, Measurement]],
    *,
    host: dict[str, Any] | None = None,
    packages: dict[str, str] | None = None,
    environment: dict[str, Any] | None = None,
    code: str = "c0" * 32,
    when: str = "2026-01-01T00:00:00Z",
) -> Path:
    """Write results with receipts below a folder, and return it; given dicts change the defaults.

    when: the run began; another time makes other receipts.
    """
    for feature, measurements in features.items():
        out = folder / feature
        out.mkdir(parents=True)
        result = Result(
            experiment="lab.topic.experiment",
            title=feature,
            question="Why?",
            hypothesis="So.",
            method="Thus.",
            headline=(),
            measurements=measurements,
            environment=ENVIRONMENT | (environment or {}),
        )
        present.write(out, result)
        contents = {"host": HOST | (host or {}), "packages": PACKAGES | (packages or {})}
        write_receipt(out, contents, code, when)
    return folder


def write_receipt(out: Path, contents: dict[str, Any], code: str, when: str) -> None:
    """Write the receipt of a result, with byproducts `contents` and the digest of its code."""
    digest = hashlib.sha256((out / "result.json").read_bytes()).hexdigest()
    made_from = [
        {"uri": "code:lab", "digest": {"sha256": code}},
        {"uri": "input:model", "digest": {"sha256:model.safetensors": "aa" * 32}},
    ]
    receipt = {
        "subject": [{"name": "result.json", "digest": {"sha256": digest}}],
        "predicate": {
            "buildDefinition": {"resolvedDependencies": made_from},
            "runDetails": {
                "metadata": {"startedOn": when},
                "byproducts": [{"name": k, "content": v} for k, v in contents.items()],
            },
        },
    }
    (out / "receipt.json").write_text(json.dumps(receipt))
