"""FEAT-007's numbers, tables and figures computed again from its stored trials and arrays.

Code of its own: numpy in place of torch, scipy's t test. numpy and scipy are imported inside, so a
warm cache never loads them; what the arrays themselves are worth is settled in
gates/lora_rank/model.py.
"""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

from gates.lora_rank import plan
from gates.shared import outputs, trials
from gates.shared.outputs import sample
from gates.shared.stored import cached, header, ratio

ADAPTER = "adapter_model.safetensors"
RANKS, LARGEST = (8, 16, 32, 64), 64
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


def arrays(path: str) -> dict[str, Any]:
    """Give the arrays of a file below the outputs; one that is not finite is refused."""
    import numpy as np
    from safetensors.numpy import load_file

    found: dict[str, Any] = load_file(outputs.out() / path)
    for key, array in found.items():
        assert np.isfinite(array).all(), f"{path}: {key} holds a value that is not finite"
    return found


def found() -> dict[str, Any]:
    """Give what the arrays say.

    `numbers` (measurement -> value), `tables` (rows), `figures` (x, y of the series).
    """
    own = [plan.UPDATES, plan.OVERLAPS, plan.FIRST, plan.TUNED, plan.FULL_TOKENS]
    read = trials.files([*plan.names(), "base"], ["trial.json", "evaluation.safetensors", ADAPTER])
    return dict(cached("lora ranks", (*read, *own), _found))


def _found() -> dict[str, Any]:
    stored = _Stored()
    return {
        "numbers": _numbers(stored),
        "tables": _tables(stored),
        "figures": _figures(stored),
        "bands": _band(stored),
    }


class _Stored:
    """What lies on disk.

    Losses of each setting by seed, spectra, overlaps, first steps, the full update's parts.
    """

    def __init__(self) -> None:
        import numpy as np

        known = plan.features()
        self.base = trials.load("base", "evaluation", known)
        self.settings = list(plan.adapters())
        self.losses = {
            s: [_mean(trials.load(t, "evaluation", known)) for t in plan.row(s)]
            for s in self.settings
        }
        self.updates, self.overlaps, self.first = (
            arrays(p) for p in (plan.UPDATES, plan.OVERLAPS, plan.FIRST)
        )
        self.full, self.tokens = arrays(plan.TUNED), arrays(plan.FULL_TOKENS)
        self.shapes = np.array(plan.shapes())
        assert self.tokens["example_ids"].tolist() == self.base["example_ids"].tolist(), (
            "full: other tokens than the base's"
        )

    def values(self, setting: str) -> list[Any]:
        """Singular values of each layer [L, r], one array per seed."""
        return [self.updates[f"{trial}.values"].astype(float) for trial in plan.row(setting)]

    def shape(self, setting: str, what: str) -> list[float]:
        """Mean over layers of stable or energy rank or amplification, one value per seed."""
        if what == "amplification":
            pairs = zip(plan.row(setting), self.values(setting), strict=True)
            least = min(plan.config()["ranks"])
            return [
                float((_norm(v[:, :least]) / self.updates[f"{t}.inside"]).mean()) for t, v in pairs
            ]
        return [float(_shape(v, what).mean()) for v in self.values(setting)]


def _mean(evaluation: dict[str, Any]) -> float:
    return float(evaluation["losses"].astype(float).mean())


def _norm(values: Any) -> Any:
    return ((values.astype(float) ** 2).sum(1)) ** 0.5


def _shape(values: Any, what: str) -> Any:
    """Give stable rank, or the number of directions with 90 % of the energy: [L] from [L, k]."""
    import numpy as np

    squares = values.astype(float) ** 2
    if what == "stable":
        return squares.sum(1) / squares[:, 0]
    return np.array(
        [1 + np.searchsorted(row.cumsum(), 0.9 * row.sum() * (1 - 1e-12)) for row in squares]
    )


def _numbers(stored: _Stored) -> dict[str, Any]:
    return _of_losses(stored) | _of_first_step(stored) | _of_directions(stored) | _of_full(stored)


