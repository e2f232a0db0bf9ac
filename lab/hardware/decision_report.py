"""The sentences of the hardware decision: the answer first, then why, then what would change it."""

from __future__ import annotations

from lab.hardware.catalogue import METHODS, Need
from lab.hardware.decision import Decision
from lab.hardware.decision_numbers import (
    best_purchase,
    fits_here,
    flip_factor,
    nearest_flips,
    rent_all_option,
    stated,
)
from lab.hardware.feasibility import GIB
from lab.hardware.flips import DECADES, UNSCALED, Flip
from lab.hardware.recommendation import Recommendation, Verdict, cheapest_rent, is_met
from lab.present.numbers import number

SHOWN_FLIPS = 3  # in the sentence; the table has all
LENGTH = 2048  # tokens, of the sentence on the largest model


def decision_findings(decision: Decision) -> tuple[str, ...]:
    """Return what follows for the user."""
    return (
        answer(decision),
        *(unmet_here(decision, need) for need in needs_not_met_here(decision)),
        changes(decision),
        largest_here(decision),
        infeasible(decision),
        caveat(decision),
    )


def answer(decision: Decision) -> str:
    """Return the recommendation and what it rests on."""
    recommendation = decision.recommendation
    currency = decision.catalogue.currency
    months = stated(decision.catalogue.thresholds.months)
    count, met = len(decision.catalogue.needs), len(recommendation.met_here)
    opening = f"Recommendation: {recommendation.verdict}"
    if recommendation.verdict is Verdict.STAY:
        return f"{opening}. This machine meets all {count} needs of needs.yaml."
    opening += f": {meaning(recommendation)}."
    rent, purchase = rent_all_option(decision), best_purchase(decision)
    assert rent is not None
    text = f"{opening} This machine meets {met} of {count} needs."
    if rent.unmet:
        text += f" Nothing that can be rented meets {quoted(rent.unmet)}."
    else:
        text += (
            f" Renting the rest costs {money(rent.rent)} {currency} a month, {money(rent.total)} "
            f"{currency} over {months} months"
        )
        text += "." if rent.is_allowed else ", which is above the budget to rent."
    if purchase is None:
        return f"{text} No card that can be bought meets any of them."
    text += (
        f" The cheapest purchase, {purchase.device}, with what it leaves to rent, costs "
        f"{money(purchase.total)} {currency} over {months} months"
    )
    if purchase.is_allowed:
        return f"{text}."
    return f"{text}, and is not allowed: {reason(decision)}."


def meaning(recommendation: Recommendation) -> str:
    """Return what to do by a verdict other than to stay."""
    if recommendation.verdict is Verdict.UPGRADE:
        return f"buy {recommendation.device}"
    if recommendation.verdict is Verdict.BURST:
        return "rent a GPU for what this machine does not meet, and buy nothing"
    return "nothing within the budgets meets all of them"


def reason(decision: Decision) -> str:
    """Return why the cheapest purchase is not allowed."""
    purchase = best_purchase(decision)
    assert purchase is not None
    if purchase.unmet:
        return f"nothing meets {quoted(purchase.unmet)}"
    if purchase.purchase > decision.catalogue.thresholds.purchase_budget:
        return "it is above the budget to buy"
    return "it is above the budget to rent"


def needs_not_met_here(decision: Decision) -> tuple[Need, ...]:
    """Return the needs that this machine does not meet."""
    met = decision.recommendation.met_here
    return tuple(need for need in decision.catalogue.needs if need.name not in met)


