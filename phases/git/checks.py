"""States of a repository in which the runner must not work, each named with its fix.

A few plain calls of git read the state, so that `doctor` can report it without GitPython. What it
means is decided in `repository_problems`, which is pure. The runner refuses at the first problem,
before any work and before any commit.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from phases.base.command_log import log_command
from phases.errors import EnvironmentFaultError, PhasesError, UsageError
from phases.git.probe import git_environment, git_folder, git_options, run_git

OLDEST_GIT = (2, 34)
"""`git add --sparse` came with it; older ones were not tried."""
FSYNC_GIT = (2, 36)
"""`core.fsync` came with it: before, git does not force a commit to the disk."""
SIGN_S = 60.0
"""Seconds that a trial signature may take."""

_OPERATIONS = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-merge": "rebase",
    "rebase-apply/applying": "am",
    "rebase-apply": "rebase",
    "sequencer": "cherry-pick",
    "BISECT_LOG": "bisect",
}
"""File in the git directory -> the operation in progress that it means; the first one counts."""


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
    """What the user has begun and not finished, such as a merge."""
    locks: tuple[Path, ...]
    identity_problem: str | None
    signing_problem: str | None
    way_to_branch: str = ""
    """The command that leaves a detached HEAD for a branch of the same commit."""


#### reading


def read_repository_state(root: Path, *, sign: bool = True) -> RepositoryState:
    """Ask git for the state of a repository.

    Args:
        root: the repository.
        sign: whether a trial signature is made where commits are to be signed.
    """
    numbers = re.findall(r"\d+", run_git(root, "version").stdout)
    is_shallow = run_git(root, "rev-parse", "--is-shallow-repository").stdout.strip()
    git_dir, common_dir = git_folder(root, "--git-dir"), git_folder(root, "--git-common-dir")
    branch = run_git(root, "symbolic-ref", "--quiet", "HEAD").stdout.strip()
    filters = r"^(extensions\.partialclone|remote\..*\.promisor)$"
    partial = run_git(root, "config", "--get-regexp", filters).stdout.strip()
    identity_problem = _identity_problem(root)
    signing_problem = None
    if sign and not identity_problem:
        signing_problem = _signing_problem(root)
    return RepositoryState(
        version=tuple(map(int, numbers[:3])),
        git_dir=git_dir,
        is_shallow=is_shallow == "true",
        is_partial=bool(partial),
        branch=branch or None,
        operation=_operation(git_dir),
        locks=_locks(git_dir, common_dir, branch),
        identity_problem=identity_problem,
        signing_problem=signing_problem,
        way_to_branch="" if branch else _way_to_branch(root),
    )


def _way_to_branch(root: Path) -> str:
    """Return the command that switches to a branch at HEAD's commit, or makes one."""
    form = "--format=%(refname:lstrip=2)%09%(worktreepath)"
    branches = run_git(root, "for-each-ref", "--points-at=HEAD", form, "refs/heads")
    for line in branches.stdout.split("\n")[:-1]:
        name, _, work_tree = line.partition("\t")
        if not work_tree:
            return f"git switch {shlex.quote(name)}"
    return f"git switch -c {free_branch(root, 'my-branch')}"


def free_branch(root: Path, name: str) -> str:
    """Return that name, or that name with a number, so that no branch has it."""
    form = "--format=%(refname:lstrip=2)"
    taken = set(run_git(root, "for-each-ref", form, "refs/heads").stdout.split("\n"))
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _operation(git_dir: Path) -> str | None:
    for name, operation in _OPERATIONS.items():
        if (git_dir / name).exists():
            return operation
    return None


def abort_in_progress(root: Path) -> str | None:
    """Return the command that aborts what the user has begun and not finished, or None."""
    git_dir = root / run_git(root, "rev-parse", "--git-dir").stdout.strip()
    operation = _operation(git_dir)
    if operation is None:
        return None
    return abort_command(operation)


def abort_command(operation: str) -> str:
    """Return the command that aborts a merge, a rebase and the like."""
    if operation == "bisect":
        return "git bisect reset"
    return f"git {operation} --abort"


def _locks(git_dir: Path, common_dir: Path, branch: str) -> tuple[Path, ...]:
    paths = [git_dir / "index.lock", git_dir / "HEAD.lock", common_dir / "packed-refs.lock"]
    if branch:
        paths.append(common_dir / f"{branch}.lock")
    return tuple(path for path in paths if path.exists())


