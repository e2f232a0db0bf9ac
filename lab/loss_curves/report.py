"""The findings of the loss-curve analysis: sentences that change with their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lab import present
from lab.contract import Measurement
from lab.loss_curves.measured import RATES, RUNS_ALONG_UPDATE, SHAPES, LossCurvePlan

SMOOTH_SHARE = 0.5  # share of a smooth fall that happens between epochs


def findings(plan: LossCurvePlan, measurements: Mapping[str, Measurement]) -> list[str]:
    """Return the sentences that the measurements support."""
    return [
        _detector_finding(measurements),
        _overfitting_finding(measurements),
        _staircase_finding(measurements["staircase_share"]),
        _divergence_finding(measurements),
        *(_batch_finding(plan, rate, measurements[f"batch_effect_{rate}"]) for rate in RATES),
        _noise_finding(measurements),
        *(
            _update_finding(plan, run, measurements[f"line_minimum_{run}"])
            for run in RUNS_ALONG_UPDATE
        ),
    ]


def confidence_interval(measurement: Measurement) -> tuple[float, float] | None:
    """Return the 95 % interval value ± t(0.975, n - 1) · stderr, None where there is none."""
    from scipy.special import stdtrit  # quantiles of Student's t

    if measurement.value is None or measurement.stderr is None:
        return None
    if measurement.n is None or measurement.n < 2:
        return None
    reach = float(stdtrit(measurement.n - 1, 0.975)) * measurement.stderr
    return measurement.number - reach, measurement.number + reach


def ci_verdict(measurement: Measurement, reference: float) -> Literal["above", "below", "around"]:
    """Return whether the confidence interval is above, below or around a reference value.

    Without an interval it is "around": nothing is claimed.
    """
    interval = confidence_interval(measurement)
    if interval is None:
        return "around"
    low, high = interval
    if low > reference:
        return "above"
    if high < reference:
        return "below"
    return "around"


def _detector_finding(measurements: Mapping[str, Measurement]) -> str:
    fired = ", ".join(f"{shape}: {measurements[f'detected_{shape}'].value}" for shape in SHAPES)
    return (
        f"On {measurements['runs_told_apart'].value} of {len(SHAPES)} runs only the detector "
        f"named after the run fired ({fired})."
    )


def _overfitting_finding(measurements: Mapping[str, Measurement]) -> str:
    held_out = measurements["eval_loss_overfitting"]
    training_loss = held_out.number - measurements["overfit_gap"].number
    return (
        f"The overfitting run ends at {present.number(training_loss, 3)} nats/token on its own "
        f"examples and at {present.quantity(held_out)} on held-out ones; on the curve's examples "
        f"it ends {present.quantity(measurements['overfit_rise'])} above its lowest point."
    )


def _staircase_finding(share: Measurement) -> str:
    if share.value is None:
        return (
            "After the first epoch the overfitting run's training loss fell no further, so there "
            "is no fall to look for a staircase in."
        )
    verdict = {
        "above": "a staircase",
        "below": "the opposite of a staircase",
        "around": "not distinguishable from a smooth fall",
    }[ci_verdict(share, SMOOTH_SHARE)]
    return (
        f"After the first epoch {present.number(100 * share.number, 3)} % of the fall of the "
        "overfitting run's training loss (relative to each batch's loss before training) happened "
        f"between epochs (a smooth fall: {100 * SMOOTH_SHARE:.0f} %): {verdict}."
    )


def _divergence_finding(measurements: Mapping[str, Measurement]) -> str:
    rise = present.quantity(measurements["divergence_rise"])
    end = present.quantity(measurements["eval_loss_diverging"])
    base = present.quantity(measurements["base_loss"])
    return (
        f"The diverging run's smoothed training loss rose by {rise}, with finite numbers "
        f"throughout; its held-out loss ended at {end}, the base has {base}."
    )


def _batch_finding(plan: LossCurvePlan, rate: str, effect: Measurement) -> str:
    smallest, largest = plan.batch_sizes[0], plan.batch_sizes[-1]
    verdict = {
        "above": f"batch {smallest} learned more from the same tokens",
        "below": f"batch {largest} learned more from the same tokens",
        "around": f"{len(plan.seeds)} seeds do not show which learns more from the same tokens",
    }[ci_verdict(effect, 0.0)]
    return (
        f"At the rate {plan.rates[rate]:g} batch {largest} ends {present.quantity(effect)} above "
        f"batch {smallest} (negative: below), paired by seed: {verdict}."
    )


def _noise_finding(measurements: Mapping[str, Measurement]) -> str:
    growth = measurements["noise_growth"]
    if growth.value is None:
        return (
            "The gradients of single examples disagreed too much to measure their noise scale "
            "before or after training."
        )
    verdict = {
        "above": "grew",
        "below": "shrank",
        "around": "did not change significantly",
    }[ci_verdict(growth, 1.0)]
    start = present.quantity(measurements["noise_scale_start"])
    end = present.quantity(measurements["noise_scale_healthy"])
    return (
        f"The gradient noise scale {verdict}: {start} before training, {end} after the healthy "
        f"run, {present.number(growth.value, 3)} times as large."
    )


def _update_finding(plan: LossCurvePlan, run: str, minimum: Measurement) -> str:
    verdict = {
        "above": "the run stopped before the minimum of this line.",
        "below": "the run went past the minimum of this line.",
        "around": "the run ended at the minimum of this line, as far as these examples can tell.",
    }[ci_verdict(minimum, 1.0)]
    # At an end of the line the interval says nothing about where the minimum is.
    if minimum.value in {plan.alphas[0], plan.alphas[-1]}:
        verdict = "an end of the line, and the minimum may be beyond it."
    return (
        f"Along the {run} run's update the held-out loss is lowest at t = "
        f"{present.quantity(minimum)}: {verdict}"
    )
