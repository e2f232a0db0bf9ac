"""The measurements of the comparison, from what was observed.

A head's movement is its divergence, [H] or [H, P]. Prompts are the units of every standard error of
attention; losses count examples.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lab.attention_comparison.measured import STATISTICS, ComparisonObservations, ModelAttention
from lab.contract import Measurement
from lab.stats.jackknife import jackknife
from lab.stats.significance import holm, spearman
from lab.stats.tokens import Mean, token_mean

LEVEL = 0.05  # of the adjusted t tests
TENTH = 0.1  # of the loss's whole fall: what counts as having begun to fall
LOSS = "nats/token"


@dataclass(frozen=True)
class Movement:
    """How far each head moved on each prompt, and its nulls; all [H, P] in nats.

    tuned: mean over seeds; seeds: mean over pairs of seeds; random: mean over random updates.
    """

    tuned: np.ndarray
    seeds: np.ndarray
    random: np.ndarray


def movement(observations: ComparisonObservations) -> Movement:
    """Return the movement of all heads and its nulls."""
    return Movement(
        tuned=divergences(observations.tuned).mean(0),
        seeds=observations.between_seeds.mean(0),
        random=divergences(observations.random).mean(0),
    )


def divergences(models: Sequence[ModelAttention]) -> np.ndarray:
    """Return the divergences of several models, [models, H, P]."""
    return np.stack([model.divergence for model in models])


def prompt_mean(values: np.ndarray) -> Mean:
    """Return the mean over prompts [P]; standard error sd / √P with P − 1 in sd."""
    stderr = float(values.std(ddof=1)) / math.sqrt(len(values))
    return Mean(float(values.mean()), stderr, len(values))


def adjusted_p(values: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return per head the p value of "moved further than the null", adjusted by Holm, [H].

    values, null: [H, P], paired by prompt; one-sided t test.
    """
    from scipy import stats

    changes = values - null
    p_values = np.ones(len(changes))
    varies = changes.std(1) > 0  # the t statistic of equal numbers would be 0/0
    p_values[varies] = stats.ttest_1samp(changes[varies], 0.0, axis=1, alternative="greater").pvalue
    return np.array(holm(p_values.tolist()))


def moved(observations: ComparisonObservations) -> tuple[np.ndarray, np.ndarray]:
    """Return which heads are above the other seeds, and which above the random updates, [H]."""
    moves = movement(observations)
    return (
        adjusted_p(moves.tuned, moves.seeds) < LEVEL,
        adjusted_p(moves.tuned, moves.random) < LEVEL,
    )


def measurements(observations: ComparisonObservations) -> dict[str, Measurement]:
    """Return all measurements by name."""
    return (
        _of_movement(observations)
        | _of_heads(observations)
        | _of_statistics(observations)
        | _of_ablation(observations)
        | _of_time(observations)
    )


def estimate(mean: Mean, unit: str) -> Measurement:
    """Return a mean as a measurement."""
    return Measurement.of_estimate(mean.value, unit, stderr=mean.stderr, n=mean.n)


# How far, against the nulls


def _of_movement(observations: ComparisonObservations) -> dict[str, Measurement]:
    exact = Measurement.of_exact
    plan = observations.plan
    moves = movement(observations)
    tuned, seeds, random = moves.tuned.mean(0), moves.seeds.mean(0), moves.random.mean(0)  # [P]
    task, text = tuned[observations.kinds == "task"], tuned[observations.kinds == "text"]

    # 1. Sizes and the control.
    measurements = {
        "heads": exact(plan.heads, "heads"),
        "prompts": exact(len(tuned), "prompts"),
        "random_updates": exact(len(observations.random), "updates"),
        "js_adapter_off": exact(float(observations.adapter_off.max()), "nats"),
    }
    # 2. Means over heads and models.
    for name, values in {"tuned": tuned, "seeds": seeds, "random": random}.items():
        measurements[f"js_{name}"] = estimate(prompt_mean(values), "nats")
    measurements["js_task"] = estimate(prompt_mean(task), "nats")
    measurements["js_text"] = estimate(prompt_mean(text), "nats")
    measurements["task_excess"] = estimate(_difference(task, text), "nats")

    # 3. Ratios.
    def shared_share(units: np.ndarray) -> float:
        return float(1 - seeds[units].mean() / (2 * tuned[units].mean()))

    def random_ratio(units: np.ndarray) -> float:
        return float(tuned[units].mean() / random[units].mean())

    measurements["shared_share"] = _jackknifed(len(tuned), shared_share, "")
    measurements["random_ratio"] = _jackknifed(len(tuned), random_ratio, "times")
    return measurements


