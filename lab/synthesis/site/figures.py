"""Figures of the site's own report."""

from __future__ import annotations

import statistics

from lab import present
from lab.present.numbers import count, number
from lab.synthesis.retrospect import OUTCOMES
from lab.synthesis.site.measured import Sources, Trials
from lab.synthesis.site.numbers import seed_ranges


def figures(sources: Sources, trials: Trials) -> list[present.Figure]:
    """Return the figures for which there is something to show."""
    made = []
    if sources.scores:
        made.append(predictions_figure(sources))
    if seed_ranges(trials):
        made.append(seeds_figure(trials))
    return made


def predictions_figure(sources: Sources) -> present.Figure:
    """Show how many predictions of each feature held, were missed or stayed inconclusive."""
    features = [feature for feature in sources.features if feature.scores]
    names = [feature.id.removeprefix("FEAT-") for feature in features]
    series = []
    for outcome in OUTCOMES:
        counts = [feature.outcomes[outcome] for feature in features]
        series.append(present.Series(outcome.lower(), names, counts, kind="bar"))
    outcomes = sources.outcomes
    return present.Figure(
        name="predictions",
        title="What was predicted, and what held",
        caption=(
            f"{count(len(sources.scores), 'prediction')}: {outcomes['HELD']} held, "
            f"{outcomes['MISSED']} missed, {outcomes['INCONCLUSIVE']} inconclusive. A miss is a "
            "finding."
        ),
        x_label="feature (FEAT-…)",
        y_label="predictions",
        series=tuple(series),
    )


def seeds_figure(trials: Trials) -> present.Figure:
    """Show how far the seeds of each cell are apart, beside the cell's mean loss."""
    ranges = seed_ranges(trials)
    means = []
    for name in ranges:
        means.append(statistics.fmean(trial.held_out for trial in trials.cells[name]))
    widest = max(ranges, key=ranges.__getitem__)
    return present.Figure(
        name="seed_ranges",
        title="How far the seeds of a cell are apart",
        caption=(
            f"{count(len(ranges), 'cell')} with several seeds; the widest, {widest}, spans "
            f"{number(ranges[widest])} nats/token, the median "
            f"{number(statistics.median(ranges.values()))}."
        ),
        x_label="mean held-out loss of the cell (nats/token)",
        y_label="largest − smallest of its seeds (nats/token)",
        series=(present.Series("cells", means, list(ranges.values()), kind="points"),),
    )
