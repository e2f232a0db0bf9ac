"""What FEAT-006 was to run, by the settings in its result.

Every run's name, and what it must say of itself.
"""

from __future__ import annotations

from typing import Any

from gates.shared import outputs, trials

EARLIER = "FEAT-005"
Setting = tuple[int, float, float, bool]  # rank, alpha, rate, shuffled


def config() -> dict[str, Any]:
    """Give the settings that the run says it used."""
    found: dict[str, Any] = outputs.result()["environment"]["config"]
    return found


def features() -> list[str]:
    """Give the earlier features that runs and data may be taken from."""
    return [EARLIER] if EARLIER in outputs.inputs() else []


def first() -> list[Setting]:
    """Give the settings at the first rank, rates rising."""
    plan = config()
    return [
        (plan["lora"]["r"], plan["lora"]["lora_alpha"], rate, False)
        for rate in sorted(plan["rates"])
    ]


def second() -> list[Setting]:
    """Give the settings at the second rank."""
    plan = config()["second"]
    return [(plan["r"], plan["lora_alpha"], rate, False) for rate in sorted(plan["rates"])]


def shared() -> list[Setting]:
    """Give the settings of the first rank at the second one's rates."""
    rates = [setting[2] for setting in second()]
    return [setting for setting in first() if setting[2] in rates]


def control() -> Setting:
    """Give the setting whose answers were shuffled."""
    plan = config()
    return (plan["lora"]["r"], plan["lora"]["lora_alpha"], plan["training"]["learning_rate"], True)


def planned(setting: Setting, seed: int) -> dict[str, Any]:
    """Give what trial.json must say of a run."""
    plan = config()
    rank, alpha, rate, shuffled = setting
    training = {"accumulation": 1, "weight_decay": 0.0, "max_grad_norm": 1.0, "betas": [0.9, 0.999]}
    return {
        "seed": seed,
        "training": training | plan["training"] | {"learning_rate": rate},
        "lora": {"r": rank, "lora_alpha": alpha, "lora_dropout": 0.0, "use_rslora": False},
        "examples": plan["examples"],
        "shuffled": shuffled,
        "curve_every": 0,
    }


def name(setting: Setting, seed: int) -> str:
    """Give the folder's name of a run."""
    return trials.name_of(planned(setting, seed))


def names() -> list[str]:
    """Give all runs of the plan."""
    return [name(s, seed) for s in (*first(), *second(), control()) for seed in config()["seeds"]]
