"""The figures of the hardware decision: what fits where in what time, and what options cost."""

from __future__ import annotations

import math

from lab.hardware.catalogue import METHODS
from lab.hardware.decision import Decision
from lab.hardware.decision_numbers import best_purchase, rent_all_option, stated
from lab.hardware.decision_tables import TIMED, TOKENS
from lab.hardware.feasibility import Combination
from lab.present import Figure, Heatmap, Panel, Series, number

HORIZON = 4  # times the stated months: where lines cross beyond them, it is seen
POINTS = 25  # of a line
SHOWN_PURCHASES = 3


def decision_figures(decision: Decision) -> list[Figure | Heatmap]:
    """Return the figures; without options there is no picture of their costs."""
    figures: list[Figure | Heatmap] = [fits_figure(decision)]
    if decision.recommendation.options:
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
            f"Grey: does not fit; {number(fitting)} of {number(total)} cells do. Colour: log10 of "
            "the hours that training on a million tokens takes: 0 is an hour, 1 is ten hours, -1 "
            "is six minutes. GPUs by datasheet, this machine as measured."
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
    """Show what renting everything and the cheapest purchases cost over the months."""
    months = decision.catalogue.thresholds.months
    times = [HORIZON * months * step / (POINTS - 1) for step in range(POINTS)]
    purchases = sorted(decision.recommendation.options[1:], key=lambda one: one.total)
    rent, best = rent_all_option(decision), best_purchase(decision)
    assert rent is not None
    series = []
    for option in (rent, *purchases[:SHOWN_PURCHASES]):
        monthly = option.power + option.rent
        label = f"buy {option.device}" if option.device else "rent everything"
        if option.unmet:
            label += " (leaves needs unmet)"
        series.append(Series(label, times, [option.purchase + monthly * time for time in times]))
    currency = decision.catalogue.currency
    caption = f"After {stated(months)} months, as stated: {rent.total:,.2f} {currency} for renting"
    if best is not None:
        caption += f", {best.total:,.2f} {currency} with {best.device}"
    return Figure(
        name="costs",
        title="What the needs cost that this machine does not meet",
        caption=f"{caption}. A purchase pays where its line falls below that of renting.",
        x_label="months",
        y_label=currency,
        series=tuple(series),
    )
