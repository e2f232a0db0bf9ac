"""The measurements of the experiment on induction heads: pure functions of its observations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lab.contract import Measurement
from lab.induction_heads.measured import (
    ABLATED,
    CONDITIONS,
    Ablation,
    InductionObservations,
    InductionPlan,
    Run,
)
from lab.stats.jackknife import jackknife

FALL_FROM, FALL_TO = 0.9, 0.1  # shares of a fall that are still to come, from and to which it lasts


def measurements(observations: InductionObservations) -> dict[str, Measurement]:
    """Return all measurements by name."""
    return (
        _of_steps(observations)
        | _of_losses(observations)
        | _of_scores(observations)
        | _of_ablations(observations)
        | _of_size(observations)
    )


# Steps


def first_lasting(steps: Sequence[int], holds: np.ndarray) -> int | None:
    """Return the first of the evaluated steps from which on `holds` [E] is true; None if none."""
    failing = np.flatnonzero(~holds)
    first = int(failing[-1]) + 1 if len(failing) else 0
    return steps[first] if first < len(steps) else None


def learnt_step(plan: InductionPlan, run: Run) -> int | None:
    """Return the step from which the loss on second copies stays below its share of ln V."""
    threshold = plan.loss_share * chance_loss(plan)
    return first_lasting(plan.steps_evaluated, run.second < threshold)


def induction_step(plan: InductionPlan, run: Run) -> int | None:
    """Return the step from which some head's induction score stays at the threshold or above."""
    best = run.induction.max((1, 2))  # [E]
    return first_lasting(plan.steps_evaluated, best >= plan.head_score)


def previous_step(plan: InductionPlan, run: Run) -> int | None:
    """Return the same of the previous-token score, in the first layer."""
    best = run.previous[:, 0].max(1)  # [E]
    return first_lasting(plan.steps_evaluated, best >= plan.head_score)


def fall_steps(plan: InductionPlan, run: Run) -> int | None:
    """Return in how many steps the loss on second copies made the middle of its fall.

    From the last evaluated step with more than 90 % of the fall still to come, to the first from
    which less than 10 % is. None for a run that did not learn to copy.
    """
    if learnt_step(plan, run) is None:
        return None
    fall = run.second[0] - run.second[-1]
    to_come = (run.second - run.second[-1]) / fall  # [E]; 1 at the start, 0 at the end
    begins = int(np.flatnonzero(to_come > FALL_FROM)[-1])
    ends = first_lasting(plan.steps_evaluated, to_come < FALL_TO)
    if ends is None:
        return None
    return ends - plan.steps_evaluated[begins]


def _of_steps(observations: InductionObservations) -> dict[str, Measurement]:
    plan = observations.plan
    runs = runs_of(observations, "repeats")

    def steps_by(step_of: Callable[[InductionPlan, Run], int | None]) -> list[int | None]:
        return [step_of(plan, run) for run in runs]

    learnt = steps_by(learnt_step)
    induction = steps_by(induction_step)
    previous = steps_by(previous_step)
    result = {
        "learnt_step": _sample(learnt, "steps"),
        "induction_step": _sample(induction, "steps"),
        "previous_token_step": _sample(previous, "steps"),
        "induction_lead": _sample(_differences(learnt, induction), "steps"),
        "previous_token_lead": _sample(_differences(induction, previous), "steps"),
        "fall_steps": _sample(steps_by(fall_steps), "steps"),
    }
    for condition in CONDITIONS:
        steps = [learnt_step(plan, run) for run in runs_of(observations, condition)]
        count = sum(step is not None for step in steps)
        result[named("seeds_learnt", condition)] = Measurement.of_exact(count, "seeds")
    return result


def _differences(later: Sequence[int | None], earlier: Sequence[int | None]) -> list[int | None]:
    """Return later - earlier per seed; None where one of them never came."""
    differences: list[int | None] = []
    for a, b in zip(later, earlier, strict=True):
        missing = a is None or b is None
        differences.append(None if missing else a - b)  # type: ignore[operator]
    return differences


def _sample(values: Sequence[float | None], unit: str) -> Measurement:
    """Return the mean of the values that are there; None where none is."""
    there = [value for value in values if value is not None]
    if not there:
        return Measurement.of_estimate(None, unit)
    return Measurement.of_sample(there, unit)


# Losses and scores


def named(name: str, condition: str) -> str:
    """Return the name of a measurement in a condition; that of `repeats` has no suffix."""
    return name if condition == "repeats" else f"{name}_{condition}"


def runs_of(observations: InductionObservations, condition: str) -> list[Run]:
    """Return the runs of a condition, in the order of the seeds."""
    return [observations.runs[condition, seed] for seed in observations.plan.seeds]


def chance_loss(plan: InductionPlan) -> float:
    """Return ln V: the loss, in nats/token, of a model that finds every token equally likely."""
    return math.log(plan.vocabulary)


def unordered_loss(observations: InductionObservations) -> float:
    """Return the loss on second copies of a model that knows a piece's tokens, not their order.

    It expects each token as often as the piece has it: -ln(count / P), nats/token. This is how far
    one gets by knowing which tokens there are, without copying.
    """
    losses = []
    for ids, period in zip(observations.ids, observations.periods.tolist(), strict=True):
        piece = ids[:period]  # [P]
        counts = (piece[:, None] == piece[None, :]).sum(1)  # [P]
        losses.append(np.log(period / counts[1:]))  # the second copy without its first token
    return float(np.concatenate(losses).mean())


