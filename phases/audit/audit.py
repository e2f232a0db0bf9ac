"""audit: replays the whole record offline and lists everything that does not hold.

In order: journal and chain; every commit of the runner's against the entries it holds; every receipt and verdict in
the tree of the commit that recorded it; predictions scored again; plan locks; approvals; the order of the phases; and
what is stored on this machine. Reads only. What cannot be covered here is listed as uncovered, not passed over.
"""

from __future__ import annotations

import re

from phases.audit import locks as audit_locks
from phases.audit.commits import History, check_commits, check_genesis
from phases.audit.decisions import check_approvals, check_phase_order
from phases.audit.findings import Finding, Report
from phases.audit.receipts import check_receipts
from phases.base import durable
from phases.git.checks import clone_problems, read_repository_state
from phases.git.repo import Repo
from phases.record.ledger import Ledger
from phases.record.project import Project, reconcile_project, rewound_error

NAMED = r"(?P<word>verdict|request|attempt-record) sha256:(?P<digest>[0-9a-f]{64}) (?P<path>\S+)"


def audit(project: Project) -> Report:
    """Replays everything; raises only where the repository itself cannot be read."""
    for missing in clone_problems(read_repository_state(project.root, sign=False)):
        raise missing
    repo, report = project.repo(), Report()
    if project.probe.rewound:
        problem = rewound_error(project.probe)
        report.findings.append(Finding(problem.code, str(problem)))
    found = reconcile_project(project, repo)
    report.findings += [Finding(item.code, item.message, item.entry) for item in found.problems]
    ledger = found.ledger
    report.checked["entries"] = len(ledger.entries)
    if ledger.entries and not found.has_journal:
        report.uncovered.append(
            {
                "code": "no-journal",
                "message": "a clone has no journal: a cut at the end that was committed as such cannot be seen here",
            }
        )
    if found.restored:
        report.uncovered.append(
            {
                "code": "uncommitted-end",
                "message": f"progress.txt lacks its last {found.restored} "
                "entries; the journal has them, the next run restores them",
            }
        )
    history = check_commits(repo, report, ledger)
    check_genesis(repo, report, ledger)
    last = max(history.holder, default=0)
    if ledger.entries and ledger.entries[-1].seq > last:
        count = ledger.entries[-1].seq - last
        report.uncovered.append(
            {
                "code": "uncommitted-entries",
                "message": f"{count} entries after {last:04d} are in no commit yet; the next run commits them",
            }
        )
    check_receipts(project, repo, report, ledger, history)
    audit_locks.check_plan_locks(
        project, repo, report, ledger, {seq: commit.sha for seq, commit in history.holder.items()}
    )
    _named_files(repo, report, ledger, history)
    check_approvals(project, repo, report, ledger)
    check_phase_order(project, repo, report, ledger)
    return report


#### commits


#### receipts, verdicts, predictions, artifacts


#### exit verdicts, requests, failed attempts; locks, approvals, order


def _named_files(repo: Repo, report: Report, ledger: Ledger, history: History) -> None:
    """What a halt or a failure names by digest is in the commit that recorded it."""
    for entry in ledger.entries:
        commit = history.holder.get(entry.seq)
        if commit is None or entry.kind not in ("HALTED", "FAILED", "ERRORED"):
            continue
        for named in filter(None, (re.fullmatch(NAMED, line) for line in entry.lines)):
            data = repo.blob(commit.sha, named["path"])
            if data is None or durable.sha256(data) != named["digest"]:
                message = f"the commit does not hold the {named['word']} that this {entry.kind} entry names"
                report.findings.append(
                    Finding("named-file-changed", message, entry.seq, commit.sha, named["path"])
                )
