"""FEAT-005's measurements recomputed from its stored arrays, by formulas apart from the lab's.

Needs numpy and no torch. Whether the stored arrays themselves are right is checked in
gates/shared/trials.py and gates/loss_curves/model.py.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from gates.shared import outputs, stored, trials
from gates.shared.stored import cached, config, token_mean

SHAPES = ("healthy", "overfitting", "diverging", "flat")
RATES = ("low", "high")
SIZES = (4, 8, 16)
RUNS_ALONG_UPDATE = ("healthy", "overfitting")
POINTS = ("start", "low", "healthy")
STORED = (
    "shapes.json",
    "repeated_base.safetensors",
    "line.safetensors",
    "gradient_products.safetensors",
)
MEASUREMENTS = (
    "base_loss",
    *(f"eval_loss_{shape}" for shape in SHAPES),
    *(f"detected_{shape}" for shape in SHAPES),
    "runs_told_apart",
    "divergence_rise",
    "overfit_rise",
    "overfit_gap",
    "staircase_share",
    *(f"eval_loss_b{size}_low" for size in SIZES),
    *(f"eval_loss_b{size}_high" for size in SIZES),
    *(f"batch_effect_{rate}" for rate in RATES),
    *(f"noise_scale_{point}" for point in POINTS),
    "noise_growth",
    *(f"line_minimum_{run}" for run in RUNS_ALONG_UPDATE),
)


def shapes() -> dict[str, str]:
    """Return shape -> the name of its trial."""
    names: dict[str, str] = outputs.read_json("artifacts/shapes.json")
    return names


def planned_shape(shape: str) -> dict[str, Any]:
    """Return what the config plans for a shape's run, in the fields of trial.json."""
    entry = config()["shapes"][shape]
    return {
        "training": entry["training"],
        "examples": entry["examples"],
        "curve_every": entry["curve_every"],
        "seed": 0,
    }


def grid_name(rate: str, size: int, seed: int) -> str:
    """Return the name of the trial with this rate ("low", "high"), batch size and seed."""
    settings = config()
    lora = {
        "r": settings["lora"]["r"],
        "lora_alpha": settings["lora"]["lora_alpha"],
        "use_rslora": False,
    }
    training = {
        "learning_rate": settings["rates"][rate],
        "batch_size": size,
        "steps": settings["examples"] // size,
    }
    trial = {
        "seed": seed,
        "examples": settings["examples"],
        "shuffled": False,
        "lora": lora,
        "training": training,
    }
    return trials.name_of(trial)


def grid() -> list[str]:
    """Return the names of all trials of the comparison of batch sizes."""
    names = []
    for rate in RATES:
        for size in SIZES:
            names += [grid_name(rate, size, seed) for seed in config()["seeds"]]
    return names


def files() -> list[str]:
    """Return every file that `measurements` reads."""
    parts = ("trial.json", "steps.safetensors", "evaluation.safetensors")
    return [f"artifacts/{name}" for name in STORED] + trials.files([*trials.own(), "base"], parts)


def settings_key() -> str:
    """Return the config as text.

    It is part of each cache key: the config is in result.json, which is no file of `files`.
    """
    return json.dumps(config(), sort_keys=True)


def measurements() -> dict[str, Any]:
    """Return measurement -> what it must be."""

    def compute() -> dict[str, Any]:
        return _of_shapes() | _of_overfitting() | _of_batches() | of_noise() | _along_updates()

    return dict(cached(f"loss curves {settings_key()}", files(), compute))


def losses(trial: str) -> Any:
    """Return the held-out losses [tokens] of a trial, or of "base", in float64."""
    import numpy as np

    return trials.load(trial, "evaluation")["losses"].astype(np.float64)


#### curves


def curve(shape: str) -> dict[str, Any]:
    """Return a run's "losses", "tokens", "smoothed" (per step), "held_out" [(steps done, loss)]."""
    name = shapes()[shape]
    count = config()["data"]["curve"]
    steps = trials.load(name, "steps")
    step_losses = steps["loss"].tolist()
    step_tokens = steps["supervised_tokens"].tolist()

    # The ends of the held-out curve come from the evaluations of the base and the trained model.
    ends = []
    for trial in ("base", name):
        example_ids = trials.load(trial, "evaluation")["example_ids"]
        ends.append(float(losses(trial)[example_ids < count].mean()))
    between = [(int(done), loss) for done, loss in steps["curve"].tolist()]
    return {
        "losses": step_losses,
        "tokens": step_tokens,
        "smoothed": smooth(step_losses, step_tokens, config()["detectors"]["beta"]),
        "held_out": [(0, ends[0]), *between, (len(step_losses), ends[1])],
    }


