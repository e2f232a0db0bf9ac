"""Decisions: each entry of one names a committed record, and no phase begins before the one before is approved."""

from __future__ import annotations

from phases.audit.findings import Finding, Report
from phases.git.repo import Repo
from phases.record import approvals, state
from phases.record.ledger import Ledger
from phases.record.project import Project


def check_approvals(project: Project, repo: Repo, report: Report, ledger: Ledger) -> None:
    for path in approvals.unrecorded(project.root, ledger):
        report.findings.append(
            Finding(
                "approval-unrecorded",
                "no entry names this file with its digest: nobody's decision",
                path=path,
            )
        )
    for path in repo.files("HEAD", approvals.FOLDER):
        if path not in approvals.recorded(ledger):
            report.findings.append(
                Finding("approval-unrecorded", "committed, but no entry names this file", path=path)
            )
    counted = approvals.committed_records(repo, ledger)
    for entry in ledger.entries:
        named = entry.fact(state.RECORD)
        if named is None:
            if entry.kind in ("APPROVED", "REJECTED", "WAIVED"):
                report.findings.append(
                    Finding("approval-missing", f"{entry.kind} without a record", entry.seq)
                )
            continue
        if named["digest"] not in counted:
            report.findings.append(
                Finding(
                    "approval-missing",
                    f"the record that this {entry.kind} entry names is in no commit of the runner's",
                    entry.seq,
                    path=named["path"],
                )
            )
            continue
        report.checked["approvals"] += 1
        data = repo.blob("HEAD", named["path"]) or b""
        for reason in approvals.check_record(repo, data, entry, ledger):
            report.findings.append(
                Finding("approval-invalid", reason, entry.seq, path=named["path"])
            )


def check_phase_order(project: Project, repo: Repo, report: Report, ledger: Ledger) -> None:
    """Nothing of a phase stands before the approval of the phase before it."""
    counted = approvals.committed_records(repo, ledger)
    approved: set[int] = set()
    for entry in ledger.entries:
        named = entry.fact(state.RECORD)
        if entry.kind == "APPROVED" and entry.phase and named and named["digest"] in counted:
            approved.add(entry.phase)
        if (
            entry.kind in ("LOCKED", "STARTED", "WAIVED")
            and entry.phase
            and entry.phase > 1
            and entry.phase - 1 not in approved
        ):
            report.findings.append(
                Finding(
                    "phase-unapproved",
                    f"phase {entry.phase} began without an approval of phase {entry.phase - 1}",
                    entry.seq,
                )
            )
