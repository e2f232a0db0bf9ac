"""Parts of a way back: what git says of the record, and commands that lose nothing.

A hint is put together of these. Plain calls of git: `status` prints hints too.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phases.base.text import is_printable
from phases.git.checks import free_branch
from phases.git.probe import run_git

PROGRESS = "progress.txt"
MAX_NAMED_FILES = 5
"""More files than these are stashed without naming each."""


def git_lines(root: Path, *arguments: str) -> list[str]:
    """Return the lines that a git command prints, without empty ones; none where it fails."""
    # Not `splitlines`: a name may hold what Python takes for the end of a line.
    return list(filter(None, run_git(root, *arguments).stdout.split("\n")))


@dataclass(frozen=True)
class RecordHistory:
    """Where the history and the runner's record are."""

    root: Path
    head: str
    log: str
    """The runner's last commit."""
    record: tuple[str, ...]
    """Files and folders that hold the record: progress.txt, decisions, results."""

    def names(self, *arguments: str) -> set[str]:
        """Return the paths that a git command lists, each ended by NUL."""
        return set(filter(None, run_git(self.root, *arguments).stdout.split("\0")))

    def lines(self, *arguments: str) -> list[str]:
        """Return the lines that a git command prints; none where it fails."""
        return git_lines(self.root, *arguments)

    def difference(self, one: str, other: str, *paths: str) -> set[str]:
        """Return the paths that differ between two commits."""
        options = ("diff", "--name-only", "--no-renames", "-z")
        return self.names(*options, one, other, "--", *paths)

    def merge_base(self) -> str | None:
        """Return the commit where HEAD and the runner's last commit part; None if they never met.

        It is the head itself where only later commits are missing.
        """
        return next(iter(self.lines("merge-base", self.head, self.log)), None)


#### on this branch


def kept_aside(history: RecordHistory) -> str:
    """Return the command that goes to the record and keeps HEAD as a branch."""
    command = f"{keep_branch(history)} && {keep_reset(history, history.log[:12])}"
    return with_clean_files(history, command, history.log)


def keep_reset(history: RecordHistory, target: str) -> str:
    """Return the command that goes to a commit and keeps what is not committed.

    git takes a file for changed whose times alone changed, as in a copy, until `status` read it.
    """
    command = f"git reset --keep {target}"
    touched = history.names("diff-files", "--name-only", "-z")
    return f"git status -s && {command}" if touched else command


def keep_branch(history: RecordHistory) -> str:
    """Return the command that gives HEAD's commits a branch of their own."""
    return f"git branch {free_branch(history.root, f'kept-{history.head[:8]}')}"


def with_clean_files(history: RecordHistory, command: str, target: str) -> str:
    """Return the command with uncommitted changes stashed that it would stop at."""
    collisions = colliding_files(history, target)
    if not collisions:
        return command
    return f"{stash_command(collisions)} && {command}"


def colliding_files(history: RecordHistory, target: str) -> list[str]:
    """Return the changed and untracked files that differ between HEAD and another commit."""
    status = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
    changed = {line[3:] for line in history.names(*status)}
    return sorted(changed & history.difference(history.head, target))


def stash_command(paths: Sequence[str]) -> str:
    """Return the command that stashes these files, or all where they are many."""
    if len(paths) > MAX_NAMED_FILES:
        return "git stash -u"
    return f"git stash push -u -- {shlex.join(paths)}"


#### beside this repository


def fresh_clone(root: Path) -> str:
    """Return the command that makes a clone beside the repository, with settings and artifacts.

    A clone has no journal: it goes on from what is committed.
    """
    target = free_folder(root, "clone")
    steps = _clone_steps(root, target)
    if (root / ".phases/artifacts").is_dir():
        steps += [f"mkdir {target}/.phases", f"cp -r .phases/artifacts {target}/.phases/"]
    return " && ".join([*steps, f"cd {target}"])


def begin_anew(root: Path, record: Sequence[str]) -> str:
    """Return the command that makes a clone beside the repository whose history has no record."""
    target = free_folder(root, "anew")
    steps = _clone_steps(root, target)
    remove = f"git rm -rq --cached --ignore-unmatch -- {shlex.join(record)}"
    steps += [
        f"cd {target}",
        "FILTER_BRANCH_SQUELCH_WARNING=1 git filter-branch -f --prune-empty --index-filter "
        f"{shlex.quote(remove)}",
    ]
    return " && ".join(steps)


def _clone_steps(root: Path, target: str) -> list[str]:
    """Return the commands that clone the repository to a folder, with its settings."""
    steps = [f"git clone -q . {target}"]
    if (root / ".git").is_dir():
        steps.append(f"cp .git/config {target}/.git/config")
    return steps


def shell_word(path: str) -> str:
    """Return a path as one word for a shell, whatever bytes it has."""
    if is_printable(path):
        return shlex.quote(path)
    octal = "".join(f"\\{byte:03o}" for byte in os.fsencode(path))
    return f"\"$(printf '{octal}')\""


def free_folder(root: Path, suffix: str) -> str:
    """Return a folder beside the repository that does not exist, quoted."""
    name, number = f"{root.resolve().name}-{suffix}", 1
    free = name
    while (root.resolve().parent / free).exists():
        number += 1
        free = f"{name}-{number}"
    return shlex.quote(f"../{free}")
