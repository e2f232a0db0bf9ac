"""The tables and figures of FEAT-021's report, recomputed from what it stored."""

from __future__ import annotations

import math
from typing import Any

from gates.induction_heads import arrays
from gates.induction_heads.arrays import GROUPS, TITLES
from gates.induction_heads.plan import CONDITIONS, names, plan, plan_key
from gates.shared.stored import cached

GROUP_TITLES = ("induction heads", "previous-token heads", "all other heads")
BARS = (*GROUP_TITLES[:2], "best previous-token head", GROUP_TITLES[2])


def tables() -> list[list[list[Any]]]:
    """Return the rows of the report's tables, in their order."""

    def compute() -> list[list[list[Any]]]:
        return [_step_rows(), _end_rows(), _group_rows(), _head_rows()]

    return list(cached(f"induction tables {plan_key()}", arrays.files(), compute))


def _runs() -> list[tuple[str, int, str]]:
    """Return (title of the condition, seed, name) of every run."""
    runs = []
    for condition in CONDITIONS:
        for seed, name in zip(plan()["seeds"], names(condition), strict=True):
            runs.append((TITLES[condition], seed, name))
    return runs


def _step_rows() -> list[list[Any]]:
    rows = []
    for title, seed, name in _runs():
        steps = arrays.steps_of(name)
        row = [title, seed]
        for what in ("previous", "induction", "learnt", "fall"):
            row.append("never" if steps[what] is None else steps[what])
        rows.append(row)
    return rows


def _end_rows() -> list[list[Any]]:
    rows = []
    for title, seed, name in _runs():
        curve = arrays.load(name, "curve")
        last = [float(curve[what][-1]) for what in ("first", "second", "accuracy")]
        best = [float(curve[what][-1].max()) for what in ("induction", "previous")]
        rows.append([title, seed, *last, *best])
    return rows


def _label(layer: int, head: int) -> str:
    return f"L{layer}H{head}"


def _group_rows() -> list[list[Any]]:
    rows = []
    for seed, name in zip(plan()["seeds"], names("repeats"), strict=True):
        ablation = arrays.load(name, "ablation")
        heads = arrays.groups(name)
        for group, title in zip(GROUPS, GROUP_TITLES, strict=True):
            labels = " ".join(_label(*head) for head in heads[group])
            rows.append([seed, title, labels, arrays.rise(ablation, ablation[group])])
    return rows


def _head_rows() -> list[list[Any]]:
    rows = []
    for seed, name in zip(plan()["seeds"], names("repeats"), strict=True):
        curve = arrays.load(name, "curve")
        ablation = arrays.load(name, "ablation")
        for layer, singles in enumerate(ablation["single"]):
            for head, losses in enumerate(singles):
                scores = [float(curve[what][-1, layer, head]) for what in ("previous", "induction")]
                change = arrays.rise(ablation, losses)
                rows.append([seed, _label(layer, head), *scores, change])
    return rows


def figures() -> dict[str, dict[str, list[list[Any]]]]:
    """Return figure -> label of each of its series, in their order -> [x, y]."""
    key = f"induction figures {plan_key()}"
    return dict(cached(key, arrays.files(), _figures))


def _figures() -> dict[str, dict[str, list[list[Any]]]]:
    losses = {}
    scores = {}
    for title, seed, name in _runs():
        curve = arrays.load(name, "curve")
        steps = curve["steps"].tolist()
        best = [max(map(max, step)) for step in curve["induction"].tolist()]
        losses[f"{title}, seed {seed}"] = [steps, curve["second"].tolist()]
        scores[f"induction, {title}, seed {seed}"] = [steps, best]
    for seed, name in zip(plan()["seeds"], names("repeats"), strict=True):
        curve = arrays.load(name, "curve")
        best = [max(step[0]) for step in curve["previous"].tolist()]
        scores[f"previous token, two layers, seed {seed}"] = [curve["steps"].tolist(), best]
    chance = math.log(plan()["vocabulary"])
    ends = [0, plan()["steps"]]
    losses["chance, ln V"] = [ends, [chance, chance]]
    losses["tokens without order"] = [ends, [arrays.unordered_loss()] * 2]

    induction, previous, others = (arrays.group_rises(group) for group in GROUPS)
    rises = [induction, previous, arrays.best_previous(), others]
    bars = {}
    for seed, of_seed in zip(plan()["seeds"], zip(*rises, strict=True), strict=True):
        bars[f"seed {seed}"] = [list(BARS), list(of_seed)]
    return {"loss": losses, "scores": scores, "ablation": bars}


def films() -> dict[str, list[list[Any]]]:
    """Return film -> [label, rows of cells] of each of its panels, in their order."""
    key = f"induction films {plan_key()}"

    def compute() -> dict[str, list[list[Any]]]:
        return {
            f"film_{group}": _film(group) for group in ("induction_heads", "previous_token_heads")
        }

    return dict(cached(key, arrays.files(), compute))


def film_head(group: str) -> tuple[int, int]:
    """Return the head that a film shows, (layer, head): the best of its group in the first run."""
    name = names("repeats")[0]
    curve = arrays.load(name, "curve")
    score = curve["induction" if group == "induction_heads" else "previous"][-1]
    return max(arrays.groups(name)[group], key=lambda one: float(score[one]))


def film_patterns(group: str) -> dict[int, Any]:
    """Return step -> mean pattern [T, T] of each panel of a film."""
    name = names("repeats")[0]
    layer, head = film_head(group)
    patterns = arrays.load(name, "patterns")["patterns"]  # [E, layers, heads, T, T]
    steps = film_steps(arrays.steps_of(name)["learnt"])
    return {step: patterns[step // plan()["every"], layer, head] for step in steps}


def _film(group: str) -> list[list[Any]]:
    panels = []
    for step, pattern in film_patterns(group).items():
        rows = []
        for query, shares in enumerate(pattern.tolist()):
            unseen = len(shares) - query - 1
            rows.append(shares[: query + 1] + [None] * unseen)
        panels.append([f"step {step}", rows])
    return panels


def film_steps(learnt: int | None) -> list[int]:
    """Return the steps shown: 0, the evaluated ones nearest to some shares of `learnt`, the last.

    Without a learnt step the shares are of half of the training.
    """
    every, last = plan()["every"], plan()["steps"]
    middle = last / 2
    if learnt is not None:
        middle = learnt
    steps = {0, last}
    for share in (0.5, 0.75, 1.0, 1.25):
        if share * middle < last:
            steps.add(round(share * middle / every) * every)
    return sorted(steps)
