"""What must hold among FEAT-012's stored files without any model: shapes, repeats, drawn sets."""

from __future__ import annotations

import itertools
import math
from typing import Any

from gates.attention_comparison import weights
from gates.attention_comparison.arrays import (
    ARRAYS,
    STATISTICS,
    compared,
    features,
    planned_trials,
    prompts,
    settings_key,
    shape,
    steps,
)
from gates.attention_comparison.losses import loss_examples
from gates.shared import outputs, stored, trials
from gates.shared.stored import cached, config, supervised


def shapes() -> dict[str, list[list[int]]]:
    """Return name -> [its shape, the planned one] of every array that is stored or planned."""

    def compute() -> dict[str, list[list[int]]]:
        arrays = {name: list(array.shape) for name, array in stored.arrays("arrays").items()}
        planned = _planned_shapes()
        names = sorted({*arrays, *planned})
        return {name: [arrays.get(name, []), planned.get(name, [])] for name in names}

    files = (ARRAYS, *trials.frozen_files("evaluation"))
    return dict(cached(f"attention comparison shapes {settings_key()}", files, compute))


def _planned_shapes() -> dict[str, list[int]]:
    settings = config()
    count, columns = math.prod(shape()), len(compared())
    repeated = len(prompts()) - columns
    seeds = len(settings["seeds"])
    tokens = sum(map(supervised, loss_examples()))
    sizes = {
        "tuned": seeds,
        "random": seeds * settings["draws"],
        "snapshots": len(steps()),
        "snapshots_random": len(steps()),
    }
    planned = {
        "adapter_off.divergence": [count, columns],
        "between_seeds.divergence": [math.comb(seeds, 2), count, columns],
        "snapshots.losses": [1 + len(steps()), tokens],
        "snapshots.training_losses": [settings["training"]["steps"]],
        "token_examples": [tokens],
    }
    for model in ("tuned", "base"):
        planned[f"ablation.{model}"] = [2 + settings["ablation"]["draws"], tokens]
    for name in STATISTICS:
        width = repeated if name == "induction" else columns
        planned[f"base.{name}"] = [count, width]
        for group, size in sizes.items():
            planned[f"{group}.{name}"] = [size, count, width]
    for group, size in sizes.items():
        planned[f"{group}.divergence"] = [size, count, columns]
        planned[f"{group}.norms"] = [size, len(weights.linears())]
    return planned


def tokens_are_of_their_examples() -> bool:
    """Return whether each token's example is the one that the frozen set says."""

    def compute() -> bool:
        expected: list[int] = []
        for i, example in enumerate(loss_examples()):
            expected += [i] * supervised(example)
        return bool(stored.arrays("arrays")["token_examples"].tolist() == expected)

    files = (ARRAYS, *trials.frozen_files("evaluation"))
    return bool(cached(f"attention comparison tokens {settings_key()}", files, compute))


def sets() -> dict[str, Any]:
    """Return the heads that the first seed moved most, and the random sets of others.

    The sets are drawn by numpy's default_rng(seed of the run) from the other heads, in order.
    """

    def compute() -> dict[str, Any]:
        import numpy as np

        settings = config()["ablation"]
        movement = stored.arrays("arrays")["tuned.divergence"][0].mean(1).tolist()
        order = sorted(range(len(movement)), key=lambda head: -movement[head])
        others = sorted(order[settings["heads"] :])
        generator = np.random.default_rng(outputs.result()["environment"]["seed"])
        drawn = []
        for _ in range(settings["draws"]):
            chosen = generator.choice(others, settings["heads"], replace=False)
            drawn.append(sorted(chosen.tolist()))
        return {"moved": order[: settings["heads"]], "random": drawn}

    seed = outputs.result()["environment"]["seed"]
    name = f"attention comparison sets {settings_key()} {seed}"
    return dict(cached(name, (ARRAYS,), compute))


def replay() -> dict[str, float]:
    """Return the gap of the last snapshot from the stored adapter, and of the training losses.

    Of each statistic and divergence of the last snapshot too, as a share, from the same model's.
    """
    files = (ARRAYS, *weights.files(), *trials.files(planned_trials(), ["steps.safetensors"]))

    def compute() -> dict[str, float]:
        import numpy as np

        # 1. Tensor by tensor.
        last, expected = weights.snapshot(len(steps()) - 1), weights.adapter(0)
        gap = 0.0
        for linear, parts in expected.items():
            for actual, wanted in zip(last[linear], parts, strict=True):
                gap = max(gap, float(np.abs(actual - wanted).max()))

        # 2. The loss of every step.
        arrays = stored.arrays("arrays")
        losses = trials.load(planned_trials()[0], "steps", features())["loss"]
        worst = float(np.abs(arrays["snapshots.training_losses"] / losses - 1).max())

        # 3. The same models, looked at twice.
        twice = {"gap": gap, "losses": worst}
        pairs = (("snapshots", "tuned"), ("snapshots_random", "random"))
        for (group, other), name in itertools.product(pairs, ("divergence", *STATISTICS)):
            change = arrays[f"{group}.{name}"][-1] - arrays[f"{other}.{name}"][0]
            size = float(np.abs(arrays[f"{other}.{name}"][0]).mean())
            twice[f"{group}.{name}"] = float(np.abs(change).mean()) / max(size, 1e-12)
        return twice

    return dict(cached(f"attention comparison replay {settings_key()}", files, compute))


def norms() -> dict[str, float]:
    """Return the largest relative difference of a random update's norm from the one it copies."""

    def compute() -> dict[str, float]:
        import numpy as np

        arrays = stored.arrays("arrays")
        tuned = np.repeat(arrays["tuned.norms"], config()["draws"], axis=0)
        pairs = {
            "random": (arrays["random.norms"], tuned),
            "snapshots_random": (arrays["snapshots_random.norms"], arrays["snapshots.norms"]),
        }
        return {name: float(np.abs(a / b - 1).max()) for name, (a, b) in pairs.items()}

    return dict(cached(f"attention comparison norms {settings_key()}", (ARRAYS,), compute))


def ranges() -> dict[str, list[float]]:
    """Return the least and the largest value of each kind of array."""

    def compute() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for name, array in stored.arrays("arrays").items():
            kind = name.partition(".")[2]
            low, high = float(array.min()), float(array.max())
            known = found.setdefault(kind, [math.inf, -math.inf])
            found[kind] = [min(low, known[0]), max(high, known[1])]
        return found

    return dict(cached("attention comparison ranges", (ARRAYS,), compute))
