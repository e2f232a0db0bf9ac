"""What FEAT-020 was planned to do: its settings, as they were reviewed."""

from __future__ import annotations

from typing import Any

PLAN = "plan"
HARDWARE = "FEAT-017"
WIDEST = 5
MOST = 10_000
FIRST = 3
FACTOR = 2
REPEATS = (  # a setting of a feature, and what n counts if it is as large
    ("seeds", "seeds"),
    ("plan.seeds", "seeds"),
    ("data.evaluation", "held-out examples"),
    ("loss_examples", "held-out examples"),
    ("noise.examples", "held-out examples"),
    ("items", "items"),
    ("sequences.count", "sequences"),
    ("test.count", "texts"),
    ("texts.count", "texts"),
    ("probes.test", "functions"),
    ("repeats", "timings"),
)
SETTINGS = (  # what a next experiment changes
    ("items", "items"),
    ("examples", "training examples"),
    ("data.train", "training examples"),
    ("plan.steps", "optimizer steps"),
    ("sequences.count", "sequences"),
    ("texts.count", "texts"),
    ("tokens", "tokens"),
    ("repeats", "timings"),
)
BATCH = "training.batch_size"
FIELDS = ("times", "examples", "batch", "rank", "method")
TRAININGS: dict[str, tuple[tuple[Any, ...], ...]] = {  # of one seed
    "FEAT-001": ((2, "data.train", BATCH, "lora.r", "qlora"),),
    "FEAT-005": tuple(
        ("rates", "examples", f"batches.{index}", "lora.r", "lora") for index in range(3)
    ),
    "FEAT-006": (
        ("rates", "examples", BATCH, "lora.r", "lora"),
        ("second.rates", "examples", BATCH, "second.r", "lora"),
        (1, "examples", BATCH, "lora.r", "lora"),
    ),
    "FEAT-007": (
        (1, "examples", BATCH, "ranks.0", "lora"),
        (1, "examples", BATCH, "ranks.1", "lora"),
        (1, "examples", BATCH, "ranks.2", "lora"),
        (3, "examples", BATCH, "ranks.3", "lora"),
    ),
    "FEAT-012": ((1, "examples", BATCH, "lora.r", "lora"),),
}


def settings() -> dict[str, Any]:
    """Return the config that a run must have had."""
    trainings = {}
    for feature, rows in TRAININGS.items():
        trainings[feature] = [dict(zip(FIELDS, row, strict=True)) for row in rows]
    return {
        "plan": PLAN,
        "hardware": HARDWARE,
        "widest": WIDEST,
        "most_repeats": MOST,
        "first_repeats": FIRST,
        "factor": FACTOR,
        "repeats": [{"path": path, "word": word} for path, word in REPEATS],
        "settings": [{"path": path, "word": word} for path, word in SETTINGS],
        "trainings": trainings,
    }
