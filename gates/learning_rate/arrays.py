"""FEAT-006's numbers, tables and figures computed again from its runs and those it took over.

Code of its own throughout: scipy's t test, numpy's polynomial fit. numpy and scipy are
imported inside, so a warm cache never loads them; what the arrays themselves are worth is
settled in gates/shared/trials_model.py.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

from gates.learning_rate.plan import (
    Setting,
    config,
    control,
    features,
    first,
    name,
    names,
    second,
    shared,
)
from gates.shared import outputs, trials
from gates.shared.outputs import sample
from gates.shared.stored import cached, header

RATES, SECOND_RATES, FIRST, SECOND = (
    ("1e_5", "2e_4", "1e_3", "5e_3"),
    ("2e_4", "1e_3", "5e_3"),
    16,
    64,
)
RECOMPUTED = (
    "eval_loss_base",
    *(f"eval_loss_r{FIRST}_lr{rate}" for rate in RATES),
    *(f"eval_loss_r{SECOND}_lr{rate}" for rate in SECOND_RATES),
    "eval_loss_shuffled",
    "best_rate",
    "best_rate_lead",
    f"best_rate_r{SECOND}",
    "formula_rate",
    "optimum_log10_rate",
    f"optimum_log10_rate_r{SECOND}",
    "optimum_shift",
    "winner_unchanged_seeds",
    "control_gap",
    "format_share",
    f"instability_lr{RATES[0]}",
    f"instability_lr{RATES[-1]}",
    f"instability_same_batches_lr{RATES[-1]}",
    "gradient_spikes",
    "loss_spikes",
)


def found() -> dict[str, Any]:
    """Give what the arrays say.

    `numbers` (measurement → value), `tables` (rows), `figures` (series), `bands`.
    """
    parts = ["trial.json", "steps.safetensors", "evaluation.safetensors"]
    read = trials.files([*names(), "base"], parts)
    return dict(cached("learning rates", read, _found))


def _found() -> dict[str, Any]:
    runs = _Runs()
    return {
        "numbers": _numbers(runs),
        "tables": _tables(runs),
        "figures": _figures(runs),
        "bands": _bands(runs),
    }


class _Runs:
    """The stored arrays: final loss, training curves, gradient norms of each setting and seed."""

    def __init__(self) -> None:
        import numpy as np

        self.seeds, known = config()["seeds"], features()
        self.base = trials.load("base", "evaluation", known)
        self.tokens, self.loss, self.curve, self.norms = {}, {}, {}, {}
        for setting in (*first(), *second(), control()):
            for seed in self.seeds:
                run = name(setting, seed)
                steps = trials.load(run, "steps", known)
                self.tokens[setting, seed] = trials.load(run, "evaluation", known)["losses"].astype(
                    np.float64
                )
                self.loss[setting, seed] = float(self.tokens[setting, seed].mean())
                self.curve[setting, seed], self.norms[setting, seed] = (
                    steps["loss"],
                    steps["grad_norm"],
                )

    def losses(self, setting: Setting) -> list[float]:
        return [self.loss[setting, seed] for seed in self.seeds]

    def same_batches(self, setting: Setting, seed: int) -> Any:
        return self.curve[setting, seed] - self.curve[first()[0], seed]


def _climb(curve: Any) -> list[float]:
    """Give by how much each value lies above the lowest one up to it."""
    return [float(value - min(curve[: t + 1])) for t, value in enumerate(curve)]


def _stability(runs: _Runs, setting: Setting, seed: int) -> list[Any]:
    """Give instability, the same on equal batches, gradient spikes, loss spikes."""
    plan, norms, same = (
        config(),
        runs.norms[setting, seed].tolist(),
        _climb(runs.same_batches(setting, seed)),
    )
    spikes = sum(norm > plan["gradient_spike"] * statistics.median(norms) for norm in norms)
    return [
        max(_climb(runs.curve[setting, seed])),
        max(same),
        spikes,
        sum(up > plan["loss_spike"] for up in same),
    ]


def _winner(runs: _Runs, settings: Sequence[Setting], seed: int) -> float:
    return min((runs.loss[s, seed], s[2]) for s in settings)[1]


def _vertex(runs: _Runs, settings: Sequence[Setting], seed: int) -> float | None:
    """Give log10 of the rate where the parabola through three losses is lowest.

    None where it opens downwards.
    """
    import numpy as np

    a, b, _ = np.polyfit(
        [math.log10(s[2]) for s in settings], [runs.loss[s, seed] for s in settings], 2
    )
    return float(-b / (2 * a)) if a > 0 else None


def formula() -> float | None:
    """Give the rate by tinker-cookbook's fit for LoRA.

    Ten times 5e-5, times a power of 2000 / width by family.
    """
    import json

    place = outputs.inputs()[trials.model_name()]
    family = json.loads((place / "config.json").read_text("utf-8"))["model_type"]
    width = header(place / "model.safetensors")["model.embed_tokens.weight"]["shape"][1]
    power = {"llama": 0.781, "qwen2": 0.0775, "qwen3": 0.0775}.get(family)
    return None if power is None else float(5e-4 * math.exp(power * math.log(2000 / width)))


def _numbers(runs: _Runs) -> dict[str, Any]:
    plan, low, high = config(), first()[0], first()[-1]
    by_mean = sorted(first(), key=lambda s: (statistics.fmean(runs.losses(s)), s[2]))
    lead = [runs.loss[by_mean[1], seed] - runs.loss[by_mean[0], seed] for seed in runs.seeds]
    best_second = min(second(), key=lambda s: (statistics.fmean(runs.losses(s)), s[2]))
    one = [_vertex(runs, shared(), seed) for seed in runs.seeds]
    other = [_vertex(runs, second(), seed) for seed in runs.seeds]
    shift = [None if a is None or b is None else b - a for a, b in zip(one, other, strict=True)]
    stable = {
        (s, seed): _stability(runs, s, seed) for s in (*first(), *second()) for seed in runs.seeds
    }
    return {
        "eval_loss_base": _by_example(runs.base["losses"].astype(float), runs.base["example_ids"]),
        **{
            f"eval_loss_r{s[0]}_lr{rate}": sample(runs.losses(s))
            for settings, rates in ((first(), RATES), (second(), SECOND_RATES))
            for s, rate in zip(settings, rates, strict=True)
        },
        "eval_loss_shuffled": sample(runs.losses(control())),
        "best_rate": by_mean[0][2],
        "best_rate_lead": sample(lead),
        f"best_rate_r{SECOND}": best_second[2],
        "formula_rate": formula(),
        "optimum_log10_rate": _sample(one),
        f"optimum_log10_rate_r{SECOND}": _sample(other),
        "optimum_shift": _sample(shift),
        "winner_unchanged_seeds": sum(
            _winner(runs, shared(), seed) == _winner(runs, second(), seed) for seed in plan["seeds"]
        ),
        **_of_control(runs),
        f"instability_lr{RATES[0]}": sample([stable[low, seed][0] for seed in runs.seeds]),
        f"instability_lr{RATES[-1]}": sample([stable[high, seed][0] for seed in runs.seeds]),
        f"instability_same_batches_lr{RATES[-1]}": sample(
            [stable[high, seed][1] for seed in runs.seeds]
        ),
        "gradient_spikes": sum(row[2] for row in stable.values()),
        "loss_spikes": sum(row[3] for row in stable.values()),
    }


def _sample(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return sample(known) if len(known) == len(values) else {"value": None, "stderr": None}


def _of_control(runs: _Runs) -> dict[str, Any]:
    base, mixed = float(runs.base["losses"].astype(float).mean()), runs.losses(control())
    true = runs.losses((*control()[:3], False))
    return {
        "control_gap": sample([b - a for a, b in zip(true, mixed, strict=True)]),
        "format_share": sample([(base - b) / (base - a) for a, b in zip(true, mixed, strict=True)]),
        # for the gate's own question, whether the control was beaten; no measurement
        "by_example": _by_example(
            _mean_tokens(runs, control()) - _mean_tokens(runs, (*control()[:3], False)),
            runs.base["example_ids"],
        ),
    }


def _mean_tokens(runs: _Runs, setting: Setting) -> Any:
    return sum(runs.tokens[setting, seed] for seed in runs.seeds) / len(runs.seeds)


def _by_example(values: Any, example_ids: Any) -> dict[str, Any]:
    """Give the mean over tokens; its standard error by the spread of examples' sums about it."""
    import numpy as np

    sums, counts = np.bincount(example_ids, weights=values), np.bincount(example_ids)
    mean, k = sums.sum() / counts.sum(), len(counts)
    spread = math.sqrt(k / (k - 1) * float(((sums - mean * counts) ** 2).sum()))
    return {"value": float(mean), "stderr": spread / float(counts.sum()), "n": k}