def copying_mask(observations: InductionObservations) -> np.ndarray:
    """Return which queries [N, T - 1] of the evaluation are those of a second copy."""
    queries = np.arange(observations.plan.length - 1)[None, :]
    periods = observations.periods[:, None]
    return (queries >= periods) & (queries <= 2 * periods - 2)


def uniform_induction(observations: InductionObservations) -> float:
    """Return the induction score of attention spread evenly over all visible keys."""
    mask = copying_mask(observations)
    shares = np.broadcast_to(1 / np.arange(1, mask.shape[1] + 1), mask.shape)
    return float(shares[mask].mean())


def uniform_previous(plan: InductionPlan) -> float:
    """Return the previous-token score of attention spread evenly over all visible keys."""
    return float((1 / np.arange(2, plan.length + 1)).mean())


def _of_losses(observations: InductionObservations) -> dict[str, Measurement]:
    result = {
        "chance_loss": Measurement.of_exact(chance_loss(observations.plan), "nats/token"),
        "unordered_loss": Measurement.of_exact(unordered_loss(observations), "nats/token"),
    }
    for condition in CONDITIONS:
        runs = runs_of(observations, condition)
        second = Measurement.of_sample([run.second[-1] for run in runs], "nats/token")
        accuracy = Measurement.of_sample([run.accuracy[-1] for run in runs], "")
        result[named("second_copy_loss", condition)] = second
        result[named("second_copy_accuracy", condition)] = accuracy
    first = [run.first[-1] for run in runs_of(observations, "repeats")]
    result["first_copy_loss"] = Measurement.of_sample(first, "nats/token")
    return result


def _of_scores(observations: InductionObservations) -> dict[str, Measurement]:
    result = {
        "chance_induction_score": Measurement.of_exact(uniform_induction(observations), ""),
        "chance_previous_score": Measurement.of_exact(uniform_previous(observations.plan), ""),
    }
    for condition in CONDITIONS:
        best = [run.induction[-1].max() for run in runs_of(observations, condition)]
        result[named("induction_score", condition)] = Measurement.of_sample(best, "")
    previous = [run.previous[-1, 0].max() for run in runs_of(observations, "repeats")]
    result["previous_token_score"] = Measurement.of_sample(previous, "")
    return result


# Ablations


def rise(observations: InductionObservations, ablation: Ablation, zeroed: np.ndarray) -> float:
    """Return by how much the loss on second copies is above that of the whole model, nats/token.

    zeroed: the sequences' losses [N] with heads zeroed. Longer second copies count more: the mean
    is over tokens.
    """
    tokens = observations.periods - 1  # [N]
    return float(((zeroed - ablation.whole) * tokens).sum() / tokens.sum())


def group_rises(observations: InductionObservations, group: str) -> list[float]:
    """Return the rise of each seed with a group of heads zeroed."""
    rises = []
    for seed in observations.plan.seeds:
        ablation = observations.ablations[seed]
        rises.append(rise(observations, ablation, ablation.groups[group]))
    return rises


def best_previous_rises(observations: InductionObservations) -> list[float]:
    """Return the rise of each seed with only its best previous-token head zeroed."""
    rises = []
    for seed in observations.plan.seeds:
        ablation = observations.ablations[seed]
        head = int(observations.runs["repeats", seed].previous[-1, 0].argmax())
        rises.append(rise(observations, ablation, ablation.single[0, head]))
    return rises


def _of_ablations(observations: InductionObservations) -> dict[str, Measurement]:
    best_previous = best_previous_rises(observations)
    result = {"ablation_previous_token_head": Measurement.of_sample(best_previous, "nats/token")}
    for group in ABLATED:
        rises = group_rises(observations, group)
        result[f"ablation_{group}"] = Measurement.of_sample(rises, "nats/token")
    result["ablation_ratio"] = _ablation_ratio(observations)
    return result


def _ablation_ratio(observations: InductionObservations) -> Measurement:
    """Return the smaller mean rise of the two found groups over that of the other heads.

    Its standard error is a jackknife over seeds; None where the other heads cost nothing.
    """
    rises = np.array([group_rises(observations, group) for group in ABLATED])  # [3, seeds]

    def ratio(seeds: np.ndarray) -> float | None:
        *found, others = rises[:, seeds].mean(1).tolist()
        return min(found) / others if others > 0 else None

    count = rises.shape[1]
    value = ratio(np.arange(count))
    if value is None:
        return Measurement.of_estimate(None, "times")
    stderr = None
    if count > 1:
        stderr = jackknife(count, ratio)
    return Measurement.of_estimate(value, "times", stderr=stderr, n=count)


def _of_size(observations: InductionObservations) -> dict[str, Measurement]:
    first = runs_of(observations, "repeats")[0]
    parameters = sum(stored[-1].size for stored in first.weights.values())
    return {
        "parameters": Measurement.of_exact(parameters, "parameters"),
        "training_seconds": Measurement.of_estimate(observations.seconds, "s"),
    }
