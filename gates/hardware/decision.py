"""Checks of the decision: measurements, sentences, tables and figures follow from what is stored.

The user's files are not pinned, because they are edited: they are validated, and all that is shown
is computed from them and from this machine again. A topic's gate imports the checks.
"""

from __future__ import annotations

from typing import Any

import pytest

from gates.hardware import deciding, decision_shown, decision_words, stated
from gates.shared import outputs
from gates.shared.documents import agree
from gates.shared.stored import cached

NAMES = (
    "recommendation",
    "recommended_device",
    "needs",
    "needs_met_here",
    "needs_not_rentable",
    "rent_per_month",
    "rent_total",
    "purchase_total",
    "flips",
    "nearest_flip",
    "devices",
    "combinations",
    "combinations_here",
    "combinations_nowhere",
)
EXACT = {
    "recommendation": "",
    "recommended_device": "",
    "needs": "needs",
    "needs_met_here": "needs",
    "needs_not_rentable": "needs",
    "flips": "numbers",
    "devices": "devices",
    "combinations": "combinations",
    "combinations_here": "combinations",
    "combinations_nowhere": "combinations",
}
FEWEST = {"devices": 5, "models": 5}
SMALLEST, LARGEST = 0.2e9, 65e9  # parameters: the tables reach from 135M to 70B
TITLES = (
    "The needs, here and rented",
    "What each option costs",
    "The upgrade path",
    "What would change the recommendation",
    "The rule, and its thresholds",
    "Where a training fits: this machine, or the GPU with the least memory",
    "Hours and price of training on a million tokens",
    "Not feasible on any single listed device",
    "Devices and prices, as the user states them",
    "Sources",
)


def recomputed() -> dict[str, Any]:
    """Return numbers, findings, tables and figures of the decision."""
    value: dict[str, Any] = cached("decision", stated.READ, _recompute)
    return value


def _recompute() -> dict[str, Any]:
    # 1. The decision.
    known = deciding.facts()
    decided = deciding.verdict(known)
    cells = deciding.cells(known)
    flips, idle = deciding.flips(known, decided["answer"])
    dropped = deciding.without(known, decided["answer"])
    path = deciding.path(known)

    # 2. What is shown of it.
    return {
        "numbers": _numbers(known, decided, cells, flips),
        "findings": decision_words.findings(known, decided, cells, (flips, idle)),
        "tables": decision_shown.tables(known, decided, path, cells, (flips, idle, dropped)),
        "figures": {
            "fits": decision_shown.fits_figure(known, cells),
            "costs": decision_shown.costs_figure(known, decided),
        },
    }


def _numbers(
    known: deciding.Facts,
    decided: dict[str, Any],
    cells: list[dict[str, Any]],
    flips: list[dict[str, Any]],
) -> dict[str, Any]:
    word, device = decided["answer"]
    rent: dict[str, Any] = {"unmet": [], "rent": 0.0, "total": 0.0}
    if decided["options"]:
        rent = decided["options"][0]
    best = decision_words.cheapest(decided["options"])
    nearest = decision_words.by_size(flips)[:1]
    return {
        "recommendation": word,
        "recommended_device": device or "none",
        "needs": len(known["needs"]),
        "needs_met_here": len(decided["met"]),
        "needs_not_rentable": len(rent["unmet"]),
        "rent_per_month": float(rent["rent"]),
        "rent_total": float(rent["total"]),
        "purchase_total": None if best is None else float(best["total"]),
        "flips": len(flips),
        "nearest_flip": decision_words.fold(nearest[0]) if nearest else None,
        "devices": len(known["devices"]),
        "combinations": len(cells),
        "combinations_here": sum(stated.HERE in cell["fitting"] for cell in cells),
        "combinations_nowhere": sum(not cell["fitting"] for cell in cells),
    }


def test_what_the_user_stated_is_valid() -> None:
    stated.assert_valid()
    assert len(stated.document("devices.yaml")["devices"]) >= FEWEST["devices"]
    sizes = [model["parameters"] for model in stated.document("models.yaml")["models"]]
    assert len(sizes) >= FEWEST["models"]
    assert min(sizes) < SMALLEST
    assert max(sizes) > LARGEST


def test_machine_of_the_decision_is_that_of_the_environment() -> None:
    # `python -m lab fits` reads it there
    assert outputs.result()["environment"]["machine"] == stated.machine()


@pytest.mark.parametrize("name", NAMES)
def test_decision_follows_from_what_was_stored(name: str) -> None:
    outputs.assert_agrees(name, recomputed()["numbers"][name])
    measurement = outputs.measurement(name)
    if name in EXACT:
        assert measurement["exact"] is True
        assert measurement["unit"] == EXACT[name]
    else:
        assert (measurement["stderr"], measurement["n"], measurement["values"]) == (None,) * 3
        currency = stated.document("prices.yaml")["currency"]
        assert measurement["unit"] == ("times" if name == "nearest_flip" else currency)


def test_recommendation_and_its_reasons_are_stated_word_by_word() -> None:
    expected = recomputed()["findings"]
    findings = outputs.result()["findings"]
    starts = [i for i, text in enumerate(findings) if text.startswith("Recommendation: ")]
    assert len(starts) == 1, "one sentence recommends"
    shown = findings[starts[0] : starts[0] + len(expected)]
    assert len(shown) == len(expected)
    for actual, text in zip(shown, expected, strict=True):
        assert agree(actual, text), f"{actual!r}; expected {text!r}"


@pytest.mark.parametrize("title", TITLES)
def test_table_of_the_decision(title: str) -> None:
    tables = [table for table in outputs.result()["tables"] if table["title"] == title]
    assert len(tables) == 1
    columns, rows = recomputed()["tables"][title]
    assert tables[0]["columns"] == columns
    assert len(tables[0]["rows"]) == len(rows)
    for actual, expected in zip(tables[0]["rows"], rows, strict=True):
        assert len(actual) == len(expected)
        assert all(map(same_cell, actual, expected)), f"{actual}; expected {expected}"


def same_cell(actual: Any, expected: Any) -> bool:
    """Return whether a cell is the expected one: texts word by word, numbers to rounding."""
    if isinstance(expected, str):
        return isinstance(actual, str) and agree(actual, expected)
    return outputs.same(actual, expected, 1e-5)


def test_figure_of_what_fits() -> None:
    figure = outputs.read_json("figures/fits.json")
    expected = recomputed()["figures"]["fits"]
    for field in ("title", "x_label", "y_label", "value_label", "x_names", "y_names"):
        assert figure[field] == expected[field], field
    assert agree(figure["caption"], expected["caption"])
    assert (figure["low"], figure["high"]) == (None, None)
    assert [panel["label"] for panel in figure["panels"]] == list(expected["panels"])
    for panel in figure["panels"]:
        assert outputs.same(panel["values"], expected["panels"][panel["label"]], 1e-5)


def test_figure_of_costs() -> None:
    expected = recomputed()["figures"]["costs"]
    is_there = (outputs.out() / "figures/costs.json").exists()
    assert is_there == (expected is not None)
    if expected is None:
        return
    figure = outputs.read_json("figures/costs.json")
    for field in ("title", "x_label", "y_label"):
        assert figure[field] == expected[field], field
    assert agree(figure["caption"], expected["caption"])
    assert (figure["x_scale"], figure["y_scale"]) == ("log", "log")
    assert [line["label"] for line in figure["series"]] == list(expected["lines"])
    for line in figure["series"]:
        assert outputs.same([line["x"], line["y"]], expected["lines"][line["label"]], 1e-5)
        assert (line["kind"], line["band"], line["group"]) == ("line", None, None)
