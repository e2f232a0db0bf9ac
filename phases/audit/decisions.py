"""Decisions: each one's entry names a committed record, and phases begin in their order."""

from __future__ import annotations

from phases.audit.findings import Finding, Report
from phases.git.repo import Repo
from phases.record import approvals, entries
from phases.record.evidence import APPROVALS
from phases.record.ledger import EntryKind
from phases.record.project import Project, Snapshot

BEGINNINGS = (EntryKind.LOCKED, EntryKind.STARTED, EntryKind.WAIVED)
"""Kinds of entries that begin a phase."""


def check_approvals(project: Project, repo: Repo, report: Report, snapshot: Snapshot) -> None:
    """Check every decision's entry against its record, and every record for its entry."""
    # 1. Files that no entry names.
    ledger = snapshot.ledger
    for path in approvals.unrecorded_files(project.root, ledger):
        message = "unrecorded approval file: no entry names it with the digest it has"
        report.findings.append(Finding("approval-unrecorded", message, path=path))
    named = approvals.named_records(ledger)
    for path in repo.files("HEAD", APPROVALS):
        if path not in named:
            message = "unrecorded approval file: it is committed, and no entry names it"
            report.findings.append(Finding("approval-unrecorded", message, path=path))

    # 2. Decisions that do not count.
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
    report.checked["approvals"] = len(snapshot.evidence.decisions)


def check_phase_order(report: Report, snapshot: Snapshot) -> None:
    """Check that no phase begins before the approval of the phase before it."""
    refused = {problem.entry for problem in snapshot.state.problems}
    approved_phases: set[int] = set()
    for entry in snapshot.ledger.entries:
        if entry.phase is None or entry.seq in refused:
            continue
        if entry.kind == EntryKind.APPROVED and entry.seq in snapshot.evidence.decisions:
            approved_phases.add(entry.phase)
        previous = entry.phase - 1
        if entry.kind in BEGINNINGS and previous >= 1 and previous not in approved_phases:
            message = f"phase {entry.phase} began without an approval of phase {previous}"
            report.findings.append(Finding("phase-unapproved", message, entry.seq))
