"""The decision's sentences and captions, written again from what `deciding` computed."""

from __future__ import annotations

import math
from typing import Any

from gates.hardware.deciding import DECADES, GIB, UNSCALED, Facts, can, fits, rent_of, run_hours
from gates.hardware.stated import HERE, METHODS
from gates.shared.documents import written


def plain(value: float) -> str:
    """Return a number as the user stated it."""
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def quoted(names: list[str]) -> str:
    """Return names in quotation marks."""
    return ", ".join(f'"{name}"' for name in names)


def fold(flip: dict[str, Any]) -> float:
    """Return by what factor, of at least 1, a lever has to change."""
    return float(max(flip["at"] / flip["value"], flip["value"] / flip["at"]))


def by_size(flips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the flips, the smallest change first; equal ones in the order of the levers."""
    return sorted(flips, key=lambda flip: round(math.log(fold(flip)), 9))


def cheapest(options: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the cheapest purchase, an allowed one if there is any."""
    ranked = sorted(options[1:], key=lambda one: (not one["allowed"], one["total"]))
    return ranked[0] if ranked else None


def findings(
    known: Facts,
    decided: dict[str, Any],
    cells: list[dict[str, Any]],
    changes: tuple[list[dict[str, Any]], list[str]],
) -> list[str]:
    """Return all sentences."""
    rest = [need for need in known["needs"] if need["name"] not in decided["met"]]
    return [
        _answer(known, decided),
        *(_need(known, need) for need in rest),
        _changes(*changes),
        _largest(known, cells),
        _nowhere(cells),
        _caveat(known),
    ]


def _answer(known: Facts, decided: dict[str, Any]) -> str:
    word, device = decided["answer"]
    total, met = len(known["needs"]), len(decided["met"])
    if word == "stay":
        return f"Recommendation: stay. This machine meets all {total} needs of needs.yaml."
    months, currency = plain(known["thresholds"]["months"]), known["currency"]
    over = f"{currency} over {months} months"
    meaning = {
        "upgrade": f"buy {device}",
        "burst to the cloud": "rent a GPU for what this machine does not meet, and buy nothing",
        "change the needs": "nothing within the budgets meets all of them",
    }
    text = f"Recommendation: {word}: {meaning[word]}. This machine meets {met} of {total} needs."
    rent = decided["options"][0]
    if rent["unmet"]:
        text += f" Nothing that can be rented meets {quoted(rent['unmet'])}."
    else:
        amounts = f"{rent['rent']:,.2f} {currency} a month, {rent['total']:,.2f} {over}"
        end = "." if rent["allowed"] else ", which is above the budget to rent."
        text += f" Renting the rest costs {amounts}{end}"
    best = cheapest(decided["options"])
    if best is None:
        return f"{text} No card that can be bought meets any of them."
    text += f" The cheapest purchase, {best['device']}, with what it leaves to rent, costs "
    text += f"{best['total']:,.2f} {over}"
    if best["allowed"]:
        return f"{text}."
    why = "it is above the budget to rent"
    if best["purchase"] > known["thresholds"]["purchase_budget"]:
        why = "it is above the budget to buy"
    if best["unmet"]:
        why = f"nothing meets {quoted(best['unmet'])}"
    return f"{text}, and is not allowed: {why}."


def _need(known: Facts, need: dict[str, Any]) -> str:
    """Return why a need is not met here, and where it is rented."""
    here = known["cost"][need["name"]][HERE]
    hours = written(run_hours(known, need, HERE))
    longest = plain(need["hours_per_run"])
    if not fits(here):
        gib, usable = written(here["bytes"] / GIB), written(here["usable"] / GIB)
        why = f"does not fit here: it needs {gib} GiB, and {usable} are usable"
    elif can(known, need, HERE):
        why = f"would take {hours} h here, more than this machine has left in a month"
    else:
        why = f"would take {hours} h here, of the {longest} h that it may"
    offer = rent_of(known, need)
    where = "nothing that can be rented meets it"
    if offer is not None:
        where = (
            f"cheapest to rent is {offer['device']}, {written(offer['hours'], 2)} h of training "
            f"and {offer['price']:,.2f} {known['currency']} a run"
        )
    training = f"{need['model']}, {need['method']}, {need['sequence']:,} tokens"
    return f'"{need["name"]}" ({training}) {why}; {where}.'


def _changes(flips: list[dict[str, Any]], idle: list[str]) -> str:
    zero = [name.removesuffix(UNSCALED) for name in idle if name.endswith(UNSCALED)]
    end = f" Not tried, as 0 has no multiple: {', '.join(zero)}." if zero else ""
    parts = []
    for flip in by_size(flips)[:3]:
        unit = f" {flip['unit']}" if flip["unit"] else ""
        side = "or more" if flip["at"] > flip["value"] else "or less"
        then = flip["then"] + (f" ({flip['device']})" if flip["device"] else "")
        parts.append(
            f"{flip['lever']}: {written(float(flip['at']))}{unit} {side} instead of "
            f"{plain(flip['value'])} ({written(fold(flip))}-fold), then {then}"
        )
    if parts:
        told = "; ".join(parts)
        return f"What would change it, each number alone, the nearest first: {told}.{end}"
    return (
        "No number of needs.yaml or prices.yaml changes the recommendation within a factor of "
        f"{10**DECADES}, each changed alone.{end}"
    )


def _largest(known: Facts, cells: list[dict[str, Any]]) -> str:
    parts = []
    for method in METHODS:
        names = []
        for cell in cells:
            is_asked = cell["method"] == method and cell["length"] == 2048
            if is_asked and HERE in cell["fitting"]:
                names.append((known["models"][cell["model"]]["parameters"], cell["model"]))
        parts.append(f"{max(names, default=(0, 'none'))[1]} ({method})")
    return (
        f"The largest listed model that fits on this machine at 2,048 tokens: {', '.join(parts)}."
    )


def _nowhere(cells: list[dict[str, Any]]) -> str:
    nowhere = [cell for cell in cells if not cell["fitting"]]
    if not nowhere:
        return f"All {len(cells)} combinations fit on a listed device."
    parts = []
    for method in METHODS:
        names = dict.fromkeys(cell["model"] for cell in nowhere if cell["method"] == method)
        if names:
            parts.append(f"{method}: {', '.join(names)}")
    return (
        f"Not feasible on any single listed device, {len(nowhere)} of {len(cells)} combinations: "
        f"{'; '.join(parts)}."
    )


def _caveat(known: Facts) -> str:
    dates = [price["date"] for price in known["prices"].values() if price.get("rent_hour")]
    oldest = min(dates or [price["date"] for price in known["prices"].values()])
    used = plain(100 * known["assumptions"]["utilisation"])
    free = plain(100 * known["assumptions"]["reserve_share"])
    return (
        "This machine trains as this lab does, in float32 with all activations kept; a GPU is "
        "taken to train in 16 bits and to compute layers again, which needs less memory. "
        f"GPUs were not measured: they are taken at {used} % of the peak of their datasheets, with "
        f"{free} % of the memory free. The oldest rent is of {oldest}; prices age, and those of "
        "prices.yaml are yours to replace."
    )