def _of_losses(stored: _Stored) -> dict[str, Any]:
    ranks = [f"r{r}" for r in plan.config()["ranks"]]
    low, high = (stored.losses[name] for name in (ranks[0], ranks[-1]))
    by_seed = list(zip(*(stored.losses[name] for name in ranks), strict=True))
    pairs = itertools.combinations([stored.losses[name] for name in ranks], 2)
    margin = plan.config()["equivalence_margin"]
    numbers = {f"loss_{name}": sample(found) for name, found in stored.losses.items()}
    numbers |= {f"{s}_gap": sample(_minus(stored.losses[s], high)) for s in ("alpha_2r", "rslora")}
    return numbers | {
        "rank_gap": sample(_minus(high, low)),
        "rank_spread": sample([max(seed) - min(seed) for seed in by_seed]),
        "rank_equivalence_p": max(_not_equivalent(_minus(a, b), margin) for a, b in pairs),
        "parameters_per_rank": _parameters_per_rank(),
    }


def _minus(one: list[float], other: list[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]


def _not_equivalent(differences: list[float], margin: float) -> float:
    """Give the p value of two one-sided t tests: is the mean surely inside (-margin, margin)?"""
    from scipy import stats

    below = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    above = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    return float(max(below, above))


def parameters(setting: str) -> int:
    """Give the numbers in the adapter of a setting, from its header."""
    place = trials.folder(plan.row(setting)[0], plan.features()) / ADAPTER
    return sum(math.prod(entry["shape"]) for entry in header(place).values())


def _parameters_per_rank() -> int:
    found = {parameters(s) / lora["r"] for s, lora in plan.adapters().items()}
    assert len(found) == 1, f"parameters per unit of rank differ: {found}"
    return int(found.pop())


def _of_first_step(stored: _Stored) -> dict[str, Any]:
    import numpy as np

    x = np.log(plan.config()["ranks"])
    y = np.log(_along(stored))  # [seeds, 3, ranks]
    return {
        f"first_step_slope_{name}": sample([float(np.polyfit(x, seed[i], 1)[0]) for seed in y])
        for i, name in enumerate(plan.CONVENTIONS)
    }


def _along(stored: _Stored) -> Any:
    """Give <dW, -G> / |G| over all layers: [seeds, 3, ranks]."""
    whole = (stored.first["gradient"].astype(float) ** 2).sum(1) ** 0.5
    return stored.first["along"].astype(float).sum(3) / whole[:, None, None]


def _of_directions(stored: _Stored) -> dict[str, Any]:
    setting = f"r{LARGEST}"
    numbers = {
        f"{what}_rank_{setting}": sample(stored.shape(setting, what))
        for what in ("stable", "energy")
    }
    numbers[f"amplification_{setting}"] = sample(stored.shape(setting, "amplification"))
    for side in SIDES:
        numbers[f"similarity_{side}"] = sample(
            stored.overlaps[side][:, :, 0].astype(float).mean(1).tolist()
        )
    return numbers


def _of_full(stored: _Stored) -> dict[str, Any]:
    losses, example_ids = stored.tokens["full.losses"].astype(float), stored.base["example_ids"]
    numbers: dict[str, Any] = {"loss_full": ratio(losses, [1.0] * len(losses), example_ids)}
    for what in ("stable", "energy"):
        by_layer = _shape(stored.full["values"], what)
        spread = float(by_layer.std(ddof=1)) / math.sqrt(len(by_layer))
        numbers[f"{what}_rank_full"] = {
            "value": float(by_layer.mean()),
            "stderr": spread,
            "n": len(by_layer),
        }
    for name, part in (("full_kept_rank_8", "rank 8"), ("full_kept_random_8", "random 8")):
        numbers[name] = _kept(stored, part)
    return numbers


def _kept(stored: _Stored, part: str) -> dict[str, Any]:
    before = stored.base["losses"].astype(float)
    some, whole = (before - stored.tokens[f"{of}.losses"].astype(float) for of in (part, "full"))
    return ratio(some, whole, stored.base["example_ids"])


# What the report shows


def _tables(stored: _Stored) -> list[list[list[Any]]]:
    return [_settings(stored), _updates(stored), _kinds(stored), _cuts(stored)]


def _settings(stored: _Stored) -> list[list[Any]]:
    rows = []
    for name, lora in plan.adapters().items():
        losses = stored.losses[name]
        size = [lora["r"], lora["lora_alpha"], plan.scale(lora), parameters(name)]
        rows.append([name, *size, statistics.fmean(losses), *losses])
    return rows


def _updates(stored: _Stored) -> list[list[Any]]:
    weights, rows = stored.updates["weights"].astype(float), []
    whole = float((weights**2).sum()) ** 0.5
    for name in stored.settings:
        sizes = [float((v**2).sum()) ** 0.5 / whole for v in stored.values(name)]
        means = [
            statistics.fmean(stored.shape(name, what))
            for what in ("stable", "energy", "amplification")
        ]
        chance = weights * min(plan.config()["ranks"]) / stored.shapes.prod(1) ** 0.5
        ratios = [
            float((stored.updates[f"{trial}.inside"] / chance).mean()) for trial in plan.row(name)
        ]
        rows.append([name, statistics.fmean(sizes), *means, statistics.fmean(ratios)])
    full = stored.full["values"].astype(float)
    means = [float(_shape(full, what).mean()) for what in ("stable", "energy")]
    return [*rows, ["full", float((full**2).sum()) ** 0.5 / whole, *means, None, None]]


def _kinds(stored: _Stored) -> list[list[Any]]:
    kinds = [name.rpartition(".")[2] for name in plan.layers()]
    full, rows = _shape(stored.full["values"], "energy"), []
    of_rank = [
        sum(_shape(v, "energy") for v in stored.values(f"r{r}")) / len(plan.config()["seeds"])
        for r in plan.config()["ranks"]
    ]
    for kind in dict.fromkeys(kinds):
        at = [i for i, of in enumerate(kinds) if of == kind]
        cells = [float(energy[at].mean()) for energy in (*of_rank, full)]
        rows.append([kind, int(stored.shapes[at[0]].min()), *cells])
    return rows


def _cuts(stored: _Stored) -> list[list[Any]]:
    rows: list[list[Any]] = [["none", _mean(stored.base), 0.0]]
    for part in plan.parts():
        mean = float(stored.tokens[f"{part}.losses"].astype(float).mean())
        rows.append([part, mean, float(_kept(stored, part)["value"])])
    return rows


def _figures(stored: _Stored) -> dict[str, list[tuple[list[float], list[float]]]]:
    """Give figure -> (x, y) of each of its series, in order."""
    ranks, seeds = plan.config()["ranks"], len(plan.config()["seeds"])
    of_rank = [stored.losses[f"r{r}"] for r in ranks]
    full = float(stored.tokens["full.losses"].astype(float).mean())
    by_rank = [
        ([r for r in ranks for _ in range(seeds)], [loss for losses in of_rank for loss in losses]),
        (ranks, [statistics.fmean(losses) for losses in of_rank]),
        *(([ranks[-1]] * seeds, stored.losses[s]) for s in ("alpha_2r", "rslora")),
        ([min(ranks), max(ranks)], [full, full]),
    ]
    steps = [(ranks, row) for row in _along(stored).mean(0).tolist()]
    held = [sum(_held(v) for v in stored.values(f"r{r}")) / seeds for r in ranks] + [
        _held(stored.full["values"])
    ]
    energy = [(list(range(1, len(h) + 1)), h.tolist()) for h in held]
    common = [stored.overlaps[side].astype(float).mean((0, 1)).tolist() for side in SIDES]
    overlap = [(list(range(1, len(c) + 1)), c) for c in common]
    return {"loss_by_rank": by_rank, "first_step": steps, "energy": energy, "overlap": overlap}


def _held(values: Any) -> Any:
    """Give the share of the energy in the first 1, 2, ... directions, mean over layers."""
    squares = values.astype(float) ** 2
    return (squares.cumsum(1) / squares.sum(1)[:, None]).mean(0)


def _band(stored: _Stored) -> dict[str, list[float]]:
    """Give the bars of the figure `cut` and their band, in percent."""
    kept = [_kept(stored, part) for part in plan.parts()[1:]]
    value, error = [100 * k["value"] for k in kept], [100 * k["stderr"] for k in kept]
    low, high = ([v + sign * e for v, e in zip(value, error, strict=True)] for sign in (-1, 1))
    return {"y": value, "low": low, "high": high}
