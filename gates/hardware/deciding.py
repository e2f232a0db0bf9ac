"""The hardware decision again: estimates, combinations, options, verdict and flips.

`Facts` is all that decides: plain numbers from the stored files. The verdict is a function of it,
and a flip is looked for by changing one of its numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

from gates.hardware import stated
from gates.hardware.stated import HERE, METHODS
from gates.shared import closed_form
from gates.shared.closed_form import Step

GIB = 2**30
LENGTHS = (512, 2048, 8192)
UNSCALED = " (0: not tried)"  # a lever that is 0 has no multiples
GRID, DECADES = 20, 2  # points of a decade of factors, decades to both sides
Facts = dict[str, Any]


def facts() -> Facts:
    """Return everything that the verdict rests on, as numbers by name.

    cost: need → machine → {"bytes", "usable", "spt"}, spt being seconds per token.
    """
    prices, needs = stated.document("prices.yaml"), stated.document("needs.yaml")
    devices = {device["name"]: device for device in stated.document("devices.yaml")["devices"]}
    models = {model["name"]: model for model in stated.document("models.yaml")["models"]}
    assumptions = needs["assumptions"]
    cost: dict[str, Any] = {}
    for need in needs["needs"]:
        sizes = _sizes(models[need["model"]])
        training = (need["method"], need["batch"], need["sequence"], assumptions["rank"])
        cost[need["name"]] = _costs(sizes, training, devices, assumptions)
    return {
        "needs": needs["needs"],
        "thresholds": needs["thresholds"],
        "assumptions": assumptions,
        "devices": devices,
        "models": models,
        "prices": {price["device"]: price for price in prices["prices"]},
        "electricity": prices["electricity"],
        "currency": prices["currency"],
        "cost": cost,
    }


def _sizes(model: dict[str, Any]) -> closed_form.Sizes:
    return closed_form.sizes_of(model["config"], model["parameters"])


def _costs(
    sizes: closed_form.Sizes,
    training: tuple[str, int, int, int],
    devices: dict[str, Any],
    assumptions: dict[str, Any],
) -> dict[str, dict[str, float]]:
    """Return what a training takes here, and then on each device, the least memory first."""
    free = 1 - assumptions["reserve_share"]
    here = stated.machine()
    step = Step(*training, on_gpu=False)
    seconds = closed_form.step_seconds(sizes, step, here["rates"], here["time_fit"])
    rows = {
        HERE: {
            "bytes": closed_form.step_bytes(sizes, step, here["memory_fit"]),
            "usable": here["memory_bytes"] * free,
            "spt": seconds / step.tokens,
        }
    }
    step = Step(*training, on_gpu=True)
    needed = closed_form.step_bytes(sizes, step, closed_form.NO_SLACK)
    for name, device in sorted(devices.items(), key=lambda item: item[1]["memory_gib"]):
        rates = closed_form.datasheet_rates(
            device["peak_tflops"] * 1e12,
            device["bandwidth_gb_s"] * 1e9,
            assumptions["utilisation"],
        )
        seconds = closed_form.step_seconds(sizes, step, rates, closed_form.UNFITTED)
        usable = device["memory_gib"] * GIB * free
        rows[name] = {"bytes": needed, "usable": usable, "spt": seconds / step.tokens}
    return rows


def cells(known: Facts) -> list[dict[str, Any]]:
    """Return every model by method by length with its costs on every machine."""
    rows = []
    for name, model in known["models"].items():
        sizes = _sizes(model)
        for method in METHODS:
            for length in LENGTHS:
                training = (method, 1, length, known["assumptions"]["rank"])
                costs = _costs(sizes, training, known["devices"], known["assumptions"])
                fitting = [machine for machine, cost in costs.items() if fits(cost)]
                rows.append(
                    {
                        "model": name,
                        "method": method,
                        "length": length,
                        "cost": costs,
                        "fitting": fitting,
                    }
                )
    return rows


def fits(cost: dict[str, float]) -> bool:
    """Return whether a training is within the usable memory."""
    return cost["bytes"] <= cost["usable"]


def run_hours(known: Facts, need: dict[str, Any], machine: str) -> float:
    """Return the hours of one run of a need."""
    return float(need["tokens_per_run"] * known["cost"][need["name"]][machine]["spt"] / 3600)


def can(known: Facts, need: dict[str, Any], machine: str) -> bool:
    """Return whether a machine holds a need and is fast enough."""
    is_fast = run_hours(known, need, machine) <= need["hours_per_run"]
    return is_fast and fits(known["cost"][need["name"]][machine])


def filled(
    known: Facts, needs: list[dict[str, Any]], machine: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what a machine takes on, in order, within its hours of a month; and the rest."""
    taken: list[dict[str, Any]] = []
    spent = 0.0
    for need in needs:
        hours = need["runs_per_month"] * run_hours(known, need, machine)
        if can(known, need, machine) and spent + hours <= known["thresholds"]["hours_per_month"]:
            taken.append(need)
            spent += hours
    return taken, [need for need in needs if need not in taken]


