"""What holds for every sweep over rates, whatever it found: a common start, steps Adam allows."""

from __future__ import annotations

from typing import Any

from gates.learning_rate.plan import config, features, first, name, names, second
from gates.shared import outputs, trials
from gates.shared.stored import cached

ADAPTER = "adapter_model.safetensors"


def first_losses() -> dict[str, list[float]]:
    """Give seed → the first training loss of each setting with true answers."""

    def compute() -> dict[str, list[float]]:
        every = {}
        for seed in config()["seeds"]:
            runs = [name(setting, seed) for setting in (*first(), *second())]
            every[str(seed)] = [
                float(trials.load(run, "steps", features())["loss"][0]) for run in runs
            ]
        return every

    return dict(
        cached("learning rates starts", trials.files(names(), ["steps.safetensors"]), compute)
    )


def moved() -> dict[str, list[float]]:
    """Give run → how far B and A moved, and the rates that bound it.

    The values are least and most of the layers' max |B|, sum of its rates, max |A − A′|, sum of
    both runs' rates. A′ is that of the smallest rate with the same rank and seed: both runs started
    from the same A.
    """
    mine = [run for run in names() if run in trials.own()]

    def compute() -> dict[str, list[float]]:
        from safetensors.numpy import load_file

        far: dict[str, list[float]] = {}
        smallest: dict[tuple[int, int], tuple[dict[str, Any], float]] = {}
        for run in mine:  # at each rank, rates rise
            told, tensors = trials.trial(run), load_file(trials.folder(run) / ADAPTER)
            rates = float(trials.load(run, "steps")["learning_rate"].sum())
            start = {key: a for key, a in tensors.items() if "lora_A" in key}
            other, others = smallest.setdefault((told["lora"]["r"], told["seed"]), (start, rates))
            largest = [float(abs(b).max()) for key, b in tensors.items() if "lora_B" in key]
            drift = max(float(abs(a - other[key]).max()) for key, a in start.items())
            far[run] = [min(largest), max(largest), rates, drift, rates + others]
        return far

    return dict(cached("learning rates moved", trials.files(mine), compute))


def adapters() -> dict[str, str]:
    """Give run → digest of its adapter's tensors."""

    def compute() -> dict[str, str]:
        return {run: outputs.digest_of(trials.folder(run, features()) / ADAPTER) for run in names()}

    return dict(cached("learning rates adapters", trials.files(names(), [ADAPTER]), compute))
