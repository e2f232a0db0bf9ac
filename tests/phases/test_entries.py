"""The lines of an entry: one table writes and reads them, and no line has two meanings."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phases.record import entries
from phases.record.entries import GateSummary, LineFormat
from phases.record.ledger import Ledger, new_header, seal_entry
from phases.record.outcome_lines import ran_line
from phases.record.result import ReportedMeasurements, reported_measurements


def format_table() -> dict[str, LineFormat]:
    """Return every format that entries.py defines, by its name."""
    table = {}
    for name, value in vars(entries).items():
        if isinstance(value, LineFormat):
            table[name] = value
    return table


FORMATS = format_table()

#### values that fit the fields

PRINTABLE = st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"])
HEX = "0123456789abcdef"
DIGITS = "0123456789"
PARTS_OF_LINES = (
    "x",
    " ",
    "attempt 2, ",
    ", seed 1",
    ", profile p",
    ", sandbox none",
    " for 3 s: ",
    ": 1 passed, 0 failed",
    ", assurance presence",
    "receipt sha256:" + "0" * 64,
)
"""Text that looks like the rest of a line: the hard case for a pattern."""


def is_one_word(text: str) -> bool:
    return text.split() == [text]


any_text = st.text(PRINTABLE, min_size=1, max_size=60)
confusing_text = st.lists(st.sampled_from(PARTS_OF_LINES), min_size=1, max_size=5).map("".join)
VALUES = {
    entries._COMMIT: st.text(HEX, min_size=40, max_size=64),
    entries._COUNT: st.text(DIGITS, min_size=1, max_size=5),
    entries._SHA256: st.text(HEX, min_size=64, max_size=64),
    entries._TEXT: st.one_of(any_text, confusing_text).map(str.strip).filter(bool),
    entries._WORD: st.text(PRINTABLE, min_size=1, max_size=30).filter(is_one_word),
    "[0-9a-f]+": st.text(HEX, min_size=1, max_size=16),
    entries.SAMPLE_REASON: st.just(entries.SAMPLE_REASON),
}
"""Pattern of a field -> printable one-line values that fit it."""


def draw_fields(data: st.DataObject, line_format: LineFormat) -> dict[str, str]:
    """Return a value for each field of a format."""
    fields = {}
    for name, pattern in re.findall(r"\(\?P<(\w+)>([^)]+)\)", line_format._pattern.pattern):
        fields[name] = data.draw(VALUES[pattern], label=name)
    return fields


#### the table


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_line_gives_its_values_back(name: str, data: st.DataObject) -> None:
    line_format = FORMATS[name]
    fields = draw_fields(data, line_format)
    line = line_format.format(**fields)
    assert line_format.parse(line) == fields
    # The ledger accepts the line and finds the same values in it.
    entry = seal_entry(Ledger(new_header("Toy"), ()), "GENESIS", (line,), time="")
    assert entry.match(line_format) == fields


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_line_is_read_by_no_other_format(name: str, data: st.DataObject) -> None:
    line = FORMATS[name].format(**draw_fields(data, FORMATS[name]))
    readers = [other for other, line_format in FORMATS.items() if line_format.parse(line)]
    assert readers == [name]


def test_every_format_begins_with_a_word_of_its_own() -> None:
    """So text behind a first word can never make the line one of another format."""
    first_words = [line_format._template.split(" ", 1)[0] for line_format in FORMATS.values()]
    assert len(FORMATS) > 20
    assert not [word for word in first_words if "{" in word]
    assert sorted(set(first_words)) == sorted(first_words)


def test_two_formats_that_can_be_confused_are_seen() -> None:
    """The control: the tests above can fail."""
    line = entries.REASON.format(text="x")
    assert LineFormat("{text}", text=".+").parse(line) == {"text": "reason x"}
    greedy = LineFormat("{name}, seed {seed}", name="[^,]+", seed=".+")
    fields = {"name": "a, seed 1", "seed": "2"}
    assert greedy.parse(greedy.format(**fields)) != fields


#### lines that are put together


@pytest.mark.parametrize(("seconds", "expected"), [(412.4, "412"), (0.2, "1"), (1.6, "2")])
def test_the_line_on_a_run_has_whole_seconds(seconds: float, expected: str) -> None:
    line = ran_line("lab.x", seconds, attempt=1, seed=0, profile="cpu", sandbox="none")
    assert line == f"ran lab.x for {expected} s: attempt 1, seed 0, profile cpu, sandbox none"
    assert entries.RAN.parse(line)["seconds"] == expected


def test_a_judgement_is_told_in_numbers() -> None:
    summary = GateSummary(
        name="gates/test_x.py",
        passed=9,
        failed=1,
        coverage=(12, 3, 17),
        killed=5,
        mutants=6,
        digest_only=("figures/*.png", "sentences of result.json"),
        exempt=("figures/*.svg: drawn by hand", "note.md: read by people"),
    )
    assert summary.lines == (
        "gate gates/test_x.py: 9 passed, 1 failed",
        "measurement coverage 12 + 3 of 17",
        "mutants 5/6 killed",
        "protected by digest only: figures/*.png",
        "protected by digest only: sentences of result.json",
        "exempt by the plan: figures/*.svg: drawn by hand",
        "exempt by the plan: note.md: read by people",
    )
    without = GateSummary("`true`", passed=1, failed=0, coverage=None, killed=0, mutants=0)
    assert without.lines == ("gate `true`: 1 passed, 0 failed",)


def test_many_checks_and_reasons_are_counted() -> None:
    failing = entries.failing_lines([(f"test_{number}", "no") for number in range(5)])
    assert failing == (
        "failing test_0: no",
        "failing test_1: no",
        "failing test_2: no",
        "failing … and 2 more",
    )
    reasons = entries.reason_lines([f"r{number}" for number in range(6)])
    assert reasons[-2:] == ("reason r4", "reason … and 1 more")
    assert entries.reason_lines(["two\nlines", " "]) == ("reason two\\x0alines", "reason (no text)")


def reported(measurements: dict[str, Any], headline: Any = None) -> ReportedMeasurements:
    """Return what a result.json with these measurements reports."""
    document = {"measurements": measurements, "headline": headline}
    return reported_measurements(json.dumps(document).encode())


def test_measurements_are_shown_in_few_characters() -> None:
    measurements = {
        "total": {"value": 14, "unit": "", "exact": True},
        "loss": {"value": 2.31049, "stderr": 0.0213, "unit": "nats", "n": 3},
        "works": {"value": True},
        "absent": {"value": None},
    }
    assert entries.measured_lines(reported(measurements)) == (
        "measured total 14 · loss 2.31 ± 0.021 nats (n=3) · works yes · absent none",
    )
    many = {f"m{number}": {"value": number} for number in range(8)}
    assert entries.measured_lines(reported(many))[0].endswith(" · m5 5 · 2 more")
    assert entries.measured_lines(reported({})) == ()


def test_the_headline_comes_first_and_alone() -> None:
    many = {f"m{number}": {"value": number} for number in range(8)}
    (line,) = entries.measured_lines(reported(many, ["m7", "m3"]))
    assert line == "measured m7 7 · m3 3 · 6 more"
    assert list(reported(many, ["m7", "m3"]).by_name)[:3] == ["m7", "m3", "m0"]


@pytest.mark.parametrize("headline", [None, [], "m0", {"m0": 1}, ["unknown"], [["m0"]], [1]])
def test_a_headline_that_names_no_measurement_changes_nothing(headline: Any) -> None:
    many = {f"m{number}": {"value": number} for number in range(3)}
    assert entries.measured_lines(reported(many, headline)) == ("measured m0 0 · m1 1 · m2 2",)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"not json", b'{"measurements": 1}', b'{"a":1,"a":2}']
)
def test_a_result_that_cannot_be_read_reports_nothing(data: bytes) -> None:
    assert entries.measured_lines(reported_measurements(data)) == ()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1_456_496_640, "1.356 GiB"),
        (-(3 << 20), "-3 MiB"),
        (5 << 40, "5,120 GiB"),
        (None, "none bytes"),
        (True, "yes bytes"),
    ],
)
def test_bytes_are_shown_in_units_that_people_read(value: Any, text: str) -> None:
    assert entries.format_measurement({"value": value, "unit": "bytes"}) == text


def test_predictions_are_counted_in_one_order() -> None:
    outcomes = ["MISSED", "HELD", "INCONCLUSIVE", "HELD"]
    expected = "predictions: 2 held, 1 missed, 1 inconclusive"
    assert entries.prediction_lines(outcomes) == (expected,)
    assert entries.prediction_lines([]) == ()
