"""What FEAT-007 was to run, by the settings in its result.

Every trial's name, and what it must say of itself.
"""

from __future__ import annotations

from typing import Any

from gates.shared import outputs, trials

EARLIER = ("FEAT-005", "FEAT-006")
CONVENTIONS = ("alpha_fixed", "alpha_2r", "rslora")
UPDATES, OVERLAPS, FIRST = (
    f"artifacts/{name}.safetensors" for name in ("updates", "overlaps", "first_step")
)
FULL, TUNED, FULL_TOKENS = (
    f"artifacts/full/{name}.safetensors" for name in ("update", "training", "evaluation")
)


def config() -> dict[str, Any]:
    """Give the settings that the run says it used."""
    found: dict[str, Any] = outputs.result()["environment"]["config"]
    return found


def features() -> list[str]:
    """Give the earlier features that trials and data may be taken from."""
    return [feature for feature in EARLIER if feature in outputs.inputs()]


def adapters() -> dict[str, dict[str, Any]]:
    """Give setting -> its adapter: ranks with alpha fixed, then the largest with other scales."""
    plan = config()
    alpha, most = plan["lora_alpha"], plan["ranks"][-1]
    every = {f"r{r}": (r, alpha, False) for r in plan["ranks"]}
    every |= {"alpha_2r": (most, 2 * most, False), "rslora": (most, alpha, True)}
    keys = ("r", "lora_alpha", "use_rslora")
    return {
        name: {"lora_dropout": 0.0, **dict(zip(keys, of, strict=True))}
        for name, of in every.items()
    }


def scale(lora: dict[str, Any]) -> float:
    """Give s of dW = s B A."""
    return float(lora["lora_alpha"] / (lora["r"] ** 0.5 if lora["use_rslora"] else lora["r"]))


def planned(setting: str, seed: int) -> dict[str, Any]:
    """Give what trial.json must say of a trial."""
    plan = config()
    training = {"accumulation": 1, "weight_decay": 0.0, "max_grad_norm": 1.0, "betas": [0.9, 0.999]}
    return {
        "seed": seed,
        "training": training | plan["training"],
        "lora": adapters()[setting],
        "examples": plan["examples"],
        "shuffled": False,
        "curve_every": 0,
    }


def name(setting: str, seed: int) -> str:
    """Give the folder's name of a trial."""
    return trials.name_of(planned(setting, seed))


def row(setting: str) -> list[str]:
    """Give the trials of a setting, one per seed."""
    return [name(setting, seed) for seed in config()["seeds"]]


def names() -> list[str]:
    """Give all trials of the plan."""
    return [trial for setting in adapters() for trial in row(setting)]


def parts() -> list[str]:
    """Give the evaluations of the full update, in order."""
    full = config()["full"]
    return ["full", *(f"rank {k}" for k in full["cuts"]), f"random {full['control']}"]


def layers() -> list[str]:
    """Give the linear layers in order, by the names that weights and adapters share."""
    return [name.removesuffix(".weight") for name in trials.linear_shapes()]


def shapes() -> list[list[int]]:
    """Give [out, in] of each linear layer."""
    return list(trials.linear_shapes().values())
