"""JUnit reports: read if they are whole and of this run, refused otherwise."""

import pytest

from phases.judge.junit import ReportError, check_id, read_report

SECOND_SUITE = '<testsuite name="nonce" tests="0"></testsuite>'
CASE = '<testcase classname="gates.test_x" name="test_a" />'


def report(cases=CASE, *, tests=1, name="nonce", before=""):
    suite = f'<testsuite name="{name}" tests="{tests}">{cases}</testsuite>'
    return f'<?xml version="1.0"?>{before}<testsuites>{suite}</testsuites>'


def read(tmp_path, text):
    path = tmp_path / "report.xml"
    path.write_text(text)
    return read_report(path, "nonce", "gates/test_x.py")


def test_a_whole_report(tmp_path):
    cases = (
        CASE,
        '<testcase classname="gates.test_x.TestB" name="test_c[1]">'
        '<failure message="no&#10;way" /></testcase>',
        '<testcase classname="gates.test_x" name="test_d"><error message="late" /></testcase>',
        '<testcase classname="gates.test_x" name="test_e"><skipped message="not now" /></testcase>',
    )
    checks, skipped = read(tmp_path, report("".join(cases), tests=4))
    assert [(check.id, check.passed, check.message) for check in checks] == [
        ("test_a", True, ""),
        ("TestB::test_c[1]", False, "no way"),
        ("test_d", False, "late"),
    ]
    assert skipped == ("test_e",)


def test_a_check_that_is_listed_twice_failed_if_one_of_them_did(tmp_path):
    error = CASE.replace(" />", "><error message='teardown' /></testcase>")
    for cases in (CASE + error, error + CASE):
        checks, _ = read(tmp_path, report(cases, tests=2))
        assert [check.passed for check in checks] == [False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (report(name="other"), "nonce"),
        (report() + "x", "not XML"),
        (report()[:-5], "not XML"),
        ("", "not XML"),
        ("<testsuites />", "nonce"),
        (report(tests=0), "states 0 checks and lists 1"),
        (report(tests="many"), "states many checks and lists 1"),
        (report(before='<!DOCTYPE x [<!ENTITY a "b">]>'), "document type"),
        (report().replace("</testsuite>", f"</testsuite>{SECOND_SUITE}"), "nonce"),
    ],
)
def test_an_invalid_report_is_refused(tmp_path, text, message):
    with pytest.raises(ReportError, match=message):
        read(tmp_path, text)


def test_a_missing_report_and_a_link_are_refused(tmp_path):
    (tmp_path / "planted.xml").write_text(report())
    (tmp_path / "report.xml").symlink_to(tmp_path / "planted.xml")
    for name in ("report.xml", "absent.xml"):
        with pytest.raises(ReportError, match="no report"):
            read_report(tmp_path / name, "nonce", "gates/test_x.py")


@pytest.mark.parametrize(
    ("node_id", "expected"),
    [
        ("gates/test_x.py::test_a", "test_a"),
        ("gates/test_x.py::test_a[b::c[d]]", "test_a[b::c[d]]"),
        ("gates/test_x.py::TestA::TestB::test_c", "TestA.TestB::test_c"),
        ("gates/sub/test_x.py::test_a", "test_a"),
    ],
)
def test_check_id(node_id, expected):
    assert check_id(node_id) == expected
