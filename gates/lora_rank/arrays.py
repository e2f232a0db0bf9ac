"""FEAT-007's numbers, tables and figures recomputed from its stored trials and arrays.

Independent code: numpy in place of torch, scipy's t test. numpy and scipy are imported inside, so a
warm cache never loads them; whether the arrays themselves are right is checked in
gates/lora_rank/model.py.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

from gates.lora_rank import plan
from gates.shared import outputs, trials
from gates.shared.outputs import sample
from gates.shared.stored import cached, config, header, ratio, read_arrays

ADAPTER = "adapter_model.safetensors"
RANKS = (8, 16, 32, 64)
LARGEST = 64
SIDES = ("left", "right", "learned", "null")
RECOMPUTED = (
    *(f"loss_r{r}" for r in RANKS),
    "loss_alpha_2r",
    "loss_rslora",
    "loss_full",
    "rank_gap",
    "rank_spread",
    "rank_equivalence_p",
    "alpha_2r_gap",
    "rslora_gap",
    "parameters_per_rank",
    *(f"first_step_slope_{name}" for name in plan.CONVENTIONS),
    f"stable_rank_r{LARGEST}",
    f"energy_rank_r{LARGEST}",
    f"amplification_r{LARGEST}",
    *(f"similarity_{side}" for side in SIDES),
    "stable_rank_full",
    "energy_rank_full",
    "full_kept_rank_8",
    "full_kept_random_8",
)


def load(path: str) -> dict[str, Any]:
    """Return the arrays of a file below the outputs; one that is not finite is refused."""
    return read_arrays(outputs.out() / path)


def recompute() -> dict[str, Any]:
    """Return what follows from the stored arrays.

    `numbers` (measurement -> value), `tables` (rows), `figures` (x, y of the series), `bars` (of
    the figure `cut`).
    """
    own_files = [
        plan.UPDATES,
        plan.OVERLAPS,
        plan.FIRST_STEP,
        plan.FULL_TRAINING,
        plan.FULL_TOKENS,
    ]
    trial_files = trials.files(
        [*plan.all_trial_names(), "base"], ["trial.json", "evaluation.safetensors", ADAPTER]
    )
    return dict(cached("lora ranks", (*trial_files, *own_files), _recompute))


def _recompute() -> dict[str, Any]:
    stored = _StoredRanks()
    return {
        "numbers": _numbers(stored),
        "tables": _tables(stored),
        "figures": _figures(stored),
        "bars": _bars(stored),
    }


class _StoredRanks:
    """What is on disk.

    base: its evaluation; losses: setting -> mean loss by seed; updates, overlaps, first_step,
    full, tokens: the arrays of the files; shapes: [out, in] of each layer [L, 2].
    """

    def __init__(self) -> None:
        import numpy as np

        features = plan.earlier_features()
        self.base = trials.load("base", "evaluation", features)
        self.losses: dict[str, list[float]] = {}
        for setting in plan.adapter_settings():
            self.losses[setting] = []
            for trial in plan.trial_names(setting):
                self.losses[setting].append(_mean_loss(trials.load(trial, "evaluation", features)))
        self.updates = load(plan.UPDATES)
        self.overlaps = load(plan.OVERLAPS)
        self.first_step = load(plan.FIRST_STEP)
        self.full = load(plan.FULL_TRAINING)
        self.tokens = load(plan.FULL_TOKENS)
        self.shapes = np.array(plan.shapes())
        assert self.tokens["example_ids"].tolist() == self.base["example_ids"].tolist(), (
            "full: other tokens than the base's"
        )

    def values(self, setting: str) -> list[Any]:
        """Return singular values of each layer [L, r], one array per seed."""
        return [
            self.updates[f"{trial}.values"].astype(float) for trial in plan.trial_names(setting)
        ]

    def statistic(self, setting: str, name: str) -> list[float]:
        """Return the mean over layers of stable or energy rank or amplification, one per seed."""
        if name != "amplification":
            return [float(_spectrum_rank(v, name).mean()) for v in self.values(setting)]
        smallest = min(config()["ranks"])
        means = []
        for trial, values in zip(plan.trial_names(setting), self.values(setting), strict=True):
            amplification = _norm(values[:, :smallest]) / self.updates[f"{trial}.inside_norms"]
            means.append(float(amplification.mean()))
        return means


def _mean_loss(evaluation: dict[str, Any]) -> float:
    return float(evaluation["losses"].astype(float).mean())


def _norm(values: Any) -> Any:
    """Return the norm of each layer's update: [L] from singular values [L, k]."""
    return ((values.astype(float) ** 2).sum(1)) ** 0.5


