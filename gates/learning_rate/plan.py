"""What FEAT-006 was to run, by the settings in its result.

Every trial's name, and what it must say of itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gates.shared import outputs, trials
from gates.shared.stored import config

EARLIER = "FEAT-005"
Setting = tuple[int, float, float, bool]  # rank, alpha, rate, shuffled


def earlier_features() -> list[str]:
    """Return the earlier features that trials and data may be taken from."""
    if EARLIER in outputs.inputs():
        return [EARLIER]
    return []


def first_rank() -> list[Setting]:
    """Return the settings at the first rank, rates rising."""
    lora = config()["lora"]
    return [(lora["r"], lora["lora_alpha"], rate, False) for rate in sorted(config()["rates"])]


def second_rank() -> list[Setting]:
    """Return the settings at the second rank, rates rising."""
    second = config()["second"]
    return [(second["r"], second["lora_alpha"], rate, False) for rate in sorted(second["rates"])]


def first_rank_shared() -> list[Setting]:
    """Return the settings of the first rank at the second one's rates."""
    second_rates = rates(second_rank())
    return [setting for setting in first_rank() if setting[2] in second_rates]


def rates(settings: Sequence[Setting]) -> list[float]:
    """Return the rates of some settings."""
    return [rate for _, _, rate, _ in settings]


def true_answers() -> list[Setting]:
    """Return the settings of both ranks, those whose answers are not shuffled."""
    return [*first_rank(), *second_rank()]


def control() -> Setting:
    """Return the setting whose answers were shuffled."""
    lora = config()["lora"]
    return (lora["r"], lora["lora_alpha"], config()["training"]["learning_rate"], True)


def counterpart() -> Setting:
    """Return the control's setting with true answers."""
    rank, alpha, rate, _ = control()
    return (rank, alpha, rate, False)


def all_settings() -> list[Setting]:
    """Return every setting, the control last."""
    return [*true_answers(), control()]


def planned_trial(setting: Setting, seed: int) -> dict[str, Any]:
    """Return what trial.json must say of a trial."""
    rank, alpha, rate, shuffled = setting
    defaults = {"accumulation": 1, "weight_decay": 0.0, "max_grad_norm": 1.0, "betas": [0.9, 0.999]}
    return {
        "seed": seed,
        "training": defaults | config()["training"] | {"learning_rate": rate},
        "lora": {"r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "use_rslora": False},
        "examples": config()["examples"],
        "shuffled": shuffled,
        "curve_every": 0,
    }


def trial_name(setting: Setting, seed: int) -> str:
    """Return the name of a trial's folder."""
    return trials.name_of(planned_trial(setting, seed))


def all_trial_names() -> list[str]:
    """Return the names of all trials of the plan."""
    names = []
    for setting in all_settings():
        names += [trial_name(setting, seed) for seed in config()["seeds"]]
    return names
