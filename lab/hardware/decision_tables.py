"""The tables of the hardware decision."""

from __future__ import annotations

from lab.hardware.catalogue import METHODS
from lab.hardware.decision import Decision
from lab.hardware.decision_numbers import flip_factor, nearest_flips, stated
from lab.hardware.decision_report import money
from lab.hardware.feasibility import (
    GIB,
    SEQUENCES,
    Combination,
    cheapest_owned,
    cheapest_rented,
)
from lab.hardware.flips import DECADES
from lab.hardware.recommendation import Option, cheapest_rent
from lab.present.numbers import number
from lab.result import Scalar, Table

TOKENS = 1e6  # that hours and prices are stated for
NONE = "-"
RULE = (
    "A machine meets a need if the training fits into its memory less the reserve, and a run takes "
    "no longer than the user would wait. Needs are taken in their order until the machine's hours "
    "of a month are spent.",
    "If this machine meets every need: stay.",
    "Else what it does not meet is rented, each need where a run costs least; or a card is bought "
    "that meets at least one of these needs, and what it does not meet is rented.",
    "An option is allowed if it leaves no need unmet, its purchase is within the budget to buy and "
    "its rent within the budget to rent.",
    "If renting everything is allowed: burst to the cloud, unless the cheapest allowed purchase "
    "saves the stated share of that over all months; then upgrade. If renting everything is not "
    "allowed: upgrade to the cheapest allowed purchase. If nothing is allowed: change the needs.",
)


def decision_tables(decision: Decision) -> tuple[Table, ...]:
    """Return all tables, those that the answer rests on first."""
    return (
        needs_table(decision),
        options_table(decision),
        path_table(decision),
        flips_table(decision),
        rule_table(decision),
        fits_table(decision),
        hours_table(decision),
        infeasible_table(decision),
        devices_table(decision),
        sources_table(decision),
    )


def needs_table(decision: Decision) -> Table:
    """Return each need: what it takes here, and where it is rented for least."""
    rows = []
    for need in decision.catalogue.needs:
        here = decision.estimates[need.name, decision.this.name]
        offer = cheapest_rent(decision.catalogue, decision.estimates, need)
        rented: tuple[Scalar, ...] = (NONE, NONE, NONE)
        if offer is not None:
            rented = (offer.device, number(offer.hours, 2), money(offer.per_run))
        rows.append(
            (
                need.name,
                f"{need.model}, {need.method}, {number(need.batch)} × {number(need.sequence)}",
                stated(need.tokens_per_run),
                stated(need.runs_per_month),
                stated(need.hours_per_run),
                number(here.bytes / GIB, 3),
                number(here.hours(need.tokens_per_run), 3),
                need.name in decision.recommendation.met_here,
                *rented,
            )
        )
    currency = decision.catalogue.currency
    columns = (
        "need",
        "training",
        "tokens of a run",
        "runs a month",
        "longest wait, h",
        "here, GiB",
        "here, h",
        "met here",
        "rented for least",
        "h",
        f"{currency} a run",
    )
    return Table("The needs, here and rented", columns, tuple(rows))


def options_table(decision: Decision) -> Table:
    """Return what can be done about the needs that this machine does not meet."""
    months = stated(decision.catalogue.thresholds.months)
    currency = decision.catalogue.currency
    rows = [_option_row(decision, option) for option in decision.recommendation.options]
    if not rows:
        rows = [("stay", NONE, NONE, *[money(0.0)] * 4, True, True)]
    columns = (
        "option",
        "the card meets",
        "rented",
        f"purchase, {currency}",
        f"electricity, {currency} a month",
        f"rent, {currency} a month",
        f"{months} months, {currency}",
        "allowed",
        "recommended",
    )
    return Table("What each option costs", columns, tuple(rows))


def _option_row(decision: Decision, option: Option) -> tuple[Scalar, ...]:
    rented = [f"{offer.need} ({offer.device})" for offer in option.rented]
    rented += [f"{name} (nowhere)" for name in option.unmet]
    return (
        f"buy {option.device}" if option.device else "rent everything",
        ", ".join(option.bought) or NONE,
        ", ".join(rented) or NONE,
        money(option.purchase),
        money(option.power),
        money(option.rent),
        money(option.total),
        option.is_allowed,
        option is decision.recommendation.chosen,
    )


def path_table(decision: Decision) -> Table:
    """Return the upgrade path: the cheapest card for each further need."""
    rows: list[tuple[Scalar, ...]] = []
    before: set[str] = set()
    for step in decision.path:
        new = [name for name in step.met if name not in before]
        rows.append((step.device, money(step.purchase), len(step.met), ", ".join(new) or NONE))
        before |= set(step.met)
    # a need that fits on no card is named too
    left = [need.name for need in decision.catalogue.needs if need.name not in before]
    if left:
        rows.append(("no card that can be bought", NONE, NONE, ", ".join(left)))
    currency = decision.catalogue.currency
    columns = ("device", f"purchase with host, {currency}", "needs met", "needs met first by it")
    return Table("The upgrade path", columns, tuple(rows))


