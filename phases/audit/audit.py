"""audit: replay the whole record offline and list everything that is invalid.

In order: journal and chain; every commit of the runner's against the entries it holds; every
receipt and verdict in the commit that recorded it; recomputed predictions; plan locks; approvals;
the order of the phases; and what is stored on this machine. It changes no record. What cannot be
covered here is listed as uncovered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from phases.audit.commits import check_commits, check_genesis
from phases.audit.decisions import check_approvals, check_pulled
from phases.audit.findings import Finding, Report, Severity, Uncovered
from phases.audit.locks import check_plan_locks
from phases.audit.receipts import check_receipts
from phases.audit.requests import check_requests
from phases.audit.unrecorded import check_unrecorded
from phases.base import durable
from phases.git.checks import clone_problems, read_repository_state
from phases.git.repo import Commit, Repo
from phases.record import entries
from phases.record.at_rest import MOVED, read_at_rest
from phases.record.completion import pending_errors
from phases.record.ledger import OUTCOMES, EntryKind, Ledger
from phases.record.pending import read_pending
from phases.record.project import (
    Project,
    Snapshot,
    find_anchor_problems,
    reconcile_project,
    rewound_error,
    take_snapshot,
)
from phases.record.reconcile import Reconciled

NAMED_FILES = (entries.VERDICT, entries.REQUEST, entries.ATTEMPT_RECORD)
"""Lines of a halt or a failure that name a file by digest."""


def audit_at_rest(project: Project) -> Report:
    """Return the report of `audit` while a runner may be at work."""

    def read(current: Project) -> tuple[Report, bool]:
        report = audit(current)
        return report, bool(report.findings)

    report, has_moved = read_at_rest(project, read)
    if has_moved:
        report.uncovered.append(Uncovered("record-moved", MOVED))
    return report


def audit(project: Project) -> Report:
    """Return the report on the whole record; raise only where the repository cannot be read."""
    # 1. The repository: what is not here at all cannot be audited.
    for problem in clone_problems(read_repository_state(project.root, sign=False)):
        raise problem
    repo = project.repo()
    report = Report()
    if project.probe.is_rewound:
        error = rewound_error(project)
        report.findings.append(Finding(error.code, str(error)))

    # 2. progress.txt, its journal, HEAD's version and what anchors them; before, what is prepared.
    pending = read_pending(project.paths)
    snapshot = _check_ledger(project, repo, report)
    ledger = snapshot.ledger
    for pending_error in pending_errors(project, repo, ledger, pending):
        report.findings.append(Finding(pending_error.code, str(pending_error)))

    # 3. Everything that the entries name.
    recorded_by = check_commits(repo, report, ledger)
    _set_unrecorded_outcomes_aside(report, snapshot, recorded_by)
    check_genesis(repo, report, ledger)
    _list_uncommitted(report, ledger, recorded_by)
    check_receipts(project, repo, report, ledger, recorded_by)
    check_plan_locks(project, repo, report, snapshot, recorded_by)
    _check_named_files(repo, report, ledger, recorded_by)
    check_requests(repo, report, snapshot)
    check_approvals(project, report, snapshot)
    check_pulled(report, snapshot)
    check_unrecorded(project, repo, report, ledger)
    return report


def _check_ledger(project: Project, repo: Repo, report: Report) -> Snapshot:
    """Return the ledger that the other checks are about, and what the history says of it."""
    reconciled = reconcile_project(project, repo)
    snapshot = take_snapshot(project, reconciled)
    problems = reconciled.problems
    if not problems and not project.probe.is_rewound:
        problems = find_anchor_problems(project, snapshot)
    for problem in problems:
        if problem.code in ("ledger-rewritten", "ledger-deleted"):
            continue  # found again where the commits are checked
        report.findings.append(Finding(problem.code, problem.message, problem.entry))
    report.checked["entries"] = len(snapshot.ledger.entries)
    report.uncovered += _uncovered(reconciled)
    return snapshot


def _uncovered(reconciled: Reconciled) -> Iterator[Uncovered]:
    """Yield what this machine has not recorded itself, or not completely."""
    pulled = reconciled.pulled
    if not reconciled.has_journal and reconciled.ledger.entries:
        message = "a clone has no journal: a cut at the end that was committed cannot be seen here"
        yield Uncovered("no-journal", message)
    elif pulled:
        message = f"entries {pulled.first:04d} to {pulled.last:04d} were recorded elsewhere"
        yield Uncovered("pulled", f"{message}; the next run or decision takes them over")
    if reconciled.restored:
        missing = f"progress.txt lacks its last {reconciled.restored} entries"
        message = f"{missing}; the journal has them, the next run restores them"
        yield Uncovered("uncommitted-end", message)


def _set_unrecorded_outcomes_aside(
    report: Report, snapshot: Snapshot, recorded_by: dict[int, Commit]
) -> None:
    """Take out outcomes that came into the history otherwise than by their own commit.

    They count for nothing, and nothing of theirs was committed that could be checked. It is an
    error unless the runner went on as if there was none: the feature was interrupted afterwards.
    """
    newest: dict[tuple[int | None, str | None], int] = {}
    findings = []
    for entry in snapshot.ledger.entries:
        newest[entry.phase, entry.feature] = entry.seq
        if entry.kind not in (*OUTCOMES, EntryKind.HALTED) or entry.seq not in recorded_by:
            continue
        if not snapshot.evidence.ends_commit(entry.seq):
            commit = recorded_by.pop(entry.seq)
            message = f"no commit was made for this {entry.kind} entry; it counts for nothing"
            findings.append(Finding("outcome-uncommitted", message, entry.seq, commit=commit.sha))
    for finding in findings:
        is_newest = finding.entry in newest.values()
        severity = Severity.ERROR if is_newest else Severity.WARNING
        report.findings.append(replace(finding, severity=severity))


def _list_uncommitted(report: Report, ledger: Ledger, recorded_by: Mapping[int, Commit]) -> None:
    """List the entries at the end that no commit of the runner's has yet."""
    last = max(recorded_by, default=0)
    if ledger.entries and ledger.entries[-1].seq > last:
        count = ledger.entries[-1].seq - last
        message = f"{count} entries after {last:04d} are in no commit yet"
        report.uncovered.append(
            Uncovered("uncommitted-entries", f"{message}; the next run commits them")
        )


def _check_named_files(
    repo: Repo, report: Report, ledger: Ledger, recorded_by: Mapping[int, Commit]
) -> None:
    """Check that what a halt or a failure names by digest is in the commit that recorded it."""
    for entry in ledger.entries:
        commit = recorded_by.get(entry.seq)
        kinds = (EntryKind.HALTED, EntryKind.FAILED, EntryKind.ERRORED)
        if commit is None or entry.kind not in kinds:
            continue
        for line_format in NAMED_FILES:
            for named in entry.match_all(line_format):
                data = repo.blob(commit.sha, named["path"])
                if data is None or durable.sha256(data) != named["sha256"]:
                    report.findings.append(
                        Finding(
                            "named-file-changed",
                            f"a file in the commit differs from what this {entry.kind} entry names",
                            entry.seq,
                            commit=commit.sha,
                            path=named["path"],
                        )
                    )
