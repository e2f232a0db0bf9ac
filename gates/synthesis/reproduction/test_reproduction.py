"""The gate of FEAT-019, reproduction.

The draw is made anew from the STARTED entry and the receipts. Every row is compared anew, its
stored side read from the feature's files. Of each drawn feature something of the gate's own choice
is recomputed from base model and stored files. What did not reproduce fails nothing: it must be
said, and come first.
"""

from __future__ import annotations

import os
import platform
from typing import Any

import pytest

from gates.shared import outputs, standard
from gates.shared.standard import (
    test_figures_were_drawn_from_their_data,
    test_files_are_those_of_the_result,
    test_report_was_made_from_the_result,
)
from gates.synthesis.reproduction import compared, earlier, sampled, statements

__all__ = [
    "test_figures_were_drawn_from_their_data",
    "test_files_are_those_of_the_result",
    "test_report_was_made_from_the_result",
]

NAMES = (
    "features_drawn",
    "features_reproduced",
    "features_failed",
    "rows",
    "rows_not_reproduced",
    "rows_bit_equal",
    "rows_within_tolerance",
    "rows_promised",
    "values_compared",
    "largest_difference",
    "replayable_share",
    "replay_seconds",
    "run_seconds",
)
FEWEST_ROWS = 5  # of a replay
LARGEST_TOLERANCE = 0.01  # of floats; above it the reason must say why
LONG = 1800  # seconds


#### the draw


def test_draw_is_that_of_the_started_entry() -> None:
    draw = outputs.read_json("artifacts/draw.json")
    is_of_an_attempt = bool(os.environ.get("PHASES_STARTED"))
    assert (draw["started"], draw["is_of_an_attempt"]) == (earlier.started(), is_of_an_attempt)
    candidates = [[one["feature"], one["way"]] for one in draw["candidates"]]
    assert candidates == earlier.ways()
    for one in draw["candidates"]:
        assert bool(one["reason"]) == (one["way"] is None), one
    assert [one["feature"] for one in draw["drawn"]] == earlier.drawn()
    in_order = [one for one in draw["candidates"] if one["way"] is not None]
    assert draw["drawn"] == in_order[: len(draw["drawn"])]
    assert draw["drawn"], "nothing was drawn"


def test_reasons_of_features_without_a_replay() -> None:
    for one in outputs.read_json("artifacts/draw.json")["candidates"]:
        if "has no replay" in one["reason"]:
            seconds = earlier.byproduct(one["feature"], "process")["seconds"]
            expected = f"its commit has no replay, and the whole run took {seconds:.0f} s"
            assert one["reason"] == expected


def test_settings_are_those_of_the_draw() -> None:
    environment = outputs.result()["environment"]
    settings = environment["config"]
    assert set(settings) == {"features", "whole_seconds", "timeout"}
    assert (settings["features"], settings["whole_seconds"]) == (3, 20), "another rule"
    assert settings["timeout"] == 600
    assert environment["seed"] == int(os.environ.get("PHASES_SEED", environment["seed"]))


def test_machine_is_the_one_that_the_result_names() -> None:
    machine = compared.machine()
    environment = outputs.result()["environment"]
    named = (environment["platform"], environment["python"], environment["threads"])
    assert (machine["system"], machine["python"], machine["threads"]) == named
    for name, version in environment["packages"].items():
        assert machine["packages"][name] == version, name
    assert set(machine["packages"]) == set(compared.PACKAGES)
    # The gate of a run is judged on its machine; that of an old one may be judged elsewhere.
    if machine["system"] == platform.platform():
        assert (machine["machine"], machine["cpus"]) == (platform.machine(), os.cpu_count())
        assert machine["packages"] == installed(compared.PACKAGES)


