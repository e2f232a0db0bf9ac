"""Decisions and order: each entry could be made then, and a decision's names a committed record."""

from __future__ import annotations

from phases.audit.findings import Finding, Report, Severity
from phases.record import entries
from phases.record.approvals import unrecorded_files
from phases.record.ledger import EntryKind
from phases.record.project import Project, Snapshot


def check_approvals(project: Project, report: Report, snapshot: Snapshot) -> None:
    """Check every decision's entry against its record, and every record for its entry."""
    # 1. Files that no entry names.
    ledger = snapshot.ledger
    is_committed = project.probe.has_approvals
    unrecorded = unrecorded_files(project.root, ledger, is_committed=is_committed)
    for path, reason in unrecorded.items():
        message = f"unrecorded approval file: {reason}"
        report.findings.append(Finding("approval-unrecorded", message, path=path))

    # 2. Decisions that do not count, and entries that could not follow.
    for problem in (*snapshot.evidence.problems, *snapshot.state.problems):
        if problem.code == "commit-untrailed":
            continue  # found already, where the commits are checked
        line = ledger.entries[(problem.entry or 1) - 1].match(entries.RECORD)
        report.findings.append(
            Finding(
                problem.code,
                problem.message,
                problem.entry,
                path=line["path"] if line else None,
            )
        )
    for number in sorted(snapshot.evidence.lost):
        kind = ledger.entries[number - 1].kind
        message = f"this {kind} was lost before it was committed; it counts for nothing"
        report.findings.append(Finding("decision-lost", message, number, severity=Severity.WARNING))
    report.checked["approvals"] = len(snapshot.evidence.decisions)


def check_pulled(report: Report, snapshot: Snapshot) -> None:
    """Check that each PULLED names the entries before it, and the commit that ends them."""
    for entry in snapshot.ledger.entries:
        if entry.kind != EntryKind.PULLED:
            continue
        line = entry.match(entries.PULLED) or {"first": "0", "last": "0", "commit": ""}
        newest = snapshot.evidence.newest_before(entry.seq)
        is_range = 1 <= int(line["first"]) <= int(line["last"]) == entry.seq - 1
        if not is_range or newest is None or newest.sha != line["commit"]:
            message = "this PULLED entry does not name the entries before it and their last commit"
            report.findings.append(Finding("pulled-contradicts", message, entry.seq))
