"""The plan lock of a phase: composed from HEAD, read back, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from phases.base import durable, strict_json
from phases.base.failpoint import failpoint
from phases.base.paths import Paths, lock_path
from phases.errors import IntegrityError
from phases.git.repo import Repo
from phases.plan.lock import PlanLock, compose_lock, lock_differences, runner_digest
from phases.plan.schema import Phase
from phases.record import entries
from phases.record.ledger import Ledger
from phases.record.project import Project
from phases.record.state import HEAD, PhaseStatus
from phases.run.session import Session


def current_lock(project: Project, repo: Repo, phase: Phase) -> PlanLock:
    """The lock as the committed plan stands now."""
    gate_files = sorted(repo.files("HEAD", "gates"))
    return compose_lock(
        project.plan,
        phase,
        lambda path: repo.blob("HEAD", path),
        gate_files,
        runner_digest(),
    )


def read_lock(paths: Paths, phase: PhaseStatus) -> Mapping[str, str]:
    """The components of the lock that the ledger names; IntegrityError if the file is not the one it names."""
    path = paths.root / (phase.lock_path or lock_path(paths, phase.id))
    data = path.read_bytes() if path.is_file() else b""
    if durable.sha256(data) != phase.lock:
        raise IntegrityError(
            "lock-changed",
            f"{path} is not the plan lock that the ledger names (sha256 {(phase.lock or '')[:12]}…)",
            hint=f"git checkout -- {path}",
        )
    components: Mapping[str, str] = strict_json.loads(data)["components"]
    return components


def lock_file(paths: Paths, phase: PhaseStatus) -> dict[str, bytes]:
    """The lock as a file to commit along with an outcome; nothing where the phase is not locked."""
    if phase.lock is None or phase.lock_path is None:
        return {}
    read_lock(paths, phase)
    return {phase.lock_path: (paths.root / phase.lock_path).read_bytes()}


def lock_diff(repo: Repo, ledger: Ledger, phase: int, differing: Sequence[str]) -> str:
    """What changed since the phase was locked, as a diff for a person to read; at most 60 lines."""
    heads = [
        found["commit"]
        for entry in ledger.entries
        if entry.kind == "LOCKED" and entry.phase == phase and (found := entry.fact(HEAD))
    ]
    paths = sorted(
        {
            "prd"
            if name.startswith(("plan: ", "input: "))
            else "phases"
            if name == "runner"
            else name
            for name in differing
        }
    )
    if not heads or not repo.is_ancestor(heads[-1], "HEAD"):
        return ""
    lines = repo.diff(heads[-1], paths).splitlines()
    more = (
        [f"… {len(lines) - 60} more lines: git diff {heads[-1][:12]} -- {' '.join(paths)}"]
        if len(lines) > 60
        else []
    )
    return "\n" + "\n".join([*lines[:60], *more]) if lines else ""


def check_lock(session: Session, phase: Phase) -> None:
    """Stops where the plan is not what the open phase was locked on."""
    current = session.snapshot.state.phase(phase.id)
    if current.lock is None:
        return
    locked = read_lock(session.project.paths, current)
    differing = lock_differences(locked, current_lock(session.project, session.repo, phase))
    if differing:
        shown = lock_diff(session.repo, session.snapshot.ledger, phase.id, differing)
        raise IntegrityError(
            "plan-changed",
            f"the plan of phase {phase.id} is not what was locked at its start: {', '.join(differing)}{shown}",
            hint=f"bring it back, or python -m phases relock {phase.id} --reason '…'",
        )


def lock_plan(session: Session, phase: Phase) -> None:
    """LOCKED, at a phase's first feature and after a rejection."""
    if session.snapshot.state.phase(phase.id).lock is not None:
        check_lock(session, phase)
        return
    if not session.snapshot.ledger.entries:
        session.append("GENESIS", entries.genesis(session.plan.project, session.repo.root_commit()))
    lock = current_lock(session.project, session.repo, phase)
    path = lock_path(session.project.paths, phase.id)
    durable.write(session.project.root / path, lock.data)
    failpoint("lock_written")
    session.append(
        "LOCKED",
        entries.locked(entries.RecordedFile(lock.digest, path), session.repo.head()),
        phase.id,
    )