def rent_of(known: Facts, need: dict[str, Any]) -> dict[str, Any] | None:
    """Return the device on which a run of a need is rented for least, with hours and price."""
    best = None
    for name, price in known["prices"].items():
        if price.get("rent_hour") is None or not can(known, need, name):
            continue
        hours = run_hours(known, need, name)
        amount = (hours + known["thresholds"]["rented_hours_extra"]) * price["rent_hour"]
        if best is None or amount < best["price"]:
            best = {"device": name, "hours": hours, "price": amount}
    return best


def option(known: Facts, rest: list[dict[str, Any]], device: str) -> dict[str, Any]:
    """Return an option: "" rents everything, a device's name buys it and rents what it leaves."""
    limits = known["thresholds"]
    own: list[dict[str, Any]] = []
    others, price, watts = rest, 0.0, 0.0
    if device:
        own, others = filled(known, rest, device)
        price = known["prices"][device]["purchase"] + limits["host_price"]
        watts = known["devices"][device]["watts"]
    hours = sum(need["runs_per_month"] * run_hours(known, need, device) for need in own)
    rented, unmet, rent = [], [], 0.0
    for need in others:
        offer = rent_of(known, need)
        if offer is None:
            unmet.append(need["name"])
        else:
            rented.append((need["name"], offer["device"]))
            rent += need["runs_per_month"] * offer["price"]
    power = hours * watts / 1000 * known["electricity"]["price_kwh"]
    is_within = price <= limits["purchase_budget"] and rent <= limits["rent_budget"]
    return {
        "device": device,
        "own": [need["name"] for need in own],
        "rented": rented,
        "unmet": unmet,
        "purchase": price,
        "power": power,
        "rent": rent,
        "total": price + limits["months"] * (power + rent),
        "allowed": is_within and not unmet,
    }


def verdict(known: Facts) -> dict[str, Any]:
    """Return the verdict by the report's rule, with all options; `answer` is what flips."""
    taken, rest = filled(known, known["needs"], HERE)
    met = [need["name"] for need in taken]
    if not rest:
        return {"answer": ("stay", ""), "met": met, "options": []}
    rent_all = option(known, rest, "")
    bought = [option(known, rest, device) for device in shop(known)]
    bought = [one for one in bought if one["own"]]
    allowed = sorted((one for one in bought if one["allowed"]), key=lambda one: one["total"])
    answer = ("change the needs", "")
    if allowed:
        answer = ("upgrade", allowed[0]["device"])
    if rent_all["allowed"]:
        limit = rent_all["total"] * (1 - known["thresholds"]["upgrade_saving"])
        if not allowed or allowed[0]["total"] > limit:
            answer = ("burst to the cloud", "")
    return {"answer": answer, "met": met, "options": [rent_all, *bought]}


def shop(known: Facts) -> list[str]:
    """Return what can be bought, the cheapest first."""
    rows = [price for price in known["prices"].values() if price.get("purchase") is not None]
    return [price["device"] for price in sorted(rows, key=lambda price: price["purchase"])]


def path(known: Facts) -> list[tuple[str, float, list[str]]]:
    """Return the upgrade path: device, purchase with host, all needs that are then met."""
    taken, rest = filled(known, known["needs"], HERE)
    own = [need["name"] for need in taken]
    steps, reached = [(HERE, 0.0, own)], set(own)
    for device in shop(known):
        more = [need["name"] for need in filled(known, rest, device)[0]]
        if set(more) - reached:
            price = known["prices"][device]["purchase"] + known["thresholds"]["host_price"]
            steps.append((device, price, own + more))
            reached |= set(more)
    return steps


# What would change it


