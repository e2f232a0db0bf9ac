"""Stay, upgrade or burst: computed from stated needs, thresholds and prices. Pure.

The rule:

1. A need is met by a machine if it fits and a run takes no longer than the user would wait. Needs
   are taken in their order until the machine's hours of a month are spent.
2. If this machine meets every need: stay.
3. Else the rest is rented, each need where a run costs least; or a card is bought that meets at
   least one need of the rest, and what it does not meet is rented.
4. An option is allowed if it leaves no need unmet and is within both budgets.
5. If renting everything is allowed: burst, unless the cheapest allowed purchase saves at least
   `upgrade_saving` of it over all months. If it is not: the cheapest allowed purchase. If nothing
   is allowed: change the needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from lab.hardware.catalogue import Catalogue, Need
from lab.hardware.feasibility import (
    Estimate,
    Machine,
    Workload,
    estimate,
    power_hour,
    rent_per_run,
)

Estimates = Mapping[tuple[str, str], Estimate]  # (need, machine) → estimate


class Verdict(StrEnum):
    """What the recommendation can be."""

    STAY = "stay"
    UPGRADE = "upgrade"
    BURST = "burst to the cloud"
    CHANGE = "change the needs"


@dataclass(frozen=True)
class Rented:
    """A need that is rented: on which device, hours of training and price of a run, per month."""

    need: str
    device: str
    hours: float
    per_run: float
    per_month: float


@dataclass(frozen=True)
class Option:
    """Something that can be done about the needs that this machine does not meet.

    device: what is bought, "" for renting everything; bought, unmet: names of the needs that the
    card meets, and of those that nothing does; purchase: with the host; power, rent: per month;
    total: over all months.
    """

    device: str
    bought: tuple[str, ...]
    rented: tuple[Rented, ...]
    unmet: tuple[str, ...]
    purchase: float
    power: float
    total: float
    is_allowed: bool

    @property
    def rent(self) -> float:
        """Return the rent of a month."""
        return sum(need.per_month for need in self.rented)


@dataclass(frozen=True)
class Recommendation:
    """The verdict, what is bought for it, and all that was compared.

    met_here: names of the needs that this machine meets; options: renting everything comes first,
    none where this machine meets all.
    """

    verdict: Verdict
    device: str
    met_here: tuple[str, ...]
    options: tuple[Option, ...]

    @property
    def chosen(self) -> Option | None:
        """Return the option of the verdict; None for "stay" and "change the needs"."""
        if self.verdict in (Verdict.STAY, Verdict.CHANGE):
            return None
        return next(option for option in self.options if option.device == self.device)

    @property
    def answer(self) -> tuple[Verdict, str]:
        """Return what a flip changes."""
        return self.verdict, self.device


@dataclass(frozen=True)
class Step:
    """A step of the upgrade path: a card, its purchase with the host, and the needs it meets."""

    device: str
    purchase: float
    met: tuple[str, ...]


def need_estimates(catalogue: Catalogue, machines: Sequence[Machine]) -> Estimates:
    """Return the estimate of each need on each machine."""
    assumptions = catalogue.assumptions
    estimates = {}
    for need in catalogue.needs:
        model = catalogue.model(need.model)
        assert model is not None, need.model
        workload = Workload(model.shape, need.method, need.sequence, need.batch, assumptions.rank)
        for machine in machines:
            one = estimate(machine, workload, assumptions.reserve_share)
            estimates[need.name, machine.name] = one
    return estimates


def recommend(catalogue: Catalogue, estimates: Estimates, here: str) -> Recommendation:
    """Return the recommendation by the rule at the top; `here` names this machine."""
    # 1. and 2. What this machine does.
    met_here, rest = assign(catalogue.needs, estimates, here, catalogue.thresholds.hours_per_month)
    names = tuple(need.name for need in met_here)
    if not rest:
        return Recommendation(Verdict.STAY, "", names, ())

    # 3. and 4. What can be done about the rest.
    rent_all = _option(catalogue, estimates, rest, "")
    purchases = []
    for device in purchasable(catalogue):
        option = _option(catalogue, estimates, rest, device)
        if option.bought:
            purchases.append(option)
    options = (rent_all, *purchases)

    # 5. The choice.
    allowed = [option for option in purchases if option.is_allowed]
    best = min(allowed, key=lambda option: option.total, default=None)
    limit = (1 - catalogue.thresholds.upgrade_saving) * rent_all.total
    if rent_all.is_allowed and (best is None or best.total > limit):
        return Recommendation(Verdict.BURST, "", names, options)
    if best is None:
        return Recommendation(Verdict.CHANGE, "", names, options)
    return Recommendation(Verdict.UPGRADE, best.device, names, options)


def is_met(need: Need, one: Estimate) -> bool:
    """Return whether a need fits on a machine and a run is over in time."""
    return one.fits and one.hours(need.tokens_per_run) <= need.hours_per_run


def assign(
    needs: Iterable[Need], estimates: Estimates, machine: str, hours_per_month: float
) -> tuple[tuple[Need, ...], tuple[Need, ...]]:
    """Return the needs that a machine meets within its hours of a month, and the others."""
    met, others = [], []
    left = hours_per_month
    for need in needs:
        one = estimates[need.name, machine]
        hours = need.runs_per_month * one.hours(need.tokens_per_run)
        if is_met(need, one) and hours <= left:
            met.append(need)
            left -= hours
        else:
            others.append(need)
    return tuple(met), tuple(others)


def purchasable(catalogue: Catalogue) -> tuple[str, ...]:
    """Return the devices that can be bought, the cheapest first."""
    offers = [price for price in catalogue.prices.values() if price.purchase is not None]
    return tuple(price.device for price in sorted(offers, key=lambda price: price.purchase or 0.0))


def cheapest_rent(catalogue: Catalogue, estimates: Estimates, need: Need) -> Rented | None:
    """Return where a run of a need is rented for least, None where nothing that is rented meets it.

    The hours around the training are paid for, and are no part of the time that the user waits.
    """
    offers = []
    for price in catalogue.prices.values():
        one = estimates[need.name, price.device]
        if price.rent_hour is None or not is_met(need, one):
            continue
        hours = one.hours(need.tokens_per_run)
        extra = catalogue.thresholds.rented_hours_extra
        per_run = rent_per_run(hours, extra, price.rent_hour)
        per_month = per_run * need.runs_per_month
        offers.append(Rented(need.name, price.device, hours, per_run, per_month))
    return min(offers, key=lambda offer: offer.per_run, default=None)


def upgrade_path(catalogue: Catalogue, estimates: Estimates, here: str) -> tuple[Step, ...]:
    """Return the cards to buy in order of price, each of which meets a need that none before does.

    The first step is this machine; a step's needs are those that this machine or the card meets.
    """
    hours = catalogue.thresholds.hours_per_month
    met, rest = assign(catalogue.needs, estimates, here, hours)
    own = tuple(need.name for need in met)
    steps = [Step(here, 0.0, own)]
    reached = set(own)
    for device in purchasable(catalogue):
        bought, _ = assign(rest, estimates, device, hours)
        names = (*own, *(need.name for need in bought))
        if not set(names) <= reached:
            steps.append(Step(device, _purchase(catalogue, device), names))
            reached |= set(names)
    return tuple(steps)


def _option(
    catalogue: Catalogue, estimates: Estimates, rest: Sequence[Need], device: str
) -> Option:
    """Return what it costs to buy a device ("" for none) and to rent what it does not meet."""
    thresholds = catalogue.thresholds
    # 1. What is bought: the card, its host, and the electricity of its hours.
    bought: tuple[Need, ...] = ()
    others = tuple(rest)
    purchase = power = 0.0
    if device:
        bought, others = assign(rest, estimates, device, thresholds.hours_per_month)
        purchase = _purchase(catalogue, device)
        card = next(one for one in catalogue.devices if one.name == device)
        for need in bought:
            hours = need.runs_per_month * estimates[need.name, device].hours(need.tokens_per_run)
            power += hours * power_hour(card, catalogue)

    # 2. What is rented.
    rented, unmet = [], []
    for need in others:
        offer = cheapest_rent(catalogue, estimates, need)
        if offer is None:
            unmet.append(need.name)
        else:
            rented.append(offer)

    # 3. Over all months, and within the budgets.
    rent = sum(offer.per_month for offer in rented)
    within = purchase <= thresholds.purchase_budget and rent <= thresholds.rent_budget
    return Option(
        device=device,
        bought=tuple(need.name for need in bought),
        rented=tuple(rented),
        unmet=tuple(unmet),
        purchase=purchase,
        power=power,
        total=purchase + thresholds.months * (power + rent),
        is_allowed=within and not unmet,
    )


def _purchase(catalogue: Catalogue, device: str) -> float:
    price = catalogue.prices[device].purchase
    assert price is not None, device
    return price + catalogue.thresholds.host_price
