"""Lock files that git leaves when it is killed, and the proof that they are the runner's own.

Before git writes for the runner, a note lists which of git's lock files do not exist. A lock is the
runner's if three things are true: the note names it; this runner holds the runner's lock, which
every git process that a runner starts inherits, so none of them still runs; and no git process of
anyone runs that may own it. The age of a lock proves nothing. Any other lock stays, and git names
it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from phases.base import durable
from phases.base.regular_file import read_regular
from phases.errors import EnvironmentFaultError
from phases.git.processes import GitProcess, git_processes

_INDEX_LOCKS = "next-index-*.lock"
"""Lock files of `git commit --only`; their names hold git's process id."""


def lock_paths(git_dir: Path, common_dir: Path, log_ref: str) -> list[Path]:
    """Return the locks that a commit and a moved ref take.

    They are those of index, HEAD, packed refs, the branch and the runner's ref.
    """
    paths = [git_dir / "index.lock", git_dir / "HEAD.lock", common_dir / "packed-refs.lock"]
    head = (git_dir / "HEAD").read_text("utf-8", "surrogateescape").strip()
    if head.startswith("ref: "):
        branch = head.removeprefix("ref: ")
        paths.append(common_dir / f"{branch}.lock")
    paths.append(common_dir / f"{log_ref}.lock")
    return paths


@contextlib.contextmanager
def lock_note(
    common_dir: Path, git_dir: Path, paths: Sequence[Path], was_killed: Callable[[], bool]
) -> Iterator[None]:
    """Keep the note for as long as git writes.

    It is not synced: after a power loss it may be gone, and then git names the lock.

    A git process that ends by itself removes its locks. What one leaves that died by a signal is
    cleared at once.

    Args:
        common_dir: the git common directory, where the note is.
        git_dir: the git directory of this work tree.
        paths: the locks that git may take (`lock_paths`).
        was_killed: says afterwards whether git died by a signal.
    """
    note = _LockNote(
        git_dir=git_dir,
        absent_locks=tuple(path for path in paths if not path.exists()),
        index_locks=frozenset(path.name for path in git_dir.glob(_INDEX_LOCKS)),
    )
    path = _note_path(common_dir)
    with durable.environment_faults(path, "write"):
        path.write_bytes(note.encode())
    try:
        yield
    finally:
        if was_killed():
            clear_stale_locks(common_dir)
        else:
            path.unlink(missing_ok=True)


def clear_stale_locks(common_dir: Path) -> None:
    """Remove the locks that the note proves to be the runner's, then the note.

    The caller holds the runner's lock.

    Raises:
        EnvironmentFaultError: a git process runs that may own one of them, so nothing is proved
            and nothing is removed; it names lock and process.
    """
    # 1. The locks that the note proves; a note that cannot be read proves nothing.
    try:
        note = _LockNote.decode(read_regular(_note_path(common_dir)))
        stale_locks = note.stale_locks()
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, EnvironmentFaultError):
        stale_locks = []

    # 2. A git process of the user may have taken the same lock since.
    processes = git_processes() if stale_locks else []
    for lock in stale_locks:
        owners = [process for process in processes if process.may_own(lock, common_dir)]
        if owners:
            raise _contested_error(lock, owners[0])

    # 3. The note goes last: after a kill in between the next run repeats this.
    for path in stale_locks:
        durable.remove(path)
    durable.remove(_note_path(common_dir))


@dataclass(frozen=True)
class _LockNote:
    """Which locks existed when git began to write."""

    git_dir: Path
    absent_locks: tuple[Path, ...]
    """Locks that did not exist."""
    index_locks: frozenset[str]
    """Names of the `next-index-*.lock` that did."""

    def encode(self) -> bytes:
        document = {
            "absent": [str(path) for path in self.absent_locks],
            "gitDir": str(self.git_dir),
            "indexLocks": sorted(self.index_locks),
        }
        return json.dumps(document).encode()

    @classmethod
    def decode(cls, data: bytes) -> _LockNote:
        document = json.loads(data)
        return cls(
            git_dir=Path(document["gitDir"]),
            absent_locks=tuple(Path(name) for name in document["absent"]),
            index_locks=frozenset(document["indexLocks"]),
        )

    def stale_locks(self) -> list[Path]:
        """Return the locks that exist now and did not then."""
        paths = [path for path in self.absent_locks if path.exists()]
        for path in self.git_dir.glob(_INDEX_LOCKS):
            if path.name not in self.index_locks:
                paths.append(path)
        return paths


def _note_path(common_dir: Path) -> Path:
    return common_dir / "phases" / "git-locks.json"


def _contested_error(lock: Path, owner: GitProcess) -> EnvironmentFaultError:
    hint = "wait for it to end, then run the same command again"
    if owner.repositories is None:
        hint += f"; if it works in another repository, delete {lock} first"
        return EnvironmentFaultError(
            f"{lock} was left by a git process of a killed run, or belongs to one whose repository "
            f"cannot be determined: {owner}",
            hint=hint,
        )
    return EnvironmentFaultError(
        f"{lock} was left by a git process of a killed run, or belongs to one that runs here: "
        f"{owner}",
        hint=hint,
    )
