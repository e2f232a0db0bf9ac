"""The figures of the experiment on induction heads, with captions made from their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from lab import present
from lab.contract import Measurement
from lab.induction_heads.measured import (
    ABLATED,
    CONDITIONS,
    GROUP_TITLES,
    TITLES,
    Head,
    InductionObservations,
    InductionPlan,
)
from lab.induction_heads.numbers import (
    best_previous_rises,
    chance_loss,
    group_rises,
    learnt_step,
    runs_of,
)

STYLES: tuple[Literal["solid", "dashed", "dotted"], ...] = ("solid", "dashed", "dotted")
# Steps that a film shows, as shares of the step at which copying is learnt
FILM_SHARES = (0.5, 0.75, 1.0, 1.25)


def figures(
    observations: InductionObservations, measurements: Mapping[str, Measurement]
) -> list[present.Figure | present.Heatmap]:
    """Return all figures of the report."""
    return [
        loss_figure(observations, measurements),
        score_figure(observations, measurements),
        film(observations, "induction_heads"),
        film(observations, "previous_token_heads"),
        ablation_figure(observations, measurements),
    ]


def loss_figure(
    observations: InductionObservations, measurements: Mapping[str, Measurement]
) -> present.Figure:
    """Show the loss on second copies of every run."""
    plan = observations.plan
    steps = plan.steps_evaluated
    series = []
    ends = []
    for condition in CONDITIONS:
        for index, run in enumerate(runs_of(observations, condition)):
            one = present.Series(
                label=f"{TITLES[condition]}, seed {run.seed}",
                x=steps,
                y=run.second.tolist(),
                group=condition,
                style=STYLES[index % len(STYLES)],
            )
            series.append(one)
        name = "second_copy_loss" if condition == "repeats" else f"second_copy_loss_{condition}"
        ends.append(f"{TITLES[condition]} {present.number(measurements[name].value, 3)}")
    # What can be had without copying: nothing, or the tokens without their order.
    chance = chance_loss(plan)
    unordered = measurements["unordered_loss"].number
    for label, loss in (("chance, ln V", chance), ("tokens without order", unordered)):
        series.append(present.Series(label, [0, plan.steps], [loss, loss], style="dotted"))
    learnt = measurements["learnt_step"]
    when = "no two-layer run stays below half of it"
    if learnt.value is not None:
        when = (
            f"two-layer runs stay below half of it from step {present.number(learnt.value, 3)} on "
            f"(mean of {learnt.n})"
        )
    return present.Figure(
        name="loss",
        title="Loss on the second copy",
        caption=(
            f"Mean over {len(observations.periods)} sequences; at the end: {'; '.join(ends)} "
            f"nats/token. Chance is {present.number(chance)}; {when}. Knowing a piece's tokens "
            f"without their order would give {present.number(unordered, 3)}."
        ),
        x_label="optimizer step",
        y_label="loss on second copies (nats/token)",
        series=tuple(series),
    )


def score_figure(
    observations: InductionObservations, measurements: Mapping[str, Measurement]
) -> present.Figure:
    """Show each run's best induction score, and the previous-token score of two layers."""
    plan = observations.plan
    steps = plan.steps_evaluated
    series = []
    for condition in CONDITIONS:
        for index, run in enumerate(runs_of(observations, condition)):
            one = present.Series(
                label=f"induction, {TITLES[condition]}, seed {run.seed}",
                x=steps,
                y=run.induction.max((1, 2)).tolist(),
                group=condition,
                style=STYLES[index % len(STYLES)],
            )
            series.append(one)
    for index, run in enumerate(runs_of(observations, "repeats")):
        one = present.Series(
            label=f"previous token, two layers, seed {run.seed}",
            x=steps,
            y=run.previous[:, 0].max(1).tolist(),
            group="previous",
            style=STYLES[index % len(STYLES)],
        )
        series.append(one)
    score = present.number(measurements["induction_score"].value, 3)
    previous = present.number(measurements["previous_token_score"].value, 3)
    others = []
    for condition in CONDITIONS[1:]:
        value = present.number(measurements[f"induction_score_{condition}"].value, 3)
        others.append(f"{value} with {TITLES[condition]}")
    return present.Figure(
        name="scores",
        title="Attention of the best head of each run",
        caption=(
            f"Share of attention on the token to copy (induction) and on the token before "
            f"(previous token, first layer). Two layers end at {score} and {previous} in the mean; "
            f"the induction score ends at {', at '.join(others)}."
        ),
        x_label="optimizer step",
        y_label="share of attention",
        series=tuple(series),
    )


