"""What an audit says: findings, what could not be covered, and the report for a person."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold."""

    code: str
    message: str
    entry: int | None = None
    commit: str | None = None
    path: str | None = None
    severity: str = "error"


@dataclass
class Report:
    """What was looked at, what does not hold, and what could not be looked at."""

    checked: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("entries", "commits", "receipts", "approvals", "artifacts"), 0
        )
    )
    findings: list[Finding] = field(default_factory=list)
    uncovered: list[dict[str, str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything that was looked at holds."""
        return not any(item.severity == "error" for item in self.findings)

    def json(self) -> dict[str, Any]:
        """`audit --json`, as docs/cli.md gives it."""
        return {
            "ok": self.ok,
            "checked": self.checked,
            "uncovered": self.uncovered,
            "findings": [vars(item) for item in self.findings],
        }


def text(report: Report) -> str:
    """The report for a person."""
    checked = ", ".join(f"{count} {name}" for name, count in report.checked.items())
    lines = [f"checked {checked}"]
    for item in report.findings:
        where = " ".join(
            f"{word} {value}"
            for word, value in (
                ("entry", f"{item.entry:04d}" if item.entry else None),
                ("commit", item.commit and item.commit[:12]),
                ("path", item.path),
            )
            if value
        )
        lines.append(
            f"{item.severity.upper()} {item.code}: {item.message}"
            + (f"  [{where}]" if where else "")
        )
    lines += [f"uncovered {item['code']}: {item['message']}" for item in report.uncovered]
    lines.append(
        "everything that was checked holds"
        if report.ok
        else f"{len(report.findings)} things do not hold"
    )
    return "\n".join(lines)