def _tables(runs: _Runs) -> list[list[list[Any]]]:
    return [_runs_table(runs), _pairs_table(runs), _optima_table(runs)]


def _runs_table(runs: _Runs) -> list[list[Any]]:
    mine, rows = set(trials.own()), []
    for setting in (*first(), *second(), control()):
        rank, _, rate, shuffled = setting
        for seed in runs.seeds:
            stable = _stability(runs, setting, seed)
            if shuffled:
                stable = [stable[0], None, None, None]
            taken = "no" if name(setting, seed) in mine else "yes"
            answers = "shuffled" if shuffled else "true"
            rows.append([rank, rate, answers, seed, runs.loss[setting, seed], *stable, taken])
    return rows


def _pairs_table(runs: _Runs) -> list[list[Any]]:
    from scipy import stats

    rows = []
    for settings in (first(), second()):
        for one, other in itertools.pairwise(settings):
            test = stats.ttest_rel(runs.losses(other), runs.losses(one))
            low, high = test.confidence_interval(0.95)
            change = [runs.loss[other, seed] - runs.loss[one, seed] for seed in runs.seeds]
            tokens = _by_example(
                _mean_tokens(runs, other) - _mean_tokens(runs, one), runs.base["example_ids"]
            )
            numbers = [statistics.fmean(change), float(low), float(high), float(test.pvalue)]
            rows.append(
                [one[0], one[2], other[2], *change, *numbers, tokens["value"], tokens["stderr"]]
            )
    return rows


