"""The audit's part on plan locks: each is the file that its entry names, and says what that entry's commit holds."""

from __future__ import annotations

from collections.abc import Mapping

from phases.audit.findings import Finding, Report
from phases.base import durable, strict_json
from phases.git.repo import Repo
from phases.plan.load import parse_plan
from phases.plan.lock import compose_lock, lock_differences, runner_digest
from phases.plan.schema import Plan
from phases.record import state
from phases.record.ledger import Entry, Ledger
from phases.record.project import Project


def check_plan_locks(
    project: Project, repo: Repo, report: Report, ledger: Ledger, holder: Mapping[int, str]
) -> None:
    """Every lock in the commit that recorded it; a phase's newest one also in the work tree.

    Args:
        project: the project.
        repo: its repository.
        report: what is found goes here.
        ledger: the ledger.
        holder: number of an entry -> the commit that recorded it.
    """
    newest = {entry.phase: entry for entry in ledger.entries if entry.kind == "LOCKED"}
    for entry in ledger.entries:
        if entry.kind != "LOCKED" or entry.seq not in holder:
            continue
        named = entry.fact(state.LOCK)
        if named and newest[entry.phase] is entry:
            file = project.root / named["path"]
            if not file.is_file() or durable.sha256_file(file) != named["digest"]:
                message = "the plan lock in the work tree is not the one that the entry names"
                report.findings.append(
                    Finding("lock-changed", message, entry.seq, path=named["path"])
                )
        data = repo.blob(holder[entry.seq], named["path"]) if named else None
        if named is None or data is None or durable.sha256(data) != named["digest"]:
            message = "the commit does not hold the plan lock that the entry names"
            path = named["path"] if named else None
            report.findings.append(
                Finding("lock-changed", message, entry.seq, holder[entry.seq], path)
            )
        else:
            _components(repo, report, entry, strict_json.loads(data)["components"], named["path"])


def plan_at(repo: Repo, commit: str) -> Plan:
    """The plan as a commit holds it; ValueError where it holds none that can be read."""
    plans = [
        path
        for path in repo.files(commit, "prd")
        if path.endswith(".json") and path.count("/") == 1
    ]
    if len(plans) != 1:
        message = f"it holds {len(plans)} plans"
        raise ValueError(message)
    return parse_plan(repo.blob(commit, plans[0]) or b"")


def _components(
    repo: Repo, report: Report, entry: Entry, locked: Mapping[str, str], path: str
) -> None:
    """The lock composed anew from the commit that the entry names must come out the same.

    How the plan's own parts are digested depends on the version of the runner; those of another version are listed as
    unproved. Files (gates, configs, keys) are plain SHA-256 in every version.
    """
    head = entry.fact(state.HEAD)
    commit = head["commit"] if head else ""
    try:
        plan = plan_at(repo, commit)
        phase = plan.phase(entry.phase or 0)
    except (ValueError, KeyError) as error:
        message = f"the plan in commit {commit[:12]}, which the lock names, cannot be read: {error}"
        report.findings.append(Finding("plan-missing", message, entry.seq, commit or None, path))
        return
    gates = sorted(repo.files(commit, "gates"))
    again = compose_lock(
        plan, phase, lambda name: repo.blob(commit, name), gates, locked.get("runner", "")
    )
    differing = lock_differences(locked, again)
    by_version = [name for name in differing if name.startswith(("plan: ", "input: "))]
    is_this_version = locked.get("runner") == runner_digest()
    if by_version and not is_this_version:
        message = f"the lock of entry {entry.seq:04d} was made by another version of the runner: {', '.join(by_version)}"
        report.uncovered.append({"code": "lock-unproved", "message": message})
    for name in differing:
        if is_this_version or name not in by_version:
            message = f"{name} is locked otherwise than commit {commit[:12]} holds it"
            report.findings.append(Finding("lock-contradicts", message, entry.seq, commit, path))