def _spectrum_rank(values: Any, name: str) -> Any:
    """Return stable rank, or the number of directions with 90 % of the energy: [L] from [L, k]."""
    import numpy as np

    squares = values.astype(float) ** 2
    if name == "stable":
        return squares.sum(1) / squares[:, 0]
    ranks = []
    for layer in squares:
        # just below 90 %: the last sum can miss it by a rounding
        enough = 0.9 * layer.sum() * (1 - 1e-12)
        ranks.append(1 + np.searchsorted(layer.cumsum(), enough))
    return np.array(ranks)


def _numbers(stored: _StoredRanks) -> dict[str, Any]:
    return (
        _loss_numbers(stored)
        | _first_step_numbers(stored)
        | _direction_numbers(stored)
        | _full_numbers(stored)
    )


def _loss_numbers(stored: _StoredRanks) -> dict[str, Any]:
    by_rank = [stored.losses[f"r{r}"] for r in config()["ranks"]]
    smallest = by_rank[0]
    largest = by_rank[-1]
    numbers: dict[str, Any] = {}
    for name, losses in stored.losses.items():
        numbers[f"loss_{name}"] = sample(losses)

    # The ranks with alpha fixed, then the other scales against the largest of them.
    numbers["rank_gap"] = sample(_differences(largest, smallest))
    spreads = [max(losses) - min(losses) for losses in zip(*by_rank, strict=True)]
    numbers["rank_spread"] = sample(spreads)
    margin = config()["equivalence_margin"]
    p_values = []
    for one, other in itertools.combinations(by_rank, 2):
        p_values.append(_equivalence_p(_differences(one, other), margin))
    numbers["rank_equivalence_p"] = max(p_values)
    for setting in ("alpha_2r", "rslora"):
        numbers[f"{setting}_gap"] = sample(_differences(stored.losses[setting], largest))
    numbers["parameters_per_rank"] = _parameters_per_rank()
    return numbers


def _differences(one: Sequence[float], other: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]


def _equivalence_p(differences: Sequence[float], margin: float) -> float:
    """Return the p value of two one-sided t tests: is the mean inside (-margin, margin)?"""
    from scipy import stats

    below = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    above = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    return float(max(below, above))


def parameters(setting: str) -> int:
    """Return the numbers in the adapter of a setting, counted in its header."""
    path = trials.folder(plan.trial_names(setting)[0], plan.earlier_features()) / ADAPTER
    return sum(math.prod(entry["shape"]) for entry in header(path).values())


def _parameters_per_rank() -> int:
    per_rank = {parameters(s) / lora["r"] for s, lora in plan.adapter_settings().items()}
    assert len(per_rank) == 1, f"parameters per unit of rank differ: {per_rank}"
    return int(per_rank.pop())


def _first_step_numbers(stored: _StoredRanks) -> dict[str, Any]:
    import numpy as np

    x = np.log(config()["ranks"])
    y = np.log(_relative_descent(stored))  # [seeds, 3, ranks]
    numbers = {}
    for i, name in enumerate(plan.CONVENTIONS):
        slopes = [float(np.polyfit(x, seed[i], 1)[0]) for seed in y]
        numbers[f"first_step_slope_{name}"] = sample(slopes)
    return numbers