def flips_table(decision: Decision) -> Table:
    """Return every number that changes the recommendation if it alone changes."""
    rows: list[tuple[Scalar, ...]] = []
    for flip in nearest_flips(decision, len(decision.flips)):
        side = "at least" if flip.flips_at > flip.value else "at most"
        rows.append(
            (
                flip.lever,
                stated(flip.value),
                side,
                number(flip.flips_at, 3),
                flip.unit or NONE,
                number(flip_factor(flip), 3),
                flip.verdict,
                flip.device or NONE,
            )
        )
    for one in decision.dropped:
        row = (f"without {one.need}", NONE, NONE, NONE, NONE, NONE, one.verdict)
        rows.append((*row, one.device or NONE))
    idle = ", ".join(decision.idle)
    if idle:
        rows.append((f"no change within a factor of {10**DECADES}: {idle}", *(NONE,) * 7))
    columns = ("number", "stated", "flips at", "value", "unit", "fold", "then", "device")
    return Table("What would change the recommendation", columns, tuple(rows))


def rule_table(decision: Decision) -> Table:
    """Return the rule, and the thresholds that it uses."""
    rows: list[tuple[Scalar, ...]] = list(enumerate(RULE, start=1))
    for name, value in decision.catalogue.thresholds.model_dump().items():
        rows.append((name, stated(value)))
    return Table(
        "The rule, and its thresholds", ("step or threshold", "text or value"), tuple(rows)
    )


def fits_table(decision: Decision) -> Table:
    """Return for every model and method the first machine that each length fits on."""
    cells = {(cell.model, cell.method, cell.sequence): cell for cell in decision.cells}
    rows = []
    for model in decision.catalogue.models:
        for method in METHODS:
            texts = [place(cells[model.name, method, sequence]) for sequence in SEQUENCES]
            rows.append((model.name, method, *texts))
    columns = ("model", "method", *(f"{number(sequence)} tokens" for sequence in SEQUENCES))
    title = "Where a training fits: this machine, or the GPU with the least memory"
    return Table(title, columns, tuple(rows))


def place(cell: Combination) -> str:
    """Return the first machine that a combination fits on, and the GiB that it needs there."""
    if not cell.fitting:
        return f"nowhere, {number(cell.estimates[-1].bytes / GIB, 3)} GiB"
    first = cell.fitting[0]
    return f"{first.machine}, {number(first.bytes / GIB, 3)} GiB"


def hours_table(decision: Decision) -> Table:
    """Return hours and price of a million tokens: here, rented, bought."""
    rows = []
    for cell in decision.cells:
        here = [one for one in cell.fitting if one.machine == decision.this.name]
        row: list[Scalar] = [cell.model, cell.method, cell.sequence]
        row.append(number(here[0].hours(TOKENS), 3) if here else NONE)
        for offer in (
            cheapest_rented(cell, decision.catalogue, TOKENS),
            cheapest_owned(cell, decision.catalogue, TOKENS),
        ):
            if offer is None:
                row += [NONE, NONE, NONE]
            else:
                hours = offer[0].hours(TOKENS)
                row += [offer[0].machine, number(hours, 2), number(offer[1], 2)]
        rows.append(tuple(row))
    currency = decision.catalogue.currency
    places = ("here, h", "rented", "h", currency, "bought", "h", currency)
    title = "Hours and price of training on a million tokens"
    return Table(title, ("model", "method", "tokens of a row", *places), tuple(rows))


def infeasible_table(decision: Decision) -> Table:
    """Return what fits on no machine: how much it needs, and the most that there is."""
    rows = []
    for cell in decision.nowhere:
        needed = cell.estimates[-1].bytes / GIB
        most = max(one.usable_bytes for one in cell.estimates) / GIB
        shown = [number(value, 3) for value in (needed, most, needed / most)]
        rows.append((cell.model, cell.method, number(cell.sequence), *shown))
    columns = ("model", "method", "tokens", "GiB needed", "GiB of the largest", "times")
    return Table("Not feasible on any single listed device", columns, tuple(rows))


def devices_table(decision: Decision) -> Table:
    """Return the devices and their prices."""
    rows: list[tuple[Scalar, ...]] = []
    for device in decision.catalogue.devices:
        price = decision.catalogue.prices.get(device.name)
        numbers = (device.memory_gib, device.bandwidth_gb_s, device.peak_tflops, device.watts)
        offers = (None, None) if price is None else (price.purchase, price.rent_hour)
        shown = [NONE if offer is None else stated(offer) for offer in offers]
        rows.append((device.name, str(device.year), *map(stated, numbers), *shown))
    currency = decision.catalogue.currency
    columns = ("device", "year", "GiB", "GB/s", "TFLOPS", "W", f"purchase, {currency}")
    title = "Devices and prices, as the user states them"
    return Table(title, (*columns, f"{currency} an hour"), tuple(rows))


def sources_table(decision: Decision) -> Table:
    """Return where devices, prices and assumptions are from, and of what date."""
    rows: list[tuple[Scalar, ...]] = []
    for device in decision.catalogue.devices:
        rows.append((device.name, "device", device.date.isoformat(), device.source))
        price = decision.catalogue.prices.get(device.name)
        if price is not None:
            rows.append((device.name, "price", price.date.isoformat(), price.source))
    electricity, assumptions = decision.catalogue.electricity, decision.catalogue.assumptions
    kwh = f"{stated(electricity.price_kwh)} {decision.catalogue.currency} per kWh"
    rows.append((kwh, "price", electricity.date.isoformat(), electricity.source))
    share = f"{stated(100 * assumptions.utilisation)} % of the peak"
    rows.append((share, "assumption", assumptions.date.isoformat(), assumptions.source))
    return Table("Sources", ("of", "kind", "date", "source"), tuple(rows))
