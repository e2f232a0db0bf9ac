"""The tables and figures of FEAT-005's report, recomputed from what it stored."""

from __future__ import annotations

import itertools
import math
from typing import Any

from gates.loss_curves import arrays
from gates.loss_curves.arrays import POINTS, RATES, RUNS_ALONG_UPDATE, SHAPES, SIZES
from gates.shared import outputs, stored, trials
from gates.shared.stored import cached, config, token_mean


def tables() -> list[list[list[Any]]]:
    """Return the rows of the report's tables, in their order; the last without its first column."""

    def compute() -> list[list[list[Any]]]:
        return [_shape_rows(), _seed_rows(), _significance_rows(), _noise_rows()]

    return list(cached(f"loss curve tables {arrays.settings_key()}", arrays.files(), compute))


def _shape_rows() -> list[list[Any]]:
    rows = []
    for shape in SHAPES:
        of = trials.trial(arrays.shapes()[shape])
        run = arrays.curve(shape)
        lowest_step, lowest_loss = min(run["held_out"], key=lambda point: point[1])
        row = [
            shape,
            of["training"]["learning_rate"],
            of["training"]["batch_size"],
            of["training"]["steps"],
            of["examples"],
            run["held_out"][0][1],
            lowest_loss,
            lowest_step,
            run["held_out"][-1][1],
            run["smoothed"][-1],
            arrays.largest_rise(run["smoothed"]),
            arrays.fired_detectors(run, config()["detectors"]),
        ]
        rows.append(row)
    return rows


def _seed_rows() -> list[list[Any]]:
    """Return the final losses per rate and seed, and their change from smallest to largest batch.

    The change is paired by example.
    """
    example_ids = trials.load("base", "evaluation")["example_ids"]
    rows = []
    for rate in RATES:
        for index, seed in enumerate(config()["seeds"]):
            largest = arrays.losses(arrays.grid_name(rate, SIZES[-1], seed))
            smallest = arrays.losses(arrays.grid_name(rate, SIZES[0], seed))
            change = token_mean(largest - smallest, example_ids)
            finals = [arrays.final_losses(rate, size)[index] for size in SIZES]
            value = config()["rates"][rate]
            rows.append([value, seed, *finals, change["value"], change["stderr"]])
    return rows


def _significance_rows() -> list[list[Any]]:
    """Return paired t tests over seeds: mean, 95 % interval, two-sided p."""
    from scipy.special import stdtr, stdtrit

    small, middle, large = SIZES
    rows = []
    for rate in RATES:
        for larger, smaller in ((middle, small), (large, middle), (large, small)):
            pairs = zip(
                arrays.final_losses(rate, larger), arrays.final_losses(rate, smaller), strict=True
            )
            change = outputs.sample([a - b for a, b in pairs])
            mean, stderr = change["value"], change["stderr"]
            freedom = change["n"] - 1
            reach = float(stdtrit(freedom, 0.975)) * stderr
            p = 2 * float(stdtr(freedom, -abs(mean) / stderr))
            batches = f"{larger} - {smaller}"
            rows.append([config()["rates"][rate], batches, mean, mean - reach, mean + reach, p])
    return rows


def _noise_rows() -> list[list[Any]]:
    grams = stored.arrays("gradient_products")
    scales = arrays.of_noise()
    rows = []
    for point in POINTS:
        noise = arrays.noise(grams[point])
        scale = scales[f"noise_scale_{point}"]
        rows.append([noise["signal"], noise["variance"], scale["value"], scale["stderr"]])
    return rows


def figures() -> dict[str, list[list[list[Any]]]]:
    """Return figure -> [x, y] of each of its series, in their order."""
    key = f"loss curve figures {arrays.settings_key()}"
    return dict(cached(key, arrays.files(), _figures))


def _figures() -> dict[str, list[list[list[Any]]]]:
    import numpy as np

    runs = {shape: arrays.curve(shape) for shape in SHAPES}
    held_out = {}
    for shape, run in runs.items():
        held_out[shape] = [list(values) for values in zip(*run["held_out"], strict=True)]

    # Batch sizes: every seed's loss, then the mean of each size.
    batches: list[list[list[Any]]] = []
    for rate in RATES:
        by_size = [arrays.final_losses(rate, size) for size in SIZES]
        sizes = [size for size, losses in zip(SIZES, by_size, strict=True) for _ in losses]
        batches.append([sizes, list(itertools.chain.from_iterable(by_size))])
        batches.append([list(SIZES), [sum(losses) / len(losses) for losses in by_size]])

    # Along updates: the mean of the tokens at each alpha.
    rows = stored.arrays("line")  # of each run [alphas, N]
    alphas = rows["alphas"].tolist()
    updates = []
    for name in RUNS_ALONG_UPDATE:
        updates.append([alphas, rows[name].astype(np.float64).mean(1).tolist()])
    overfitting = runs["overfitting"]
    return {
        "held_out": list(held_out.values()),
        "training": [_by_step(run["smoothed"]) for run in runs.values()],
        "staircase": [
            _by_step(overfitting["losses"]),
            _by_step(_stairs(overfitting)),
            held_out["overfitting"],
        ],
        "batch_size": batches,
        "line": updates,
    }


def _by_step(values: list[float]) -> list[list[Any]]:
    return [list(range(1, len(values) + 1)), values]


def _stairs(run: dict[str, Any]) -> list[float]:
    """Return the token-weighted mean loss of each step's epoch."""
    epoch = arrays.epoch_steps()
    losses, tokens = run["losses"], run["tokens"]
    stairs: list[float] = []
    for start in range(0, len(losses), epoch):
        steps = range(start, start + epoch)
        loss_sum = math.fsum(losses[t] * tokens[t] for t in steps)
        mean = loss_sum / sum(tokens[t] for t in steps)
        stairs += [mean] * epoch
    return stairs
