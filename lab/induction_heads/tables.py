"""The tables of the experiment on induction heads."""

from __future__ import annotations

from collections.abc import Sequence

from lab.contract import Table
from lab.induction_heads.measured import (
    ABLATED,
    CONDITIONS,
    GROUP_TITLES,
    TITLES,
    Head,
    InductionObservations,
)
from lab.induction_heads.numbers import (
    fall_steps,
    induction_step,
    learnt_step,
    previous_step,
    rise,
    runs_of,
)


def tables(observations: InductionObservations) -> list[Table]:
    """Return when each run learnt what, what each ended with, what each head is worth."""
    return [
        step_table(observations),
        end_table(observations),
        group_table(observations),
        head_table(observations),
    ]


def step_table(observations: InductionObservations) -> Table:
    """Return one row per run: the step from which on a thing was there, or "never"."""
    plan = observations.plan
    rows = []
    for condition in CONDITIONS:
        for run in runs_of(observations, condition):
            steps = (
                previous_step(plan, run),
                induction_step(plan, run),
                learnt_step(plan, run),
                fall_steps(plan, run),
            )
            cells = ["never" if step is None else step for step in steps]
            rows.append((TITLES[condition], run.seed, *cells))
    columns = (
        "run",
        "seed",
        "previous-token head",
        "induction head",
        "loss on second copies",
        "steps of the fall, 90 % to 10 %",
    )
    return Table("Step from which on it is there", columns, tuple(rows))


def end_table(observations: InductionObservations) -> Table:
    """Return one row per run: losses in nats/token, accuracy and best scores at the end."""
    rows = []
    for condition in CONDITIONS:
        for run in runs_of(observations, condition):
            row = (
                TITLES[condition],
                run.seed,
                run.first[-1],
                run.second[-1],
                run.accuracy[-1],
                run.induction[-1].max(),
                run.previous[-1].max(),
            )
            rows.append(row)
    columns = (
        "run",
        "seed",
        "loss, first copy",
        "loss, second copy",
        "accuracy, second copy",
        "induction score",
        "previous-token score",
    )
    return Table("At the end of the training", columns, tuple(rows))


def group_table(observations: InductionObservations) -> Table:
    """Return one row per seed and group of heads: the loss on second copies without them."""
    rows = []
    for seed in observations.plan.seeds:
        ablation = observations.ablations[seed]
        for group in ABLATED:
            heads = head_names(ablation.heads[group])
            change = rise(observations, ablation, ablation.groups[group])
            row = (seed, GROUP_TITLES[group], heads, change)
            rows.append(row)
    columns = ("seed", "zeroed", "heads", "rise of the loss on second copies")
    return Table("Groups of heads zeroed", columns, tuple(rows))


def head_table(observations: InductionObservations) -> Table:
    """Return one row per seed and head: its scores, and the rise of the loss without it."""
    rows = []
    for seed in observations.plan.seeds:
        run = observations.runs["repeats", seed]
        ablation = observations.ablations[seed]
        layers, heads = ablation.single.shape[:2]
        for layer in range(layers):
            for head in range(heads):
                row = (
                    seed,
                    head_names([(layer, head)]),
                    run.previous[-1, layer, head],
                    run.induction[-1, layer, head],
                    rise(observations, ablation, ablation.single[layer, head]),
                )
                rows.append(row)
    columns = (
        "seed",
        "head",
        "previous-token score",
        "induction score",
        "rise of the loss without it",
    )
    return Table("Each head alone", columns, tuple(rows))


def head_names(heads: Sequence[Head]) -> str:
    """Return heads as text, such as `L1H0 L1H2`; layers and heads count from 0."""
    return " ".join(f"L{layer}H{head}" for layer, head in heads)
