"""FEAT-021's measurements recomputed from its stored arrays, by formulas apart from the lab's.

Needs numpy and no torch. Whether the stored arrays themselves are right is checked in
gates/induction_heads/model.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gates.induction_heads.plan import CONDITIONS, all_names, names, plan, plan_key
from gates.shared import outputs, stored
from gates.shared.statistics import jackknife_stderr
from gates.shared.stored import cached

TITLES = {
    "repeats": "two layers",
    "no_repeats": "two layers without repeats",
    "one_layer": "one layer",
}
GROUPS = ("induction_heads", "previous_token_heads", "other_heads")
MEASUREMENTS = (
    "learnt_step",
    "induction_step",
    "previous_token_step",
    "induction_lead",
    "previous_token_lead",
    "fall_steps",
    "seeds_learnt",
    "seeds_learnt_no_repeats",
    "seeds_learnt_one_layer",
    "chance_loss",
    "unordered_loss",
    "second_copy_loss",
    "second_copy_loss_no_repeats",
    "second_copy_loss_one_layer",
    "second_copy_accuracy",
    "second_copy_accuracy_no_repeats",
    "second_copy_accuracy_one_layer",
    "first_copy_loss",
    "chance_induction_score",
    "chance_previous_score",
    "induction_score",
    "induction_score_no_repeats",
    "induction_score_one_layer",
    "previous_token_score",
    "ablation_induction_heads",
    "ablation_previous_token_heads",
    "ablation_previous_token_head",
    "ablation_other_heads",
    "ablation_ratio",
    "parameters",
)  # and training_seconds, a time, which has bounds


def files() -> list[str]:
    """Return every file that `measurements` and the tables and figures read."""
    paths = ["artifacts/evaluation.safetensors"]
    for name in all_names():
        paths.append(f"artifacts/runs/{name}/curve.safetensors")
    for name in names("repeats"):
        parts = ("ablation", "patterns", "weights")
        paths += [f"artifacts/runs/{name}/{part}.safetensors" for part in parts]
    return paths


def load(run: str, part: str) -> dict[str, Any]:
    """Return the arrays of a run: of its curve, patterns, weights or ablation."""
    return stored.arrays(f"runs/{run}/{part}")


def measurements() -> dict[str, Any]:
    """Return measurement -> what it must be."""

    def compute() -> dict[str, Any]:
        return _of_steps() | _of_ends() | _of_chance() | _of_ablations()

    return dict(cached(f"induction heads {plan_key()}", files(), compute))


#### steps


def lasting_from(steps: Sequence[int], holds: Sequence[bool]) -> int | None:
    """Return the first step of the unbroken run of True at the end; None where the end is False."""
    first = None
    for step, is_true in zip(reversed(steps), reversed(holds), strict=True):
        if not is_true:
            break
        first = step
    return first


def steps_of(run: str) -> dict[str, int | None]:
    """Return when a run "learnt", had an "induction" and a "previous" head, and its "fall"."""
    curve = load(run, "curve")
    steps = curve["steps"].tolist()
    second = curve["second"].tolist()
    half = plan()["loss_share"] * math.log(plan()["vocabulary"])
    score = plan()["head_score"]

    # The fall: from the last step with over 90 % of it to come, to where under 10 % is for good.
    fall = None
    learnt = lasting_from(steps, [loss < half for loss in second])
    if learnt is not None:
        drop = second[0] - second[-1]
        high = second[-1] + 0.9 * drop
        low = second[-1] + 0.1 * drop
        begins = max(step for step, loss in zip(steps, second, strict=True) if loss > high)
        ends = lasting_from(steps, [loss < low for loss in second])
        fall = None if ends is None else ends - begins
    best_induction = [max(map(max, scores)) for scores in curve["induction"].tolist()]
    best_previous = [max(scores[0]) for scores in curve["previous"].tolist()]
    return {
        "learnt": learnt,
        "induction": lasting_from(steps, [best >= score for best in best_induction]),
        "previous": lasting_from(steps, [best >= score for best in best_previous]),
        "fall": fall,
    }


def sample(values: Sequence[float | None]) -> dict[str, Any]:
    """Return the fields of a sample of those values that are there."""
    there = [float(value) for value in values if value is not None]
    if not there:
        return {"value": None, "stderr": None, "n": None, "values": None}
    return outputs.sample(there)


def _of_steps() -> dict[str, Any]:
    runs = [steps_of(name) for name in names("repeats")]

    def lead(later: str, earlier: str) -> dict[str, Any]:
        both = [run for run in runs if None not in {run[later], run[earlier]}]
        return sample([run[later] - run[earlier] for run in both])  # type: ignore[operator]

    expected: dict[str, Any] = {
        "learnt_step": sample([run["learnt"] for run in runs]),
        "induction_step": sample([run["induction"] for run in runs]),
        "previous_token_step": sample([run["previous"] for run in runs]),
        "induction_lead": lead("learnt", "induction"),
        "previous_token_lead": lead("induction", "previous"),
        "fall_steps": sample([run["fall"] for run in runs]),
    }
    for condition in CONDITIONS:
        learnt = [steps_of(name)["learnt"] for name in names(condition)]
        expected[suffixed("seeds_learnt", condition)] = len(learnt) - learnt.count(None)
    return expected


def suffixed(name: str, condition: str) -> str:
    """Return a measurement's name in a condition."""
    return name if condition == "repeats" else f"{name}_{condition}"


