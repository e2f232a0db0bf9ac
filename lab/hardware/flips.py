"""What would change a recommendation: for each number that it rests on, where the answer flips.

A number is multiplied by growing and by shrinking factors until the answer is another one, and the
place is found by bisection. The answer jumps between places, so the nearest jump on the grid of
factors is found, not one between two grid points that jumps back. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from lab.hardware.catalogue import Catalogue, Need
from lab.hardware.recommendation import Estimates, Recommendation, recommend

STEPS_PER_DECADE = 20  # grid points of factors between 1 and 10
DECADES = 2  # factors up to 100, and down to 1/100
BISECTIONS = 50
SHARE_LIMIT = 0.999  # the largest share that can be asked for
HOURS_LIMIT = 744.0  # of a month
UNSCALED = " (0: not tried)"


@dataclass(frozen=True)
class Lever:
    """A number of the user's: its name, its value, its unit, and the answer's inputs with another.

    changed(value) returns catalogue and estimates with that value; largest: the greatest value that
    makes sense.
    """

    name: str
    value: float
    unit: str
    changed: Callable[[float], tuple[Catalogue, Estimates]]
    largest: float = math.inf


@dataclass(frozen=True)
class Flip:
    """A value of a lever from which on the answer is another one.

    value: the lever's own; flips_at: where the answer changes, above or below it.
    """

    lever: str
    unit: str
    value: float
    flips_at: float
    verdict: str
    device: str


@dataclass(frozen=True)
class Dropped:
    """A need without which the answer is another one."""

    need: str
    verdict: str
    device: str


def flips(
    catalogue: Catalogue, estimates: Estimates, here: str, current: Recommendation
) -> tuple[tuple[Flip, ...], tuple[str, ...]]:
    """Return the flips, and the names of the levers that change nothing on the whole grid.

    Of a lever that is 0 nothing is known: its name ends in UNSCALED.
    """
    found: list[Flip] = []
    idle = []
    for lever in levers(catalogue, estimates, here):
        own = [
            flip
            for direction in (1, -1)
            if (flip := _flip(lever, here, current, direction)) is not None
        ]
        found += own
        if not own:
            idle.append(lever.name if lever.value else lever.name + UNSCALED)
    return tuple(found), tuple(idle)


def dropped(
    catalogue: Catalogue, estimates: Estimates, here: str, current: Recommendation
) -> tuple[Dropped, ...]:
    """Return the needs without which the answer would be another one."""
    changes = []
    for need in catalogue.needs:
        others = tuple(one for one in catalogue.needs if one is not need)
        other = recommend(replace(catalogue, needs=others), estimates, here)
        if other.answer != current.answer:
            changes.append(Dropped(need.name, other.verdict, other.device))
    return tuple(changes)


def levers(catalogue: Catalogue, estimates: Estimates, here: str) -> Iterator[Lever]:
    """Yield every number that the user states and that the answer may rest on."""
    yield from _threshold_levers(catalogue, estimates)
    yield _reserve_lever(catalogue, estimates)
    yield from _price_levers(catalogue, estimates)
    yield from _speed_levers(catalogue, estimates, here)
    yield _memory_lever(catalogue, estimates, here)
    yield _runs_lever(catalogue, estimates)
    for need in catalogue.needs:
        yield from _need_levers(catalogue, estimates, need)


def _threshold_levers(catalogue: Catalogue, estimates: Estimates) -> Iterator[Lever]:
    thresholds = catalogue.thresholds
    money = catalogue.currency
    for field, name, unit, largest in (
        ("months", "months that the needs last", "months", math.inf),
        ("purchase_budget", "budget to buy", money, math.inf),
        ("rent_budget", "budget to rent", f"{money} a month", math.inf),
        ("hours_per_month", "hours that a machine trains", "h a month", HOURS_LIMIT),
        ("upgrade_saving", "share that a purchase must save", "", SHARE_LIMIT),
        ("host_price", "price of a card's host", money, math.inf),
        ("rented_hours_extra", "hours around a rented run", "h", math.inf),
    ):

        def changed(value: float, field: str = field) -> tuple[Catalogue, Estimates]:
            other = thresholds.model_copy(update={field: value})
            return replace(catalogue, thresholds=other), estimates

        yield Lever(name, getattr(thresholds, field), unit, changed, largest)


def _reserve_lever(catalogue: Catalogue, estimates: Estimates) -> Lever:
    stated = catalogue.assumptions.reserve_share

    def changed(value: float) -> tuple[Catalogue, Estimates]:
        other = {}
        for key, one in estimates.items():
            usable = one.usable_bytes / (1 - stated) * (1 - value)
            other[key] = replace(one, usable_bytes=usable)
        return catalogue, other

    return Lever("share of memory kept free", stated, "", changed, SHARE_LIMIT)


def _memory_lever(catalogue: Catalogue, estimates: Estimates, here: str) -> Lever:
    def changed(factor: float) -> tuple[Catalogue, Estimates]:
        other = dict(estimates)
        for key, one in estimates.items():
            if key[1] == here:
                other[key] = replace(one, usable_bytes=factor * one.usable_bytes)
        return catalogue, other

    return Lever("memory of this machine", 1.0, "times", changed)


def _price_levers(catalogue: Catalogue, estimates: Estimates) -> Iterator[Lever]:
    for field, name in (("rent_hour", "all rents"), ("purchase", "all purchase prices")):

        def changed(factor: float, field: str = field) -> tuple[Catalogue, Estimates]:
            prices = {}
            for device, price in catalogue.prices.items():
                value = getattr(price, field)
                if value is not None:
                    price = price.model_copy(update={field: factor * value})  # noqa: PLW2901
                prices[device] = price
            return replace(catalogue, prices=prices), estimates

        yield Lever(name, 1.0, "times", changed)


def _speed_levers(catalogue: Catalogue, estimates: Estimates, here: str) -> Iterator[Lever]:
    for name, is_here in (("speed of this machine", True), ("speed of all GPUs", False)):

        def changed(factor: float, is_here: bool = is_here) -> tuple[Catalogue, Estimates]:  # noqa: FBT001 - bound here
            other = {}
            for key, one in estimates.items():
                if (key[1] == here) == is_here:
                    one = replace(one, seconds_per_token=one.seconds_per_token / factor)  # noqa: PLW2901
                other[key] = one
            return catalogue, other

        yield Lever(name, 1.0, "times", changed)


def _runs_lever(catalogue: Catalogue, estimates: Estimates) -> Lever:
    def changed(factor: float) -> tuple[Catalogue, Estimates]:
        needs = tuple(
            need.model_copy(update={"runs_per_month": factor * need.runs_per_month})
            for need in catalogue.needs
        )
        return replace(catalogue, needs=needs), estimates

    return Lever("runs of all needs", 1.0, "times", changed)


def _need_levers(catalogue: Catalogue, estimates: Estimates, need: Need) -> Iterator[Lever]:
    for field, name, unit in (
        ("tokens_per_run", "tokens per run", "tokens"),
        ("runs_per_month", "runs", "a month"),
        ("hours_per_run", "longest wait", "h"),
    ):

        def changed(value: float, field: str = field) -> tuple[Catalogue, Estimates]:
            needs = []
            for one in catalogue.needs:
                if one.name == need.name:
                    one = one.model_copy(update={field: value})  # noqa: PLW2901
                needs.append(one)
            return replace(catalogue, needs=tuple(needs)), estimates

        yield Lever(f'{name} of "{need.name}"', getattr(need, field), unit, changed)


def _flip(lever: Lever, here: str, current: Recommendation, direction: int) -> Flip | None:
    """Return the first change of the answer above (direction 1) or below (-1) a lever's value."""
    if lever.value == 0:
        return None

    def answer(factor: float) -> Recommendation:
        return recommend(*lever.changed(lever.value * factor), here)

    # 1. The first grid point with another answer.
    same = other = 1.0
    for step in range(1, STEPS_PER_DECADE * DECADES + 1):
        other = 10 ** (direction * step / STEPS_PER_DECADE)
        if lever.value * other > lever.largest:
            return None
        if answer(other).answer != current.answer:
            break
        same = other
    else:
        return None

    # 2. The place between it and the one before.
    for _ in range(BISECTIONS):
        middle = math.sqrt(same * other)
        if answer(middle).answer == current.answer:
            same = middle
        else:
            other = middle
    changed = answer(other)
    return Flip(
        lever=lever.name,
        unit=lever.unit,
        value=lever.value,
        flips_at=lever.value * other,
        verdict=changed.verdict,
        device=changed.device,
    )
