"""What an audit reports: findings, what it could not cover, and both as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from phases.base.text import format_count, printable

MAX_TEXT = 2000  # characters of a message or a path that are shown


class Severity(StrEnum):
    """How much a finding weighs; only errors make an audit fail."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is invalid."""

    code: str
    message: str
    entry: int | None = None
    commit: str | None = None
    path: str | None = None
    severity: Severity = Severity.ERROR

    @property
    def text(self) -> str:
        """`receipt-changed: … [entry 0004 commit 1f0c… path results/TOY-001/receipt.json]`."""
        location = _location(self)
        if not location:
            return f"{self.code}: {self.message}"
        return f"{self.code}: {self.message}  [{location}]"


@dataclass(frozen=True)
class Uncovered:
    """One thing that could not be checked here."""

    code: str
    message: str


def no_counts() -> dict[str, int]:
    """Return that nothing was checked yet."""
    return dict.fromkeys(("entries", "commits", "receipts", "approvals", "artifacts"), 0)


@dataclass
class Report:
    """What was checked, what is invalid, and what could not be checked."""

    checked: dict[str, int] = field(default_factory=no_counts)
    """Kind of thing -> how many of them."""
    findings: list[Finding] = field(default_factory=list)
    uncovered: list[Uncovered] = field(default_factory=list)
    assurance: str = ""
    """Of a sample run: that no human approved it."""

    def add(self, item: Finding | Uncovered) -> None:
        """Add what a check yields.

        A document that anyone made may be quoted: it becomes one line, and moves no cursor.
        """
        item = replace(item, message=printable(item.message, MAX_TEXT))
        if isinstance(item, Finding):
            self.findings.append(item)
        else:
            self.uncovered.append(item)

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return self.count(Severity.ERROR) == 0

    def count(self, severity: Severity) -> int:
        """Return the number of findings of this severity."""
        return len([finding for finding in self.findings if finding.severity == severity])


def audit_json(report: Report) -> dict[str, Any]:
    """Return the object that `audit --json` prints."""
    document: dict[str, Any] = {}
    if report.assurance:
        document["assurance"] = report.assurance
    return document | {
        "ok": report.ok,
        "checked": report.checked,
        "uncovered": [asdict(item) for item in report.uncovered],
        "findings": [asdict(finding) for finding in report.findings],
    }


def audit_text(report: Report) -> str:
    """Return the report for a reader; the last line counts the findings."""
    # 1. What was checked.
    lines = [f"assurance: {report.assurance}"] if report.assurance else []
    counts = [f"{count} {kind}" for kind, count in report.checked.items()]
    lines.append(f"checked {', '.join(counts)}")

    # 2. What is invalid, and what could not be checked.
    for finding in report.findings:
        lines.append(f"{finding.severity.upper()} {finding.text}")
    for item in report.uncovered:
        lines.append(f"uncovered {item.code}: {item.message}")
    lines.append(_summary(report))
    return "\n".join(lines)


def _location(finding: Finding) -> str:
    """Return `entry 0004 commit 1f0c… path results/TOY-001/note.md`, as far as it is known."""
    words = []
    if finding.entry is not None:
        words.append(f"entry {finding.entry:04d}")
    if finding.commit:
        words.append(f"commit {finding.commit[:12]}")
    if finding.path:
        words.append(f"path {printable(finding.path, MAX_TEXT)}")
    return " ".join(words)


def _summary(report: Report) -> str:
    """Return `audit: ok`, or the number of errors and of warnings, each where there are any."""
    # `Severity` lists errors first. Uncovered things are no findings and are not counted.
    counts = []
    for severity in Severity:
        count = report.count(severity)
        if count:
            counts.append(format_count(count, severity))
    return f"audit: {', '.join(counts) or 'ok'}"
