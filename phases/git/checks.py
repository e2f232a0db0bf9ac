"""States of a repository in which the runner must not work, each named with its way out.

Facts come from a few plain calls of git, so that `doctor` can tell them without loading GitPython; what they mean is
decided in `problems`, which is pure. The runner refuses at the first, before any work and before any commit.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from phases.errors import EnvironmentFaultError, PhasesError, UsageError
from phases.git.probe import environment, options, run_git

OLDEST_GIT = (2, 34)
"""`git add --sparse` came with it; older ones were not tried."""
FSYNC_GIT = (2, 36)
"""`core.fsync` came with it: before, git does not force a commit to the disk."""
SIGN_S = 60.0
"""Seconds that a trial signature may take."""

_MARKS = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply/applying": "am",
    "rebase-apply": "rebase",
    "sequencer": "cherry-pick",
    "BISECT_LOG": "bisect",
}
_LOCKS = ("index.lock", "HEAD.lock")


@dataclass(frozen=True)
class RepositoryState:
    """What git says about itself, the repository and who would commit."""

    version: tuple[int, ...]
    git_dir: Path
    is_shallow: bool
    is_partial: bool
    """Cloned with a filter: objects may be missing."""
    branch: str | None
    operation: str | None
    """What a user left half done, such as a merge."""
    locks: tuple[Path, ...]
    identity_problem: str | None
    signing_problem: str | None


def read_repository_state(root: Path, *, sign: bool = True) -> RepositoryState:
    """Asks git; `sign` makes a trial signature where commits are to be signed."""
    words = re.findall(r"\d+", run_git(root, "version").stdout)
    places = run_git(
        root, "rev-parse", "--git-dir", "--git-common-dir", "--is-shallow-repository"
    ).stdout.split("\n")
    git_dir, common = (root / place for place in places[:2])
    branch = run_git(root, "symbolic-ref", "--quiet", "HEAD").stdout.strip()
    partial = run_git(
        root, "config", "--get-regexp", r"^(extensions\.partialclone|remote\..*\.promisor)$"
    ).stdout
    identity = _identity_problem(root)
    return RepositoryState(
        version=tuple(map(int, words[:3])),
        git_dir=git_dir,
        is_shallow=places[2] == "true",
        is_partial=bool(partial.strip()),
        branch=branch or None,
        operation=next((word for name, word in _MARKS.items() if (git_dir / name).exists()), None),
        locks=_locks(git_dir, common, branch),
        identity_problem=identity,
        signing_problem=_signing_problem(root) if sign and not identity else None,
    )


def _locks(git_dir: Path, common: Path, branch: str) -> tuple[Path, ...]:
    places = [git_dir / name for name in _LOCKS] + [common / "packed-refs.lock"]
    places += [common / f"{branch}.lock"] if branch else []
    return tuple(path for path in places if path.exists())


def _identity_problem(root: Path) -> str | None:
    for who in ("GIT_COMMITTER_IDENT", "GIT_AUTHOR_IDENT"):
        asked = run_git(root, "var", who)
        if asked.returncode:
            lines = [
                line for line in asked.stderr.splitlines() if line.startswith(("fatal:", "error:"))
            ]
            return lines[-1] if lines else "no user.name and user.email"
    return None


def _signing_problem(root: Path) -> str | None:
    """Why a commit could not be signed, seen by signing one that no branch holds."""
    if run_git(root, "config", "--type=bool", "commit.gpgsign").stdout.strip() != "true":
        return None
    if run_git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").returncode:
        return None
    words = ["git", *options(), "commit-tree", "-S", "-m", "a trial signature", "HEAD^{tree}"]
    try:
        done = subprocess.run(
            words, cwd=root, env=environment(), capture_output=True, text=True, timeout=SIGN_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"the signing program did not end within {SIGN_S:.0f} s"
    said = "; ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
    return (
        None if done.returncode == 0 else said or f"git commit-tree -S ended with {done.returncode}"
    )


def repository_problems(found: RepositoryState) -> list[PhasesError]:
    """Everything because of which no run and no decision can be recorded here. Pure."""
    told: list[PhasesError] = []
    if found.version < OLDEST_GIT:
        told.append(
            EnvironmentFaultError(
                f"git is version {_dotted(found.version)}, wanted {_dotted(OLDEST_GIT)} or newer",
                hint="install a newer git, then run again",
            )
        )
    if found.operation:
        way_out = (
            "git bisect reset" if found.operation == "bisect" else f"git {found.operation} --abort"
        )
        told.append(
            EnvironmentFaultError(
                f"a {found.operation} is in progress in this work tree",
                hint=f"finish it or abort it ({way_out}), then run again",
            )
        )
    if found.branch is None:
        told.append(
            UsageError(
                "HEAD is detached: a commit made here would belong to no branch",
                hint="git switch -c my-branch, then run again",
            )
        )
    return told + clone_problems(found) + _lock_problems(found) + _user_problems(found)


def clone_problems(found: RepositoryState) -> list[PhasesError]:
    """What is not here at all, so that neither a run nor an audit can rest on it. Pure."""
    told: list[PhasesError] = []
    if found.is_shallow:
        told.append(
            EnvironmentFaultError(
                "this clone is shallow: its first commit, which the record is bound to, is not here",
                hint="git fetch --unshallow, then run again",
            )
        )
    if found.is_partial:
        told.append(
            EnvironmentFaultError(
                "this is a partial clone: files of earlier commits may be missing, and the record rests on them",
                hint="clone again without --filter",
            )
        )
    return told


def _lock_problems(found: RepositoryState) -> list[PhasesError]:
    return [
        EnvironmentFaultError(
            f"{path} is there: a git is at work in this repository, or one was killed",
            hint=f"wait until no git is at work here; if none is, delete {path} yourself, then run again",
        )
        for path in found.locks
    ]


def _user_problems(found: RepositoryState) -> list[PhasesError]:
    told: list[PhasesError] = []
    if found.identity_problem:
        told.append(
            EnvironmentFaultError(
                f"git has no identity to commit with: {found.identity_problem}",
                hint='git config user.name "…"; git config user.email "…"',
            )
        )
    if found.signing_problem:
        told.append(
            EnvironmentFaultError(
                f"commits are to be signed (commit.gpgsign) and that does not work: {found.signing_problem}",
                hint="mend the key or its agent; `git commit -S --allow-empty` must work. Nothing is left unsigned "
                "silently",
            )
        )
    return told


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version)) or "unknown"
