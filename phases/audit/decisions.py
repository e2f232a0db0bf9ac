"""Decisions: each one's entry names a committed record, and phases begin in their order."""

from __future__ import annotations

from phases.audit.findings import Finding, Report
from phases.git.repo import Repo
from phases.record import approvals, entries
from phases.record.ledger import EntryKind, Ledger
from phases.record.project import Project

DECISIONS = (EntryKind.APPROVED, EntryKind.REJECTED, EntryKind.WAIVED)
"""Kinds of entries that must name a record; LOCKED names one only if it is a relock."""
BEGINNINGS = (EntryKind.LOCKED, EntryKind.STARTED, EntryKind.WAIVED)
"""Kinds of entries that begin a phase."""


def check_approvals(project: Project, repo: Repo, report: Report, ledger: Ledger) -> None:
    """Check every decision's entry against its record, and every record for its entry."""
    # 1. Files that no entry names.
    for path in approvals.unrecorded_files(project.root, ledger):
        message = "unrecorded approval file: no entry names it with the digest it has"
        report.findings.append(Finding("approval-unrecorded", message, path=path))
    named = approvals.named_records(ledger)
    for path in repo.files("HEAD", approvals.FOLDER):
        if path not in named:
            message = "unrecorded approval file: it is committed, and no entry names it"
            report.findings.append(Finding("approval-unrecorded", message, path=path))

    # 2. Entries without a committed record, or with an invalid one.
    counted = approvals.committed_records(repo, ledger)
    for entry in ledger.entries:
        record = entry.match(entries.RECORD)
        if record is None:
            if entry.kind in DECISIONS:
                message = f"this {entry.kind} entry names no record"
                report.findings.append(Finding("approval-missing", message, entry.seq))
            continue
        path = record["path"]
        if record["sha256"] not in counted:
            message = f"no commit of the runner's has the record that this {entry.kind} entry names"
            report.findings.append(Finding("approval-missing", message, entry.seq, path=path))
            continue
        report.checked["approvals"] += 1
        data = repo.blob("HEAD", path) or b""
        for problem in approvals.record_problems(repo, data, entry, ledger):
            report.findings.append(Finding("approval-invalid", problem, entry.seq, path=path))


def check_phase_order(repo: Repo, report: Report, ledger: Ledger) -> None:
    """Check that no phase begins before the approval of the phase before it."""
    counted = approvals.committed_records(repo, ledger)
    approved_phases: set[int] = set()
    for entry in ledger.entries:
        if entry.phase is None:
            continue
        record = entry.match(entries.RECORD)
        if entry.kind == EntryKind.APPROVED and record and record["sha256"] in counted:
            approved_phases.add(entry.phase)
        previous = entry.phase - 1
        if entry.kind in BEGINNINGS and previous >= 1 and previous not in approved_phases:
            message = f"phase {entry.phase} began without an approval of phase {previous}"
            report.findings.append(Finding("phase-unapproved", message, entry.seq))
