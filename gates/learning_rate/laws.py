"""What is true of every sweep over rates, whatever its losses: equal starts, bounded steps."""

from __future__ import annotations

from typing import Any

from gates.learning_rate import plan
from gates.shared import outputs, trials
from gates.shared.stored import cached, config

ADAPTER = "adapter_model.safetensors"


def first_losses() -> dict[str, list[float]]:
    """Return seed -> the first training loss of each setting with true answers."""

    def compute() -> dict[str, list[float]]:
        by_seed = {}
        for seed in config()["seeds"]:
            losses = []
            for setting in plan.true_answers():
                steps = trials.load(
                    plan.trial_name(setting, seed), "steps", plan.earlier_features()
                )
                losses.append(float(steps["loss"][0]))
            by_seed[str(seed)] = losses  # JSON has no integer keys
        return by_seed

    files = trials.files(plan.all_trial_names(), ["steps.safetensors"])
    return dict(cached("learning rates starts", files, compute))


def adapter_moves() -> dict[str, dict[str, float]]:
    """Return trial -> how far B and A moved, and the sums of the rates that bound it.

    least_b, most_b: least and most of the layers' max |B|, bounded by `rate_sum`; a_drift:
    max |A − A′|, bounded by `rate_sum_of_both`. A′ is that of the smallest rate with the same rank
    and seed: both trials started from the same A. Only trials of the judged outputs.
    """
    own_names = set(trials.own())
    names = [name for name in plan.all_trial_names() if name in own_names]

    def compute() -> dict[str, dict[str, float]]:
        from safetensors.numpy import load_file

        moves = {}
        # (rank, seed) -> A of the smallest rate and the sum of its rates
        smallest: dict[tuple[int, int], tuple[dict[str, Any], float]] = {}
        for name in names:  # rates rise at each rank, so the smallest one comes first
            # 1. The trial: its A, the largest entry of each B, the sum of its rates.
            trial = trials.trial(name)
            tensors = load_file(trials.folder(name) / ADAPTER)
            factors_a = {}
            largest_b = []
            for key, tensor in tensors.items():
                if "lora_A" in key:
                    factors_a[key] = tensor
                elif "lora_B" in key:
                    largest_b.append(float(abs(tensor).max()))
            rate_sum = float(trials.load(name, "steps")["learning_rate"].sum())

            # 2. What it is compared with: itself, if its rate is the smallest.
            start = (trial["lora"]["r"], trial["seed"])
            reference_a, reference_sum = smallest.setdefault(start, (factors_a, rate_sum))

            # 3. How far it moved.
            drifts = [float(abs(a - reference_a[key]).max()) for key, a in factors_a.items()]
            moves[name] = {
                "least_b": min(largest_b),
                "most_b": max(largest_b),
                "rate_sum": rate_sum,
                "a_drift": max(drifts),
                "rate_sum_of_both": rate_sum + reference_sum,
            }
        return moves

    return dict(cached("learning rates moved", trials.files(names), compute))


def adapter_digests() -> dict[str, str]:
    """Return trial -> digest of its adapter's tensors."""

    def compute() -> dict[str, str]:
        digests = {}
        for name in plan.all_trial_names():
            folder = trials.folder(name, plan.earlier_features())
            digests[name] = outputs.digest_of(folder / ADAPTER)
        return digests

    files = trials.files(plan.all_trial_names(), [ADAPTER])
    return dict(cached("learning rates adapters", files, compute))
