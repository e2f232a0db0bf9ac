"""Everything that touches git.

Reading and the audited commit go through GitPython's command interface (`repo.git`), that is through the git program:
`index.commit` would ignore commit.gpgsign and never fsync. Every call runs without hooks, fsmonitor and the user's
GIT_* variables, with `core.fsync=all` and literal path names: `.git/config` is code for whoever runs git next.

`probe` alone uses a plain child process, because `status` must start without loading GitPython.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phases.errors import EnvironmentFaultError, IntegrityError
from phases.git import lock_files
from phases.git.probe import IDENTITY, LOG_REF, OURS, options, probe_repository

if TYPE_CHECKING:
    import git

_EXACT = ("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.safecrlf=false")
"""For commits: what was hashed is stored byte for byte, whatever line ends the user prefers."""
COMMIT_S = 120.0
"""Seconds that a commit may take; a signing program that waits for somebody must not hold a run for ever."""


def _scrub() -> None:
    """Takes GIT_DIR and its like out of this process: GitPython adds to the environment and cannot take away."""
    for name in [name for name in os.environ if name.startswith("GIT_") and name not in IDENTITY]:
        del os.environ[name]


@dataclass(frozen=True)
class Commit:
    """A commit as the audit sees it."""

    sha: str
    parents: tuple[str, ...]
    message: str
    trailers: Mapping[str, str]


class Repo:
    """The repository of the project, through GitPython."""

    def __init__(self, root: Path):
        import git

        _scrub()
        self.root = root
        self.probe = probe_repository(root)
        self._repo: git.Repo = git.Repo(root)
        self._last_status = 0
        self.runner_lock: int | None = None
        """Descriptor of the runner's lock while it is held; every git inherits it, so that no second runner begins
        while a git that a killed runner had started is still at work."""

    @property
    def common_dir(self) -> Path:
        """The git common directory, shared by all worktrees."""
        return self.probe.common_dir

    def head(self) -> str:
        """HEAD's commit; EnvironmentFaultError before the first commit."""
        sha = self._text("rev-parse", "--verify", "--quiet", "HEAD^{commit}", ok=(0, 1))
        if not sha:
            raise EnvironmentFaultError(
                "the repository has no commit yet", hint="commit the project first"
            )
        return sha

    def root_commit(self) -> str:
        """The first commit of the history; names the project across clones."""
        return self._text("rev-list", "--max-parents=0", "--first-parent", "HEAD").splitlines()[-1]

    def tree(self, commit: str) -> str:
        """The id of a commit's tree."""
        return self._text("rev-parse", "--verify", f"{commit}^{{tree}}")

    def log_ref(self) -> str | None:
        """The commit of `refs/phases/log`, or None."""
        return (
            self._text("rev-parse", "--verify", "--quiet", LOG_REF + "^{commit}", ok=(0, 1)) or None
        )

    def move_log_ref(self, commit: str) -> None:
        """Moves `refs/phases/log`, the anchor against a rewind, to the commit."""
        with self._locks_noted():
            self._run("update-ref", LOG_REF, commit)

    def unstage(self, paths: Sequence[str]) -> None:
        """Makes the index hold HEAD's version of these paths."""
        with self._locks_noted():
            self._run("reset", "-q", "--", *paths)

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Whether `older` is `newer` or one of its ancestors; False also when it does not exist."""
        status, _ = self._status("merge-base", "--is-ancestor", older, newer)
        return status == 0

    def blob(self, commit: str, path: str) -> bytes | None:
        """A file's bytes in a commit, or None where it is not there."""
        status, data = self._status("cat-file", "blob", f"{commit}:{path}")
        return data if status == 0 else None

    def files(self, commit: str, path: str) -> dict[str, str]:
        """Every file below a path in a commit, with its blob id; symlinks and submodules are not files."""
        found = {}
        for record in self._run("ls-tree", "-r", "-z", "--full-tree", commit, "--", path).split(
            b"\0"
        ):
            if record:
                facts, name = record.split(b"\t", 1)
                mode, kind, blob = facts.decode().split()
                if kind == "blob" and mode != "120000":
                    found[name.decode("utf-8", "surrogateescape")] = blob
        return found

    def object_id(self, commit: str, path: str) -> str | None:
        """The git id of a file or folder in a commit, or None."""
        return (
            self._text("rev-parse", "--verify", "--quiet", f"{commit}:{path}", ok=(0, 1, 128))
            or None
        )

    def changed(self, commit: str, paths: Sequence[str]) -> list[str]:
        """Files below the paths whose bytes in index or work tree are not the commit's.

        Compared by content (`hash-object` inside git diff), so that an untouched file with a new time is not listed.
        """
        if not paths:
            return []
        self._status("update-index", "-q", "--refresh")
        raw = self._run(
            "diff", "--name-only", "-z", "--no-ext-diff", "--no-textconv", commit, "--", *paths
        )
        return sorted({name.decode("utf-8", "replace") for name in raw.split(b"\0") if name})

    def untracked(self, paths: Sequence[str]) -> list[str]:
        """Files below the paths that git does not track and does not ignore."""
        raw = self._run("ls-files", "--others", "--exclude-standard", "-z", "--", *paths)
        return sorted({name.decode("utf-8", "replace") for name in raw.split(b"\0") if name})

    def diff(self, commit: str, paths: Sequence[str]) -> str:
        """The textual difference from a commit to the work tree, for a person to read."""
        return self._text(
            "diff", "--no-color", "--no-ext-diff", "--no-textconv", commit, "--", *paths
        )

    def identity(self) -> str:
        """`Name <mail>` of whoever would commit now."""
        return self._text("var", "GIT_COMMITTER_IDENT").rsplit(" ", 2)[0]

    def commit(self, paths: Sequence[str], message: str, trailers: Mapping[str, str]) -> str:
        """Commits exactly these paths, whatever else is staged or changed, and returns the new commit.

        `commit --only` leaves every other entry of the user's index and every other byte of the work tree as it was.

        Raises:
            EnvironmentFaultError: if git refuses (no identity, a signing key that does not work, a full disk, a lock).
        """
        block = "\n".join(f"{name}: {value}" for name, value in trailers.items())
        text = f"{message}\n\n{block}\n"
        known = self.files("HEAD", ".") if len(paths) > 200 else self._tracked(paths)
        new = [path for path in paths if path not in known]
        self._check_exact(paths)
        words = (
            "commit",
            "--only",
            "--no-verify",
            "--quiet",
            "--cleanup=verbatim",
            "-m",
            text,
            "--",
            *paths,
        )
        try:
            with self._locks_noted():
                if new:
                    self._run("add", "-f", "--sparse", "--", *new, exact=True)
                self._run(*words, exact=True)
        except EnvironmentFaultError:
            if new:
                self._status("reset", "-q", "--", *new)
            raise
        return self.head()

    def attributes(self, paths: Sequence[str]) -> Iterator[tuple[str, str, str]]:
        """(path, attribute, value) of what makes git store or check out other bytes than a file has."""
        names = ("filter", "ident", "working-tree-encoding", "eol")
        words = self._run("check-attr", "-z", *names, "--", *paths).decode().split("\0")
        yield from zip(words[0::3], words[1::3], words[2::3], strict=False)

    def _check_exact(self, paths: Sequence[str]) -> None:
        """Refuses to commit what git would store changed: a filter or `text` in .gitattributes reaches our files."""
        there = [path for path in paths if (self.root / path).is_file()]
        wanted = self._run("hash-object", "--no-filters", "--", *there).split()
        stored = self._run("hash-object", "--", *there, exact=True).split()
        for path, one, other in zip(there, wanted, stored, strict=True):
            if one != other:
                raise EnvironmentFaultError(
                    f"git would store {path} with other bytes than it has: .gitattributes gives it a filter or text",
                    hint=f"add `{path.split('/')[0]}/** -text -filter` to .gitattributes, commit, run again; "
                    "what was done is kept and recorded then",
                )

    def _locks_noted(self) -> contextlib.AbstractContextManager[None]:
        git_dir = Path(self._repo.git_dir)
        locks = lock_files.names(git_dir, self.common_dir, LOG_REF)
        return lock_files.noted(self.common_dir, git_dir, locks, lambda: self._last_status < 0)

    def _tracked(self, paths: Sequence[str]) -> Collection[str]:
        raw = self._run("ls-tree", "-r", "-z", "--name-only", "--full-tree", "HEAD", "--", *paths)
        return {name.decode("utf-8", "surrogateescape") for name in raw.split(b"\0") if name}

    def history(self, *, since: str | None = None, paths: Sequence[str] = ()) -> Iterator[Commit]:
        """Commits from HEAD backwards, newest first, with their trailers; `since` itself is left out."""
        revisions = ["HEAD", f"^{since}"] if since else ["HEAD"]
        form = "%x1e%H%x1f%P%x1f%B%x1f%(trailers:only,unfold)"
        for record in self._text("log", f"--format={form}", *revisions, "--", *paths).split("\x1e")[
            1:
        ]:
            sha, parents, message, block = record.split("\x1f")
            pairs = (line.split(":", 1) for line in block.split("\n") if ":" in line)
            trailers = {name.strip(): value.strip() for name, value in pairs}
            yield Commit(sha, tuple(parents.split()), message.rstrip("\n"), trailers)

    def count_outside(self, older: str) -> list[str]:
        """One line per commit after `older`, for a person to read."""
        return self._text("log", "--format=%h %s", "HEAD", f"^{older}").splitlines()

    def _run(self, *arguments: str, exact: bool = False) -> bytes:
        status, data = self._status(*arguments, exact=exact)
        if status:
            reason = data.decode("utf-8", "replace").strip() or f"exit {status}"
            message = f"git {arguments[0]} failed: {reason}"
            if "fatal: bad object" in reason or "corrupt" in reason:
                raise IntegrityError("git-object", message, hint="git fsck --full")
            raise EnvironmentFaultError(
                message, hint="mend what git names, then run the same command again"
            )
        return data

    def _text(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> str:
        status, data = self._status(*arguments)
        if status not in ok:
            reason = data.decode("utf-8", "replace").strip()
            raise EnvironmentFaultError(
                f"git {arguments[0]} failed: {reason}", hint="mend what git names"
            )
        return data.decode("utf-8", "replace").strip("\n") if status == 0 else ""

    def _status(self, *arguments: str, exact: bool = False) -> tuple[int, bytes]:
        """Exit status and stdout (stderr when it failed); never raises for a status."""
        git_command: Any = self._repo.git
        status, out, err = git_command.execute(
            ["git", *options(), *(_EXACT if exact else ()), *arguments],
            kill_after_timeout=COMMIT_S if arguments[0] == "commit" else None,
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
            env=OURS,
            pass_fds=() if self.runner_lock is None else (self.runner_lock,),
        )
        self._last_status = int(status)
        failed = err if isinstance(err, bytes) else str(err).encode()
        return int(status), bytes(out) if status == 0 else failed or bytes(out)
