"""The decision's tables and figures, from what `deciding` computed."""

from __future__ import annotations

import math
from typing import Any

from gates.hardware.deciding import DECADES, GIB, LENGTHS, Facts, rent_of, run_hours
from gates.hardware.decision_words import by_size, fold, plain
from gates.hardware.stated import HERE, METHODS, THRESHOLDS
from gates.shared.documents import written

NONE = "-"
HOURS_PER_TOKEN = 1e6 / 3600  # seconds per token → hours of a million tokens
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
Rows = list[list[Any]]


def tables(
    known: Facts,
    decided: dict[str, Any],
    path: list[tuple[str, float, list[str]]],
    cells: list[dict[str, Any]],
    changes: tuple[list[dict[str, Any]], list[str], list[tuple[str, str, str]]],
) -> dict[str, tuple[list[str], Rows]]:
    """Return title → (columns, rows) of all tables, in their order."""
    money, months = known["currency"], plain(known["thresholds"]["months"])
    lengths = [f"{length:,} tokens" for length in LENGTHS]
    return {
        "The needs, here and rented": (
            [
                *("need", "training", "tokens of a run", "runs a month", "longest wait, h"),
                *("here, GiB", "here, h", "met here", "rented for least", "h", f"{money} a run"),
            ],
            _needs(known, decided),
        ),
        "What each option costs": (
            [
                *("option", "the card meets", "rented", f"purchase, {money}"),
                *(f"electricity, {money} a month", f"rent, {money} a month"),
                *(f"{months} months, {money}", "allowed", "recommended"),
            ],
            _options(decided),
        ),
        "The upgrade path": (
            ["device", f"purchase with host, {money}", "needs met", "needs met first by it"],
            _path(known, path),
        ),
        "What would change the recommendation": (
            ["number", "stated", "flips at", "value", "unit", "fold", "then", "device"],
            _flips(*changes),
        ),
        "The rule, and its thresholds": (
            ["step or threshold", "text or value"],
            [
                *([step, text] for step, text in enumerate(RULE, 1)),
                *([name, plain(known["thresholds"][name])] for name in THRESHOLDS),
            ],
        ),
        "Where a training fits: this machine, or the GPU with the least memory": (
            ["model", "method", *lengths],
            _places(known, cells),
        ),
        "Hours and price of training on a million tokens": (
            [
                *("model", "method", "tokens of a row", "here, h"),
                *("rented", "h", money, "bought", "h", money),
            ],
            _hours(known, cells),
        ),
        "Not feasible on any single listed device": (
            ["model", "method", "tokens", "GiB needed", "GiB of the largest", "times"],
            _nowhere(cells),
        ),
        "Devices and prices, as the user states them": (
            [
                *("device", "year", "GiB", "GB/s", "TFLOPS", "W"),
                *(f"purchase, {money}", f"{money} an hour"),
            ],
            _devices(known),
        ),
        "Sources": (["of", "kind", "date", "source"], _sources(known)),
    }


def money(value: float) -> str:
    """Return an amount with two decimals."""
    return f"{value:,.2f}"


def _needs(known: Facts, decided: dict[str, Any]) -> Rows:
    rows = []
    for need in known["needs"]:
        offer = rent_of(known, need)
        rented: list[Any] = [NONE, NONE, NONE]
        if offer is not None:
            rented = [offer["device"], written(offer["hours"], 2), money(offer["price"])]
        size = f"{need['batch']:,} × {need['sequence']:,}"
        row = [need["name"], f"{need['model']}, {need['method']}, {size}"]
        row += [plain(need[field]) for field in ("tokens_per_run", "runs_per_month")]
        here = known["cost"][need["name"]][HERE]["bytes"] / GIB
        row += [plain(need["hours_per_run"]), written(float(here))]
        row += [written(run_hours(known, need, HERE)), need["name"] in decided["met"], *rented]
        rows.append(row)
    return rows


