"""What FEAT-021 was to run, and what its result says it ran."""

from __future__ import annotations

import json
from typing import Any

from gates.shared.stored import config

CONDITIONS = ("repeats", "no_repeats", "one_layer")
# Smaller settings are for tests: `test_run_was_of_the_planned_size` fails with them.
PLANNED: dict[str, Any] = {
    "vocabulary": 64,
    "width": 64,
    "heads": 3,
    "head_width": 32,
    "length": 48,
    "periods": {"shortest": 6, "longest": 24},
    "seeds": [0, 1, 2],
    "steps": 400,
    "batch": 32,
    "learning_rate": 3e-3,
    "warmup": 50,
    "weight_decay": 0.01,
    "every": 5,
    "checkpoint_every": 100,
    "evaluation": 128,
    "film": 64,
    "film_period": 12,
    "head_score": 0.3,
    "loss_share": 0.5,
}
MODEL = ("vocabulary", "width", "heads", "head_width", "length")
WORK = (*MODEL, "steps", "batch", "evaluation", "film", "film_period")


def plan() -> dict[str, Any]:
    """Return the settings of the runs."""
    settings: dict[str, Any] = config()["plan"]
    return settings


def plan_key() -> str:
    """Return the settings as text, part of each cache key: they are in no file of the artifacts."""
    return json.dumps(plan(), sort_keys=True)


def names(condition: str) -> list[str]:
    """Return the runs of a condition, in the order of the seeds."""
    return [f"{condition}_seed{seed}" for seed in plan()["seeds"]]


def all_names() -> list[str]:
    """Return all runs."""
    return [name for condition in CONDITIONS for name in names(condition)]


def condition_of(run: str) -> str:
    """Return the condition of a run."""
    return run.rpartition("_seed")[0]


def seed_of(run: str) -> int:
    """Return the seed of a run."""
    return int(run.rpartition("_seed")[2])


def layers_of(run: str) -> int:
    """Return how many layers the model of a run has."""
    return 1 if condition_of(run) == "one_layer" else 2


def evaluated_steps() -> list[int]:
    """Return the steps at which a run is evaluated."""
    return list(range(0, plan()["steps"] + 1, plan()["every"]))


def stored_steps() -> list[int]:
    """Return the steps whose weights are stored."""
    return list(range(0, plan()["steps"] + 1, plan()["checkpoint_every"]))


def assert_affordable() -> None:
    """Check that no setting asks for more work than planned: a damaged one would train for days."""
    for name in WORK:
        assert 0 < plan()[name] <= PLANNED[name], f"{name} is {plan()[name]}"
