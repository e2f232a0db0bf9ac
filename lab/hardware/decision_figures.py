"""The figures of the hardware decision: what fits where in what time, and what options cost."""

from __future__ import annotations

import math

from lab.hardware.catalogue import METHODS
from lab.hardware.decision import Decision
from lab.hardware.decision_numbers import stated
from lab.hardware.decision_report import money
from lab.hardware.decision_tables import TOKENS
from lab.hardware.feasibility import Combination
from lab.present import Figure, Heatmap, Panel, Series, number

FEWEST, MOST = -1, 2  # log10 of the multiples of the stated runs
TIMED = 2048  # tokens of a row, of the picture of what fits
POINTS = 31  # of a line
SHOWN_PURCHASES = 3


def decision_figures(decision: Decision) -> list[Figure | Heatmap]:
    """Return the figures; where nothing can be rented there is no picture of costs."""
    figures: list[Figure | Heatmap] = [fits_figure(decision)]
    options = decision.recommendation.options
    if options and options[0].total > 0:
        figures.append(costs_figure(decision))
    return figures


def fits_figure(decision: Decision) -> Heatmap:
    """Show hours of a million tokens by model and machine, grey where it does not fit."""
    shown = [cell for cell in decision.cells if cell.sequence == TIMED]
    panels = []
    for method in METHODS:
        rows = [_hours_row(cell) for cell in shown if cell.method == method]
        panels.append(Panel(method, rows))
    fitting = sum(len(cell.fitting) for cell in shown)
    total = sum(len(cell.estimates) for cell in shown)
    return Heatmap(
        name="fits",
        title=f"What fits where, and hours of a million tokens (rows of {number(TIMED)})",
        caption=(
            f"Grey: does not fit; {number(fitting)} of {number(total)} cells do. Purple: a million "
            "tokens take more than an hour; orange: less (1 is ten hours, -1 is six minutes). GPUs "
            "by datasheet, this machine as measured."
        ),
        x_label="device",
        y_label="model",
        value_label="log10 of hours",
        panels=tuple(panels),
        x_names=tuple(one.machine for one in shown[0].estimates),
        y_names=tuple(model.name for model in decision.catalogue.models),
    )


def _hours_row(cell: Combination) -> tuple[float | None, ...]:
    return tuple(math.log10(one.hours(TOKENS)) if one.fits else None for one in cell.estimates)


def costs_figure(decision: Decision) -> Figure:
    """Show what renting everything and the cheapest purchases cost with more and fewer runs."""
    months = decision.catalogue.thresholds.months
    factors = [10 ** (FEWEST + (MOST - FEWEST) * step / (POINTS - 1)) for step in range(POINTS)]
    options = decision.recommendation.options
    purchases = sorted(options[1:], key=lambda one: one.total)[:SHOWN_PURCHASES]
    series = []
    for option in (options[0], *purchases):
        label = f"buy {option.device}" if option.device else "rent everything"
        if option.unmet:
            label += " (leaves needs unmet)"
        monthly = months * (option.power + option.rent)
        costs = [option.purchase + monthly * factor for factor in factors]
        series.append(Series(label, factors, costs))
    currency, rent = decision.catalogue.currency, options[0]
    caption = (
        f"With the runs that are stated (1): {money(rent.total)} {currency} over "
        f"{stated(months)} months for renting"
    )
    if purchases:
        first = purchases[0]
        caption += f", {money(first.total)} {currency} with {first.device}"
    return Figure(
        name="costs",
        title="What the needs cost that this machine does not meet",
        caption=f"{caption}. A purchase pays where its line is below that of renting.",
        x_label="runs, as a multiple of those stated",
        y_label=f"{currency} over {stated(months)} months",
        series=tuple(series),
        x_scale="log",
        y_scale="log",
    )