def _options(decided: dict[str, Any]) -> Rows:
    if not decided["options"]:
        return [["stay", NONE, NONE, *[money(0.0)] * 4, True, True]]
    word, device = decided["answer"]
    rows = []
    for one in decided["options"]:
        rented = [f"{need} ({where})" for need, where in one["rented"]]
        rented += [f"{need} (nowhere)" for need in one["unmet"]]
        row: list[Any] = [f"buy {one['device']}" if one["device"] else "rent everything"]
        row += [", ".join(one["own"]) or NONE, ", ".join(rented) or NONE]
        row += [money(one[field]) for field in ("purchase", "power", "rent", "total")]
        is_chosen = word != "change the needs" and one["device"] == device
        rows.append([*row, one["allowed"], is_chosen])
    return rows


def _path(known: Facts, path: list[tuple[str, float, list[str]]]) -> Rows:
    rows: Rows = []
    before: list[str] = []
    for device, price, met in path:
        new = [name for name in met if name not in before]
        rows.append([device, money(price), len(met), ", ".join(new) or NONE])
        before += new
    left = [need["name"] for need in known["needs"] if need["name"] not in before]
    if left:
        rows.append(["no card that can be bought", NONE, NONE, ", ".join(left)])
    return rows


def _flips(
    flips: list[dict[str, Any]], idle: list[str], dropped: list[tuple[str, str, str]]
) -> Rows:
    rows: Rows = []
    for flip in by_size(flips):
        side = "at least" if flip["at"] > flip["value"] else "at most"
        row: list[Any] = [flip["lever"], plain(flip["value"]), side, written(float(flip["at"]))]
        row += [flip["unit"] or NONE, written(fold(flip)), flip["then"], flip["device"] or NONE]
        rows.append(row)
    for need, word, device in dropped:
        rows.append([f"without {need}", *[NONE] * 5, word, device or NONE])
    if idle:
        rows.append([f"no change within a factor of {10**DECADES}: {', '.join(idle)}", *[NONE] * 7])
    return rows


def _places(known: Facts, cells: list[dict[str, Any]]) -> Rows:
    rows: Rows = []
    for model in known["models"]:
        for method in METHODS:
            row = [model, method]
            for cell in cells:
                if (cell["model"], cell["method"]) == (model, method):
                    row.append(_place(cell))
            rows.append(row)
    return rows


def _place(cell: dict[str, Any]) -> str:
    where, machine = "nowhere", list(cell["cost"])[-1]
    if cell["fitting"]:
        where = machine = cell["fitting"][0]
    return f"{where}, {written(float(cell['cost'][machine]['bytes'] / GIB))} GiB"


def _hours(known: Facts, cells: list[dict[str, Any]]) -> Rows:
    limits, kwh = known["thresholds"], known["electricity"]["price_kwh"]
    rows: Rows = []
    for cell in cells:
        rented, bought = [], []
        for machine in cell["fitting"]:
            price = known["prices"].get(machine, {})
            hours = cell["cost"][machine]["spt"] * HOURS_PER_TOKEN
            if price.get("rent_hour") is not None:
                rented.append((hours * price["rent_hour"], machine, hours))
            if price.get("purchase") is not None:
                total = limits["months"] * limits["hours_per_month"]
                hour = (price["purchase"] + limits["host_price"]) / total
                hour += known["devices"][machine]["watts"] / 1000 * kwh
                bought.append((hours * hour, machine, hours))
        row: list[Any] = [cell["model"], cell["method"], cell["length"], NONE]
        if HERE in cell["fitting"]:
            row[3] = written(cell["cost"][HERE]["spt"] * HOURS_PER_TOKEN)
        for offers in (rented, bought):
            if not offers:
                row += [NONE, NONE, NONE]
                continue
            price, machine, hours = min(offers, key=lambda offer: offer[0])
            row += [machine, written(hours, 2), written(price, 2)]
        rows.append(row)
    return rows


