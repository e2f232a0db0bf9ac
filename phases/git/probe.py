"""The few facts of a repository that views and refusals need: plain calls of git, without GitPython."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from phases.errors import EnvironmentFaultError

LOG_REF = "refs/phases/log"


_SAFE = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.fsync=all",
    "core.quotePath=false",
    "core.commitGraph=false",
    "gc.auto=0",
    "protocol.allow=never",
    "log.showSignature=false",
    "log.follow=false",
    "trailer.separators=:",
    "core.commentChar=#",
    "advice.graftFileDeprecated=false",
    "i18n.commitEncoding=utf-8",
    "i18n.logOutputEncoding=utf-8",
)


IDENTITY = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")


OURS = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",  # a replace ref or a graft would show another history than the commits hold
    "GIT_GRAFT_FILE": os.devnull,
    "LC_ALL": "C",
}


def environment() -> dict[str, str]:
    """The user's variables without GIT_* (but the identity), and ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name in IDENTITY
    }
    return kept | OURS


@dataclass(frozen=True)
class Probe:
    """The few facts of a repository that `status` needs."""

    common_dir: Path
    head: str | None
    """HEAD's commit; None before the first commit."""
    rewound: bool
    """Whether HEAD is not at or after `refs/phases/log`, the runner's last commit."""
    log: str | None
    """The commit of `refs/phases/log`; None before the runner's first commit."""
    progress: Blob | None
    """HEAD's progress.txt; None where it has none."""


@dataclass(frozen=True)
class Blob:
    """A file of a commit, by its id and size in bytes."""

    id: str
    size: int

    def begins(self, data: bytes) -> bool:
        """Whether `data` is this file, or this file and more after it."""
        head = data[: self.size]
        algorithm = "sha1" if len(self.id) == 40 else "sha256"
        digest = hashlib.new(algorithm, b"blob %d\0" % len(head) + head, usedforsecurity=False)
        return digest.hexdigest() == self.id


def probe_repository(root: Path) -> Probe:
    """Reads the facts with two or three calls of git; EnvironmentFaultError where there is no repository."""
    if not root.is_dir():
        raise EnvironmentFaultError(
            f"{root} is not a folder", hint="give an existing one with --root"
        )
    first = run_git(root, "rev-parse", "--show-toplevel", "--git-common-dir")
    if first.returncode:
        raise _no_repository(root, first.stderr.strip() or f"git ended with {first.returncode}")
    top, common = first.stdout.strip().split("\n")
    if Path(top).resolve() != root.resolve():
        raise EnvironmentFaultError(
            f"{root} is not the top of its repository, {top} is", hint=f"--root {top}"
        )
    objects = _objects(root, "HEAD^{commit}", LOG_REF + "^{commit}", "HEAD:progress.txt")
    head, log = (found.id if found else None for found in objects[:2])
    at_or_after = log is None or (
        head is not None
        and (log == head or run_git(root, "merge-base", "--is-ancestor", log, head).returncode == 0)
    )
    return Probe((root / common).resolve(), head, not at_or_after, log, objects[2])


def _no_repository(root: Path, said: str) -> EnvironmentFaultError:
    reason = next(
        (line for line in said.splitlines() if line.startswith("fatal:")), said.splitlines()[-1]
    )
    hint = "run inside a git clone, or give one with --root"
    if "dubious ownership" in said:
        hint = f"if you trust it: git config --global --add safe.directory {root.resolve()}"
    return EnvironmentFaultError(f"{root}: {reason}", hint=hint)


def _objects(root: Path, *names: str) -> list[Blob | None]:
    """What each name stands for, in one call of git; None where there is nothing."""
    asked = "".join(f"{name}\n" for name in names)
    answers = run_git(
        root, "cat-file", "--batch-check=%(objectname) %(objectsize)", asked=asked
    ).stdout.splitlines()
    pairs = (answer.rsplit(" ", 1) for answer in answers)
    return [Blob(name, int(size)) if size.isdigit() else None for name, size in pairs]


def run_git(root: Path, *arguments: str, asked: str = "") -> subprocess.CompletedProcess[str]:
    """One call of git without GitPython, for the few facts that views and refusals need."""
    try:
        return subprocess.run(
            ["git", *options(), *arguments],
            cwd=root,
            env=environment(),
            text=True,
            capture_output=True,
            input=asked,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        raise EnvironmentFaultError(
            "the program git was not found on PATH", hint="install git"
        ) from None


def options() -> list[str]:
    """What every call of git is given before its command."""
    return [word for setting in _SAFE for word in ("-c", setting)]
