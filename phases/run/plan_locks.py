"""The plan lock of a phase: made from a commit, read back, compared."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from phases.base import durable
from phases.base.regular_file import read_regular
from phases.errors import IntegrityError
from phases.git.probe import LOG_REF
from phases.git.repo import Repo
from phases.git.tree import CommitTree, Tree
from phases.git.way_back import reviewed_way
from phases.plan.load import parse_plan
from phases.plan.lock import (
    PlanLock,
    PlanLockError,
    compose_lock,
    lock_differences,
    runner_digest,
)
from phases.plan.schema import Phase, Plan
from phases.record import entries
from phases.record.approval_rule import SIGNERS, committed_rule
from phases.record.committed_plan import plan_path
from phases.record.project import Project, Snapshot

DIFF_LINES = 60


def lock_of(plan: Plan, tree: Tree, phase_id: int) -> PlanLock:
    """Return the lock of a phase as this plan, and the files of this tree, are.

    Raises:
        IntegrityError: the plan no longer has the phase.
    """
    try:
        phase = plan.phase(phase_id)
    except KeyError:
        message = f"the plan has no phase {phase_id} any more"
        raise IntegrityError("plan-changed", message, hint="bring the phase back") from None
    gate_files = tree.files("gates")
    tree.read_files(gate_files)  # at once; `read` below would ask git for each
    return compose_lock(plan, phase, tree.read, gate_files, runner_digest())


def committed_lock(tree: CommitTree, phase_id: int) -> PlanLock:
    """Return the lock of a phase as a commit's plan, gates and files are.

    Raises:
        IntegrityError: the commit has no plan that can be read, or none with this phase.
    """
    plan = require_plan(tree)
    return tree.derive(("lock", phase_id), lambda: lock_of(plan, tree, phase_id))


def require_plan(tree: CommitTree) -> Plan:
    """Return the plan of a commit; IntegrityError where it has none that can be read."""
    try:
        return tree.derive("plan", lambda: _read_plan(tree))
    except ValueError as error:
        message = f"the plan in commit {tree.commit[:12]} cannot be read: {error}"
        raise IntegrityError("plan-changed", message, hint="fix the plan and commit it") from None


def _read_plan(tree: CommitTree) -> Plan:
    return parse_plan(tree.read(plan_path(tree.files("prd"))) or b"")


def read_lock(project: Project, repo: Repo, snapshot: Snapshot, phase_id: int) -> PlanLock:
    """Return the lock that the ledger names.

    Where git took its file away, it is composed again from the commit that its entry names.

    Raises:
        IntegrityError: the file is another one.
        EnvironmentFaultError: it is no regular file.
    """
    status = snapshot.state.phase(phase_id)
    name = status.lock_path or project.paths.plan_lock(phase_id)
    path = project.root / name
    if _is_taken_away(name, repo, snapshot, status.lock):
        composed = _composed_lock(repo, snapshot, phase_id)
        if composed is not None:
            return composed
    try:
        data = read_regular(path)
    except FileNotFoundError:
        data = b""
    if durable.sha256(data) == status.lock:
        try:
            return PlanLock.decode(data)
        except PlanLockError as error:
            raise IntegrityError("lock-changed", f"{path}: {error}") from None
    raise IntegrityError(
        "lock-changed",
        f"{path} is not the plan lock that the ledger names (sha256 {(status.lock or '')[:12]}…)",
        hint=_way_to_lock(repo, name, status.lock or ""),
    )


def _is_taken_away(name: str, repo: Repo, snapshot: Snapshot, digest: str | None) -> bool:
    """Return whether git took a lock's file away: it is gone (git clean), or HEAD's (git stash).

    HEAD has an older lock in its place while no commit has the entry that names the newer one.
    """
    path = repo.root / name
    if not os.path.lexists(path):
        return True
    for entry in snapshot.ledger.entries[snapshot.evidence.committed :]:
        lock = entry.match(entries.LOCK)
        if lock and lock["sha256"] == digest:
            data = read_regular(path)
            return durable.sha256(data) != digest and data == repo.blob("HEAD", name)
    return False


def _composed_lock(repo: Repo, snapshot: Snapshot, phase_id: int) -> PlanLock | None:
    """Return the lock as the commit that its entry names gives it; None if that is another one."""
    status = snapshot.state.phase(phase_id)
    if status.lock_commit is None:
        return None
    try:
        lock = committed_lock(CommitTree(repo, status.lock_commit), phase_id)
    except IntegrityError:
        return None
    if lock.digest != status.lock:
        return None
    return lock


def _way_to_lock(repo: Repo, name: str, digest: str) -> str:
    """Return the command that brings a lock back, and what it does."""
    edits = f"throws away what was changed in {name}"
    for commit in ("HEAD", LOG_REF):
        if durable.sha256(repo.blob(commit, name) or b"") == digest:
            path = shlex.quote(name)
            return f"`git cat-file blob {commit}:{path} > {path}` {edits}"
    return f"`rm {shlex.quote(name)}` {edits}; the next run writes it again"


def lock_file(project: Project, repo: Repo, snapshot: Snapshot, phase_id: int) -> dict[str, bytes]:
    """Return the lock as a file to commit with an outcome; {} where the phase is not locked.

    Before the phase's first outcome it is also {} where the file is gone and another version of
    the runner would compose another lock: the next run locks the phase anew.
    """
    status = snapshot.state.phase(phase_id)
    if status.lock is None or status.lock_path is None:
        return {}
    is_gone = _is_taken_away(status.lock_path, repo, snapshot, status.lock)
    if is_gone and not status.has_outcome and _composed_lock(repo, snapshot, phase_id) is None:
        return {}
    return {status.lock_path: read_lock(project, repo, snapshot, phase_id).encode()}


def lock_changes(project: Project, repo: Repo, snapshot: Snapshot, lock: PlanLock) -> list[str]:
    """Return the names of everything in a lock that is not as its phase was locked."""
    locked = read_lock(project, repo, snapshot, lock.phase)
    return lock_differences(locked.components, lock)


def require_lock_unchanged(
    project: Project, tree: CommitTree, snapshot: Snapshot, phase: Phase
) -> None:
    """Raise IntegrityError, with the diff, where a commit's plan is not what was locked.

    Before the phase's first outcome nothing was judged by the lock: then the plan may change, and
    the next run locks it anew. Only what it asks of an approval may not become less than earlier
    locks asked.
    """
    status = snapshot.state.phase(phase.id)
    if status.lock is None or not status.has_outcome:
        _require_approval_kept(tree, snapshot, phase)
        return
    changes = lock_changes(project, tree.repo, snapshot, committed_lock(tree, phase.id))
    if changes:
        diff = lock_diff(tree.repo, status.lock_commit, changes)
        rule = snapshot.state.approval | committed_rule(require_plan(tree), tree.entries)
        hint = f"restore it, or python -m phases relock {phase.id} --reason '…'"
        if status.lock_commit and not rule.allows_presence:  # nobody could confirm a relock
            hint = restore_hint(project.root, status.lock_commit, changes)
        raise IntegrityError(
            "plan-changed",
            f"the plan of phase {phase.id} differs from what was locked at its start: "
            f"{', '.join(changes)}{diff}",
            hint=hint,
        )


def _require_approval_kept(tree: CommitTree, snapshot: Snapshot, phase: Phase) -> None:
    """Raise IntegrityError where a phase would be locked with less than judged locks ask."""
    judged = snapshot.state.judged_approval
    rule = committed_rule(require_plan(tree), tree.entries)
    if not rule.covers(judged):
        raise IntegrityError(
            "approval-lowered",
            f"phase {phase.id} would be locked with `{rule}`, and something was judged under "
            f"`{judged}`: how a project is approved is not lowered",
            hint=f"restore approval in the plan and {SIGNERS}, and commit them",
        )


def lock_diff(repo: Repo, commit: str | None, changes: Sequence[str]) -> str:
    """Return what changed since the commit that a lock was made from, in at most 60 lines."""
    # 1. The commit may have left the history.
    if commit is None or not repo.is_ancestor(commit, "HEAD"):
        return ""

    # 2. Their diff, cut where it is long.
    paths = _changed_paths(changes)
    lines = repo.diff(commit, paths).splitlines()
    hidden = len(lines) - DIFF_LINES
    if hidden > 0:
        command = f"git diff {commit[:12]} -- {' '.join(paths)}"
        lines = [*lines[:DIFF_LINES], f"… {hidden} more lines: {command}"]
    return "".join(f"\n{line}" for line in lines)


def restore_hint(root: Path, commit: str, changes: Sequence[str]) -> str:
    """Return how changed files, or parts of the plan, are again as a commit has them."""
    paths = _changed_paths(changes)
    if set(changes) - set(paths):  # parts of files that have others too
        command = f"git diff {commit[:12]} -- {shlex.join(paths)}"
        return f"`{command}` shows it; restore it by a commit"
    way = reviewed_way(root, commit, paths)
    return f"`{way}` restores them and throws away what was changed in them"


def _changed_paths(changes: Sequence[str]) -> list[str]:
    """Return the paths of changed parts of a lock."""
    paths = set()
    for name in changes:
        if name.startswith(("plan: ", "input: ")):
            paths.add("prd")
        elif name == "runner":
            paths.add("phases")
        else:
            paths.add(name)
    return sorted(paths)