def _difference(one: np.ndarray, other: np.ndarray) -> Mean:
    """Return the difference of the means of two independent groups; n is that of the smaller."""
    a, b = prompt_mean(one), prompt_mean(other)
    return Mean(a.value - b.value, math.hypot(a.stderr, b.stderr), min(a.n, b.n))


def _jackknifed(
    count: int, compute: Callable[[np.ndarray], float | None], unit: str
) -> Measurement:
    """Return a number with the standard error of leaving out one unit after the other."""
    value = compute(np.arange(count))
    stderr = None
    if value is not None:
        stderr = jackknife(count, compute)
    return Measurement.of_estimate(value, unit, stderr=stderr, n=count)


# Which heads


def _of_heads(observations: ComparisonObservations) -> dict[str, Measurement]:
    exact = Measurement.of_exact
    plan = observations.plan
    tuned = movement(observations).tuned  # [H, P]
    above_seeds, above_random = moved(observations)
    by_head = tuned.mean(1)
    by_seed = divergences(observations.tuned)  # [S, H, P]
    layers = np.arange(plan.heads) // plan.heads_per_layer

    def top_share(units: np.ndarray) -> float:
        values = np.sort(tuned[:, units].mean(1))
        return float(values[-plan.moved :].sum() / values.sum())

    def depth(units: np.ndarray) -> float:
        values = tuned[:, units].mean(1)
        return float((values * layers).sum() / values.sum() / (plan.layers - 1))

    def rank_correlation(units: np.ndarray) -> float:
        heads = by_seed[:, :, units].mean(2)  # [S, H]
        return statistics.fmean(float(spearman(heads[i], heads[j])) for i, j in plan.pairs)

    count = tuned.shape[1]
    return {
        "heads_above_seeds": exact(int(above_seeds.sum()), "heads"),
        "heads_above_random": exact(int(above_random.sum()), "heads"),
        "heads_moved": exact(int((above_seeds & above_random).sum()), "heads"),
        "most_moved_head": exact(plan.head_name(int(by_head.argmax()))),
        "js_most_moved": estimate(prompt_mean(tuned[by_head.argmax()]), "nats"),
        "top_share": _jackknifed(count, top_share, ""),
        "movement_depth": _jackknifed(count, depth, ""),
        "seed_rank_correlation": _jackknifed(count, rank_correlation, ""),
    }


# What the heads do


def shifts(observations: ComparisonObservations, name: str) -> np.ndarray:
    """Return tuned minus base of a statistic, mean over seeds, [H, P]."""
    tuned = np.stack([model.statistics[name] for model in observations.tuned])
    shift: np.ndarray = tuned.mean(0) - observations.base[name]
    return shift


def _of_statistics(observations: ComparisonObservations) -> dict[str, Measurement]:
    measurements = {}
    for name, unit in STATISTICS.items():
        shift = shifts(observations, name).mean(0)  # [P] or [R]
        measurements[f"{name}_base"] = estimate(prompt_mean(observations.base[name].mean(0)), unit)
        measurements[f"{name}_shift"] = estimate(prompt_mean(shift), unit)
    return measurements


# Whether they matter


@dataclass(frozen=True)
class Rise:
    """How much a model's loss rises without some heads: the moved ones, and each random set."""

    intact: Mean
    moved: Mean
    random: tuple[float, ...]

    @property
    def excess(self) -> list[float]:
        """Return moved minus random, per random set."""
        return [self.moved.value - value for value in self.random]


def rise(losses: np.ndarray, token_examples: np.ndarray) -> Rise:
    """Return the rises from token losses [1 + 1 + draws, N]."""
    changes = losses.astype(np.float64) - losses[0]
    return Rise(
        intact=token_mean(losses[0].astype(np.float64), token_examples),
        moved=token_mean(changes[1], token_examples),
        random=tuple(float(row.mean()) for row in changes[2:]),
    )


def _of_ablation(observations: ComparisonObservations) -> dict[str, Measurement]:
    sample = Measurement.of_sample
    examples = observations.token_examples
    tuned = rise(observations.ablation.tuned, examples)
    base = rise(observations.ablation.base, examples)
    interaction = [a - b for a, b in zip(tuned.excess, base.excess, strict=True)]
    return {
        "loss_base": estimate(base.intact, LOSS),
        "loss_tuned": estimate(tuned.intact, LOSS),
        "ablation_moved_tuned": estimate(tuned.moved, LOSS),
        "ablation_random_tuned": sample(tuned.random, LOSS),
        "ablation_excess_tuned": sample(tuned.excess, LOSS),
        "ablation_moved_base": estimate(base.moved, LOSS),
        "ablation_random_base": sample(base.random, LOSS),
        "ablation_excess_base": sample(base.excess, LOSS),
        "ablation_interaction": sample(interaction, LOSS),
    }


# When


