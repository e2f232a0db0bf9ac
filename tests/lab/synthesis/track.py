"""Plausible results of track A, made from the names that its questions read.

FEAT-009 and the quiz are given them.
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
from lab.synthesis import evidence, questions

FEATURES = ("FEAT-005", "FEAT-006", "FEAT-007", "FEAT-008")
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


@functools.cache
def places() -> list[str]:
    """Every FEATURE.measurement that track_a.yaml names, in questions and candidates."""
    asked, document = questions.read()
    named = [name for question in asked for name in question.uses]
    named += evidence.names(yaml.safe_dump(document["candidates"]))
    return sorted(set(named))


def measured(changed: dict[str, Measurement] | None = None) -> dict[str, dict[str, Measurement]]:
    """All of them with numbers; those that are not listed above get one made from their name."""
    found: dict[str, dict[str, Measurement]] = {feature: {} for feature in FEATURES}
    for place in places():
        feature, _, name = place.partition(".")
        base = 0.5 + int(hashlib.sha256(place.encode()).hexdigest(), 16) % 900 / 100
        values = SAMPLES.get(place, (base, base * 1.1, base * 0.95))
        made = (
            Measurement.of_exact(EXACT[place])
            if place in EXACT
            else Measurement.of_sample(values, "nats/token")
        )
        found[feature][name] = (changed or {}).get(place, made)
    return found


def write(
    folder: Path, changed: dict[str, Measurement] | None = None, *, receipts: bool = True
) -> Path:
    """Write results and receipts of four features below `folder`, as the runner does; gives it."""
    for feature, found in measured(changed).items():
        home = folder / feature
        home.mkdir(parents=True)
        sentences = (f"{feature} found something.", "It has a control.")
        present.write(
            home,
            Result(f"lab.{feature}", "Why is it so?", "Because.", "So.", found, findings=sentences),
        )
        if receipts:
            data = (home / "result.json").read_bytes()
            subject = [
                {"name": "result.json", "digest": {"sha256": hashlib.sha256(data).hexdigest()}}
            ]
            (home / "receipt.json").write_text(json.dumps({"subject": subject}))
    return folder


def plan() -> dict[str, Any]:
    """A plan with predictions of each comparator and each outcome."""

    def claim(
        name: str, measurement: str, comparator: str, value: Any, **more: Any
    ) -> dict[str, Any]:
        text = f"{measurement} {comparator} {value}"
        return {
            "id": name,
            "claim": text,
            "measurement": measurement,
            "comparator": comparator,
            "value": value,
        } | more

    predictions = {
        "FEAT-005": [claim("stairs", "staircase_share", ">", 0.5, source="seen before")],
        "FEAT-006": [
            claim("gap", "control_gap", ">=", 0.2),
            claim("rate", "best_rate", "==", 0.0002),
            claim("led", "best_rate", "==", 0.001, margin="control_gap"),
        ],
        "FEAT-007": [claim("rank", "rank_gap", "within", [-0.1, 0.1])],
        "FEAT-008": [claim("unknown", "not_there", "<", 1)],
    }
    listed = [{"id": name, "title": name, "predictions": of} for name, of in predictions.items()]
    return {"phases": [{"id": 1, "features": [{"id": "FEAT-001"}]}, {"id": 2, "features": listed}]}


def inputs(folder: Path, changed: dict[str, Measurement] | None = None) -> Path:
    """Write results, plan and the file of --inputs; gives the latter."""
    write(folder, changed, receipts=False)
    (folder / "plan.json").write_text(json.dumps(plan()))
    entries = {name: {"kind": "feature", "path": str(folder / name), "receipt": f"sha256:{i:064d}"}
               for i, name in enumerate(FEATURES)}  # fmt: skip
    entries["plan"] = {"kind": "input", "path": str(folder / "plan.json")}
    (folder / "inputs.json").write_text(json.dumps(entries))
    return folder / "inputs.json"
