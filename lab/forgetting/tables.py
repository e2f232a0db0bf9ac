"""The two tables of catastrophic_forgetting: every model, and every model on every suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.contract import Table
from lab.forgetting.numbers import BASE, compare, over_items, suites
from lab.stats import significance as comparing

if TYPE_CHECKING:
    from lab.forgetting.experiment import ForgettingObservations

MODELS = (
    "adapter",
    "rate",
    "update norm",
    "learning (nats/token)",
    "forgetting (nats/byte)",
    "stderr",
    "p (Holm)",
    "items lost",
    "items won",
    "McNemar p",
    "KL (nats/token)",
    "loss on base text",
    "intruders",
)
SUITES = (
    "model",
    "suite",
    "margin (nats/byte)",
    "stderr",
    "acc",
    "acc_stderr",
    "acc_norm",
    "acc_norm_stderr",
    "p",
)


def tables(observations: ForgettingObservations) -> tuple[Table, ...]:
    """Both."""
    rows = [
        (
            name,
            one.rate,
            one.norm,
            one.learning.value,
            one.forgetting.value,
            one.forgetting.stderr,
            one.adjusted_p,
            one.lost,
            one.won,
            one.mcnemar_p,
            one.divergence.value,
            one.text_loss.value,
            one.intruders,
        )
        for name, one in compare(observations).items()
    ]
    return (
        Table("Adapters", MODELS, tuple(rows)),
        Table("Suites", SUITES, tuple(_suites(observations))),
    )


def _suites(observations: ForgettingObservations) -> list[tuple[str | float, ...]]:
    """One row per model and suite; p is McNemar's against the base, unadjusted (1 for the base)."""
    rows: list[tuple[str | float, ...]] = []
    for name, scores in observations.scores.items():
        for suite, items in suites(observations).items():
            parts = [
                over_items(getattr(scores, part)[items]) for part in ("margin", "acc", "acc_norm")
            ]
            p = comparing.mcnemar(observations.scores[BASE].acc[items], scores.acc[items])[2]
            rows.append(
                (
                    name,
                    suite,
                    *(number for mean in parts for number in (mean.value, mean.stderr)),
                    p,
                )
            )
    return rows
