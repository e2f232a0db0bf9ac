"""Figures of the self-assessment's report."""

from __future__ import annotations

from lab import present
from lab.present.numbers import count
from lab.synthesis.evidence import confidence_interval, is_number
from lab.synthesis.measured import Assessment
from lab.synthesis.retrospect import OUTCOMES


def figures(assessment: Assessment, prefix: str) -> list[present.Figure]:
    """Return all figures of the report; their names begin with `prefix`."""
    return [predictions_figure(assessment, prefix), candidates_figure(assessment, prefix)]


def predictions_figure(assessment: Assessment, prefix: str) -> present.Figure:
    """Show how many predictions of each feature held, were missed or stayed inconclusive."""
    features = list(assessment.results)
    # One series of bars for each outcome, with a bar for each feature.
    outcomes = [(score.prediction.feature, score.outcome) for score in assessment.scores]
    series = []
    totals = []
    for outcome in OUTCOMES:
        counts = [outcomes.count((feature, outcome)) for feature in features]
        series.append(present.Series(outcome.lower(), features, counts, kind="bar"))
        totals.append(f"{sum(counts)} {outcome.lower()}")
    return present.Figure(
        name=f"{prefix}predictions",
        title="What was predicted before the track, and what held",
        caption=f"{count(len(outcomes), 'prediction')}: {', '.join(totals)}. A miss is a finding.",
        x_label="feature",
        y_label="predictions",
        series=tuple(series),
    )


def candidates_figure(assessment: Assessment, prefix: str) -> present.Figure:
    """Show the effect of each comparison with its interval: one that excludes 0 is decided."""
    results = [result for result in assessment.candidates if is_number(result.effect.value)]
    names, effects, lows, highs = [], [], [], []
    interval_count = 0
    for result in results:
        effect = result.effect.number
        interval = confidence_interval(result.effect)
        # Without an interval the bar has an error bar of no length.
        low, high = interval or (effect, effect)
        interval_count += interval is not None
        names.append(result.candidate.name)
        effects.append(effect)
        lows.append(low)
        highs.append(high)
    decided_count = sum(result.decided for result in results)
    units = assessment.units
    caption = (
        f"{units.effect} with its 95 % interval over {units.repeats}, which {interval_count} of "
        f"{len(results)} have; {decided_count} exclude 0. The fewest {units.fewest} are needed by "
        f"{assessment.minimum.candidate.name!r}."
    )
    label = f"mean over {units.repeats}"
    return present.Figure(
        name=f"{prefix}candidates",
        title=units.title,
        caption=caption,
        x_label="comparison",
        y_label=units.difference,
        series=(present.Series(label, names, effects, band=(lows, highs), kind="bar"),),
    )