def unmet_here(decision: Decision, need: Need) -> str:
    """Return why a need is not met here, and where it is met for least."""
    # 1. Why not here.
    one = decision.estimates[need.name, decision.this.name]
    hours = one.hours(need.tokens_per_run)
    why = f"would take {number(hours, 3)} h here, of the {stated(need.hours_per_run)} h that it may"
    if not one.fits:
        why = (
            f"does not fit here: it needs {number(one.bytes / GIB, 3)} GiB, and "
            f"{number(one.usable_bytes / GIB, 3)} are usable"
        )
    elif is_met(need, one):
        why = f"would take {number(hours, 3)} h here, more than this machine has left in a month"

    # 2. Where it is rented.
    offer = cheapest_rent(decision.catalogue, decision.estimates, need)
    where = "nothing that can be rented meets it"
    if offer is not None:
        where = (
            f"cheapest to rent is {offer.device}, {number(offer.hours, 2)} h of training and "
            f"{money(offer.per_run)} {decision.catalogue.currency} a run"
        )
    return (
        f'"{need.name}" ({need.model}, {need.method}, {number(need.sequence)} tokens) {why}; '
        f"{where}."
    )


def changes(decision: Decision) -> str:
    """Return the nearest changes that would give another answer."""
    text = (
        "No number of needs.yaml or prices.yaml changes the recommendation within a factor of "
        f"{number(10**DECADES)}, each changed alone."
    )
    if decision.flips:
        parts = [flip_words(flip) for flip in nearest_flips(decision, SHOWN_FLIPS)]
        text = f"What would change it, each number alone, the nearest first: {'; '.join(parts)}."
    unscaled = [name.removesuffix(UNSCALED) for name in decision.idle if name.endswith(UNSCALED)]
    if unscaled:
        text += f" Not tried, as 0 has no multiple: {', '.join(unscaled)}."
    return text


def flip_words(flip: Flip) -> str:
    """Return a flip in words."""
    side = "or more" if flip.flips_at > flip.value else "or less"
    unit = f" {flip.unit}" if flip.unit else ""
    outcome = f"{flip.verdict} ({flip.device})" if flip.device else flip.verdict
    return (
        f"{flip.lever}: {number(flip.flips_at, 3)}{unit} {side} instead of {stated(flip.value)} "
        f"({number(flip_factor(flip), 3)}-fold), then {outcome}"
    )


def largest_here(decision: Decision) -> str:
    """Return the largest model that fits on this machine by each method."""
    sizes = {model.name: model.parameters for model in decision.catalogue.models}
    parts = []
    for method in METHODS:
        names = [
            cell.model
            for cell in decision.cells
            if cell.method == method and cell.sequence == LENGTH and fits_here(decision, cell)
        ]
        parts.append(f"{max(names, key=sizes.__getitem__, default='none')} ({method})")
    return (
        f"The largest listed model that fits on this machine at {number(LENGTH)} tokens: "
        f"{', '.join(parts)}."
    )


def infeasible(decision: Decision) -> str:
    """Return what fits on no device, by method."""
    nowhere = decision.nowhere
    if not nowhere:
        return f"All {len(decision.cells)} combinations fit on a listed device."
    parts = []
    for method in METHODS:
        names = list(dict.fromkeys(cell.model for cell in nowhere if cell.method == method))
        if names:
            parts.append(f"{method}: {', '.join(names)}")
    return (
        f"Not feasible on any single listed device, {len(nowhere)} of {len(decision.cells)} "
        f"combinations: {'; '.join(parts)}."
    )


def caveat(decision: Decision) -> str:
    """Return what the reader has to know about the estimates."""
    assumptions = decision.catalogue.assumptions
    return (
        "This machine trains as this lab does, in float32 with all activations kept; a GPU is "
        "taken to train in 16 bits and to compute layers again, which needs less memory. "
        f"GPUs were not measured: they are taken at {stated(100 * assumptions.utilisation)} % of "
        f"the peak of their datasheets, with {stated(100 * assumptions.reserve_share)} % of the "
        f"memory free. The oldest rent is of {decision.catalogue.oldest_price()}; prices age, and "
        "those of prices.yaml are yours to replace."
    )


def quoted(names: tuple[str, ...]) -> str:
    """Return names in quotation marks."""
    return ", ".join(f'"{name}"' for name in names)


def money(value: float) -> str:
    """Return an amount with two decimals."""
    return f"{value:,.2f}"
