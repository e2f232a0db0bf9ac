"""What `audit` says in each of these tests, word for word, as someone has read it.

`findings/` has one file for each module of tests. After a change of words: remove the files, run
`UPDATE_FINDINGS=1 pytest -m 'soak or not soak'` on the modules in one process, read `git diff`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from phases.base.text import printable

FOLDER = Path(__file__).with_name("findings")
MODULES = (
    "test_audit",
    "test_audit_honest",
    "test_decisions_and_outcomes",
    "test_forged",
    "test_forged_entries",
    "test_forged_phases",
    "test_forged_verdicts",
    "test_lost_decisions",
    "test_malformed",
    "test_named_files",
    "test_publish",
    "test_pulled",
    "test_slipped_in",
    "test_waive",
)
REPORTS: list[tuple[Path, Any]] = []
"""Every root and report of `audit --json` in the test that runs."""
LONGEST = 16
"""Lines of a report; of a longer one only their number is compared, as nobody reads it."""

_VARYING = {
    "#": re.compile(r"\b[0-9a-f]{8,64}\b|[0-9a-f]+(?=…)"),  # digests, also of a line cut short
    "USER": re.compile(r"(?<=\bby )[^`]+? at \S+ on [^\s,`]+"),
    "TIME": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    "SECONDS": re.compile(r"(?<=\bfor )\d\d?(?= s\b)"),
}
"""Word -> what it stands for, which differs from run to run."""


def describe_reports(reports: Iterable[tuple[Path, Any]]) -> str:
    """Return one line for each finding of the reports, without what varies between two runs.

    Args:
        reports: the root of a repository, and the report on it.
    """
    lines = []
    for number, (root, report) in enumerate(reports, start=1):
        lines += [f"-- report {number}"] if number > 1 else []
        found = list(_lines(report))
        if len(found) > LONGEST:
            found = [f"{len(found)} lines"]
        lines += [_without_varying(line.replace(str(root), "ROOT")) for line in found]
    return "".join(f"{line}\n" for line in lines)


def _lines(report: Any) -> Iterator[str]:
    for item in report["findings"]:
        place = [f"entry {item['entry']}"] if item["entry"] is not None else []
        place += ["commit"] if item["commit"] else []
        place += [printable(item["path"], 300)] if item["path"] else []
        yield f"{item['severity']} {item['code']} ({', '.join(place)}): {item['message']}"
    for item in report["uncovered"]:
        yield f"uncovered {item['code']}: {item['message']}"


def _without_varying(line: str) -> str:
    """Return a line in which `#1` and `#2` stand for its first two digests, and so on."""
    for word, pattern in _VARYING.items():
        values = list(dict.fromkeys(pattern.findall(line)))
        line = pattern.sub(lambda match: f"{word}{values.index(match[0]) + 1}", line)  # noqa: B023
    return line


def compare(module: str, test: str, actual: str) -> None:
    """Check that `audit` says of a test's forgery what was reviewed; write it where asked to."""
    file = FOLDER / f"{module}.txt"
    sections = _read(file)
    if os.environ.get("UPDATE_FINDINGS"):
        sections[test] = actual
        texts = [f"## {name}\n{text}" for name, text in sorted(sections.items()) if text]
        if texts:
            file.parent.mkdir(exist_ok=True)
            file.write_text("\n".join(texts), "utf-8")
        return
    assert actual == sections.get(test, ""), (
        f"not as reviewed in {file.name}: see {Path(__file__).name}"
    )


def _read(file: Path) -> dict[str, str]:
    """Return the name of a test -> its lines."""
    if not file.exists():
        return {}
    sections = {}
    for section in re.split(r"(?m)^## ", file.read_text("utf-8"))[1:]:
        name, _, text = section.partition("\n")
        sections[name] = text.rstrip("\n") + "\n"
    return sections
