"""FEAT-005's numbers computed again from what it stored, by formulas apart from the lab's.

Needs numpy and no torch. What the stored arrays themselves are worth is settled in gates/shared/trials.py
and gates/loss_curves/model.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from gates.shared import outputs, trials
from gates.shared.stored import cached, token_mean

SHAPES = ("healthy", "overfitting", "diverging", "flat")
RATES = ("low", "high")
SIZES = (4, 8, 16)
LINES = ("healthy", "overfitting")
POINTS = ("start", "low", "healthy")
STORED = (
    "shapes.json",
    "repeated_base.safetensors",
    "line.safetensors",
    "gradient_products.safetensors",
)
NAMES = (
    "base_loss",
    *(f"{what}_{shape}" for shape in SHAPES for what in ("eval_loss", "detected")),
    "runs_told_apart",
    "divergence_rise",
    "overfit_rise",
    "overfit_gap",
    "staircase_share",
    *(f"eval_loss_b{size}_{rate}" for rate in RATES for size in SIZES),
    *(f"batch_effect_{rate}" for rate in RATES),
    *(f"noise_scale_{point}" for point in POINTS),
    "noise_growth",
    *(f"line_minimum_{run}" for run in LINES),
)


def config() -> dict[str, Any]:
    """Give the settings that the run says it used."""
    found: dict[str, Any] = outputs.result()["environment"]["config"]
    return found


def shapes() -> dict[str, str]:
    """Give run -> the name of its trial."""
    found: dict[str, str] = outputs.read_json("artifacts/shapes.json")
    return found


def planned_shape(shape: str) -> dict[str, Any]:
    """Give what the config says of a run, as trial.json says it."""
    told = config()["shapes"][shape]
    return {
        "training": told["training"],
        "examples": told["examples"],
        "curve_every": told["curve_every"],
        "seed": 0,
    }


def grid_name(rate: str, size: int, seed: int) -> str:
    """Give the name of the trial with this rate ("low", "high"), batch size and seed."""
    settings = config()
    lora = {
        "r": settings["lora"]["r"],
        "lora_alpha": settings["lora"]["lora_alpha"],
        "use_rslora": False,
    }
    steps = settings["examples"] // size
    training = {"learning_rate": settings["rates"][rate], "batch_size": size, "steps": steps}
    told = {
        "seed": seed,
        "examples": settings["examples"],
        "shuffled": False,
        "lora": lora,
        "training": training,
    }
    return trials.name_of(told)


def grid() -> list[str]:
    """Give the names of all trials of the comparison of batch sizes."""
    return [
        grid_name(rate, size, seed)
        for rate in RATES
        for size in SIZES
        for seed in config()["seeds"]
    ]


def files() -> list[str]:
    """Give every file that `numbers` reads."""
    parts = ("trial.json", "steps.safetensors", "evaluation.safetensors")
    return [f"artifacts/{name}" for name in STORED] + trials.files([*trials.own(), "base"], parts)


def numbers() -> dict[str, Any]:
    """Give measurement -> what it must be."""
    key = (
        f"loss curves {sorted(config()['detectors'].items())} {config()['data']['curve']} "
        f"{config()['seeds']}"
    )
    return dict(
        cached(key, files(), lambda: _of_shapes() | _of_batches() | of_noise() | _of_lines())
    )


def losses(trial: str) -> Any:
    """Give the held-out losses of a trial in float64."""
    import numpy as np

    return trials.load(trial, "evaluation")["losses"].astype(np.float64)


# Curves


def curve(shape: str) -> dict[str, Any]:
    """Give "losses", "tokens" (per step), "smooth" and "held_out" [(steps done, loss)] of a run."""
    name, count = shapes()[shape], config()["data"]["curve"]
    steps = trials.load(name, "steps")
    ends = []
    for trial in ("base", name):
        example_ids = trials.load(trial, "evaluation")["example_ids"]
        ends.append(float(losses(trial)[example_ids < count].mean()))
    trained, tokens = steps["loss"].tolist(), steps["supervised_tokens"].tolist()
    held_out = [
        (0, ends[0]),
        *((int(done), loss) for done, loss in steps["curve"].tolist()),
        (len(trained), ends[1]),
    ]
    smooth = smoothed(trained, tokens, config()["detectors"]["beta"])
    return {"losses": trained, "tokens": tokens, "smooth": smooth, "held_out": held_out}


def smoothed(values: Sequence[float], tokens: Sequence[float], beta: float) -> list[float]:
    """Give the debiased average for each t, written out.

    Σ_s beta^(t−s) n_s x_s / Σ_s beta^(t−s) n_s over s ≤ t.
    """
    found = []
    for t in range(len(values)):
        weights = [beta ** (t - s) * tokens[s] for s in range(t + 1)]
        found.append(sum(w * x for w, x in zip(weights, values, strict=False)) / sum(weights))
    return found


def rise(values: Sequence[float]) -> float:
    """Give max over s ≤ t of v_t − v_s."""
    return max(later - value for i, value in enumerate(values) for later in values[i:])


def detected(found: dict[str, Any], limits: dict[str, float]) -> str:
    """Give the names of the detectors that fire on a curve, joined by "+", or "none"."""
    held_out, smooth = [loss for _, loss in found["held_out"]], found["smooth"]
    start, end, low = held_out[0], held_out[-1], min(held_out)
    when = next(done for done, loss in found["held_out"] if loss == low)
    fired = {
        "healthy": start - end >= limits["learnt"] and end - low < limits["rise"],
        "overfitting": end - low >= limits["rise"]
        and smooth[max(when, 1) - 1] - smooth[-1] >= limits["fall"],
        "diverging": rise(smooth) >= limits["spike"],
        "flat": all(abs(loss - start) <= limits["still"] for loss in held_out),
    }
    return "+".join(name for name in SHAPES if fired[name]) or "none"


def _of_shapes() -> dict[str, Any]:
    example_ids, told = trials.load("base", "evaluation")["example_ids"], {}
    found: dict[str, Any] = {"base_loss": token_mean(losses("base"), example_ids)}
    for shape in SHAPES:
        told[shape] = detected(curve(shape), config()["detectors"])
        found |= {
            f"detected_{shape}": told[shape],
            f"eval_loss_{shape}": token_mean(losses(shapes()[shape]), example_ids),
        }
    shown, ended = curve("overfitting"), found["eval_loss_overfitting"]
    stairs = staircase(shown["losses"], before(), epoch_steps())
    last = list(zip(shown["losses"], shown["tokens"], strict=True))[-epoch_steps() :]
    known = sum(loss * count for loss, count in last) / sum(count for _, count in last)
    values = [loss for _, loss in shown["held_out"]]
    return found | {
        "runs_told_apart": sum(told[shape] == shape for shape in SHAPES),
        "divergence_rise": rise(curve("diverging")["smooth"]),
        "overfit_rise": values[-1] - min(values),
        "overfit_gap": ended | {"value": ended["value"] - known},
        "staircase_share": stairs,
    }


def epoch_steps() -> int:
    """Give the steps in which the overfitting run sees each of its examples once."""
    of = trials.trial(shapes()["overfitting"])
    return int(of["examples"] // of["training"]["batch_size"])


def before() -> list[float]:
    """Give the base's loss on the batch of each step of the overfitting run."""
    of, base = trials.trial(shapes()["overfitting"]), stored("repeated_base")
    size, count = of["training"]["batch_size"], of["examples"]
    values: list[list[float]] = [[] for _ in range(count // size)]
    for owner, loss in zip(base["example_ids"].tolist(), base["losses"].tolist(), strict=True):
        values[owner // size].append(loss)
    means = [math.fsum(batch) / len(batch) for batch in values]
    return [means[step % len(means)] for step in range(of["training"]["steps"])]


def staircase(values: Sequence[float], untrained: Sequence[float], epoch: int) -> dict[str, Any]:
    """Give the share of the fall, from the second epoch on, between halves of two epochs.

    Each border of two epochs is one unit.
    """
    import numpy as np

    left, half = [a / b for a, b in zip(values, untrained, strict=True)], epoch // 2
    between, both = [], []
    for start in range(epoch, len(left), epoch):
        earlier = sum(left[start - half : start]) / half
        first = sum(left[start : start + half]) / half
        last = sum(left[start + epoch - half : start + epoch]) / half
        between.append(earlier - first)
        both.append(earlier - last)
    x, y, n = np.array(between), np.array(both), len(both)
    if y.sum() <= 0:
        return {"value": None, "stderr": None}
    share = x.sum() / y.sum()
    error = math.sqrt(n / (n - 1) * ((x - share * y) ** 2).sum()) / abs(y.sum())
    return {"value": float(share), "stderr": float(error), "n": n}


def stored(name: str) -> dict[str, Any]:
    """Give the arrays of artifacts/NAME.safetensors; an array that is not finite is refused."""
    import numpy as np
    from safetensors.numpy import load_file

    found: dict[str, Any] = load_file(trials.artifacts() / f"{name}.safetensors")
    for key, array in found.items():
        assert np.isfinite(array).all(), (
            f"{name}.safetensors: {key} holds a value that is not finite"
        )
    return found


# Batch sizes


def finals(rate: str, size: int) -> list[float]:
    """Give the final held-out losses of a batch size and rate, one per seed."""
    return [float(losses(grid_name(rate, size, seed)).mean()) for seed in config()["seeds"]]


def _of_batches() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for rate in RATES:
        values = {size: finals(rate, size) for size in SIZES}
        found |= {f"eval_loss_b{size}_{rate}": outputs.sample(values[size]) for size in SIZES}
        changes = [a - b for a, b in zip(values[SIZES[-1]], values[SIZES[0]], strict=True)]
        found[f"batch_effect_{rate}"] = outputs.sample(changes)
    return found


# Gradient noise


def noise(gram: Any) -> dict[str, Any]:
    """Give |G|², tr Σ and their ratio.

    |G|² is the mean product of two different gradients, tr Σ what their own products have more.
    The same numbers as McCandlish et al. 2018 (arXiv:1812.06162), appendix A, from another side:
    E⟨g_i, g_j⟩ = |G|².
    """
    n = len(gram)
    signal = float((gram.sum() - gram.trace()) / (n * (n - 1)))
    variance = float(gram.trace() / n) - signal
    return {
        "signal": signal,
        "variance": variance,
        "scale": variance / signal if signal > 0 else None,
    }


def leave_one_out(count: int, compute: Callable[[list[int]], float | None]) -> dict[str, Any]:
    """Give `compute` of all units with its jackknife standard error.

    None where one of the values it needs is None.
    """
    value = compute(list(range(count)))
    values = [compute([j for j in range(count) if j != i]) for i in range(count)]
    known = [v for v in values if v is not None]
    if value is None or len(known) < count:
        return {"value": value, "stderr": None, "n": count}
    mean = sum(known) / count
    return {
        "value": value,
        "stderr": math.sqrt((count - 1) / count * sum((v - mean) ** 2 for v in known)),
        "n": count,
    }


def of_noise() -> dict[str, Any]:
    """Give the measurements of the gradients of single examples."""
    import numpy as np

    grams = stored("gradient_products")
    count = len(grams["start"])

    def scale(point: str, kept: list[int]) -> float | None:
        found: float | None = noise(grams[point][np.ix_(kept, kept)])["scale"]
        return found

    def growth(kept: list[int]) -> float | None:
        first, second = scale("start", kept), scale("healthy", kept)
        return None if first is None or second is None else second / first

    scales = {f"noise_scale_{p}": leave_one_out(count, functools.partial(scale, p)) for p in POINTS}
    return scales | {"noise_growth": leave_one_out(count, growth)}


# Lines


def lowest(at: Sequence[float], values: Sequence[float]) -> float:
    """Give where a line is lowest.

    At an end, or at the vertex of the parabola through the lowest three points.
    """
    i = min(range(len(values)), key=lambda k: values[k])
    if i in {0, len(values) - 1}:
        return at[i]
    left = (values[i] - values[i - 1]) / (at[i] - at[i - 1])
    right = (values[i + 1] - values[i]) / (at[i + 1] - at[i])
    bend = (right - left) / (at[i + 1] - at[i - 1])
    return at[i] if bend <= 0 else (at[i] + at[i - 1]) / 2 - left / (2 * bend)


def _of_lines() -> dict[str, Any]:
    import numpy as np

    lines, count, found = stored("line"), config()["data"]["curve"], {}
    example_ids = trials.load("base", "evaluation")["example_ids"]
    example_ids = example_ids[example_ids < count]
    at = lines["at"].tolist()
    for run in LINES:
        rows = lines[run].astype(np.float64)

        def minimum(kept: list[int], rows: Any = rows) -> float:
            return lowest(at, rows[:, np.isin(example_ids, kept)].mean(1).tolist())

        found[f"line_minimum_{run}"] = leave_one_out(count, minimum)
    return found