@dataclass(frozen=True)
class Course:
    """The training's course at step 0 and each snapshot; attention 0 and fall 0 at step 0.

    attention: mean movement of all heads, nats; random: of the random update; fall: of the
    held-out loss, nats/token; moved: how many heads are above the random update of their step.
    """

    steps: tuple[int, ...]
    attention: np.ndarray
    random: np.ndarray
    fall: np.ndarray
    moved: tuple[int, ...]


def course(observations: ComparisonObservations) -> Course:
    """Return what happened over the steps."""
    snapshots = observations.snapshots
    losses = snapshots.losses.astype(np.float64).mean(1)  # [1 + K]
    counts = [0]
    for trained, random in zip(snapshots.trained, snapshots.random, strict=True):
        p_values = adjusted_p(trained.divergence, random.divergence)
        counts.append(int((p_values < LEVEL).sum()))
    return Course(
        steps=(0, *observations.plan.steps),
        attention=np.array([0.0, *(m.divergence.mean() for m in snapshots.trained)]),
        random=np.array([0.0, *(m.divergence.mean() for m in snapshots.random)]),
        fall=losses[0] - losses,
        moved=tuple(counts),
    )


def half_step(steps: Sequence[int], values: np.ndarray) -> float | None:
    """Return the interpolated step at which `values` first reaches half of its last value.

    values: [1 + K], from 0 on; None if its last is not above 0.
    """
    half = values[-1] / 2
    if half <= 0:
        return None
    i = int(np.argmax(values >= half))  # at least 1: the first value is 0
    share = (half - values[i - 1]) / (values[i] - values[i - 1])
    return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))


def _of_time(observations: ComparisonObservations) -> dict[str, Measurement]:
    exact = Measurement.of_exact
    snapshots = observations.snapshots
    seen = course(observations)
    by_prompt = divergences(snapshots.trained).mean(1)  # [K, P]
    by_head = divergences(snapshots.trained)  # [K, H, P]

    # 1. Half of the way: attention over prompts, the loss over examples.
    def attention_half(units: np.ndarray) -> float | None:
        return half_step(seen.steps, np.array([0.0, *by_prompt[:, units].mean(1)]))

    examples = observations.token_examples
    tokens = np.bincount(examples)  # [examples]
    sums = np.stack([np.bincount(examples, weights=row) for row in snapshots.losses])

    def loss_half(units: np.ndarray) -> float | None:
        losses = sums[:, units].sum(1) / tokens[units].sum()  # [1 + K]
        return half_step(seen.steps, losses[0] - losses)

    attention = _jackknifed(by_prompt.shape[1], attention_half, "steps")
    loss = _jackknifed(len(tokens), loss_half, "steps")

    # 2. Do the heads that move first move most?
    def early_late(units: np.ndarray) -> float:
        heads = by_head[:, :, units].mean(2)  # [K, H]
        return float(spearman(heads[0], heads[-1]))

    # 3. How far attention went beyond where it ended.
    def overshoot(units: np.ndarray) -> float:
        values = by_prompt[:, units].mean(1)  # [K]
        return float(values.max() / values[-1] - 1)

    begun = seen.fall >= TENTH * seen.fall[-1]
    return {
        "snapshots": exact(len(snapshots.trained), "snapshots"),
        "replay_gap": exact(snapshots.replay_gap),
        "attention_half_step": attention,
        "loss_half_step": loss,
        "attention_lag": _lag(attention, loss),
        "attention_peak_step": exact(seen.steps[int(seen.attention.argmax())], "step"),
        "attention_overshoot": _jackknifed(by_prompt.shape[1], overshoot, ""),
        "first_step_moved": exact(_first(seen.steps, np.array(seen.moved) > 0), "step"),
        "first_step_loss": exact(_first(seen.steps, begun & (seen.fall > 0)), "step"),
        "early_late_correlation": _jackknifed(by_prompt.shape[1], early_late, ""),
        "loss_attention_correlation": Measurement.of_estimate(
            _pearson(seen.fall, seen.attention), "", n=len(seen.steps)
        ),
    }


def _lag(attention: Measurement, loss: Measurement) -> Measurement:
    """Return the steps by which attention is later; the two errors are independent."""
    if attention.value is None or loss.value is None:
        return Measurement.of_estimate(None, "steps")
    stderr = None
    if attention.stderr is not None and loss.stderr is not None:
        stderr = math.hypot(attention.stderr, loss.stderr)
    n = min(attention.n or 0, loss.n or 0)
    return Measurement.of_estimate(attention.number - loss.number, "steps", stderr=stderr, n=n)


def _first(steps: Sequence[int], holds: np.ndarray) -> int | None:
    """Return the first step at which something holds; None if it never does."""
    if not holds.any():
        return None
    return int(steps[int(holds.argmax())])


def _pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """Return the correlation; None if a side does not vary."""
    if x.std() == 0 or y.std() == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])
