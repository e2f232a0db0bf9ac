"""The measurements of the hardware decision: counts, choices and prices."""

from __future__ import annotations

import math

from lab.hardware.decision import Decision
from lab.hardware.feasibility import Combination
from lab.hardware.flips import Flip
from lab.hardware.recommendation import Option
from lab.result import Measurement

NOTHING = "none"  # the device of a recommendation that buys nothing


def decision_measurements(decision: Decision) -> dict[str, Measurement]:
    """Return the measurements of the decision.

    Prices are those of the stated tables; what is rented depends on what this machine was measured
    to do.
    """
    exact, estimate = Measurement.of_exact, Measurement.of_estimate
    recommendation = decision.recommendation
    currency = decision.catalogue.currency
    rent_all, purchase = rent_all_option(decision), best_purchase(decision)
    nearest = nearest_flips(decision, 1)
    return {
        "recommendation": exact(str(recommendation.verdict)),
        "recommended_device": exact(recommendation.device or NOTHING),
        "needs": exact(len(decision.catalogue.needs), "needs"),
        "needs_met_here": exact(len(recommendation.met_here), "needs"),
        "needs_not_rentable": exact(len(rent_all.unmet if rent_all else ()), "needs"),
        "rent_per_month": estimate(rent_all.rent if rent_all else 0.0, currency),
        "rent_total": estimate(rent_all.total if rent_all else 0.0, currency),
        "purchase_total": estimate(purchase.total if purchase else None, currency),
        "flips": exact(len(decision.flips), "numbers"),
        "nearest_flip": estimate(flip_factor(nearest[0]) if nearest else None, "times"),
        "devices": exact(len(decision.catalogue.devices), "devices"),
        "combinations": exact(len(decision.cells), "combinations"),
        "combinations_here": exact(
            sum(fits_here(decision, cell) for cell in decision.cells), "combinations"
        ),
        "combinations_nowhere": exact(len(decision.nowhere), "combinations"),
    }


def rent_all_option(decision: Decision) -> Option | None:
    """Return the option of renting all that this machine does not meet; None where that is none."""
    return next(iter(decision.recommendation.options), None)


def best_purchase(decision: Decision) -> Option | None:
    """Return the cheapest purchase over all months, an allowed one first; None if there is none."""
    purchases = decision.recommendation.options[1:]
    return min(purchases, key=lambda one: (not one.is_allowed, one.total), default=None)


def flip_factor(flip: Flip) -> float:
    """Return by what factor, of at least 1, a number would have to change."""
    return math.exp(abs(math.log(flip.flips_at / flip.value)))


def nearest_flips(decision: Decision, count: int) -> list[Flip]:
    """Return the flips that need the smallest change, the smallest first."""
    # two levers can be one product: their factors differ by rounding, and must not swap places
    return sorted(decision.flips, key=lambda flip: round(math.log(flip_factor(flip)), 9))[:count]


def fits_here(decision: Decision, cell: Combination) -> bool:
    """Return whether a combination fits on this machine."""
    return any(one.machine == decision.this.name for one in cell.fitting)


def stated(value: float) -> str:
    """Return a number as the user wrote it: `24`, `0.5`, `2,000,000`."""
    text = f"{value:,.6f}"
    return text.rstrip("0").rstrip(".")