def _relative_descent(stored: _StoredRanks) -> Any:
    """Return <dW, -G> / |G| over all layers: [seeds, 3, ranks]."""
    gradient_norm = (stored.first_step["gradient_norms"].astype(float) ** 2).sum(1) ** 0.5
    return stored.first_step["descent"].astype(float).sum(3) / gradient_norm[:, None, None]


def _direction_numbers(stored: _StoredRanks) -> dict[str, Any]:
    setting = f"r{LARGEST}"
    numbers = {
        f"stable_rank_{setting}": sample(stored.statistic(setting, "stable")),
        f"energy_rank_{setting}": sample(stored.statistic(setting, "energy")),
        f"amplification_{setting}": sample(stored.statistic(setting, "amplification")),
    }
    for side in SIDES:
        # [seeds, L, k] -> phi(1, 1) [seeds]
        similarity = stored.overlaps[side][:, :, 0].astype(float).mean(1)
        numbers[f"similarity_{side}"] = sample(similarity.tolist())
    return numbers


def _full_numbers(stored: _StoredRanks) -> dict[str, Any]:
    losses = stored.tokens["full.losses"].astype(float)
    numbers: dict[str, Any] = {
        "loss_full": ratio(losses, [1.0] * len(losses), stored.base["example_ids"]),
        "full_kept_rank_8": _share_kept(stored, "rank 8"),
        "full_kept_random_8": _share_kept(stored, "random 8"),
    }
    for name in ("stable", "energy"):
        by_layer = _spectrum_rank(stored.full["values"], name)
        numbers[f"{name}_rank_full"] = {
            "value": float(by_layer.mean()),
            "stderr": float(by_layer.std(ddof=1)) / math.sqrt(len(by_layer)),
            "n": len(by_layer),
        }
    return numbers


def _share_kept(stored: _StoredRanks, part: str) -> dict[str, Any]:
    """Return the share of the full update's improvement that a part of it keeps."""
    base = stored.base["losses"].astype(float)
    part_improvement = base - stored.tokens[f"{part}.losses"].astype(float)
    full_improvement = base - stored.tokens["full.losses"].astype(float)
    return ratio(part_improvement, full_improvement, stored.base["example_ids"])


# What the report shows


def _tables(stored: _StoredRanks) -> list[list[list[Any]]]:
    return [
        _settings_rows(stored),
        _update_rows(stored),
        _layer_kind_rows(stored),
        _cut_rows(stored),
    ]


def _settings_rows(stored: _StoredRanks) -> list[list[Any]]:
    rows = []
    for name, lora in plan.adapter_settings().items():
        losses = stored.losses[name]
        size = [lora["r"], lora["lora_alpha"], plan.scale(lora), parameters(name)]
        rows.append([name, *size, statistics.fmean(losses), *losses])
    return rows


def _update_rows(stored: _StoredRanks) -> list[list[Any]]:
    weight_norms = stored.updates["weight_norms"].astype(float)  # [L]
    whole = float((weight_norms**2).sum()) ** 0.5
    # what random directions contain of W: |W| k / sqrt(m n), [L]
    chance = weight_norms * min(config()["ranks"]) / stored.shapes.prod(1) ** 0.5
    rows: list[list[Any]] = []
    for name in plan.adapter_settings():
        sizes = [float((v**2).sum()) ** 0.5 / whole for v in stored.values(name)]
        means = []
        for statistic in ("stable", "energy", "amplification"):
            means.append(statistics.fmean(stored.statistic(name, statistic)))
        ratios = []
        for trial in plan.trial_names(name):
            ratios.append(float((stored.updates[f"{trial}.inside_norms"] / chance).mean()))
        rows.append([name, statistics.fmean(sizes), *means, statistics.fmean(ratios)])

    full = stored.full["values"].astype(float)
    means = [float(_spectrum_rank(full, name).mean()) for name in ("stable", "energy")]
    rows.append(["full", float((full**2).sum()) ** 0.5 / whole, *means, None, None])
    return rows


