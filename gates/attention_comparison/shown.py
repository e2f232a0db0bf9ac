"""FEAT-012's tables and figures, recomputed from its stored arrays."""

from __future__ import annotations

import itertools
import math
from typing import Any

from gates.attention_comparison import arrays
from gates.attention_comparison.arrays import STATISTICS, Run, head_name
from gates.shared.statistics import mean
from gates.shared.stored import cached, config

SHOWN = 6  # panels of the film strip
TABLES = (
    (
        "Divergence of attention between models (nats)",
        ["models", "norm of ΔW", "mean", "stderr", "task", "text", "furthest head"],
    ),
    (
        "Heads that moved furthest (nats)",
        [
            *("head", "movement", "stderr", "seeds", "p (Holm)", "random", "p (Holm)"),
            *(f"{name} shift" for name in STATISTICS),
        ],
    ),
    (
        "What the heads do",
        [
            *("statistic", "unit", "base", "tuned - base", "stderr", "random - base", "stderr"),
            *("largest change", "by"),
        ],
    ),
    (
        "Rise of the task loss without some heads (nats/token)",
        ["heads", "which", "tuned", "base"],
    ),
    (
        "One training, step by step",
        [
            *("step", "norm of ΔW", "held-out loss (nats/token)", "movement (nats)"),
            *("random update (nats)", "heads above it", "furthest head"),
        ],
    ),
)
"""Title and columns of each table."""


def recomputed() -> dict[str, Any]:
    """Return `numbers`, `tables`, `series` and `panels`: what follows from the arrays."""
    name = f"attention comparison {arrays.settings_key()}"
    document: dict[str, Any] = cached(name, arrays.FILES, _recompute)
    return document


def _recompute() -> dict[str, Any]:
    run = Run()
    return {
        "numbers": arrays.numbers(run),
        "tables": [_models(run), _heads(run), _statistics(run), _ablation(run), _snapshots(run)],
        "series": {
            "layers": _layers(run),
            "ablation": _ablation_bars(run),
            "over_time": _over_time(run),
        },
        "panels": {"moved": _moved(run), "heads_over_time": _strip(run)},
    }


def _norm(row: Any) -> float:
    return math.sqrt(math.fsum(value**2 for value in row.tolist()))


def _models(run: Run) -> list[list[Any]]:
    stored = run.arrays
    seeds = config()["seeds"]
    rows = [["base, adapter switched off", 0.0, stored["adapter_off.divergence"]]]
    norms = zip(stored["tuned.divergence"], stored["tuned.norms"], seeds, strict=True)
    rows += [[f"base, seed {seed}", _norm(row), values] for values, row, seed in norms]
    pairs = itertools.combinations(seeds, 2)
    for (one, other), values in zip(pairs, stored["between_seeds.divergence"], strict=True):
        rows.append([f"seed {one}, seed {other}", None, values])
    draws = itertools.product(seeds, range(1, config()["draws"] + 1))
    for k, (seed, draw) in enumerate(draws):
        label = f"base, random {draw} of seed {seed}'s norms"
        norm = _norm(stored["random.norms"][k])
        rows.append([label, norm, stored["random.divergence"][k]])

    table = []
    for label, norm, values in rows:
        over_prompts = mean(values.mean(0).tolist())
        task = float(values[:, run.of_kind("task")].mean())
        text = float(values[:, run.of_kind("text")].mean())
        furthest = float(values.mean(1).max())
        table.append(
            [label, norm, over_prompts["value"], over_prompts["stderr"], task, text, furthest]
        )
    return table


def _furthest(values: Any, count: int) -> list[int]:
    """Return the heads of the largest values [H], the largest first."""
    order: list[int] = sorted(range(len(values)), key=lambda head: -values[head])
    return order[:count]


def _heads(run: Run) -> list[list[Any]]:
    by_head = run.tuned.mean(1).tolist()
    against_seeds = run.p_values(run.tuned, run.seeds)
    against_random = run.p_values(run.tuned, run.random)
    rows = []
    for head in _furthest(by_head, config()["ablation"]["heads"]):
        movement = mean(run.tuned[head].tolist())
        row = [head_name(head), movement["value"], movement["stderr"]]
        row += [float(run.seeds[head].mean()), against_seeds[head]]
        row += [float(run.random[head].mean()), against_random[head]]
        row += [float(run.shift(name)[head].mean()) for name in STATISTICS]
        rows.append(row)
    return rows


