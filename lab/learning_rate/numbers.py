"""Named numbers from stored runs at different rates, and what a reader must know to repeat them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lab.contract import Context, Measurement, environment
from lab.learning_rate import instability as unstable
from lab.learning_rate.optimum import vertex

if TYPE_CHECKING:
    from lab.learning_rate.experiment import LearningRateObservations, Setting


@dataclass(frozen=True)
class Spikes:
    """What counts as a spike.

    gradient: times the median norm of the run; loss: nats above the lowest loss so far.
    """

    gradient: float
    loss: float


@dataclass(frozen=True)
class Stability:
    """How one run with true answers behaved; nats per token, and numbers of steps."""

    instability: float
    same_batches: float
    gradient_spikes: int
    loss_spikes: int


def written(rate: float) -> str:
    """A rate as a reader expects it: 0.0002 is 2e-4."""
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def tag(rate: float) -> str:
    """A rate as part of a measurement's name: 0.0002 is 2e_4."""
    return written(rate).replace("-", "_").replace(".", "_")


def measurements(observations: LearningRateObservations, spikes: Spikes) -> dict[str, Measurement]:
    """All numbers by name."""
    return (
        _of_losses(observations)
        | _of_optimum(observations)
        | _of_control(observations)
        | _of_stability(observations, spikes)
    )


def _of_losses(observations: LearningRateObservations) -> dict[str, Measurement]:
    from lab.stats.tokens import token_mean

    sample, plan = Measurement.of_sample, observations.plan
    base = token_mean(observations.base.losses.astype(np.float64), observations.base.example_ids)
    return {
        "eval_loss_base": Measurement.of_estimate(
            base.value, "nats/token", stderr=base.stderr, n=base.n
        ),
        **{
            f"eval_loss_r{s.rank}_lr{tag(s.rate)}": sample(observations.losses(s), "nats/token")
            for s in plan.true
        },
        "eval_loss_shuffled": sample(observations.losses(plan.control), "nats/token"),
    }


def ranked(observations: LearningRateObservations, settings: Sequence[Setting]) -> list[Setting]:
    """Settings from the lowest mean loss to the highest."""
    return sorted(settings, key=lambda s: (statistics.fmean(observations.losses(s)), s.rate))


def winners(observations: LearningRateObservations, settings: Sequence[Setting]) -> list[float]:
    """The rate with the lowest loss, in each seed."""
    of_seed = zip(*(observations.losses(s) for s in settings), strict=True)
    return [settings[int(np.argmin(found))].rate for found in of_seed]


def optima(
    observations: LearningRateObservations, settings: Sequence[Setting]
) -> list[float | None]:
    """log10 of the best rate by the parabola through three settings, in each seed."""
    x = [float(np.log10(s.rate)) for s in settings]
    return [
        vertex(x, found) for found in zip(*(observations.losses(s) for s in settings), strict=True)
    ]


def _of_optimum(observations: LearningRateObservations) -> dict[str, Measurement]:
    from lab.stats.paired import paired

    plan, exact = observations.plan, Measurement.of_exact
    best, next_best = ranked(observations, plan.first)[:2]
    lead = paired(observations.losses(next_best), observations.losses(best)).differences
    first, second = optima(observations, plan.shared), optima(observations, plan.second)
    shift = [None if a is None or b is None else b - a for a, b in zip(first, second, strict=True)]
    pairs = zip(winners(observations, plan.shared), winners(observations, plan.second), strict=True)
    return {
        "best_rate": exact(best.rate, "learning rate"),
        "best_rate_lead": Measurement.of_sample(lead, "nats/token"),
        f"best_rate_r{plan.second[0].rank}": exact(
            ranked(observations, plan.second)[0].rate, "learning rate"
        ),
        "formula_rate": exact(observations.formula, "learning rate"),
        "optimum_log10_rate": _sample(first, "log10 rate"),
        f"optimum_log10_rate_r{plan.second[0].rank}": _sample(second, "log10 rate"),
        "optimum_shift": _sample(shift, "log10 rate"),
        "winner_unchanged_seeds": exact(sum(a == b for a, b in pairs), "seeds"),
    }


def _sample(values: Sequence[float | None], unit: str) -> Measurement:
    """A sample, or "not measured" where a seed's parabola has no lowest point.

    Leaving that seed out would flatter.
    """
    found = [value for value in values if value is not None]
    return (
        Measurement.of_sample(found, unit)
        if len(found) == len(values)
        else Measurement.of_estimate(None, unit)
    )


def _of_control(observations: LearningRateObservations) -> dict[str, Measurement]:
    plan, base = observations.plan, observations.base_loss
    true, shuffled = observations.losses(plan.compared), observations.losses(plan.control)
    pairs = list(zip(true, shuffled, strict=True))
    return {
        "control_gap": Measurement.of_sample([s - t for t, s in pairs], "nats/token"),
        "format_share": Measurement.of_sample([(base - s) / (base - t) for t, s in pairs], ""),
    }


def _of_stability(observations: LearningRateObservations, spikes: Spikes) -> dict[str, Measurement]:
    plan, sample = observations.plan, Measurement.of_sample
    lowest, highest = plan.first[0], plan.first[-1]
    low, high = stability(observations, lowest, spikes), stability(observations, highest, spikes)
    every = [found for s in plan.true for found in stability(observations, s, spikes)]
    return {
        f"instability_lr{tag(lowest.rate)}": sample([f.instability for f in low], "nats/token"),
        f"instability_lr{tag(highest.rate)}": sample([f.instability for f in high], "nats/token"),
        f"instability_same_batches_lr{tag(highest.rate)}": sample(
            [f.same_batches for f in high], "nats/token"
        ),
        "gradient_spikes": Measurement.of_exact(sum(f.gradient_spikes for f in every), "steps"),
        "loss_spikes": Measurement.of_exact(sum(f.loss_spikes for f in every), "steps"),
    }


def stability(
    observations: LearningRateObservations, setting: Setting, spikes: Spikes
) -> list[Stability]:
    """The metrics of a setting with true answers, in each seed."""
    found = []
    for run, raw, same in zip(
        observations.runs[setting],
        observations.training_losses(setting),
        observations.same_batches(setting),
        strict=True,
    ):
        norms = np.array([step.grad_norm for step in run.steps])
        counts = (
            unstable.gradient_spikes(norms, spikes.gradient),
            unstable.loss_spikes(same, spikes.loss),
        )
        found.append(Stability(unstable.instability(raw), unstable.instability(same), *counts))
    return found


def facts(ctx: Context, observations: LearningRateObservations) -> dict[str, Any]:
    """What a reader must know to repeat the run."""
    return environment(
        ctx,
        packages=("torch", "transformers", "peft"),
        model=ctx.config["model"],
        hidden_size=observations.hidden_size,
        sweep_context=dict(observations.sweep_context),
        taken_over=sum(run.reused for runs in observations.runs.values() for run in runs),
        config=dict(ctx.config),
    )