def _layer_kind_rows(stored: _StoredRanks) -> list[list[Any]]:
    kinds = [name.rpartition(".")[2] for name in plan.layers()]
    # energy rank of each layer [L], for every rank and for the full update
    columns = []
    for r in config()["ranks"]:
        by_seed = [_spectrum_rank(values, "energy") for values in stored.values(f"r{r}")]
        columns.append(sum(by_seed) / len(config()["seeds"]))
    columns.append(_spectrum_rank(stored.full["values"], "energy"))
    rows = []
    for kind in dict.fromkeys(kinds):
        layers = [i for i, layer_kind in enumerate(kinds) if layer_kind == kind]
        possible = int(stored.shapes[layers[0]].min())
        rows.append([kind, possible, *(float(column[layers].mean()) for column in columns)])
    return rows


def _cut_rows(stored: _StoredRanks) -> list[list[Any]]:
    rows: list[list[Any]] = [["none", _mean_loss(stored.base), 0.0]]
    for part in plan.full_parts():
        mean = float(stored.tokens[f"{part}.losses"].astype(float).mean())
        rows.append([part, mean, float(_share_kept(stored, part)["value"])])
    return rows


def _figures(stored: _StoredRanks) -> dict[str, list[tuple[list[float], list[float]]]]:
    """Return figure -> (x, y) of each of its series, in order."""
    ranks = config()["ranks"]
    seeds = len(config()["seeds"])
    energy = []
    for r in ranks:
        energy.append(_numbered(sum(map(_energy_shares, stored.values(f"r{r}"))) / seeds))
    energy.append(_numbered(_energy_shares(stored.full["values"])))
    return {
        "loss_by_rank": _loss_series(stored),
        "first_step": [(ranks, row) for row in _relative_descent(stored).mean(0).tolist()],
        "energy": energy,
        "overlap": [_numbered(stored.overlaps[side].astype(float).mean((0, 1))) for side in SIDES],
    }


def _loss_series(stored: _StoredRanks) -> list[tuple[list[float], list[float]]]:
    """Return the points of every seed, the means, two other scales, the full fine-tuning."""
    ranks = config()["ranks"]
    seeds = len(config()["seeds"])
    point_ranks: list[float] = []
    point_losses: list[float] = []
    means = []
    for r in ranks:
        losses = stored.losses[f"r{r}"]
        point_ranks += [r] * seeds
        point_losses += losses
        means.append(statistics.fmean(losses))
    full = float(stored.tokens["full.losses"].astype(float).mean())
    return [
        (point_ranks, point_losses),
        (ranks, means),
        ([ranks[-1]] * seeds, stored.losses["alpha_2r"]),
        ([ranks[-1]] * seeds, stored.losses["rslora"]),
        ([min(ranks), max(ranks)], [full, full]),
    ]


def _numbered(y: Any) -> tuple[list[float], list[float]]:
    """Return x = 1, 2, ... and y."""
    return list(range(1, len(y) + 1)), y.tolist()


def _energy_shares(values: Any) -> Any:
    """Return the share of the energy in the first 1, 2, ... directions, mean over layers: [k]."""
    squares = values.astype(float) ** 2
    return (squares.cumsum(1) / squares.sum(1)[:, None]).mean(0)


def _bars(stored: _StoredRanks) -> dict[str, list[float]]:
    """Return the bars of the figure `cut` and their error bars, in percent."""
    bars: dict[str, list[float]] = {"y": [], "low": [], "high": []}
    for part in plan.full_parts()[1:]:
        share = _share_kept(stored, part)
        bars["y"].append(100 * share["value"])
        bars["low"].append(100 * (share["value"] - share["stderr"]))
        bars["high"].append(100 * (share["value"] + share["stderr"]))
    return bars