def smooth(values: Sequence[float], tokens: Sequence[float], beta: float) -> list[float]:
    """Return the debiased average for each t, written out.

    Σ_s beta^(t-s) n_s x_s / Σ_s beta^(t-s) n_s over s ≤ t.
    """
    means = []
    for t in range(len(values)):
        weights = [beta ** (t - s) * tokens[s] for s in range(t + 1)]
        weighted = sum(w * x for w, x in zip(weights, values, strict=False))
        means.append(weighted / sum(weights))
    return means


def largest_rise(values: Sequence[float]) -> float:
    """Return max over s ≤ t of v_t - v_s."""
    return max(max(values[i:]) - value for i, value in enumerate(values))


def fired_detectors(run: dict[str, Any], thresholds: dict[str, float]) -> str:
    """Return the names of the detectors that fire on a `curve`, joined by "+", or "none"."""
    held_out = [loss for _, loss in run["held_out"]]
    smoothed = run["smoothed"]
    start, end, lowest = held_out[0], held_out[-1], min(held_out)
    lowest_step = next(done for done, loss in run["held_out"] if loss == lowest)
    training_fall = smoothed[max(lowest_step, 1) - 1] - smoothed[-1]
    has_risen = end - lowest >= thresholds["rise"]
    fired = {
        "healthy": start - end >= thresholds["learnt"] and not has_risen,
        "overfitting": has_risen and training_fall >= thresholds["fall"],
        "diverging": largest_rise(smoothed) >= thresholds["spike"],
        "flat": all(abs(loss - start) <= thresholds["still"] for loss in held_out),
    }
    return "+".join(name for name in SHAPES if fired[name]) or "none"


def _of_shapes() -> dict[str, Any]:
    example_ids = trials.load("base", "evaluation")["example_ids"]
    expected: dict[str, Any] = {"base_loss": token_mean(losses("base"), example_ids)}
    told_apart = 0
    for shape in SHAPES:
        fired = fired_detectors(curve(shape), config()["detectors"])
        told_apart += fired == shape
        expected[f"detected_{shape}"] = fired
        expected[f"eval_loss_{shape}"] = token_mean(losses(shapes()[shape]), example_ids)
    expected["runs_told_apart"] = told_apart
    expected["divergence_rise"] = largest_rise(curve("diverging")["smoothed"])
    return expected


def _of_overfitting() -> dict[str, Any]:
    example_ids = trials.load("base", "evaluation")["example_ids"]
    run = curve("overfitting")
    epoch = epoch_steps()

    # 1. Held-out loss minus the token-weighted training loss of the last epoch.
    loss_sum = math.fsum(
        loss * count
        for loss, count in zip(run["losses"][-epoch:], run["tokens"][-epoch:], strict=True)
    )
    training_loss = loss_sum / sum(run["tokens"][-epoch:])
    held_out = token_mean(losses(shapes()["overfitting"]), example_ids)
    gap = held_out | {"value": held_out["value"] - training_loss}

    # 2. The curve's rise from its lowest point; the staircase.
    points = [loss for _, loss in run["held_out"]]
    return {
        "overfit_rise": points[-1] - min(points),
        "overfit_gap": gap,
        "staircase_share": staircase_share(run["losses"], base_losses(), epoch),
    }


