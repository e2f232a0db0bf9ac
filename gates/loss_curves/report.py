"""What tables and figures of FEAT-005's report must show, computed again from what it stored."""

from __future__ import annotations

from typing import Any

from gates.loss_curves import arrays as loss_curves
from gates.loss_curves.arrays import (
    LINES,
    POINTS,
    RATES,
    SHAPES,
    SIZES,
    config,
    curve,
    detected,
    finals,
    losses,
    rise,
)
from gates.shared import outputs, trials
from gates.shared.stored import cached, token_mean


def tables() -> list[list[list[Any]]]:
    """Give the rows of the report's tables, in their order."""
    key = f"loss curve tables {sorted(config()['detectors'].items())} {config()['rates']}"
    return list(
        cached(
            key,
            loss_curves.files(),
            lambda: [_shape_rows(), _seed_rows(), _test_rows(), _noise_rows()],
        )
    )


def _shape_rows() -> list[list[Any]]:
    rows = []
    for shape in SHAPES:
        of, shown = trials.trial(loss_curves.shapes()[shape]), curve(shape)
        when, low = min(shown["held_out"], key=lambda point: point[1])
        training, smooth = of["training"], shown["smooth"]
        row = [
            shape,
            training["learning_rate"],
            training["batch_size"],
            training["steps"],
            of["examples"],
        ]
        row += [
            shown["held_out"][0][1],
            low,
            when,
            shown["held_out"][-1][1],
            smooth[-1],
            rise(smooth),
        ]
        rows.append([*row, detected(shown, config()["detectors"])])
    return rows


def _seed_rows() -> list[list[Any]]:
    example_ids, rows = trials.load("base", "evaluation")["example_ids"], []
    for rate in RATES:
        for place, seed in enumerate(config()["seeds"]):
            change = losses(loss_curves.grid_name(rate, SIZES[-1], seed)) - losses(
                loss_curves.grid_name(rate, SIZES[0], seed)
            )
            told = token_mean(change, example_ids)
            row = [config()["rates"][rate], seed, *(finals(rate, size)[place] for size in SIZES)]
            rows.append([*row, told["value"], told["stderr"]])
    return rows


def _test_rows() -> list[list[Any]]:
    """Paired t tests over seeds: mean, 95 % interval, two-sided p."""
    from scipy.special import stdtr, stdtrit

    rows = []
    for rate in RATES:
        for larger, smaller in ((SIZES[1], SIZES[0]), (SIZES[2], SIZES[1]), (SIZES[2], SIZES[0])):
            changes = [
                a - b for a, b in zip(finals(rate, larger), finals(rate, smaller), strict=True)
            ]
            told, freedom = outputs.sample(changes), len(changes) - 1
            reach = float(stdtrit(freedom, 0.975)) * told["stderr"]
            p = 2 * float(stdtr(freedom, -abs(told["value"]) / told["stderr"]))
            row = [config()["rates"][rate], f"{larger} - {smaller}", told["value"]]
            rows.append([*row, told["value"] - reach, told["value"] + reach, p])
    return rows


def _noise_rows() -> list[list[Any]]:
    grams, found, rows = loss_curves.stored("gradient_products"), loss_curves.of_noise(), []
    for point in POINTS:
        told, scale = loss_curves.noise(grams[point]), found[f"noise_scale_{point}"]
        rows.append([told["signal"], told["variance"], scale["value"], scale["stderr"]])
    return rows


def series() -> dict[str, list[list[Any]]]:
    """Give figure -> the y values of its series, in their order."""
    key = f"loss curve figures {config()['detectors']['beta']} {config()['data']['curve']}"
    return dict(cached(key, loss_curves.files(), _series))


def _series() -> dict[str, list[list[Any]]]:
    import numpy as np

    shown, lines = {shape: curve(shape) for shape in SHAPES}, loss_curves.stored("line")
    epoch = loss_curves.epoch_steps()
    stairs: list[float] = []
    for start in range(0, len(shown["overfitting"]["losses"]), epoch):
        pairs = [
            (shown["overfitting"]["losses"][t], shown["overfitting"]["tokens"][t])
            for t in range(start, start + epoch)
        ]
        stairs += [sum(x * n for x, n in pairs) / sum(n for _, n in pairs)] * epoch
    batches = []
    for rate in RATES:
        values = [finals(rate, size) for size in SIZES]
        batches += [
            [loss for each in values for loss in each],
            [sum(each) / len(each) for each in values],
        ]
    return {
        "held_out": [[loss for _, loss in shown[shape]["held_out"]] for shape in SHAPES],
        "training": [shown[shape]["smooth"] for shape in SHAPES],
        "staircase": [
            shown["overfitting"]["losses"],
            stairs,
            [loss for _, loss in shown["overfitting"]["held_out"]],
        ],
        "batch_size": batches,
        "line": [lines[run].astype(np.float64).mean(1).tolist() for run in LINES],
    }