def _identity_problem(root: Path) -> str | None:
    for variable in ("GIT_COMMITTER_IDENT", "GIT_AUTHOR_IDENT"):
        answer = run_git(root, "var", variable)
        if answer.returncode == 0:
            continue
        lines = answer.stderr.splitlines()
        errors = [line for line in lines if line.startswith(("fatal:", "error:"))]
        return errors[-1] if errors else "no user.name and user.email"
    return None


def _signing_problem(root: Path) -> str | None:
    """Return why a commit could not be signed, from signing one that no branch gets."""
    # 1. Are commits to be signed, and is there one to sign?
    if run_git(root, "config", "--type=bool", "commit.gpgsign").stdout.strip() != "true":
        return None
    if run_git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").returncode:
        return None

    # 2. Sign. Not by `run_git`: a signing program gets no pipe to wait for, and may be slow.
    begin = time.monotonic()
    try:
        trial = subprocess.run(
            ["git", *git_options(), "commit-tree", "-S", "-m", "a trial signature", "HEAD^{tree}"],
            cwd=root,
            env=git_environment(),
            capture_output=True,
            # A signing program speaks the user's language, in whatever encoding.
            encoding="utf-8",
            errors="backslashreplace",
            timeout=SIGN_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return f"the signing program did not end within {SIGN_S:.0f} s"
    log_command(
        ["git", "commit-tree", "-S"], status=trial.returncode, seconds=time.monotonic() - begin
    )

    # 3. What it printed is the reason.
    if trial.returncode == 0:
        return None
    lines = [line.strip() for line in trial.stderr.splitlines()]
    reason = "; ".join(line for line in lines if line)
    return reason or f"git commit-tree -S ended with {trial.returncode}"


#### judging: pure


def repository_problems(state: RepositoryState) -> list[PhasesError]:
    """Return everything because of which no run and no decision can be recorded here."""
    problems: list[PhasesError] = []

    # 1. git itself, and what the user has begun.
    if state.version < OLDEST_GIT:
        problems.append(
            EnvironmentFaultError(
                f"git: got version {_dotted(state.version)}; "
                f"expected {_dotted(OLDEST_GIT)} or newer",
                hint="install a newer git, then run again",
            )
        )
    if state.operation:
        abort = abort_command(state.operation)
        problems.append(
            EnvironmentFaultError(
                f"a {state.operation} is in progress in this work tree",
                hint=f"finish it or abort it (`{abort}`), then run again",
            )
        )
    if state.branch is None:
        problems.append(
            UsageError(
                "HEAD is detached: a commit made here would belong to no branch",
                hint=f"`{state.way_to_branch}`, then run again",
            )
        )

    # 2. What a clone left out.
    problems += clone_problems(state)

    # 3. What would stop the commit at its end.
    for path in state.locks:
        problems.append(
            EnvironmentFaultError(
                f"{path} exists: a git process is running in this repository, or one was killed",
                hint=f"wait until no git process runs here; if none does, delete {path} yourself, "
                "then run again",
            )
        )
    if state.identity_problem:
        problems.append(
            EnvironmentFaultError(
                f"git has no identity to commit with: {state.identity_problem}",
                hint='git config user.name "…"; git config user.email "…"',
            )
        )
    if state.signing_problem:
        problems.append(
            EnvironmentFaultError(
                "commits are to be signed (commit.gpgsign) and the signature failed: "
                f"{state.signing_problem}",
                hint="fix the key or its agent until `git commit -S --allow-empty` works; "
                "the runner never commits unsigned instead",
            )
        )
    return problems


def clone_problems(state: RepositoryState) -> list[PhasesError]:
    """Return what the clone left out, so that neither a run nor an audit can rely on it."""
    problems: list[PhasesError] = []
    if state.is_shallow:
        problems.append(
            EnvironmentFaultError(
                "this clone is shallow: it lacks its first commit, to which the record is bound",
                hint="`git fetch --unshallow`, then run again",
            )
        )
    if state.is_partial:
        problems.append(
            EnvironmentFaultError(
                "this is a partial clone: files of earlier commits may be missing, and the record "
                "relies on them",
                hint="clone again without --filter",
            )
        )
    return problems


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version)) or "unknown"
