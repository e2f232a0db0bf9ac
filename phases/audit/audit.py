"""audit: replay the whole record offline and list everything that is invalid.

In order: journal and chain; every commit of the runner's against the entries it holds; every
receipt and verdict in the commit that recorded it; recomputed predictions; plan locks; approvals;
the order of the phases; and what is stored on this machine. It changes no record. What cannot be
covered here is listed as uncovered.
"""

from __future__ import annotations

from collections.abc import Mapping

from phases.audit.commits import check_commits, check_genesis
from phases.audit.decisions import check_approvals, check_phase_order
from phases.audit.findings import Finding, Report, Uncovered
from phases.audit.locks import check_plan_locks
from phases.audit.receipts import check_receipts
from phases.base import durable
from phases.git.checks import clone_problems, read_repository_state
from phases.git.repo import Commit, Repo
from phases.record import entries
from phases.record.ledger import EntryKind, Ledger
from phases.record.project import Project, reconcile_project, rewound_error

NAMED_FILES = (entries.VERDICT, entries.REQUEST, entries.ATTEMPT_RECORD)
"""Lines of a halt or a failure that name a file by digest."""


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

    # 2. progress.txt, its journal and HEAD's version.
    ledger = _check_ledger(project, repo, report)

    # 3. Everything that the entries name.
    recorded_by = check_commits(repo, report, ledger)
    check_genesis(repo, report, ledger)
    _list_uncommitted(report, ledger, recorded_by)
    check_receipts(project, repo, report, ledger, recorded_by)
    check_plan_locks(project, repo, report, ledger, recorded_by)
    _check_named_files(repo, report, ledger, recorded_by)
    check_approvals(project, repo, report, ledger)
    check_phase_order(repo, report, ledger)
    return report


def _check_ledger(project: Project, repo: Repo, report: Report) -> Ledger:
    """Return the ledger that the other checks are about."""
    reconciled = reconcile_project(project, repo)
    for problem in reconciled.problems:
        report.findings.append(Finding(problem.code, problem.message, problem.entry))
    ledger = reconciled.ledger
    report.checked["entries"] = len(ledger.entries)
    if ledger.entries and not reconciled.has_journal:
        message = "a clone has no journal: a cut at the end that was committed cannot be seen here"
        report.uncovered.append(Uncovered("no-journal", message))
    if reconciled.restored:
        missing = f"progress.txt lacks its last {reconciled.restored} entries"
        message = f"{missing}; the journal has them, the next run restores them"
        report.uncovered.append(Uncovered("uncommitted-end", message))
    return ledger


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