def flips(known: Facts, answer: tuple[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the flips of every lever, and the levers that have none."""
    found, idle = [], []
    for name, unit, value, largest, change in levers(known):
        own = []
        for direction in (1, -1):
            flip = _flip(known, answer, (value, largest, change), direction)
            if flip is not None:
                own.append({"lever": name, "unit": unit, "value": value, **flip})
        found += own
        if not own:
            idle.append(name if value else name + UNSCALED)
    return found, idle


def without(known: Facts, answer: tuple[str, str]) -> list[tuple[str, str, str]]:
    """Return (need, verdict, device) of the needs without which the answer is another one."""
    rows = []
    for need in known["needs"]:
        others = [one for one in known["needs"] if one is not need]
        other = verdict(known | {"needs": others})["answer"]
        if other != answer:
            rows.append((need["name"], *other))
    return rows


Change = Callable[[Facts, float], None]
Lever = tuple[str, str, float, float, Change]  # name, unit, value, largest value, what sets it


def levers(known: Facts) -> Iterator[Lever]:
    """Yield the numbers that are changed, each alone."""
    currency, infinite = known["currency"], math.inf
    for field, name, unit, largest in (
        ("months", "months that the needs last", "months", infinite),
        ("purchase_budget", "budget to buy", currency, infinite),
        ("rent_budget", "budget to rent", f"{currency} a month", infinite),
        ("hours_per_month", "hours that a machine trains", "h a month", 744.0),
        ("upgrade_saving", "share that a purchase must save", "", 0.999),
        ("host_price", "price of a card's host", currency, infinite),
        ("rented_hours_extra", "hours around a rented run", "h", infinite),
    ):
        value = known["thresholds"][field]
        yield name, unit, value, largest, _setter("thresholds", field)
    reserve = known["assumptions"]["reserve_share"]
    yield "share of memory kept free", "", reserve, 0.999, _keep_free
    yield "all rents", "times", 1.0, infinite, _multiplier("prices", "rent_hour")
    yield "all purchase prices", "times", 1.0, infinite, _multiplier("prices", "purchase")
    yield "speed of this machine", "times", 1.0, infinite, _speed(is_here=True)
    yield "speed of all GPUs", "times", 1.0, infinite, _speed(is_here=False)
    yield "memory of this machine", "times", 1.0, infinite, _larger
    yield "runs of all needs", "times", 1.0, infinite, _more_runs
    for index, need in enumerate(known["needs"]):
        for field, name, unit in (
            ("tokens_per_run", "tokens per run", "tokens"),
            ("runs_per_month", "runs", "a month"),
            ("hours_per_run", "longest wait", "h"),
        ):
            label = f'{name} of "{need["name"]}"'
            yield label, unit, need[field], infinite, _setter("needs", field, index)


def _setter(part: str, field: str, index: int | None = None) -> Change:
    def change(changed: Facts, value: float) -> None:
        row = changed[part] if index is None else changed[part][index]
        row[field] = value

    return change


def _multiplier(part: str, field: str) -> Change:
    def change(changed: Facts, factor: float) -> None:
        for row in changed[part].values():
            if row.get(field) is not None:
                row[field] = factor * row[field]

    return change


def _speed(*, is_here: bool) -> Change:
    def change(changed: Facts, factor: float) -> None:
        for costs in changed["cost"].values():
            for machine, cost in costs.items():
                if (machine == HERE) == is_here:
                    cost["spt"] /= factor

    return change


def _keep_free(changed: Facts, share: float) -> None:
    before = changed["assumptions"]["reserve_share"]
    for costs in changed["cost"].values():
        for cost in costs.values():
            cost["usable"] *= (1 - share) / (1 - before)


def _larger(changed: Facts, factor: float) -> None:
    for costs in changed["cost"].values():
        costs[HERE]["usable"] *= factor


def _more_runs(changed: Facts, factor: float) -> None:
    for need in changed["needs"]:
        need["runs_per_month"] *= factor


def _flip(
    known: Facts, answer: tuple[str, str], lever: tuple[float, float, Change], direction: int
) -> dict[str, Any] | None:
    """Return where the answer first changes on the grid of factors, to 15 digits, and to what."""
    value, largest, change = lever
    if value == 0:
        return None

    def answer_at(power: float) -> tuple[str, str]:
        changed = {name: part for name, part in known.items() if name not in DECIDING}
        changed |= copy.deepcopy({name: known[name] for name in DECIDING})
        change(changed, value * 10**power)
        other: tuple[str, str] = verdict(changed)["answer"]
        return other

    same = 0.0
    for index in range(1, GRID * DECADES + 1):
        other = direction * index / GRID
        if value * 10**other > largest:
            return None
        if answer_at(other) != answer:
            break
        same = other
    else:
        return None
    for _ in range(48):
        middle = (same + other) / 2
        if answer_at(middle) == answer:
            same = middle
        else:
            other = middle
    then, device = answer_at(other)
    return {"at": value * 10**other, "then": then, "device": device}


DECIDING = ("needs", "thresholds", "assumptions", "prices", "cost")
