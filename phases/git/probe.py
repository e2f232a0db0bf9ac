"""What views and refusals need to know of a repository: plain calls of git, without GitPython."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from phases.base.command_log import log_command
from phases.base.text import printable
from phases.errors import EnvironmentFaultError, IntegrityError

LOG_REF = "refs/phases/log"
"""The ref that names the runner's last commit."""
GIT_TIMEOUT_S = 60.0
DAMAGED_OBJECT_WAY = (
    "`git fsck --full` names what is damaged; `cp -rf OTHER/.git/objects .git/` takes it from "
    "another clone"
)
"""The hint for an object of git that is missing or damaged."""

IDENTITY = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
"""The user's variables that git gets."""

GIT_VARIABLES = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    # A replace ref or a graft would show another history than the commits contain.
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": os.devnull,
    "LC_ALL": "C",
}
"""Variables that every git process gets."""

_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.fsync=all",
    "core.quotePath=false",
    "core.commitGraph=false",
    "diff.orderFile=/dev/null",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "log.showSignature=false",
    "log.follow=false",
    "trailer.separators=:",
    "core.commentChar=#",
    "advice.graftFileDeprecated=false",
    "i18n.commitEncoding=utf-8",
    "i18n.logOutputEncoding=utf-8",
)


#### calling git


def run_git(root: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run git in `root` and return what it printed; a failure is an exit status, no exception.

    Raises:
        EnvironmentFaultError: git is not on PATH.
    """
    begin = time.monotonic()
    try:
        result = subprocess.run(
            ["git", *git_options(), *arguments],
            cwd=root,
            env=git_environment(),
            # A path may be any bytes, whatever the locale.
            encoding="utf-8",
            errors="surrogateescape",
            capture_output=True,
            input=stdin,
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        message = "the program git was not found on PATH"
        raise EnvironmentFaultError(message, hint="install git") from None
    log_command(["git", *arguments], status=result.returncode, seconds=time.monotonic() - begin)
    return result


def git_folder(root: Path, option: str) -> Path:
    """Return the folder that `git rev-parse OPTION` names, such as `--git-dir`; absolute.

    One folder a call: a name may have line breaks and end in blanks.
    """
    return (root / run_git(root, "rev-parse", option).stdout.removesuffix("\n")).resolve()


def git_options() -> list[str]:
    """Return the options that every call of git gets before its command."""
    options = []
    for setting in _SETTINGS:
        options += ["-c", setting]
    return options


def git_environment() -> dict[str, str]:
    """Return the user's variables without GIT_* (but the identity), and the runner's own."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name in IDENTITY
    }
    return environment | GIT_VARIABLES


#### the probe


@dataclass(frozen=True)
class Probe:
    """What `status` needs to know of a repository."""

    common_dir: Path
    """The git common directory, shared by all worktrees."""
    head: str | None
    """HEAD's commit; None before the first commit."""
    is_rewound: bool
    """Whether HEAD is not at or after `refs/phases/log`, the runner's last commit."""
    log: str | None
    """The commit of `refs/phases/log`; None before the runner's first commit."""
    progress: Blob | None
    """HEAD's progress.txt; None where HEAD has none."""
    has_approvals: bool = False
    """Whether HEAD has files in prd/approvals."""
    is_shallow: bool = False
    """Whether the history is cut: a shallow clone."""


@dataclass(frozen=True)
class Blob:
    """A git object of a commit: its id and its size in bytes."""

    id: str
    size: int

    def begins(self, data: bytes) -> bool:
        """Return whether `data` is this file, or this file and more after it."""
        head = data[: self.size]
        return blob_id([head], len(head), self.id) == self.id


def blob_id(chunks: Iterable[bytes | memoryview], size: int, like: str) -> str:
    """Return the name that git gives to a file of `size` bytes.

    `like` is any name of this repository: by its length git's hash is SHA-1 or SHA-256.
    """
    digest = blob_digest(size, like)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def blob_digest(size: int, like: str) -> hashlib._Hash:
    """Return the digest that names a file of `size` bytes, before it was given the bytes."""
    algorithm = "sha1"
    if len(like) != 40:
        algorithm = "sha256"
    # git names a file by the digest of this header and its bytes.
    return hashlib.new(algorithm, b"blob %d\0" % size, usedforsecurity=False)


def probe_repository(root: Path) -> Probe:
    """Probe a repository with two or three calls of git.

    Raises:
        EnvironmentFaultError: `root` is not the top folder of a repository that git opens.
    """
    # 1. Is `root` the top of a repository? There the path up is empty. The folder comes last: its
    #    name may have line breaks.
    if not root.is_dir():
        message = f"{printable(str(root))} is not a folder"
        raise EnvironmentFaultError(message, hint="name an existing folder with --root")
    options = ("--is-inside-work-tree", "--show-cdup", "--is-shallow-repository")
    answer = run_git(root, "rev-parse", *options, "--git-common-dir")
    if not answer.stdout.startswith("true\n\n"):
        raise _repository_error(root)
    is_shallow, _, folder = answer.stdout.removeprefix("true\n\n").partition("\n")
    common_dir = folder.removesuffix("\n")

    # 2. HEAD, the runner's last commit, HEAD's ledger and decisions, in one call.
    names = ("HEAD^{commit}", LOG_REF + "^{commit}", "HEAD:progress.txt", "HEAD:prd/approvals")
    head_blob, log_blob, progress, approvals = _objects(root, *names)
    head = head_blob.id if head_blob else None
    log = log_blob.id if log_blob else None
    return Probe(
        common_dir=(root / common_dir).resolve(),
        head=head,
        is_rewound=_is_rewound(root, head, log),
        log=log,
        progress=progress,
        has_approvals=approvals is not None,
        is_shallow=is_shallow == "true",
    )


