"""The JUnit report of one run of pytest: the positive proof that checks ran, and what each said.

It counts only if it carries the nonce that was given to pytest as the name of its suite, and is whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from phases.base.text import printable

MAX_REPORT = 50_000_000  # bytes of XML
MAX_MESSAGE = 400  # characters of one check's message


@dataclass(frozen=True)
class Check:
    """One check as the gate reported it; `id` like `test_eval_loss[base]`."""

    id: str
    passed: bool
    message: str = ""


class ReportError(Exception):
    """There is no JUnit report that can be believed."""


def read_report(path: Path, nonce: str, target: str) -> tuple[tuple[Check, ...], tuple[str, ...]]:
    """Checks of a JUnit report, and the ids of those that were skipped. A check with failure or error has failed.

    Raises:
        ReportError: no report, too large, no XML, of another run, or its counts do not fit its test cases.
    """
    suite = _suite(path, nonce)
    cases = suite.findall("testcase")
    met: dict[str, Check] = {}
    silent = []
    for case in cases:
        name = _identifier(case.get("classname", ""), case.get("name", ""), target)
        said = case.find("failure")
        said = case.find("error") if said is None else said
        if said is None and case.find("skipped") is not None:
            silent.append(name)
        elif said is not None:
            met[name] = Check(
                name, False, printable(" ".join((said.get("message") or "").split()), MAX_MESSAGE)
            )
        else:
            met.setdefault(
                name, Check(name, True)
            )  # a check that failed in its teardown stands there twice
    if suite.get("tests") != str(len(cases)):
        message = f"a report of {suite.get('tests')} checks that lists {len(cases)}"
        raise ReportError(message)
    return tuple(met.values()), tuple(silent)


def _suite(path: Path, nonce: str) -> ElementTree.Element:
    if path.is_symlink() or not path.is_file():
        message = "no report: the process ended before pytest did"
        raise ReportError(message)
    if path.stat().st_size > MAX_REPORT:
        message = f"a report of {path.stat().st_size} bytes; at most {MAX_REPORT} are read"
        raise ReportError(message)
    data = path.read_bytes()
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        message = "a report with a document type, which pytest does not write"
        raise ReportError(message)
    try:
        suites = ElementTree.fromstring(data).findall("testsuite")
    except ElementTree.ParseError as error:
        message = f"a report that is no XML ({error})"
        raise ReportError(message) from None
    if len(suites) != 1 or suites[0].get("name") != nonce:
        message = "a report that does not carry this judgement's nonce"
        raise ReportError(message)
    return suites[0]


def _identifier(class_name: str, name: str, target: str) -> str:
    inside = class_name.removeprefix(_module(target)).lstrip(".")
    return printable(f"{inside}::{name}" if inside else name, 200)


def check_id(node_id: str) -> str:
    """The id of `gates/test_x.py::TestA::test_b[c::d]`: `TestA::test_b[c::d]`, split as pytest's report splits it."""
    path, bracket, parameters = node_id.partition("[")
    target, *names = path.split("::")
    class_name = ".".join([_module(target), *names[:-1]])
    return _identifier(class_name, names[-1] + bracket + parameters, target)


def _module(target: str) -> str:
    return target.removesuffix(".py").replace("/", ".")
