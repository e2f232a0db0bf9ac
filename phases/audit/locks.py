"""Plan locks: each is the file that its entry names, and lists what that entry's commit holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from phases.audit.findings import Finding, Report, Uncovered
from phases.base import durable
from phases.git.repo import Commit, Repo
from phases.git.tree import CommitTree
from phases.plan.lock import (
    PlanLock,
    PlanLockError,
    compose_lock,
    lock_differences,
    runner_digest,
)
from phases.record import entries
from phases.record.approval_rule import ApprovalRule, committed_rule
from phases.record.committed_plan import committed_plan
from phases.record.ledger import Entry, EntryKind
from phases.record.project import Project, Snapshot
from phases.record.state import BINDING_KINDS


def check_plan_locks(
    project: Project,
    repo: Repo,
    report: Report,
    snapshot: Snapshot,
    recorded_by: Mapping[int, Commit],
) -> None:
    """Check every lock in the commit that recorded it; a phase's newest one also in the work tree.

    Args:
        project: the project.
        repo: its repository.
        report: the findings are added to it.
        snapshot: the ledger, and what the history says of it.
        recorded_by: number of an entry -> the commit that recorded it.
    """
    lost = snapshot.evidence.lost
    counted = [entry for entry in snapshot.ledger.entries if entry.seq not in lost]
    # A relock replaces the phase's lock file: only the newest one is still in the work tree.
    newest: dict[int | None, Entry] = {}
    for entry in counted:
        if entry.kind == EntryKind.LOCKED:
            newest[entry.phase] = entry
    replaced = _replaced_locks(counted)
    for entry in counted:
        if entry.kind != EntryKind.LOCKED or entry.seq not in recorded_by:
            continue
        if entry.seq in replaced:
            continue
        if newest[entry.phase] is entry:
            _check_work_tree(project, report, entry)
        _check_commit(repo, report, entry, recorded_by[entry.seq].sha)


def _replaced_locks(counted: Iterable[Entry]) -> set[int]:
    """Return the LOCKED entries that another one replaced before anything was judged by them.

    Their commits need not be in the history any more, and bind nothing.
    """
    replaced = set()
    unused: dict[int | None, int] = {}
    for entry in counted:
        if entry.kind in BINDING_KINDS:
            unused.pop(entry.phase, None)
        elif entry.kind == EntryKind.LOCKED:
            if entry.phase in unused:
                replaced.add(unused[entry.phase])
            unused[entry.phase] = entry.seq
    return replaced


def _check_work_tree(project: Project, report: Report, entry: Entry) -> None:
    lock = entry.match(entries.LOCK)
    if lock is None:
        return
    path = project.root / lock["path"]
    if not path.is_file() or durable.sha256_file(path) != lock["sha256"]:
        message = "the plan lock in the work tree differs from the one that the entry names"
        report.findings.append(Finding("lock-changed", message, entry.seq, path=lock["path"]))


def _check_commit(repo: Repo, report: Report, entry: Entry, commit: str) -> None:
    lock = entry.match(entries.LOCK) or {"path": "", "sha256": ""}
    path = lock["path"]
    data = repo.blob(commit, path) or b""
    if durable.sha256(data) != lock["sha256"]:
        message = "the commit's plan lock differs from the one that the entry names"
        report.findings.append(
            Finding("lock-changed", message, entry.seq, commit=commit, path=path or None)
        )
        return
    try:
        components = PlanLock.decode(data).components
    except PlanLockError as error:
        finding = Finding("lock-changed", str(error), entry.seq, commit=commit, path=path)
        report.findings.append(finding)
        return
    _check_components(repo, report, entry, components)


def _check_approval(report: Report, entry: Entry, rule: ApprovalRule, commit: str) -> None:
    """Compare what the entry states of approvals with what its commit asks."""
    stated = []
    for line in entry.lines:
        if entries.APPROVAL.parse(line) or entries.APPROVER.parse(line):
            stated.append(line)
    if tuple(stated) != rule.lines:
        actual = "; ".join(stated) or "nothing"
        message = f"of approvals the entry states {actual}, commit {commit[:12]} asks `{rule}`"
        report.findings.append(Finding("lock-contradicts", message, entry.seq, commit=commit))


def _check_components(
    repo: Repo, report: Report, entry: Entry, components: Mapping[str, str]
) -> None:
    """Compose the lock anew from the commit that the entry names, and compare.

    How the plan's own parts are digested depends on the version of the runner; those of another
    version are listed as unproved. Files (gates, configs, keys) are plain SHA-256 in every version.
    """
    # 1. The plan and the files of the commit that was locked.
    path = (entry.match(entries.LOCK) or {}).get("path")
    commit = (entry.match(entries.HEAD) or {}).get("commit", "")
    try:
        plan = committed_plan(repo, commit)
        phase = plan.phase(entry.phase or 0)
    except (ValueError, KeyError) as error:
        message = f"the plan in commit {commit[:12]}, which the lock names, cannot be read: {error}"
        finding = Finding("plan-missing", message, entry.seq, commit=commit or None, path=path)
        report.findings.append(finding)
        return

    # 2. The same lock must come out.
    runner = components.get("runner", "")
    recomputed = compose_lock(
        plan=plan,
        phase=phase,
        read=lambda name: repo.blob(commit, name),
        gate_files=CommitTree(repo, commit).files("gates"),
        runner=runner,
    )
    different = lock_differences(components, recomputed)
    _check_approval(report, entry, committed_rule(plan, CommitTree(repo, commit).entries), commit)

    # 3. What only this version of the runner digests this way is no error of another version.
    if runner != runner_digest():
        unproved = [name for name in different if name.startswith(("plan: ", "input: "))]
        different = [name for name in different if name not in unproved]
        if unproved:
            names = ", ".join(unproved)
            message = (
                f"another version of the runner made the lock of entry {entry.seq:04d}: {names}"
            )
            report.uncovered.append(Uncovered("lock-unproved", message))
    for name in different:
        message = f"the locked {name} differs from commit {commit[:12]}"
        finding = Finding("lock-contradicts", message, entry.seq, commit=commit, path=path)
        report.findings.append(finding)