def _optima_table(runs: _Runs) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for settings in (shared(), second()):
        for seed in runs.seeds:
            log_rate = _vertex(runs, settings, seed)
            best = _winner(runs, settings, seed)
            rows.append([settings[0][0], seed, best, None if log_rate is None else 10**log_rate])
    return rows


def _figures(runs: _Runs) -> dict[str, list[tuple[list[float], list[float]]]]:
    """Give figure → (x, y) of each of its series, in order."""

    def points(settings: Sequence[Setting]) -> tuple[list[float], list[float]]:
        return [s[2] for s in settings for _ in runs.seeds], [
            y for s in settings for y in runs.losses(s)
        ]

    def means(settings: Sequence[Setting]) -> tuple[list[float], list[float]]:
        return [s[2] for s in settings], [statistics.fmean(runs.losses(s)) for s in settings]

    def climbs(settings: Sequence[Setting], same: bool) -> tuple[list[float], list[float]]:
        place = 1 if same else 0
        pairs = [(s, seed) for s in settings for seed in runs.seeds]
        return [s[2] for s, _ in pairs], [_stability(runs, s, seed)[place] for s, seed in pairs]

    base, ends, rate = (
        float(runs.base["losses"].astype(float).mean()),
        [first()[0][2], first()[-1][2]],
        formula(),
    )
    lowest = min(min(runs.losses(s)) for s in (*first(), *second()))
    by_rate = [
        points(first()),
        means(first()),
        points(second()),
        means(second()),
        points([control()]),
    ]
    by_rate.append((ends, [base, base]))
    if rate is not None:
        by_rate.append(([rate, rate], [lowest, base]))
    curves = []
    for s in first()[1:]:
        mean = sum(runs.same_batches(s, seed) for seed in runs.seeds) / len(runs.seeds)
        curves.append(([float(t) for t in range(1, len(mean) + 1)], mean.tolist()))
    climbing = [
        climbs(first(), same=False),
        climbs(first()[1:], same=True),
        climbs(second(), same=True),
    ]
    return {"loss_by_rate": by_rate, "training_loss": curves, "instability": climbing}


def _bands(runs: _Runs) -> list[list[list[float]]]:
    """Give lowest and highest seed of each series of the training figure, per step."""
    bands = []
    for s in first()[1:]:
        steps = list(
            zip(*(runs.same_batches(s, seed).tolist() for seed in runs.seeds), strict=True)
        )
        bands.append([[min(step) for step in steps], [max(step) for step in steps]])
    return bands
