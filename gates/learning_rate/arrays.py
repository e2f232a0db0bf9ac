"""FEAT-006's numbers, tables and figures, recomputed from its trials and those it reused.

Code of its own throughout: scipy's t test, numpy's polynomial fit. numpy and scipy are imported
inside, so a warm cache never loads them; what the arrays themselves are worth is settled in
gates/shared/trials_model.py.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from typing import Any

from gates.learning_rate import plan
from gates.learning_rate.plan import Setting
from gates.shared import outputs, trials
from gates.shared.outputs import sample
from gates.shared.stored import cached, config, header, token_mean

RATES = ("1e_5", "2e_4", "1e_3", "5e_3")  # at the first rank, as the measurements' names have them
SECOND_RATES = ("2e_4", "1e_3", "5e_3")
RECOMPUTED = (
    "eval_loss_base",
    "eval_loss_r16_lr1e_5",
    "eval_loss_r16_lr2e_4",
    "eval_loss_r16_lr1e_3",
    "eval_loss_r16_lr5e_3",
    "eval_loss_r64_lr2e_4",
    "eval_loss_r64_lr1e_3",
    "eval_loss_r64_lr5e_3",
    "eval_loss_shuffled",
    "best_rate",
    "best_rate_lead",
    "best_rate_r64",
    "formula_rate",
    "optimum_log10_rate",
    "optimum_log10_rate_r64",
    "optimum_shift",
    "winner_unchanged_seeds",
    "control_gap",
    "format_share",
    "instability_lr1e_5",
    "instability_lr5e_3",
    "instability_same_batches_lr5e_3",
    "gradient_spikes",
    "loss_spikes",
)
Points = tuple[list[float], list[float]]  # x and y of a series


def recompute() -> dict[str, Any]:
    """Return what the arrays say.

    `numbers` (measurement -> value), `tables` (rows), `figures` (series), `seed_ranges` (bands),
    `gap_by_example` (shuffled minus true answers, no measurement: the gate's own question).
    """
    parts = ["trial.json", "steps.safetensors", "evaluation.safetensors"]
    files = trials.files([*plan.all_trial_names(), "base"], parts)
    return dict(cached("learning rates", files, _recompute))


def _recompute() -> dict[str, Any]:
    runs = StoredRuns()
    return {
        "numbers": _numbers(runs),
        "tables": [_runs_table(runs), _pairs_table(runs), _optima_table(runs)],
        "figures": {
            "loss_by_rate": _loss_figure(runs),
            "training_loss": _training_figure(runs),
            "instability": _instability_figure(runs),
        },
        "seed_ranges": _seed_ranges(runs),
        "gap_by_example": _change_by_example(runs, plan.counterpart(), plan.control()),
    }


class StoredRuns:
    """The stored arrays, by setting.

    losses: final held-out loss of each seed; token_losses: loss of each held-out token [N], mean
    over seeds; curves: training loss [seeds, T]; norms: gradient norms [seeds, T].
    """

    def __init__(self) -> None:
        import numpy as np

        features = plan.earlier_features()
        self.seeds: list[int] = config()["seeds"]
        base = trials.load("base", "evaluation", features)
        self.base_tokens = base["losses"].astype(np.float64)  # [N]
        self.base_loss = float(self.base_tokens.mean())
        self.example_ids = base["example_ids"]  # [N]
        self.losses: dict[Setting, list[float]] = {}
        self.token_losses: dict[Setting, Any] = {}
        self.curves: dict[Setting, Any] = {}
        self.norms: dict[Setting, Any] = {}
        for setting in plan.all_settings():
            tokens = []
            curves = []
            norms = []
            for seed in self.seeds:
                name = plan.trial_name(setting, seed)
                evaluation = trials.load(name, "evaluation", features)
                steps = trials.load(name, "steps", features)
                tokens.append(evaluation["losses"].astype(np.float64))
                curves.append(steps["loss"])
                norms.append(steps["grad_norm"])
            self.losses[setting] = np.mean(tokens, axis=1).tolist()  # [seeds, N] -> [seeds]
            self.token_losses[setting] = np.mean(tokens, axis=0)  # [seeds, N] -> [N]
            self.curves[setting] = np.stack(curves)
            self.norms[setting] = np.stack(norms)

    def mean_loss(self, setting: Setting) -> float:
        """Return the final loss, mean over seeds."""
        return statistics.fmean(self.losses[setting])

    def same_batches(self, setting: Setting) -> Any:
        """Return the training loss less that of the smallest rate on the same batch [seeds, T]."""
        return self.curves[setting] - self.curves[plan.first_rank()[0]]


# What one setting or one rank says of each seed


def _climbs(curve: Sequence[float]) -> list[float]:
    """Return by how much each value is above the lowest one up to it."""
    climbs = []
    lowest = math.inf
    for value in curve:
        lowest = min(lowest, value)
        climbs.append(value - lowest)
    return climbs


def _stability(runs: StoredRuns, setting: Setting) -> list[list[Any]]:
    """Return per seed: instability, the same on equal batches, gradient spikes, loss spikes."""
    rows: list[list[Any]] = []
    for curve, same_batches, norms in zip(
        runs.curves[setting].tolist(),
        runs.same_batches(setting).tolist(),
        runs.norms[setting].tolist(),
        strict=True,
    ):
        climbs_same_batches = _climbs(same_batches)
        limit = config()["gradient_spike"] * statistics.median(norms)
        height = config()["loss_spike"]
        gradient_spikes = sum(norm > limit for norm in norms)
        loss_spikes = sum(climb > height for climb in climbs_same_batches)
        rows.append([max(_climbs(curve)), max(climbs_same_batches), gradient_spikes, loss_spikes])
    return rows


def _best_rates(runs: StoredRuns, settings: Sequence[Setting]) -> list[float]:
    """Return per seed the rate with the lowest loss; of equal losses, the smaller rate."""
    best_rates = []
    for i in range(len(runs.seeds)):
        best = min(settings, key=lambda s: (runs.losses[s][i], s[2]))
        best_rates.append(best[2])
    return best_rates


def _vertices(runs: StoredRuns, settings: Sequence[Setting]) -> list[float | None]:
    """Return per seed log10 of the rate at which the parabola through three losses is lowest.

    None where it opens downwards.
    """
    import numpy as np

    losses = [runs.losses[setting] for setting in settings]  # [3][seeds]
    coefficients = np.polyfit(np.log10(plan.rates(settings)), losses, 2)  # [3, seeds]
    vertices: list[float | None] = []
    for a, b, _ in coefficients.T.tolist():
        if a > 0:
            vertices.append(-b / (2 * a))
        else:
            vertices.append(None)
    return vertices


def formula_rate() -> float | None:
    """Return the rate by tinker-cookbook's fit for LoRA.

    Ten times 5e-5, times a power of 2000 / width by family.
    """
    folder = outputs.inputs()[trials.model_name()]
    family = json.loads((folder / "config.json").read_text("utf-8"))["model_type"]
    width = header(folder / "model.safetensors")["model.embed_tokens.weight"]["shape"][1]
    power = {"llama": 0.781, "qwen2": 0.0775, "qwen3": 0.0775}.get(family)
    if power is None:
        return None
    return 5e-4 * math.exp(power * math.log(2000 / width))


def _change_by_example(runs: StoredRuns, one: Setting, other: Setting) -> dict[str, Any]:
    """Return the mean change of a token's loss from one setting to another, by example."""
    changes = runs.token_losses[other] - runs.token_losses[one]  # [N]
    return token_mean(changes, runs.example_ids)


def _differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Return first minus second, seed by seed."""
    return [a - b for a, b in zip(first, second, strict=True)]


# The measurements


def _numbers(runs: StoredRuns) -> dict[str, Any]:
    return _of_losses(runs) | _of_optimum(runs) | _of_control(runs) | _of_stability(runs)


def _of_losses(runs: StoredRuns) -> dict[str, Any]:
    numbers: dict[str, Any] = {"eval_loss_base": token_mean(runs.base_tokens, runs.example_ids)}
    for setting, rate in zip(plan.first_rank(), RATES, strict=True):
        numbers[f"eval_loss_r{setting[0]}_lr{rate}"] = sample(runs.losses[setting])
    for setting, rate in zip(plan.second_rank(), SECOND_RATES, strict=True):
        numbers[f"eval_loss_r{setting[0]}_lr{rate}"] = sample(runs.losses[setting])
    return numbers | {"eval_loss_shuffled": sample(runs.losses[plan.control()])}


def _of_optimum(runs: StoredRuns) -> dict[str, Any]:
    # 1. The best rates by the mean over seeds; of equal means, the smaller rate.
    best, runner_up = sorted(plan.first_rank(), key=lambda s: (runs.mean_loss(s), s[2]))[:2]
    best_second = min(plan.second_rank(), key=lambda s: (runs.mean_loss(s), s[2]))

    # 2. The optimum of each seed, and how far it moves with the rank.
    first_optima = _vertices(runs, plan.first_rank_shared())
    second_optima = _vertices(runs, plan.second_rank())
    shifts: list[float | None] = []
    for one, other in zip(first_optima, second_optima, strict=True):
        if one is None or other is None:
            shifts.append(None)
        else:
            shifts.append(other - one)

    # 3. The seeds in which both ranks have the same best rate.
    unchanged = 0
    first_best = _best_rates(runs, plan.first_rank_shared())
    second_best = _best_rates(runs, plan.second_rank())
    for first_rate, second_rate in zip(first_best, second_best, strict=True):
        unchanged += first_rate == second_rate
    return {
        "best_rate": best[2],
        "best_rate_lead": sample(_differences(runs.losses[runner_up], runs.losses[best])),
        "best_rate_r64": best_second[2],
        "formula_rate": formula_rate(),
        "optimum_log10_rate": _sample_of_all(first_optima),
        "optimum_log10_rate_r64": _sample_of_all(second_optima),
        "optimum_shift": _sample_of_all(shifts),
        "winner_unchanged_seeds": unchanged,
    }


def _sample_of_all(values: Sequence[float | None]) -> dict[str, Any]:
    """Return the sample of all seeds; not measured if one of them has no value."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return {"value": None, "stderr": None}
    return sample(numbers)


def _of_control(runs: StoredRuns) -> dict[str, Any]:
    base = runs.base_loss
    true_losses = runs.losses[plan.counterpart()]
    shuffled_losses = runs.losses[plan.control()]
    shares = []
    for true, shuffled in zip(true_losses, shuffled_losses, strict=True):
        shares.append((base - shuffled) / (base - true))
    return {
        "control_gap": sample(_differences(shuffled_losses, true_losses)),
        "format_share": sample(shares),
    }


def _of_stability(runs: StoredRuns) -> dict[str, Any]:
    # 1. Climbs of the smallest and the largest rate: one value per seed.
    lowest = _stability(runs, plan.first_rank()[0])
    highest = _stability(runs, plan.first_rank()[-1])

    # 2. Spikes of all trials with true answers.
    gradient_spikes = 0
    loss_spikes = 0
    for setting in plan.true_answers():
        for _, _, gradient_count, loss_count in _stability(runs, setting):
            gradient_spikes += gradient_count
            loss_spikes += loss_count
    return {
        "instability_lr1e_5": sample([row[0] for row in lowest]),
        "instability_lr5e_3": sample([row[0] for row in highest]),
        "instability_same_batches_lr5e_3": sample([row[1] for row in highest]),
        "gradient_spikes": gradient_spikes,
        "loss_spikes": loss_spikes,
    }


# The tables


def _runs_table(runs: StoredRuns) -> list[list[Any]]:
    own_names = set(trials.own())
    rows = []
    for setting in plan.all_settings():
        rank, _, rate, shuffled = setting
        answers = "shuffled" if shuffled else "true"
        by_seed = zip(runs.seeds, runs.losses[setting], _stability(runs, setting), strict=True)
        for seed, loss, stability in by_seed:
            metrics = stability
            if shuffled:  # there is no trial on the same batches to compare the control with
                metrics = [stability[0], None, None, None]
            reused = "no" if plan.trial_name(setting, seed) in own_names else "yes"
            rows.append([rank, rate, answers, seed, loss, *metrics, reused])
    return rows


def _pairs_table(runs: StoredRuns) -> list[list[Any]]:
    from scipy import stats

    pairs = (*itertools.pairwise(plan.first_rank()), *itertools.pairwise(plan.second_rank()))
    rows = []
    for one, other in pairs:
        test = stats.ttest_rel(runs.losses[other], runs.losses[one])
        low, high = test.confidence_interval(0.95)
        changes = _differences(runs.losses[other], runs.losses[one])
        by_seed = [statistics.fmean(changes), float(low), float(high), float(test.pvalue)]
        by_example = _change_by_example(runs, one, other)
        rates = [one[0], one[2], other[2]]
        rows.append([*rates, *changes, *by_seed, by_example["value"], by_example["stderr"]])
    return rows


def _optima_table(runs: StoredRuns) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for settings in (plan.first_rank_shared(), plan.second_rank()):
        rank = settings[0][0]
        by_seed = zip(
            runs.seeds, _best_rates(runs, settings), _vertices(runs, settings), strict=True
        )
        for seed, best_rate, log_rate in by_seed:
            vertex_rate = None if log_rate is None else 10**log_rate
            rows.append([rank, seed, best_rate, vertex_rate])
    return rows


# The figures: x and y of each series, in order


def _loss_figure(runs: StoredRuns) -> list[Points]:
    # 1. Points and means of both ranks, then the control.
    series = []
    for settings in (plan.first_rank(), plan.second_rank()):
        series.append(_loss_points(runs, settings))
        series.append((plan.rates(settings), list(map(runs.mean_loss, settings))))
    series.append(_loss_points(runs, [plan.control()]))

    # 2. The base from end to end, the formula's rate from the lowest loss to the base.
    ends = [plan.first_rank()[0][2], plan.first_rank()[-1][2]]
    series.append((ends, [runs.base_loss, runs.base_loss]))
    rate = formula_rate()
    if rate is not None:
        _, losses = _loss_points(runs, plan.true_answers())
        series.append(([rate, rate], [min(losses), runs.base_loss]))
    return series


def _loss_points(runs: StoredRuns, settings: Sequence[Setting]) -> Points:
    """Return rate and loss of every trial."""
    rates: list[float] = []
    losses: list[float] = []
    for setting in settings:
        rates += [setting[2]] * len(runs.seeds)
        losses += runs.losses[setting]
    return rates, losses


def _training_figure(runs: StoredRuns) -> list[Points]:
    series = []
    for setting in plan.first_rank()[1:]:
        mean = runs.same_batches(setting).mean(0).tolist()  # [seeds, T] -> [T]
        steps = list(map(float, range(1, len(mean) + 1)))
        series.append((steps, mean))
    return series


def _seed_ranges(runs: StoredRuns) -> list[list[list[float]]]:
    """Return lowest and highest seed of each series of the training figure, per step."""
    ranges = []
    for setting in plan.first_rank()[1:]:
        same_batches = runs.same_batches(setting)  # [seeds, T]
        ranges.append([same_batches.min(0).tolist(), same_batches.max(0).tolist()])
    return ranges


def _instability_figure(runs: StoredRuns) -> list[Points]:
    return [
        _climb_points(runs, plan.first_rank(), column=0),
        _climb_points(runs, plan.first_rank()[1:], column=1),
        _climb_points(runs, plan.second_rank(), column=1),
    ]


def _climb_points(runs: StoredRuns, settings: Sequence[Setting], *, column: int) -> Points:
    """Return rate and largest climb of every trial: as it is (0), on the same batches (1)."""
    rates: list[float] = []
    climbs: list[float] = []
    for setting in settings:
        for stability in _stability(runs, setting):
            rates.append(setting[2])
            climbs.append(stability[column])
    return rates, climbs
