"""The two tables of the forgetting study: every adapter, and every model on every suite."""

from __future__ import annotations

from collections.abc import Mapping

from lab.contract import Table
from lab.forgetting.measured import BASE, ForgettingObservations
from lab.forgetting.numbers import Comparison, item_mean
from lab.stats import significance

ADAPTER_COLUMNS = (
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
SUITE_COLUMNS = (
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


def tables(
    observations: ForgettingObservations, comparisons: Mapping[str, Comparison]
) -> tuple[Table, ...]:
    """Return both tables."""
    return adapters(comparisons), suites(observations)


def adapters(comparisons: Mapping[str, Comparison]) -> Table:
    """Return one row per adapter."""
    rows = []
    for name, comparison in comparisons.items():
        rows.append(
            (
                name,
                comparison.rate,
                comparison.norm,
                comparison.learning.value,
                comparison.forgetting.value,
                comparison.forgetting.stderr,
                comparison.adjusted_p,
                comparison.items_lost,
                comparison.items_won,
                comparison.mcnemar_p,
                comparison.divergence.value,
                comparison.text_loss.value,
                comparison.intruders,
            )
        )
    return Table("Adapters", ADAPTER_COLUMNS, tuple(rows))


def suites(observations: ForgettingObservations) -> Table:
    """Return one row per model and suite.

    p is McNemar's against the base, not adjusted; 1 for the base itself.
    """
    base = observations.scores[BASE]
    rows = []
    for name, scores in observations.scores.items():
        for suite, indices in observations.suites.items():
            margin = item_mean(scores.margin[indices])
            acc = item_mean(scores.acc[indices])
            acc_norm = item_mean(scores.acc_norm[indices])
            _, _, p = significance.mcnemar(base.acc[indices], scores.acc[indices])
            rows.append(
                (
                    name,
                    suite,
                    margin.value,
                    margin.stderr,
                    acc.value,
                    acc.stderr,
                    acc_norm.value,
                    acc_norm.stderr,
                    p,
                )
            )
    return Table("Suites", SUITE_COLUMNS, tuple(rows))
