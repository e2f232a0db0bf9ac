"""What FEAT-007 was to run, by the settings in its result.

Every trial's name, and what its description must say.
"""

from __future__ import annotations

from typing import Any

from gates.shared import outputs, trials
from gates.shared.stored import config

EARLIER = ("FEAT-005", "FEAT-006")
CONVENTIONS = ("alpha_fixed", "alpha_2r", "rslora")

# Paths below the outputs.
UPDATES = "artifacts/updates.safetensors"
OVERLAPS = "artifacts/overlaps.safetensors"
FIRST_STEP = "artifacts/first_step.safetensors"
FULL_UPDATE = "artifacts/full/update.safetensors"
FULL_TRAINING = "artifacts/full/training.safetensors"
FULL_TOKENS = "artifacts/full/evaluation.safetensors"


def earlier_features() -> list[str]:
    """Return the earlier features that trials and data may be taken from."""
    return [feature for feature in EARLIER if feature in outputs.inputs()]


def adapter_settings() -> dict[str, dict[str, Any]]:
    """Return setting -> its adapter: ranks with alpha fixed, then the largest with other scales."""
    ranks = config()["ranks"]
    alpha = config()["lora_alpha"]
    largest = ranks[-1]
    settings = {f"r{r}": _lora(r, alpha) for r in ranks}
    settings["alpha_2r"] = _lora(largest, 2 * largest)
    settings["rslora"] = _lora(largest, alpha, use_rslora=True)
    return settings


def _lora(r: int, alpha: float, *, use_rslora: bool = False) -> dict[str, Any]:
    return {"r": r, "lora_alpha": alpha, "lora_dropout": 0.0, "use_rslora": use_rslora}


def scale(lora: dict[str, Any]) -> float:
    """Return s of dW = s B A."""
    if lora["use_rslora"]:
        return float(lora["lora_alpha"] / lora["r"] ** 0.5)
    return float(lora["lora_alpha"] / lora["r"])


def planned_trial(setting: str, seed: int) -> dict[str, Any]:
    """Return what trial.json must say of a trial."""
    training = {"accumulation": 1, "weight_decay": 0.0, "max_grad_norm": 1.0, "betas": [0.9, 0.999]}
    return {
        "seed": seed,
        "training": training | config()["training"],
        "lora": adapter_settings()[setting],
        "examples": config()["examples"],
        "shuffled": False,
        "curve_every": 0,
    }


def first_trial() -> dict[str, Any]:
    """Return the trial of the smallest rank and the first seed.

    The full fine-tuning has its examples and its steps.
    """
    return planned_trial(f"r{config()['ranks'][0]}", config()["seeds"][0])


def full_training() -> dict[str, Any]:
    """Return the training settings of the full fine-tuning: the first trial's, at its own rate."""
    training: dict[str, Any] = first_trial()["training"]
    return training | {"learning_rate": config()["full"]["learning_rate"]}


def trial_name(setting: str, seed: int) -> str:
    """Return the folder's name of a trial."""
    return trials.name_of(planned_trial(setting, seed))


def trial_names(setting: str) -> list[str]:
    """Return the trials of a setting, one per seed."""
    return [trial_name(setting, seed) for seed in config()["seeds"]]


def all_trial_names() -> list[str]:
    """Return all trials of the plan."""
    names: list[str] = []
    for setting in adapter_settings():
        names += trial_names(setting)
    return names


def full_parts() -> list[str]:
    """Return the evaluations of the full update, in order."""
    full = config()["full"]
    return ["full", *(f"rank {k}" for k in full["cuts"]), f"random {full['control']}"]


def layers() -> list[str]:
    """Return the linear layers in order, by the names that weights and adapters share."""
    return [name.removesuffix(".weight") for name in trials.linear_shapes()]


def shapes() -> list[list[int]]:
    """Return [out, in] of each linear layer."""
    return list(trials.linear_shapes().values())