def installed(names: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of packages here."""
    from importlib import metadata

    return {name: metadata.version(name) for name in names}


#### the replays


def test_there_is_one_replay_of_each_drawn_feature() -> None:
    folder = outputs.out() / "artifacts" / "replays"
    expected = {f"{name}.{end}" for name in earlier.drawn() for end in ("json", "safetensors")}
    assert {path.name for path in folder.iterdir()} == expected


def test_replays_ran_the_code_of_their_receipts() -> None:
    for feature in earlier.drawn():
        document = compared.document(feature)
        needed = earlier.dependencies(feature)
        assert document["feature"] == feature
        assert document["title"] == earlier.result(feature)["title"]
        assert document["way"] == earlier.way_of(feature)
        assert document["commit"] == needed["git"]["gitCommit"]
        assert document["code_sha256"] == needed["code:lab"]["sha256"]
        assert document["changes"] == compared.changes(feature)
        seconds = earlier.byproduct(feature, "process")["seconds"]
        assert document["seconds_whole"] == seconds
        assert 0 < document["seconds"] < LONG


def test_rows_are_compared_rightly() -> None:
    for feature in earlier.drawn():
        for row, expected in zip(
            compared.document(feature)["rows"], compared.recomputed(feature), strict=True
        ):
            for name, value in expected.items():
                assert outputs.same(row[name], value, 1e-9), (
                    f"{feature}, {row['quantity']}: {name} is {row[name]}, recomputed {value}"
                )


def test_rows_are_enough_and_no_array_is_compared_twice() -> None:
    for feature in earlier.drawn():
        document = compared.document(feature)
        parts = [(row["file"], row["part"]) for row in document["rows"]]
        assert len({str(part) for part in parts}) == len(parts), f"{feature}: a part twice"
        if document["failure"]:
            assert not parts, f"{feature}: rows of a failed replay"
        elif document["way"] == earlier.WHOLE:
            assert sorted(map(str, parts)) == sorted(map(str, compared.expected_parts(feature)))
        else:
            assert len(parts) >= FEWEST_ROWS, f"{feature}: {len(parts)} rows"


def test_tolerances_are_small_or_have_a_reason_of_their_own() -> None:
    for _, row in statements.rows():
        assert 0 <= row["tolerance"] <= 1, row["quantity"]
        assert len(row["reason"].split()) > 2, row["quantity"]
        if row["tolerance"] > LARGEST_TOLERANCE:
            assert "float32 sums" not in row["reason"], row["quantity"]


def test_quantities_name_what_is_compared() -> None:
    for feature, row in statements.rows():
        words = row["quantity"]
        assert len(words) > 1, f"{feature}: {row['file']} {row['part']}"
        indices = row["indices"]
        if indices is not None:
            assert indices == sorted(set(indices)), f"{feature}, {words}: {indices}"


def test_a_sample_of_each_drawn_feature_is_what_it_stored() -> None:
    for feature in earlier.drawn():
        sampled.assert_agrees(feature)


#### what is said of them


@pytest.mark.parametrize("name", NAMES)
def test_measurement(name: str) -> None:
    expected: dict[str, Any] = {"value": statements.measurements()[name]}
    outputs.assert_agrees(name, expected, rtol=1e-9)


def test_every_measurement_is_judged() -> None:
    standard.assert_all_judged(NAMES)


def test_report_states_what_was_recomputed() -> None:
    standard.assert_report_states(statements.measurements())


def test_findings_say_what_did_not_reproduce_first() -> None:
    assert outputs.result()["findings"] == statements.findings()


def test_tables_show_every_row() -> None:
    for number, expected in enumerate(statements.tables()):
        standard.assert_table_agrees(number, expected, rtol=1e-9)
    assert len(outputs.result()["tables"]) == len(statements.tables())


def test_figure_shows_every_difference() -> None:
    expected = statements.figure()
    if not statements.rows():
        assert outputs.result()["figures"] == []
        return
    figure = outputs.read_json("figures/reproduction_differences.json")
    series = {one["label"]: {"x": one["x"], "y": one["y"]} for one in figure["series"]}
    assert set(series) == set(expected["series"])
    for label, points in expected["series"].items():
        assert series[label]["x"] == points["x"], label
        assert outputs.same(series[label]["y"], points["y"], 1e-9), label
    assert figure["caption"] == expected["caption"]
    assert (figure["x_scale"], figure["y_scale"]) == ("linear", "log")
    words = (figure["title"], figure["x_label"], figure["y_label"])
    assert words == (
        "What was computed again, against what was stored",
        "row of the table",
        "difference, relative to the largest value",
    )
    assert outputs.result()["figures"][0]["caption"] == expected["caption"]