def epoch_steps() -> int:
    """Return the steps in which the overfitting run sees each of its examples once."""
    of = trials.trial(shapes()["overfitting"])
    return int(of["examples"] // of["training"]["batch_size"])


def base_losses() -> list[float]:
    """Return the base's loss on the batch of each step of the overfitting run."""
    of = trials.trial(shapes()["overfitting"])
    repeated_base = stored.arrays("repeated_base")
    size = of["training"]["batch_size"]
    batches: list[list[float]] = [[] for _ in range(of["examples"] // size)]
    example_ids = repeated_base["example_ids"].tolist()
    for example, loss in zip(example_ids, repeated_base["losses"].tolist(), strict=True):
        batches[example // size].append(loss)
    means = [math.fsum(batch) / len(batch) for batch in batches]
    return [means[step % len(means)] for step in range(of["training"]["steps"])]


def staircase_share(
    values: Sequence[float], untrained: Sequence[float], epoch: int
) -> dict[str, Any]:
    """Return the share of the fall, from the second epoch on, between halves of two epochs.

    Each border of two epochs is one unit.
    """
    import numpy as np

    relative = [value / base for value, base in zip(values, untrained, strict=True)]
    half = epoch // 2
    between = []
    total = []
    for start in range(epoch, len(relative), epoch):
        end = start + epoch
        before_border = sum(relative[start - half : start]) / half
        after_border = sum(relative[start : start + half]) / half
        epoch_end = sum(relative[end - half : end]) / half
        between.append(before_border - after_border)
        total.append(before_border - epoch_end)
    x = np.array(between)  # [borders]
    y = np.array(total)  # [borders]
    n = len(total)
    if y.sum() <= 0:
        return {"value": None, "stderr": None}
    share = x.sum() / y.sum()
    stderr = math.sqrt(n / (n - 1) * ((x - share * y) ** 2).sum()) / abs(y.sum())
    return {"value": float(share), "stderr": float(stderr), "n": n}


#### batch sizes


def final_losses(rate: str, size: int) -> list[float]:
    """Return the final held-out losses of a rate and batch size, one per seed."""
    return [float(losses(grid_name(rate, size, seed)).mean()) for seed in config()["seeds"]]


def _of_batches() -> dict[str, Any]:
    expected: dict[str, Any] = {}
    for rate in RATES:
        by_size = {size: final_losses(rate, size) for size in SIZES}
        for size in SIZES:
            expected[f"eval_loss_b{size}_{rate}"] = outputs.sample(by_size[size])
        pairs = zip(by_size[SIZES[-1]], by_size[SIZES[0]], strict=True)
        expected[f"batch_effect_{rate}"] = outputs.sample([large - small for large, small in pairs])
    return expected


#### gradient noise


def noise(gram: Any) -> dict[str, Any]:
    """Return "signal" |G|², "variance" tr Σ and "scale", their ratio, of inner products [n, n].

    |G|² is the mean product of two different gradients, tr Σ is by how much their own products are
    larger. These are the numbers of McCandlish et al. 2018 (arXiv:1812.06162), appendix A, by
    another way: E⟨g_i, g_j⟩ = |G|².
    """
    n = len(gram)
    signal = float((gram.sum() - gram.trace()) / (n * (n - 1)))
    variance = float(gram.trace() / n) - signal
    scale = variance / signal if signal > 0 else None
    return {"signal": signal, "variance": variance, "scale": scale}


def leave_one_out(count: int, compute: Callable[[list[int]], float | None]) -> dict[str, Any]:
    """Return `compute` of all units with its jackknife standard error.

    The error is None where one of the values it needs is None.
    """
    value = compute(list(range(count)))
    values = []
    for i in range(count):
        without = compute([j for j in range(count) if j != i])
        if without is not None:
            values.append(without)
    if value is None or len(values) < count:
        return {"value": value, "stderr": None, "n": count}
    mean = sum(values) / count
    variance = (count - 1) / count * sum((v - mean) ** 2 for v in values)
    return {"value": value, "stderr": math.sqrt(variance), "n": count}


def of_noise() -> dict[str, Any]:
    """Return the measurements of the gradients of single examples."""
    import numpy as np

    grams = stored.arrays("gradient_products")
    count = len(grams["start"])

    def scale(point: str, units: list[int]) -> float | None:
        value: float | None = noise(grams[point][np.ix_(units, units)])["scale"]
        return value

    def growth(units: list[int]) -> float | None:
        before = scale("start", units)
        after = scale("healthy", units)
        if before is None or after is None:
            return None
        return after / before

    expected = {}
    for point in POINTS:
        expected[f"noise_scale_{point}"] = leave_one_out(count, functools.partial(scale, point))
    expected["noise_growth"] = leave_one_out(count, growth)
    return expected


#### losses along updates


def lowest_alpha(alphas: Sequence[float], values: Sequence[float]) -> float:
    """Return where a line is lowest.

    At an end, or at the vertex of the parabola through the lowest three points.
    """
    i = min(range(len(values)), key=lambda k: values[k])
    if i in {0, len(values) - 1}:
        return alphas[i]
    left_slope = (values[i] - values[i - 1]) / (alphas[i] - alphas[i - 1])
    right_slope = (values[i + 1] - values[i]) / (alphas[i + 1] - alphas[i])
    curvature = (right_slope - left_slope) / (alphas[i + 1] - alphas[i - 1])
    if curvature <= 0:
        return alphas[i]
    return (alphas[i] + alphas[i - 1]) / 2 - left_slope / (2 * curvature)


def _along_updates() -> dict[str, Any]:
    import numpy as np

    arrays = stored.arrays("line")
    alphas = arrays["alphas"].tolist()
    count = config()["data"]["curve"]
    example_ids = trials.load("base", "evaluation")["example_ids"]
    example_ids = example_ids[example_ids < count]  # [N], of the curve's tokens
    expected = {}
    for run in RUNS_ALONG_UPDATE:
        rows = arrays[run].astype(np.float64)  # [len(alphas), N]

        def minimum(units: list[int], rows: Any = rows) -> float:
            means = rows[:, np.isin(example_ids, units)].mean(1)  # [len(alphas)]
            return lowest_alpha(alphas, means.tolist())

        expected[f"line_minimum_{run}"] = leave_one_out(count, minimum)
    return expected