def _repository_error(root: Path) -> EnvironmentFaultError:
    """Return why a folder is not the top of a repository's work tree."""
    # 1. It is in one.
    answer = run_git(root, "rev-parse", "--show-toplevel")
    if not answer.returncode:
        top = answer.stdout.removesuffix("\n")
        message = f"{root} is not the top folder of its repository; expected {top}"
        return EnvironmentFaultError(printable(message, 1000), hint=f"--root {shlex.quote(top)}")

    # 2. It is in none that git opens.
    stderr = answer.stderr.strip() or f"git ended with {answer.returncode}"
    lines = stderr.splitlines()
    reason = next((line for line in lines if line.startswith("fatal:")), lines[-1])
    hint = "run inside a git clone, or name one with --root"
    if "dubious ownership" in stderr:
        folder = shlex.quote(str(root.resolve()))
        hint = f"if you trust it: git config --global --add safe.directory {folder}"
    return EnvironmentFaultError(printable(f"{root}: {reason}", 1000), hint=hint)


def _objects(root: Path, *names: str) -> list[Blob | None]:
    """Return the object of each name, in one call of git; None where there is none."""
    questions = "".join(f"{name}\n" for name in names)
    form = "--batch-check=%(objectname) %(objectsize)"
    answers = run_git(root, "cat-file", form, stdin=questions).stdout.splitlines()
    if len(answers) < len(names):
        message = f"git cannot read {names[len(answers)]}: an object is damaged"
        raise IntegrityError("git-object", message, hint=DAMAGED_OBJECT_WAY)
    objects: list[Blob | None] = []
    for answer in answers:
        name, size = answer.rsplit(" ", 1)
        if size.isdigit():
            objects.append(Blob(name, int(size)))
        else:
            objects.append(None)  # git answered `NAME missing`
    return objects


def _is_rewound(root: Path, head: str | None, log: str | None) -> bool:
    """Return whether HEAD is not at or after the runner's last commit."""
    if log is None or log == head:
        return False
    if head is None:
        return True
    return run_git(root, "merge-base", "--is-ancestor", log, head).returncode != 0


def common_dir_of(folder: Path) -> Path | None:
    """Return the git directory, shared by its work trees, that a folder belongs to, or None."""
    answer = run_git(folder, "rev-parse", "--git-common-dir")
    if answer.returncode:
        return None
    return (folder / answer.stdout.removesuffix("\n")).resolve()


def work_trees(root: Path) -> list[Path]:
    """Return the absolute paths of `root` and of the repository's other work trees."""
    trees = [root.absolute()]
    listing = run_git(root, "worktree", "list", "--porcelain", "-z")
    lines = listing.stdout.split("\0")
    if listing.returncode:  # git before 2.36 knows no -z, and a path there is one line
        lines = run_git(root, "worktree", "list", "--porcelain").stdout.split("\n")
    for line in lines:
        key, _, path = line.partition(" ")
        if key == "worktree":
            trees.append(Path(path))
    return trees


#### what changed


def changed_paths(
    root: Path, commit: str, ids: Collection[str], without: str | None = None
) -> dict[str, set[str]]:
    """Return id -> paths that differ between that commit or tree and `commit`, in two calls of git.

    Trees are compared, so neither index nor work tree matters. Ids that the repository does not
    have are left out.

    Args:
        root: the repository.
        commit: what is compared with.
        ids: the other commits and trees.
        without: a folder that is not compared.
    """
    # 1. The tree of each; git would end at the first commit that is missing.
    head, *others = _objects(root, *(f"{name}^{{tree}}" for name in (commit, *ids)))
    if head is None:
        return {}
    trees = {name: tree.id for name, tree in zip(ids, others, strict=True) if tree}

    # 2. All pairs at once. A record is `:MODES IDS STATUS`, NUL, path, NUL; before the first record
    #    of a pair is a line with its two trees.
    questions = "".join(f"{tree} {head.id}\n" for tree in sorted(set(trees.values())))
    arguments = ["diff-tree", "--stdin", "-r", "-z", "--raw", "--no-renames"]
    if without is not None:
        arguments = ["--no-literal-pathspecs", *arguments, "--", f":(exclude,literal){without}"]
    tokens = run_git(root, *arguments, stdin=questions).stdout.split("\0")
    paths: dict[str, set[str]] = {tree: set() for tree in trees.values()}
    pair = ""
    for record, path in zip(tokens[::2], tokens[1::2], strict=False):
        header, _, _ = record.rpartition("\n")
        if header:
            pair = header.splitlines()[-1].split(" ")[0]
        paths[pair].add(path)
    return {name: paths[tree] for name, tree in trees.items()}
