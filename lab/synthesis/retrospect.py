"""What was predicted and what held: the claims of a plan, scored on results. Pure.

The rule is that of docs/prd-format.md.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.present.numbers import number, quantity
from lab.result import ContractError, Measurement
from lab.synthesis import evidence

OUTCOMES = ("HELD", "MISSED", "INCONCLUSIVE")
ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Claim:
    """A prediction of a feature, as the plan states it."""

    feature: str
    id: str
    claim: str
    measurement: str
    comparator: str
    value: Any
    margin: str | None
    source: str


@dataclass(frozen=True)
class Scored:
    """A claim, how it fared (one of OUTCOMES), and the number that decided it, in words."""

    claim: Claim
    outcome: str
    met: str


def claims(plan: Mapping[str, Any], features: Iterable[str]) -> tuple[Claim, ...]:
    """Give the predictions of some features of a plan, in the plan's order.

    ContractError if a feature is not in it.
    """
    planned = {feature["id"]: feature for phase in plan["phases"] for feature in phase["features"]}
    wanted = list(features)
    missing = [name for name in wanted if name not in planned]
    if missing:
        msg = (
            f"the plan has no feature {missing[0]} (it has {', '.join(planned)}); name the right "
            "plan among the inputs"
        )
        raise ContractError(msg)
    return tuple(
        Claim(
            name,
            raw["id"],
            raw["claim"],
            raw["measurement"],
            raw["comparator"],
            raw["value"],
            raw.get("margin"),
            raw.get("source", ""),
        )
        for name in wanted
        for raw in planned[name].get("predictions", ())
    )


def score(claim: Claim, measured: Mapping[str, Measurement]) -> Scored:
    """Compare a claim with its feature's measurements; what cannot be compared is INCONCLUSIVE."""
    if claim.margin is not None and not _clearly_positive(measured.get(claim.margin)):
        told = quantity(measured[claim.margin]) if claim.margin in measured else "not there"
        return Scored(
            claim, "INCONCLUSIVE", f"{claim.margin} is {told}: the best does not clearly lead"
        )
    met = measured.get(claim.measurement)
    if met is None:
        return Scored(claim, "INCONCLUSIVE", f"there is no measurement {claim.measurement}")
    decided = _exactly(claim, met.value) if met.exact else _by_interval(claim, met)
    outcome = "INCONCLUSIVE" if decided is None else "HELD" if decided else "MISSED"
    return Scored(claim, outcome, f"{claim.measurement} is {quantity(met)}{_ends(met)}")


def _ends(met: Measurement) -> str:
    ends = None if met.exact else evidence.interval(met)
    return f", 95 % interval {number(ends[0])} to {number(ends[1])}" if ends else ""


def _clearly_positive(lead: Measurement | None) -> bool:
    """Say whether a lead's whole interval lies above 0; an exact one has none, decides nothing."""
    ends = None if lead is None else evidence.interval(_as_sample(lead))
    return ends is not None and ends[0] > 0


def _as_sample(met: Measurement) -> Measurement:
    return Measurement.of_estimate(met.value, met.unit, stderr=met.stderr, n=met.n)


def _exactly(claim: Claim, value: Any) -> bool | None:
    """True: as claimed; None: cannot be compared."""
    if claim.comparator in ("==", "!="):
        return None if value is None else _equal(value, claim.value) == (claim.comparator == "==")
    return _side(claim, value, value) if evidence.is_number(value) else None


def _equal(met: Any, wanted: Any) -> bool:
    if evidence.is_number(met) and evidence.is_number(wanted):
        both = isinstance(met, int) and isinstance(wanted, int)
        return bool(met == wanted) if both else math.isclose(met, wanted, rel_tol=1e-9)
    return type(met) is type(wanted) and bool(met == wanted)


def _by_interval(claim: Claim, met: Measurement) -> bool | None:
    ends = evidence.interval(met)
    return None if ends is None or claim.comparator in ("==", "!=") else _side(claim, *ends)


def _side(claim: Claim, low: float, high: float) -> bool | None:
    """True: the interval lies wholly on the claimed side; False: on the other; None: on both."""
    if claim.comparator == "within":
        first, last = claim.value
        inside, outside = first <= low and high <= last, high < first or low > last
        return inside if inside or outside else None
    order = ORDERS[claim.comparator]
    sides = {order(low, claim.value), order(high, claim.value)}
    return sides.pop() if len(sides) == 1 else None