def _nowhere(cells: list[dict[str, Any]]) -> Rows:
    rows: Rows = []
    for cell in cells:
        if not cell["fitting"]:
            needed = list(cell["cost"].values())[-1]["bytes"] / GIB
            most = max(cost["usable"] for cost in cell["cost"].values()) / GIB
            shown = [written(float(value)) for value in (needed, most, needed / most)]
            rows.append([cell["model"], cell["method"], f"{cell['length']:,}", *shown])
    return rows


def _devices(known: Facts) -> Rows:
    rows: Rows = []
    for name, device in known["devices"].items():
        price = known["prices"].get(name, {})
        fields = ("memory_gib", "bandwidth_gb_s", "peak_tflops", "watts")
        offers = [price.get("purchase"), price.get("rent_hour")]
        shown = [NONE if offer is None else plain(offer) for offer in offers]
        rows.append(
            [name, str(device["year"]), *(plain(device[field]) for field in fields), *shown]
        )
    return rows


def _sources(known: Facts) -> Rows:
    rows: Rows = []
    for name, device in known["devices"].items():
        rows.append([name, "device", str(device["date"]), device["source"]])
        price = known["prices"].get(name)
        if price is not None:
            rows.append([name, "price", str(price["date"]), price["source"]])
    power, assumed = known["electricity"], known["assumptions"]
    kwh = f"{plain(power['price_kwh'])} {known['currency']} per kWh"
    share = f"{plain(100 * assumed['utilisation'])} % of the peak"
    rows.append([kwh, "price", str(power["date"]), power["source"]])
    rows.append([share, "assumption", str(assumed["date"]), assumed["source"]])
    return rows


# Figures


def fits_figure(known: Facts, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return title, caption, names and panels of the heatmap of hours."""
    shown = [cell for cell in cells if cell["length"] == 2048]
    panels: dict[str, Rows] = {method: [] for method in METHODS}
    for cell in shown:
        row = []
        for machine, cost in cell["cost"].items():
            hours = math.log10(cost["spt"] * HOURS_PER_TOKEN)
            row.append(hours if machine in cell["fitting"] else None)
        panels[cell["method"]].append(row)
    fitting = sum(len(cell["fitting"]) for cell in shown)
    total = sum(len(cell["cost"]) for cell in shown)
    return {
        "title": "What fits where, and hours of a million tokens (rows of 2,048)",
        "caption": (
            f"Grey: does not fit; {fitting:,} of {total:,} cells do. Purple: a million tokens take "
            "more than an hour; orange: less (1 is ten hours, -1 is six minutes). GPUs by "
            "datasheet, this machine as measured."
        ),
        "x_label": "device",
        "y_label": "model",
        "value_label": "log10 of hours",
        "x_names": list(shown[0]["cost"]),
        "y_names": list(known["models"]),
        "panels": panels,
    }


def costs_figure(known: Facts, decided: dict[str, Any]) -> dict[str, Any] | None:
    """Return the texts and lines of the figure of costs; None where nothing is rented."""
    options = decided["options"]
    if not options or options[0]["total"] <= 0:
        return None
    money, months = known["currency"], known["thresholds"]["months"]
    purchases = sorted(options[1:], key=lambda one: one["total"])[:3]
    factors = [10 ** (-1 + 3 * step / 30) for step in range(31)]
    lines = {}
    for one in (options[0], *purchases):
        label = f"buy {one['device']}" if one["device"] else "rent everything"
        if one["unmet"]:
            label += " (leaves needs unmet)"
        monthly = one["power"] + one["rent"]
        costs = [float(one["purchase"] + months * monthly * factor) for factor in factors]
        lines[label] = [factors, costs]
    caption = (
        f"With the runs that are stated (1): {options[0]['total']:,.2f} {money} over "
        f"{plain(months)} months for renting"
    )
    if purchases:
        caption += f", {purchases[0]['total']:,.2f} {money} with {purchases[0]['device']}"
    return {
        "title": "What the needs cost that this machine does not meet",
        "caption": f"{caption}. A purchase pays where its line is below that of renting.",
        "x_label": "runs, as a multiple of those stated",
        "y_label": f"{money} over {plain(months)} months",
        "lines": lines,
    }
