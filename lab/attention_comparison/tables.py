"""The tables of the comparison: models, heads, statistics, ablation, snapshots."""

from __future__ import annotations

import numpy as np

from lab.attention_comparison.measured import STATISTICS, ComparisonObservations, ModelAttention
from lab.attention_comparison.numbers import (
    adjusted_p,
    course,
    movement,
    prompt_mean,
    rise,
    shifts,
)
from lab.contract import Table
from lab.result import Scalar


def tables(observations: ComparisonObservations) -> list[Table]:
    """Return all tables of the report."""
    return [
        models_table(observations),
        heads_table(observations),
        statistics_table(observations),
        ablation_table(observations),
        snapshots_table(observations),
    ]


def models_table(observations: ComparisonObservations) -> Table:
    """Return one row per pair of models: how far their attention is apart, in nats."""
    plan = observations.plan

    # 1. Pairs of models, the update's norm where one is the base, their divergences [H, P].
    pairs: list[tuple[str, float | None, np.ndarray]] = [
        ("base, adapter switched off", 0.0, observations.adapter_off)
    ]
    for seed, model in zip(plan.seeds, observations.tuned, strict=True):
        pairs.append((f"base, seed {seed}", _norm(model), model.divergence))
    for (i, j), values in zip(plan.pairs, observations.between_seeds, strict=True):
        pairs.append((f"seed {plan.seeds[i]}, seed {plan.seeds[j]}", None, values))
    for k, model in enumerate(observations.random):
        seed, draw = plan.seeds[k // plan.draws], k % plan.draws
        label = f"base, random {draw + 1} of seed {seed}'s norms"
        pairs.append((label, _norm(model), model.divergence))

    # 2. Their means.
    rows = []
    for label, norm, values in pairs:
        mean = prompt_mean(values.mean(0))
        task = float(values[:, observations.kinds == "task"].mean())
        text = float(values[:, observations.kinds == "text"].mean())
        furthest = float(values.mean(1).max())
        rows.append((label, norm, mean.value, mean.stderr, task, text, furthest))
    columns = ("models", "norm of ΔW", "mean", "stderr", "task", "text", "furthest head")
    return Table("Divergence of attention between models (nats)", columns, tuple(rows))


def _norm(model: ModelAttention) -> float:
    """Return ‖ΔW‖_F over all matrices."""
    return float(np.sqrt((model.norms**2).sum()))


def heads_table(observations: ComparisonObservations) -> Table:
    """Return the heads that moved furthest, mean over seeds, with their nulls and their shifts."""
    plan = observations.plan
    moves = movement(observations)
    against_seeds = adjusted_p(moves.tuned, moves.seeds)
    against_random = adjusted_p(moves.tuned, moves.random)
    order = np.argsort(-moves.tuned.mean(1), kind="stable")[: plan.moved]
    rows = []
    for head in order.tolist():
        mean = prompt_mean(moves.tuned[head])
        row: list[Scalar] = [
            plan.head_name(head),
            mean.value,
            mean.stderr,
            float(moves.seeds[head].mean()),
            float(against_seeds[head]),
            float(moves.random[head].mean()),
            float(against_random[head]),
        ]
        row += [float(shifts(observations, name)[head].mean()) for name in STATISTICS]
        rows.append(tuple(row))
    columns = (
        "head",
        "movement",
        "stderr",
        "seeds",
        "p (Holm)",
        "random",
        "p (Holm)",
        *(f"{name} shift" for name in STATISTICS),
    )
    return Table("Heads that moved furthest (nats)", columns, tuple(rows))


def statistics_table(observations: ComparisonObservations) -> Table:
    """Return base, tuned minus base, and random minus base of every statistic, mean over heads."""
    rows = []
    for name, unit in STATISTICS.items():
        base = observations.base[name]
        by_head = shifts(observations, name).mean(1)  # [H]
        shift = prompt_mean(shifts(observations, name).mean(0))
        random = np.stack([model.statistics[name] for model in observations.random]).mean(0) - base
        null = prompt_mean(random.mean(0))
        furthest = int(np.abs(by_head).argmax())
        rows.append(
            (
                name,
                unit or "share",
                float(base.mean()),
                shift.value,
                shift.stderr,
                null.value,
                null.stderr,
                observations.plan.head_name(furthest),
                float(by_head[furthest]),
            )
        )
    columns = (
        "statistic",
        "unit",
        "base",
        "tuned - base",
        "stderr",
        "random - base",
        "stderr",
        "largest change",
        "by",
    )
    return Table("What the heads do", columns, tuple(rows))


def ablation_table(observations: ComparisonObservations) -> Table:
    """Return one row per set of heads: the rise of the task loss without them, in nats/token."""
    plan = observations.plan
    ablation = observations.ablation
    tuned = rise(ablation.tuned, observations.token_examples)
    base = rise(ablation.base, observations.token_examples)
    names = _names(observations, ablation.moved)
    rows = [("those that moved most", names, tuned.moved.value, base.moved.value)]
    for k in range(plan.ablation_draws):
        names = _names(observations, ablation.random[k])
        rows.append((f"random {k + 1}", names, tuned.random[k], base.random[k]))
    columns = ("heads", "which", "tuned", "base")
    return Table("Rise of the task loss without some heads (nats/token)", columns, tuple(rows))


def _names(observations: ComparisonObservations, heads: tuple[int, ...]) -> str:
    return " ".join(observations.plan.head_name(head) for head in heads)


def snapshots_table(observations: ComparisonObservations) -> Table:
    """Return one row per snapshot."""
    seen = course(observations)
    snapshots = observations.snapshots
    losses = snapshots.losses.astype(np.float64).mean(1)
    furthest = [""]
    for model in snapshots.trained:
        furthest.append(observations.plan.head_name(int(model.divergence.mean(1).argmax())))
    norms = [0.0, *(_norm(model) for model in snapshots.trained)]
    rows = []
    for i, step in enumerate(seen.steps):
        attention, random = float(seen.attention[i]), float(seen.random[i])
        rows.append(
            (step, norms[i], float(losses[i]), attention, random, seen.moved[i], furthest[i])
        )
    columns = (
        "step",
        "norm of ΔW",
        "held-out loss (nats/token)",
        "movement (nats)",
        "random update (nats)",
        "heads above it",
        "furthest head",
    )
    return Table("One training, step by step", columns, tuple(rows))