def film_steps(plan: InductionPlan, learnt: int | None) -> list[int]:
    """Return the evaluated steps that a film shows: start, some around the learnt step, end."""
    middle = learnt if learnt is not None else plan.steps / 2
    wanted = [share * middle for share in FILM_SHARES if share * middle < plan.steps]
    nearest = [round(step / plan.every) * plan.every for step in wanted]
    return sorted({0, *nearest, plan.steps})


def film_head(observations: InductionObservations, group: str) -> Head:
    """Return the head that a film shows: the best of its group in the first seed's run."""
    seed = observations.plan.seeds[0]
    run = observations.runs["repeats", seed]
    heads = observations.ablations[seed].heads[group]
    scores = run.induction if group == "induction_heads" else run.previous
    return max(heads, key=lambda head: float(scores[-1][head]))


def film(observations: InductionObservations, group: str) -> present.Heatmap:
    """Show the mean attention of a found head at some steps of the first seed's run."""
    plan = observations.plan
    run = observations.runs["repeats", plan.seeds[0]]
    layer, head = film_head(observations, group)
    learnt = learnt_step(plan, run)
    steps = film_steps(plan, learnt)

    # 1. One panel a step: the mean pattern [T, T], nothing above its diagonal.
    patterns = {step: run.patterns[step // plan.every, layer, head] for step in steps}
    length = run.patterns.shape[-1]
    above = np.triu(np.ones((length, length), dtype=bool), 1)
    panels = []
    for step, pattern in patterns.items():
        cells = pattern.astype(object)  # [T, T]
        cells[above] = None
        panels.append(present.Panel(f"step {step}", cells.tolist()))

    # 2. The caption: the share on the stripe that a head of this group has, at each of the steps.
    period = plan.film_period
    stripe, queries = "the token before", range(1, length)
    distance = 1
    if group == "induction_heads":
        stripe, queries = "the token to copy", range(period, 2 * period - 1)
        distance = period - 1
    values = []
    for pattern in patterns.values():
        shares = [float(pattern[query, query - distance]) for query in queries]
        values.append(present.number(sum(shares) / len(shares), 2))
    when = "this run never learnt to copy"
    if learnt is not None:
        when = f"copying is learnt at step {learnt}"
    return present.Heatmap(
        name=f"film_{group}",
        title=f"Attention of L{layer}H{head} while it is learnt ({GROUP_TITLES[group]})",
        caption=(
            f"Mean over {plan.film} sequences of {plan.film_period} tokens repeated once, seed "
            f"{run.seed}. The share on {stripe}, {present.count(distance, 'token')} back, goes "
            f"{' → '.join(values)}; {when}."
        ),
        x_label="key position",
        y_label="query position",
        value_label="share of attention",
        panels=tuple(panels),
        low=0.0,
        high=1.0,
    )


def ablation_figure(
    observations: InductionObservations, measurements: Mapping[str, Measurement]
) -> present.Figure:
    """Show how the loss on second copies rises without each group of heads."""
    induction, previous, others = ABLATED
    bars = {
        GROUP_TITLES[induction]: group_rises(observations, induction),
        GROUP_TITLES[previous]: group_rises(observations, previous),
        "best previous-token head": best_previous_rises(observations),
        GROUP_TITLES[others]: group_rises(observations, others),
    }
    shown = (induction, previous, "previous_token_head", others)
    series = []
    for index, seed in enumerate(observations.plan.seeds):
        rises = [of_seeds[index] for of_seeds in bars.values()]
        series.append(present.Series(f"seed {seed}", list(bars), rises, kind="bar"))
    means = []
    for title, name in zip(bars, shown, strict=True):
        mean = present.number(measurements[f"ablation_{name}"].value, 3)
        means.append(f"{title} {mean}")
    return present.Figure(
        name="ablation",
        title="Two-layer models with heads zeroed",
        caption=(
            f"Rise of the loss on second copies, mean over seeds: {', '.join(means)} nats/token."
        ),
        x_label="zeroed",
        y_label="rise of the loss (nats/token)",
        series=tuple(series),
    )
