"""The plan lock of a phase: made from HEAD, read back, compared."""

from __future__ import annotations

from collections.abc import Sequence

from phases.base import durable
from phases.base.paths import Paths
from phases.errors import IntegrityError
from phases.git.repo import Repo
from phases.plan.lock import (
    PlanLock,
    PlanLockError,
    compose_lock,
    lock_differences,
    runner_digest,
)
from phases.plan.schema import Phase
from phases.record import entries
from phases.record.ledger import EntryKind, Ledger
from phases.record.project import Project, Snapshot
from phases.record.state import PhaseStatus

DIFF_LINES = 60


def current_lock(project: Project, repo: Repo, phase: Phase) -> PlanLock:
    """Return the lock of a phase as HEAD's plan, gates and runner are."""
    return compose_lock(
        project.plan,
        phase,
        read=lambda path: repo.blob("HEAD", path),
        gate_files=sorted(repo.files("HEAD", "gates")),
        runner=runner_digest(),
    )


def read_lock(paths: Paths, phase: PhaseStatus) -> PlanLock:
    """Return the lock that the ledger names; IntegrityError if its file is another one."""
    path = paths.root / (phase.lock_path or paths.plan_lock(phase.id))
    data = path.read_bytes() if path.is_file() else b""
    if durable.sha256(data) == phase.lock:
        try:
            return PlanLock.decode(data)
        except PlanLockError as error:
            raise IntegrityError("lock-changed", f"{path}: {error}") from None
    raise IntegrityError(
        "lock-changed",
        f"{path} is not the plan lock that the ledger names (sha256 {(phase.lock or '')[:12]}…)",
        hint=f"git checkout -- {path}",
    )


def lock_file(paths: Paths, phase: PhaseStatus) -> dict[str, bytes]:
    """Return the lock as a file to commit with an outcome; {} where the phase is not locked."""
    if phase.lock is None or phase.lock_path is None:
        return {}
    read_lock(paths, phase)
    return {phase.lock_path: (paths.root / phase.lock_path).read_bytes()}


def lock_changes(project: Project, repo: Repo, phase: Phase, status: PhaseStatus) -> list[str]:
    """Return the names of everything that is not as it was locked."""
    return lock_differences(
        read_lock(project.paths, status).components, current_lock(project, repo, phase)
    )


def require_lock_unchanged(project: Project, repo: Repo, snapshot: Snapshot, phase: Phase) -> None:
    """Raise IntegrityError where the plan is not what the phase was locked on, with the diff."""
    status = snapshot.state.phase(phase.id)
    if status.lock is None:
        return
    changes = lock_changes(project, repo, phase, status)
    if changes:
        diff = lock_diff(repo, snapshot.ledger, phase.id, changes)
        raise IntegrityError(
            "plan-changed",
            f"the plan of phase {phase.id} differs from what was locked at its start: "
            f"{', '.join(changes)}{diff}",
            hint=f"restore it, or python -m phases relock {phase.id} --reason '…'",
        )


def lock_diff(repo: Repo, ledger: Ledger, phase: int, changes: Sequence[str]) -> str:
    """Return what changed since the phase was locked, as a diff of at most 60 lines."""
    # 1. The commit of the newest lock.
    commit = None
    for entry in ledger.entries:
        head = entry.match(entries.HEAD)
        if entry.kind == EntryKind.LOCKED and entry.phase == phase and head:
            commit = head["commit"]
    if commit is None or not repo.is_ancestor(commit, "HEAD"):
        return ""

    # 2. The paths of the changed parts.
    paths = set()
    for name in changes:
        if name.startswith(("plan: ", "input: ")):
            paths.add("prd")
        elif name == "runner":
            paths.add("phases")
        else:
            paths.add(name)

    # 3. Their diff, cut where it is long.
    lines = repo.diff(commit, sorted(paths)).splitlines()
    hidden = len(lines) - DIFF_LINES
    if hidden > 0:
        command = f"git diff {commit[:12]} -- {' '.join(sorted(paths))}"
        lines = [*lines[:DIFF_LINES], f"… {hidden} more lines: {command}"]
    return "".join(f"\n{line}" for line in lines)
