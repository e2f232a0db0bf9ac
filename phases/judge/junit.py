"""The JUnit report of one pytest run: the evidence that checks ran, and the result of each.

A report counts only if it is whole and its suite is named by the nonce that pytest was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from phases.base.text import printable

MAX_REPORT = 50_000_000  # bytes of XML
MAX_MESSAGE = 400  # characters of one check's message
MAX_ID = 200  # characters of one check's id


@dataclass(frozen=True)
class CheckResult:
    """One check as the gate reported it; `id` is like `test_eval_loss[base]`."""

    id: str
    passed: bool
    message: str = ""


class ReportError(Exception):
    """The JUnit report is missing or is not believed."""


def read_report(
    path: Path, nonce: str, target: str
) -> tuple[tuple[CheckResult, ...], tuple[str, ...]]:
    """Read a JUnit report; a check with a failure or an error has failed.

    Args:
        path: the XML file.
        nonce: the expected name of the suite.
        target: the gate's file, such as `gates/test_x.py`; ids are relative to it.

    Returns:
        The results of all checks that ran, and the ids of those that were skipped.

    Raises:
        ReportError: the report is missing, too large, not XML or of another run, or its count of
            checks differs from its list.
    """
    suite = _read_suite(path, nonce)
    cases = suite.findall("testcase")
    checks: dict[str, CheckResult] = {}
    skipped = []
    for case in cases:
        name = _check_name(case.get("classname", ""), case.get("name", ""), target)
        problem = case.find("failure")
        if problem is None:  # not `or`: an element without children is false
            problem = case.find("error")
        if problem is not None:
            text = " ".join((problem.get("message") or "").split())
            checks[name] = CheckResult(name, passed=False, message=printable(text, MAX_MESSAGE))
        elif case.find("skipped") is not None:
            skipped.append(name)
        else:
            # pytest lists a check twice if its teardown failed; the failure counts.
            checks.setdefault(name, CheckResult(name, passed=True))
    # A check with subtests is one case, and each of its subtests counts.
    stated = suite.get("tests", "")
    if not stated.isdigit() or int(stated) < len(cases):
        message = f"the report states {stated} checks and lists {len(cases)}"
        raise ReportError(message)
    return tuple(checks.values()), tuple(skipped)


def _read_suite(path: Path, nonce: str) -> ElementTree.Element:
    """Return the only suite of the report; the gate wrote the file, so nothing of it is trusted."""
    if path.is_symlink() or not path.is_file():
        message = "no report: the process ended before pytest wrote it"
        raise ReportError(message)
    if path.stat().st_size > MAX_REPORT:
        message = f"the report has {path.stat().st_size} bytes; expected at most {MAX_REPORT}"
        raise ReportError(message)
    data = path.read_bytes()
    # Entities could expand without limit, and pytest writes none.
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        message = "the report has a document type declaration, which pytest does not write"
        raise ReportError(message)
    try:
        suites = ElementTree.fromstring(data).findall("testsuite")
    except ElementTree.ParseError as error:
        message = f"the report is not XML ({error})"
        raise ReportError(message) from None
    if len(suites) != 1 or suites[0].get("name") != nonce:
        message = "the report does not carry the nonce of this judgement"
        raise ReportError(message)
    return suites[0]


def check_id(node_id: str) -> str:
    """Return the id of a pytest node id, split as pytest's report splits it.

    `gates/test_x.py::TestA::test_b[c::d]` becomes `TestA::test_b[c::d]`.
    """
    # Parameters may hold `::` themselves, so they are cut off first.
    path, bracket, parameters = node_id.partition("[")
    target, *names = path.split("::")
    class_name = ".".join([_module_name(target), *names[:-1]])
    return _check_name(class_name, names[-1] + bracket + parameters, target)


def _check_name(class_name: str, name: str, target: str) -> str:
    """Return the id of a check from the two attributes by which the report names it."""
    inner_class = class_name.removeprefix(_module_name(target)).lstrip(".")
    if inner_class:
        name = f"{inner_class}::{name}"
    return printable(name, MAX_ID)


def _module_name(target: str) -> str:
    return target.removesuffix(".py").replace("/", ".")