def _statistics(run: Run) -> list[list[Any]]:
    rows = []
    for name in STATISTICS:
        unit = "tokens" if name.startswith("distance") else "share"
        by_head = run.shift(name).mean(1).tolist()
        shift = mean(run.shift(name).mean(0).tolist())
        null = mean(run.shift(name, "random").mean(0).tolist())
        furthest = max(range(len(by_head)), key=lambda head: abs(by_head[head]))
        row = [name, unit, float(run.arrays[f"base.{name}"].mean())]
        row += [shift["value"], shift["stderr"], null["value"], null["stderr"]]
        row += [head_name(furthest), by_head[furthest]]
        rows.append(row)
    return rows


def _ablation(run: Run) -> list[list[Any]]:
    tuned, base = run.rises("tuned"), run.rises("base")
    sets = arrays.heads()

    def names(heads: list[int]) -> str:
        return " ".join(head_name(head) for head in heads)

    moved = [tuned["moved"]["value"], base["moved"]["value"]]
    rows = [["those that moved most", names(sets["moved"]), *moved]]
    for k, heads in enumerate(sets["random"]):
        rows.append([f"random {k + 1}", names(heads), tuned["random"][k], base["random"][k]])
    return rows


def _snapshots(run: Run) -> list[list[Any]]:
    course = run.course()
    losses = run.arrays["snapshots.losses"].mean(1).tolist()
    norms = [0.0, *(_norm(row) for row in run.arrays["snapshots.norms"])]
    furthest = [""]
    for values in run.arrays["snapshots.divergence"].mean(2):
        furthest.append(head_name(int(values.argmax())))
    columns = [run.steps, norms, losses, course["attention"], course["random"]]
    columns += [course["moved"], furthest]
    return [list(row) for row in zip(*columns, strict=True)]


# Figures


def _layers(run: Run) -> dict[str, Any]:
    series = {}
    lines = (("tuned", run.tuned), ("seed", run.seeds), ("random", run.random))
    labels = ("base against tuned", "seed against seed", "base against random")
    for label, (_, values) in zip(labels, lines, strict=True):
        y, low, high = [], [], []
        for layer in range(run.layers):
            rows = values[layer * run.per_layer : (layer + 1) * run.per_layer]
            point = mean((1000 * rows.mean(0)).tolist())
            y.append(point["value"])
            low.append(point["value"] - point["stderr"])
            high.append(point["value"] + point["stderr"])
        series[label] = [list(range(run.layers)), y, low, high]
    return series


def _ablation_bars(run: Run) -> dict[str, Any]:
    rises = [run.rises(model) for model in ("tuned", "base")]
    moved = [one["moved"] for one in rises]
    values = [one["value"] for one in moved]
    low = [one["value"] - one["stderr"] for one in moved]
    high = [one["value"] + one["stderr"] for one in moved]
    random = [one["random"] for one in rises]
    means = [math.fsum(draws) / len(draws) for draws in random]
    names = ["tuned", "base"]
    return {
        "heads that moved most": [names, values, low, high],
        "random heads": [names, means, list(map(min, random)), list(map(max, random))],
    }


def _over_time(run: Run) -> dict[str, Any]:
    course = run.course()
    end = course["attention"][-1]
    fall = course["fall"][-1] or 1.0
    return {
        "loss": [run.steps, [value / fall for value in course["fall"]]],
        "attention": [run.steps, [value / end for value in course["attention"]]],
        "attention, random update": [run.steps, [value / end for value in course["random"]]],
    }


def _grid(run: Run, values: Any) -> Any:
    grid = (1000 * values.mean(1)).reshape(run.layers, run.per_layer)
    return grid.tolist()


def _moved(run: Run) -> dict[str, Any]:
    return {
        "base against tuned": _grid(run, run.tuned),
        "seed against seed": _grid(run, run.seeds),
        "base against random": _grid(run, run.random),
    }


def _strip(run: Run) -> dict[str, Any]:
    import numpy as np

    trained = run.arrays["snapshots.divergence"]
    last = len(trained) - 1
    shown = sorted({round(float(i)) for i in np.linspace(0, last, min(SHOWN, last + 1))})
    return {f"step {run.steps[1 + i]}": _grid(run, trained[i]) for i in shown}


# Captions


def captioned() -> dict[str, Any]:
    """Return name -> number of all that captions state."""
    series, panels = recomputed()["series"]["layers"], recomputed()["panels"]["heads_over_time"]
    settings = config()["ablation"]
    known = dict(recomputed()["numbers"])
    for name, (_, (_, y, *_)) in zip(("tuned", "seeds", "random"), series.items(), strict=True):
        known |= {f"{name}_largest": max(y), f"{name}_layer": y.index(max(y))}
    return known | {
        "panels": len(panels),
        "ablated": settings["heads"],
        "sets": settings["draws"],
    }
