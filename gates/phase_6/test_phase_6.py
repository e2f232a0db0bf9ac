"""Exit gate of phase 6: the site, the reproduction and what to ask next, each against the plan.

PHASES_OUT holds one folder per feature, without those that were waived. What the features' own
gates computed is not repeated here; a claim of each result is recomputed from its stored files and
the plan, and the features are held against each other.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gates.shared import outputs, standard

SITE, REPRODUCTION, NEXT = "FEAT-018", "FEAT-019", "FEAT-020"
WAIVED = os.environ.get("PHASES_WAIVED", "").split()
FEATURES = tuple(name for name in (SITE, REPRODUCTION, NEXT) if name not in WAIVED)
PARTS = {
    "experiment",
    "title",
    "question",
    "hypothesis",
    "method",
    "headline",
    "measurements",
    "findings",
    "environment",
    "files",
}
ASSURANCE = "assurance: scripted (sample run, approved by no human)"
DRAWN = 3
LEADS_OUT = re.compile(r"""<(?:script|img|link|iframe|source)[^>]*\b(?:src|href)=["']?https?:""")


def test_at_least_one_feature_was_verified() -> None:
    assert FEATURES, "every feature of the phase was waived"


@pytest.mark.integrity
@pytest.mark.parametrize("feature", FEATURES)
def test_outputs_are_those_that_the_feature_wrote(feature: str) -> None:
    standard.assert_outputs_are_those_of_the_feature(feature)


@pytest.mark.parametrize("feature", FEATURES)
def test_result_is_present_and_well_formed(feature: str) -> None:
    standard.assert_feature_is_whole(feature, PARTS)


@pytest.mark.parametrize("feature", FEATURES)
def test_measurements_are_consistent_in_themselves(feature: str) -> None:
    standard.assert_measurements_are_consistent(feature)


def plan() -> dict[str, Any]:
    """Return the plan that the phase was run by."""
    document: dict[str, Any] = json.loads(outputs.inputs()["plan"].read_text("utf-8"))
    return document


def predictions_of(names: Iterable[str]) -> int:
    """Return how many predictions the plan has for some features."""
    wanted, total = set(names), 0
    for phase in plan()["phases"]:
        for feature in phase["features"]:
            if feature["id"] in wanted:
                total += len(feature.get("predictions", []))
    return total


#### the site


def site_pages() -> dict[str, str]:
    """Return name -> HTML of the pages of the site."""
    folder = outputs.out() / SITE / "artifacts/site"
    return {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*.html"))}


def shown_features() -> list[str]:
    """Return the features that have a page."""
    return [Path(name).stem for name in site_pages() if re.fullmatch(r"FEAT-\d+\.html", name)]


def test_site_shows_each_prediction_of_its_features() -> None:
    """The counts of outcomes add up to what the plan predicted of the features with a page."""
    if SITE in WAIVED:
        return
    outputs.assert_agrees("pages", len(site_pages()), of=SITE)
    outputs.assert_agrees("features", len(shown_features()), of=SITE)
    outcomes = ("predictions_held", "predictions_missed", "predictions_inconclusive")
    total = sum(outputs.value(name, SITE) for name in outcomes)
    assert total == predictions_of(shown_features()), f"{total} predictions are shown as scored"
    outputs.assert_agrees("predictions", total, of=SITE)


def test_site_loads_nothing_from_elsewhere_and_names_its_assurance() -> None:
    if SITE in WAIVED:
        return
    is_sample = plan().get("sample", False)
    for name, page in site_pages().items():
        assert "default-src 'none'" in page, f"{name} has no content-security policy"
        assert not LEADS_OUT.search(page), f"{name} loads something from elsewhere"
        assert (ASSURANCE in page) == is_sample, f"{name}: another assurance than the plan's"


#### the reproduction


def test_reproduction_counts_the_rows_of_what_was_drawn() -> None:
    """Each row's outcome follows from its difference; a promise of bits is kept by 0 alone."""
    if REPRODUCTION in WAIVED:
        return
    draw = outputs.read_json(f"{REPRODUCTION}/artifacts/draw.json")
    drawn = [one["feature"] for one in draw["drawn"]]
    candidates = [one["feature"] for one in draw["candidates"]]
    assert len(set(drawn)) == len(drawn) == min(DRAWN, len(candidates))
    assert set(drawn) <= set(candidates) == set(known_features()) & set(candidates)

    counts: Counter[str] = Counter()
    for feature in drawn:
        document = outputs.read_json(f"{REPRODUCTION}/artifacts/replays/{feature}.json")
        for row in document["rows"]:
            counts[outcome_of(row)] += 1
    outputs.assert_agrees("features_drawn", len(drawn), of=REPRODUCTION)
    outputs.assert_agrees("rows", counts.total(), of=REPRODUCTION)
    outputs.assert_agrees("rows_not_reproduced", counts["not reproduced"], of=REPRODUCTION)
    outputs.assert_agrees("rows_bit_equal", counts["bit-equal"], of=REPRODUCTION)
    outputs.assert_agrees("rows_within_tolerance", counts["within tolerance"], of=REPRODUCTION)


def known_features() -> list[str]:
    """Return the ids of all features of the plan."""
    return [feature["id"] for phase in plan()["phases"] for feature in phase["features"]]


def outcome_of(row: dict[str, Any]) -> str:
    """Return what a row came to."""
    if row["stored_sha256"] == row["recomputed_sha256"]:
        return "bit-equal"
    if not row["is_promised"] and row["difference"] <= row["tolerance"]:
        return "within tolerance"
    return "not reproduced"


#### what to ask next


def test_next_questions_are_ranked_by_what_they_tell_per_hour() -> None:
    if NEXT in WAIVED:
        return
    candidates = outputs.read_json(f"{NEXT}/candidates.json")
    kinds = Counter(one["kind"] for one in candidates)
    per_hour = [one["bits_per_hour"] or 0.0 for one in candidates]
    assert per_hour == sorted(per_hour, reverse=True), "candidates are not ranked"
    assert [one["rank"] for one in candidates] == list(range(1, len(candidates) + 1))
    assert {one["feature"] for one in candidates} <= set(known_features())
    outputs.assert_agrees("candidates", len(candidates), of=NEXT)
    outputs.assert_agrees("candidates_missed", kinds["missed"], of=NEXT)
    outputs.assert_agrees("candidates_wide", kinds["wide"], of=NEXT)
    out_of_reach = sum(one["cost"] is None for one in candidates)
    outputs.assert_agrees("out_of_reach", out_of_reach, of=NEXT)


def test_next_questions_are_about_all_predictions_so_far() -> None:
    """Those that the site scores, and those of the site and the reproduction themselves."""
    if NEXT in WAIVED or SITE in WAIVED:
        return
    since = [name for name in (SITE, REPRODUCTION) if name not in WAIVED]
    expected = outputs.value("predictions", SITE) + predictions_of(since)
    outputs.assert_agrees("predictions", expected, of=NEXT)
