"""The repository of the project, through GitPython.

Reading and the audited commit go through GitPython's command interface (`repo.git`), that is
through the git program: `index.commit` would ignore commit.gpgsign and never fsync. Every call runs
without hooks, fsmonitor and the user's GIT_* variables, with `core.fsync=all` and literal path
names: `.git/config` is code for whoever runs git next.

Only `probe.py` uses plain child processes, because `status` must start without loading GitPython.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phases.base.command_log import log_command
from phases.errors import EnvironmentFaultError, IntegrityError
from phases.git.lock_files import lock_note, lock_paths
from phases.git.probe import GIT_VARIABLES, IDENTITY, LOG_REF, git_options, probe_repository

if TYPE_CHECKING:
    import git

COMMIT_S = 120.0
"""Seconds that a commit may take; a signing program that waits for the user must not stop a run."""
MAX_PATH_ARGUMENTS = 200
"""With more paths than these, every file of HEAD is listed instead of naming them to git."""

_EXACT = ("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.safecrlf=false")
"""For commits: what was hashed is stored byte for byte, whatever line ends the user prefers."""
_SYMLINK_MODE = "120000"


@dataclass(frozen=True)
class Commit:
    """A commit as the audit needs it."""

    sha: str
    parents: tuple[str, ...]
    message: str
    trailers: Mapping[str, str]


class Repo:
    """The repository of the project; every method is one or a few calls of git.

    Most of them raise EnvironmentFaultError where git fails, and IntegrityError where git says that
    an object is damaged.
    """

    def __init__(self, root: Path):
        import git

        _remove_git_variables()
        self.root = root
        self.probe = probe_repository(root)
        self._repo: git.Repo = git.Repo(root)
        self._last_status = 0
        self.runner_lock_descriptor: int | None = None
        """Descriptor of the runner's lock while it is held. Every git process inherits it, so that
        no second runner begins while one that a killed runner started is still at work."""

    @property
    def common_dir(self) -> Path:
        """The git common directory, shared by all worktrees."""
        return self.probe.common_dir

    #### commits

    def head(self) -> str:
        """Return HEAD's commit; EnvironmentFaultError before the first commit."""
        sha = self._text("rev-parse", "--verify", "--quiet", "HEAD^{commit}", ok=(0, 1))
        if not sha:
            message = "the repository has no commit yet"
            raise EnvironmentFaultError(message, hint="commit the project first")
        return sha

    def root_commit(self) -> str:
        """Return the first commit of the history; it names the project across clones."""
        return self._text("rev-list", "--max-parents=0", "--first-parent", "HEAD").splitlines()[-1]

    def tree(self, commit: str) -> str:
        """Return the id of a commit's tree."""
        return self._text("rev-parse", "--verify", f"{commit}^{{tree}}")

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Return whether `older` is `newer` or an ancestor of it; False if it does not exist."""
        status, _ = self._status("merge-base", "--is-ancestor", older, newer)
        return status == 0

    def history(self, *, since: str | None = None, paths: Sequence[str] = ()) -> Iterator[Commit]:
        """Yield commits from HEAD backwards, newest first; `since` itself is left out."""
        revisions = ["HEAD"]
        if since:
            revisions.append(f"^{since}")
        # Record and unit separators of ASCII, which no message of ours has.
        form = "%x1e%H%x1f%P%x1f%B%x1f%(trailers:only,unfold)"
        text = self._text("log", f"--format={form}", *revisions, "--", *paths)
        for record in text.split("\x1e")[1:]:
            sha, parents, message, trailer_lines = record.split("\x1f")
            trailers = {}
            for line in trailer_lines.split("\n"):
                name, colon, value = line.partition(":")
                if colon:
                    trailers[name.strip()] = value.strip()
            yield Commit(sha, tuple(parents.split()), message.rstrip("\n"), trailers)

    def commits_since(self, older: str) -> list[str]:
        """Return one line per commit after `older`, for the approver to read."""
        return self._text("log", "--format=%h %s", "HEAD", f"^{older}").splitlines()

    #### files of a commit

    def blob(self, commit: str, path: str) -> bytes | None:
        """Return a file's bytes in a commit; None where the commit has no such file."""
        status, data = self._status("cat-file", "blob", f"{commit}:{path}")
        if status:
            return None
        return data

    def files(self, commit: str, path: str) -> dict[str, str]:
        """Return every file below a path in a commit: path -> blob id.

        Symbolic links and submodules are no files.
        """
        blobs = {}
        raw = self._run("ls-tree", "-r", "-z", "--full-tree", commit, "--", path)
        for record in raw.split(b"\0"):
            if not record:
                continue
            fields, name = record.split(b"\t", 1)
            mode, kind, blob = fields.decode().split()
            if kind == "blob" and mode != _SYMLINK_MODE:
                blobs[name.decode("utf-8", "surrogateescape")] = blob
        return blobs

    def object_id(self, commit: str, path: str) -> str | None:
        """Return the git id of a file or folder in a commit, or None."""
        name = f"{commit}:{path}"
        return self._text("rev-parse", "--verify", "--quiet", name, ok=(0, 1, 128)) or None

    #### the work tree

    def changed(self, commit: str, paths: Sequence[str]) -> list[str]:
        """Return files below the paths whose bytes in index or work tree are not the commit's.

        Compared by content (`hash-object` inside git diff), so that an untouched file with a new
        time is not listed.
        """
        if not paths:
            return []
        self._status("update-index", "-q", "--refresh")
        options = ("--name-only", "-z", "--no-ext-diff", "--no-textconv")
        return _sorted_names(self._run("diff", *options, commit, "--", *paths))

    def untracked(self, paths: Sequence[str]) -> list[str]:
        """Return files below the paths that git neither tracks nor ignores."""
        raw = self._run("ls-files", "--others", "--exclude-standard", "-z", "--", *paths)
        return _sorted_names(raw)

    def diff(self, commit: str, paths: Sequence[str]) -> str:
        """Return the textual difference from a commit to the work tree, for the user to read."""
        options = ("--no-color", "--no-ext-diff", "--no-textconv")
        return self._text("diff", *options, commit, "--", *paths)

    def attributes(self, paths: Sequence[str]) -> Iterator[tuple[str, str, str]]:
        """Yield (path, attribute, value) of what makes git store or check out other bytes."""
        names = ("filter", "ident", "working-tree-encoding", "eol")
        words = self._run("check-attr", "-z", *names, "--", *paths).decode().split("\0")
        yield from zip(words[0::3], words[1::3], words[2::3], strict=False)

    def identity(self) -> str:
        """Return `Name <mail>` of whoever would commit now."""
        return self._text("var", "GIT_COMMITTER_IDENT").rsplit(" ", 2)[0]

    #### writing

    def log_ref(self) -> str | None:
        """Return the commit of `refs/phases/log`, or None."""
        name = LOG_REF + "^{commit}"
        return self._text("rev-parse", "--verify", "--quiet", name, ok=(0, 1)) or None

    def move_log_ref(self, commit: str) -> None:
        """Move `refs/phases/log`, the anchor against a rewind, to the commit."""
        with self._lock_note():
            self._run("update-ref", LOG_REF, commit)

    def unstage(self, paths: Sequence[str]) -> None:
        """Set the index to HEAD's version of these paths."""
        with self._lock_note():
            self._run("reset", "-q", "--", *paths)

    def commit(self, paths: Sequence[str], message: str, trailers: Mapping[str, str]) -> str:
        """Commit exactly these paths, whatever else is staged or changed; return the new commit.

        `commit --only` leaves every other entry of the user's index and every other byte of the
        work tree as it was.

        Raises:
            EnvironmentFaultError: git refused (no identity, a signing key that does not work, a
                full disk, a lock), or would store other bytes.
        """
        # 1. What git does not track yet must be added first.
        tracked_paths: Collection[str]
        if len(paths) > MAX_PATH_ARGUMENTS:
            tracked_paths = self.files("HEAD", ".")
        else:
            tracked_paths = self._tracked(paths)
        new_paths = [path for path in paths if path not in tracked_paths]
        self._check_exact(paths)

        # 2. Commit; a failure leaves the index as it was.
        trailer_lines = "\n".join(f"{name}: {value}" for name, value in trailers.items())
        text = f"{message}\n\n{trailer_lines}\n"
        options = ("--only", "--no-verify", "--quiet", "--cleanup=verbatim", "-m", text)
        try:
            with self._lock_note():
                if new_paths:
                    self._run("add", "-f", "--sparse", "--", *new_paths, exact=True)
                self._run("commit", *options, "--", *paths, exact=True)
        except EnvironmentFaultError:
            if new_paths:
                self._status("reset", "-q", "--", *new_paths)
            raise
        return self.head()

    def _tracked(self, paths: Sequence[str]) -> set[str]:
        raw = self._run("ls-tree", "-r", "-z", "--name-only", "--full-tree", "HEAD", "--", *paths)
        return {name.decode("utf-8", "surrogateescape") for name in raw.split(b"\0") if name}

    def _check_exact(self, paths: Sequence[str]) -> None:
        """Refuse to commit what git would store changed: .gitattributes reaches our files too."""
        existing_paths = [path for path in paths if (self.root / path).is_file()]
        exact_ids = self._run("hash-object", "--no-filters", "--", *existing_paths).split()
        stored_ids = self._run("hash-object", "--", *existing_paths, exact=True).split()
        for path, exact_id, stored_id in zip(existing_paths, exact_ids, stored_ids, strict=True):
            if exact_id != stored_id:
                folder = path.split("/")[0]
                raise EnvironmentFaultError(
                    f"git would store {path} with other bytes than it has: .gitattributes gives it "
                    "a filter or text",
                    hint=f"add `{folder}/** -text -filter` to .gitattributes, commit, run again; "
                    "what was done is kept and recorded then",
                )

    def _lock_note(self) -> contextlib.AbstractContextManager[None]:
        git_dir = Path(self._repo.git_dir)
        paths = lock_paths(git_dir, self.common_dir, LOG_REF)
        return lock_note(self.common_dir, git_dir, paths, lambda: self._last_status < 0)

    #### calling git

    def _run(self, *arguments: str, exact: bool = False) -> bytes:
        """Return stdout; raise where git failed."""
        status, data = self._status(*arguments, exact=exact)
        if status == 0:
            return data
        reason = data.decode("utf-8", "replace").strip() or f"exit {status}"
        message = f"git {arguments[0]} failed: {reason}"
        if "fatal: bad object" in reason or "corrupt" in reason:
            raise IntegrityError("git-object", message, hint="git fsck --full")
        hint = "fix what git names, then run the same command again"
        raise EnvironmentFaultError(message, hint=hint)

    def _text(self, *arguments: str, ok: tuple[int, ...] = (0,)) -> str:
        """Return stdout as text, empty for a status of `ok` other than 0; raise for any other."""
        status, data = self._status(*arguments)
        text = data.decode("utf-8", "replace")
        if status not in ok:
            message = f"git {arguments[0]} failed: {text.strip()}"
            raise EnvironmentFaultError(message, hint="fix what git names")
        if status:
            return ""
        return text.strip("\n")

    def _status(self, *arguments: str, exact: bool = False) -> tuple[int, bytes]:
        """Return exit status and stdout (stderr when it failed); never raise for a status."""
        # 1. The command. `exact` is for what commits; only a commit may wait for a signing program.
        argv = ["git", *git_options()]
        if exact:
            argv += _EXACT
        argv += arguments
        timeout_s = None
        if arguments[0] == "commit":
            timeout_s = COMMIT_S
        pass_fds: tuple[int, ...] = ()
        if self.runner_lock_descriptor is not None:
            pass_fds = (self.runner_lock_descriptor,)

        # 2. The call. GitPython's overloads have no type for this set of options.
        command: Any = self._repo.git
        begin = time.monotonic()
        status, stdout, stderr = command.execute(
            argv,
            kill_after_timeout=timeout_s,
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
            env=GIT_VARIABLES,
            pass_fds=pass_fds,
        )
        self._last_status = int(status)
        log_command(["git", *arguments], status=int(status), seconds=time.monotonic() - begin)

        # 3. GitPython returns stderr as bytes or as text.
        if status == 0:
            return 0, bytes(stdout)
        if not isinstance(stderr, bytes):
            stderr = str(stderr).encode()
        return int(status), stderr or bytes(stdout)


def _remove_git_variables() -> None:
    """Take GIT_DIR and its like out of this process's environment.

    GitPython adds to the environment of git and cannot take away.
    """
    for name in list(os.environ):
        if name.startswith("GIT_") and name not in IDENTITY:
            del os.environ[name]


def _sorted_names(raw: bytes) -> list[str]:
    return sorted({name.decode("utf-8", "replace") for name in raw.split(b"\0") if name})