#### ends, and chance


def _of_ends() -> dict[str, Any]:
    expected = {}
    for condition in CONDITIONS:
        curves = [load(name, "curve") for name in names(condition)]
        for name, array in (("second_copy_loss", "second"), ("second_copy_accuracy", "accuracy")):
            values = [float(curve[array][-1]) for curve in curves]
            expected[suffixed(name, condition)] = outputs.sample(values)
        best = [float(curve["induction"][-1].max()) for curve in curves]
        expected[suffixed("induction_score", condition)] = outputs.sample(best)
    curves = [load(name, "curve") for name in names("repeats")]
    expected["first_copy_loss"] = outputs.sample([float(curve["first"][-1]) for curve in curves])
    previous = [float(curve["previous"][-1, 0].max()) for curve in curves]
    expected["previous_token_score"] = outputs.sample(previous)
    return expected


def copying_queries() -> list[tuple[int, int, int]]:
    """Return (sequence, query, key to copy from) of every query of a second copy."""
    return second_copies(stored.arrays("evaluation")["periods"].tolist())


def second_copies(periods: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return what `copying_queries` returns, for sequences with these periods."""
    triples = []
    for row, period in enumerate(periods):
        for query in range(period, 2 * period - 1):
            triples.append((row, query, query - period + 1))
    return triples


def _of_chance() -> dict[str, Any]:
    length = plan()["length"]
    even = [1 / (query + 1) for _, query, _ in copying_queries()]
    one_back = [1 / (query + 1) for query in range(1, length)]
    weights = load(names("repeats")[0], "weights")
    return {
        "unordered_loss": unordered_loss(),
        "chance_loss": math.log(plan()["vocabulary"]),
        "chance_induction_score": math.fsum(even) / len(even),
        "chance_previous_score": math.fsum(one_back) / len(one_back),
        "parameters": sum(math.prod(array.shape[1:]) for array in weights.values()),
    }


def unordered_loss() -> float:
    """Return the mean over second copies of -ln(how often the piece has the token / P)."""
    held_out = stored.arrays("evaluation")
    ids = held_out["ids"].tolist()
    periods = held_out["periods"].tolist()
    losses = []
    for row, query, _ in copying_queries():
        piece = ids[row][: periods[row]]
        losses.append(-math.log(piece.count(ids[row][query + 1]) / len(piece)))
    return math.fsum(losses) / len(losses)


#### ablations


def rise(ablation: dict[str, Any], losses: Any) -> float:
    """Return the mean over tokens of losses [N] minus those of the whole model."""
    import numpy as np

    tokens = stored.arrays("evaluation")["periods"] - 1  # [N], of each second copy
    return float(np.average(losses - ablation["whole"], weights=tokens))


def group_rises(group: str) -> list[float]:
    """Return the rise of each seed without a group of heads."""
    ablations = [load(name, "ablation") for name in names("repeats")]
    return [rise(ablation, ablation[group]) for ablation in ablations]


def best_previous() -> list[float]:
    """Return the rise of each seed without its best previous-token head alone."""
    rises = []
    for name in names("repeats"):
        scores = load(name, "curve")["previous"][-1, 0].tolist()
        ablation = load(name, "ablation")
        rises.append(rise(ablation, ablation["single"][0, scores.index(max(scores))]))
    return rises


def _of_ablations() -> dict[str, Any]:
    expected: dict[str, Any] = {"ablation_previous_token_head": outputs.sample(best_previous())}
    for group in GROUPS:
        expected[f"ablation_{group}"] = outputs.sample(group_rises(group))
    expected["ablation_ratio"] = _ratio([group_rises(group) for group in GROUPS])
    return expected


def _ratio(rises: list[list[float]]) -> dict[str, Any]:
    """Return the smaller rise of the found groups over that of the others; jackknife over seeds."""
    seeds = len(rises[0])

    def without(seed: int | None) -> float | None:
        sums = [sum(row[i] for i in range(seeds) if i != seed) for row in rises]
        return min(sums[:2]) / sums[2] if sums[2] > 0 else None

    value = without(None)
    parts = [without(seed) for seed in range(seeds)]
    known = [part for part in parts if part is not None]
    if value is None:
        return {"value": None, "stderr": None}
    if len(known) < seeds:
        return {"value": value, "stderr": None, "n": seeds}
    return {"value": value, "stderr": jackknife_stderr(known), "n": seeds}


def groups(run: str) -> dict[str, list[tuple[int, int]]]:
    """Return the heads of each group, from the scores at the end of a two-layer run."""
    curve = load(run, "curve")
    induction = curve["induction"][-1]  # [2, heads]
    previous = curve["previous"][-1]
    heads = range(induction.shape[1])
    copying = [(1, head) for head in heads if 2 * induction[1, head] >= max(induction[1])]
    one_back = [(0, head) for head in heads if 2 * previous[0, head] >= max(previous[0])]
    both = [*copying, *one_back]
    others = [(layer, head) for layer in (0, 1) for head in heads if (layer, head) not in both]
    return dict(zip(GROUPS, (copying, one_back, others), strict=True))
