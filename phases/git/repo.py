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
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from phases.base.command_log import log_command
from phases.base.text import printable
from phases.errors import EnvironmentFaultError, IntegrityError
from phases.git.lock_files import clear_stale_locks, lock_note, lock_paths
from phases.git.objects import ObjectReader
from phases.git.probe import (
    DAMAGED_OBJECT_WAY,
    GIT_VARIABLES,
    IDENTITY,
    LOG_REF,
    blob_id,
    git_folder,
    git_options,
    probe_repository,
)
from phases.git.record_history import parse_trailers

COMMIT_S = 120.0
"""Seconds that a commit may take; a signing program that waits for the user must not stop a run."""
_EXACT = (
    *("-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.safecrlf=false"),
    *("-c", "core.ignoreStat=false"),
)
"""For commits: what was hashed is stored byte for byte, whatever line ends the user prefers, and no
entry that the runner makes is marked as unchanged."""
_NO_INDEX_SYNC = ("-c", "core.fsync=committed,reference")
"""For an index that the commit after it writes anew."""
_SET_ENTRIES = ("update-index", "-z", "--index-info")
_PATHS_FROM_STDIN = ("--pathspec-from-file=-", "--pathspec-file-nul")

PLAIN_FILE = "100644"
EXECUTABLE = "100755"
LINK = "120000"
SUBMODULE = "160000"
"""Modes of a tree's entries; any other is a plain file."""
FOLDER = "40000"
"""The mode of a folder in a tree."""


@dataclass(frozen=True)
class TreeEntry:
    """One file, link or submodule of a commit."""

    path: str
    mode: str
    id: str
    size: int
    """Bytes; 0 for a submodule."""

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return self.mode not in (LINK, SUBMODULE)


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
        from git import Git

        _remove_git_variables()
        self.root = root
        self.probe = probe_repository(root)
        # A Path is taken as it is. A string, and `git.Repo` with any path, expand variables: in a
        # folder called $X they would work on another repository. And `git.Repo` decodes
        # .git/config, which may have any bytes.
        self._git = Git(root.resolve())
        self._last_status = 0
        self._is_noted = False
        self._objects = ObjectReader(root)
        self.runner_lock_descriptor: int | None = None
        """Descriptor of the runner's lock while it is held. Every git process inherits it, so that
        no second runner begins while one that a killed runner started is still at work."""

    @property
    def common_dir(self) -> Path:
        """The git common directory, shared by all worktrees."""
        return self.probe.common_dir

    @cached_property
    def git_dir(self) -> Path:
        """The git directory of this work tree."""
        return git_folder(self.root, "--git-dir")

    #### commits

    def head(self) -> str:
        """Return HEAD's commit; EnvironmentFaultError before the first commit."""
        commit = self._objects.read("HEAD^{commit}")
        if commit is None:
            message = "the repository has no commit yet"
            raise EnvironmentFaultError(message, hint="commit the project first")
        return commit.id

    def root_commit(self) -> str:
        """Return the first commit of the history; it names the project across clones."""
        options = ("--max-parents=0", "--first-parent")
        return self._text("rev-list", *options, "HEAD", "--").splitlines()[-1]

    def tree(self, commit: str) -> str:
        """Return the id of a commit's tree."""
        return self._objects.require(f"{commit}^{{tree}}").id

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Return whether `older` is `newer` or an ancestor of it; False if it does not exist."""
        status, _ = self._status("merge-base", "--is-ancestor", older, newer)
        return status == 0

    def history(self, *, since: str | None = None, paths: Sequence[str] = ()) -> Iterator[Commit]:
        """Yield commits from HEAD backwards, newest first; `since` itself is left out."""
        revisions = ["HEAD"]
        if since:
            revisions.append(f"^{since}")
        # A message may have any byte but NUL: git cuts it there. -z ends each commit by NUL too.
        form = "%H%x00%P%x00%B%x00%(trailers:only,unfold)"
        text = self._text("log", "-z", f"--format={form}", *revisions, "--", *paths)
        fields = iter(text.split("\0"))
        records = zip(fields, fields, fields, fields, strict=False)
        for sha, parents, message, trailer_lines in records:
            trailers = parse_trailers(trailer_lines)
            yield Commit(sha, tuple(parents.split()), message.rstrip("\n"), trailers)

    def own_commit(self, sha: str) -> Commit:
        """Return a commit of the runner's: its trailers are the last paragraph of its message."""
        commit = self._objects.require(sha)
        header, _, message = commit.data.decode("utf-8", "replace").partition("\n\n")
        lines = [line.partition(" ") for line in header.split("\n")]
        parents = tuple(value for key, _, value in lines if key == "parent")
        message = message.rstrip("\n")
        return Commit(sha, parents, message, parse_trailers(message.rpartition("\n\n")[2]))

    def commits_since(self, older: str) -> list[str]:
        """Return one line per commit after `older`, for the approver to read."""
        text = self._text("log", "-z", "--format=%h %s", "HEAD", f"^{older}", "--")
        return [printable(line) for line in text.split("\0") if line]

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
        return {
            entry.path: entry.id for entry in self.tree_entries(commit, [path]) if entry.is_file
        }

    def tree_entries(self, commit: str, paths: Sequence[str] = ()) -> Iterator[TreeEntry]:
        """Yield every file, link and submodule at or below the paths; without paths all of them."""
        raw = self._run("ls-tree", "-r", "-l", "-z", "--full-tree", commit, "--", *paths)
        for record in raw.split(b"\0"):
            if not record:
                continue
            fields, name = record.split(b"\t", 1)
            mode, _kind, object_id, size = fields.decode().split()
            path = name.decode("utf-8", "surrogateescape")
            if size == "BAD":
                message = f"git has no {printable(path)} (blob {object_id[:12]}) of {commit[:12]}"
                raise IntegrityError("git-object", message, hint=DAMAGED_OBJECT_WAY)
            if size == "-":
                size = "0"
            yield TreeEntry(path, mode, object_id, int(size))

    def entries_of(self, commit: str, paths: Sequence[str]) -> dict[str, TreeEntry]:
        """Return those of exactly these paths that a commit has; their sizes are not read."""
        folders = {"": self._objects.entries(f"{commit}^{{tree}}")}
        entries = {}
        for path in paths:
            folder, _, name = path.rpartition("/")
            mode, object_id = self._folder(folders, folder).get(name, ("", ""))
            if mode not in ("", FOLDER):
                entries[path] = TreeEntry(path, mode, object_id, size=0)
        return entries

    def _folder(
        self, folders: dict[str, dict[str, tuple[str, str]]], folder: str
    ) -> Mapping[str, tuple[str, str]]:
        """Return what a folder of a commit holds; `folders` has those that were read."""
        if folder not in folders:
            parent, _, name = folder.rpartition("/")
            mode, tree = self._folder(folders, parent).get(name, ("", ""))
            folders[folder] = self._objects.entries(tree) if mode == FOLDER else {}
        return folders[folder]

    def branch(self) -> str | None:
        """Return the full name of HEAD's branch; None where HEAD is detached."""
        # Its bytes matter: it is looked up again.
        head = (self.git_dir / "HEAD").read_text("utf-8", "surrogateescape").removesuffix("\n")
        if head.startswith("ref: refs/heads/") and not head.endswith("/.invalid"):
            return head.removeprefix("ref: ")
        name = self._text("symbolic-ref", "--quiet", "HEAD", ok=(0, 1), errors="surrogateescape")
        return name or None

    def has_ref(self, name: str) -> bool:
        """Return whether there is a branch or other ref with this full name."""
        status, _ = self._status("show-ref", "--verify", "--quiet", name)
        return status == 0

    def object_id(self, commit: str, path: str) -> str | None:
        """Return the git id of a file or folder in a commit, or None."""
        name = f"{commit}:{path}"
        return self._text("rev-parse", "--verify", "--quiet", name, ok=(0, 1, 128)) or None

    #### the work tree

    def untracked(self, *, without: str = "") -> list[str]:
        """Return the files of the work tree that git does not ignore, whatever the index says.

        Files of the commit are among them; repositories inside this one are not, nor what is in
        the folder `without`.
        """
        options = ["--others", "--exclude-standard", "-z"]
        if without:
            options.append(f"--exclude=/{_escaped(without)}/")
        # An index that does not exist: no flag of an entry can hide a file.
        variables = {"GIT_INDEX_FILE": str(self.common_dir / "phases" / "no-index")}
        raw = self._run("ls-files", *options, variables=variables)
        return [name for name in _sorted_names(raw) if not name.endswith("/")]

    def stored_ids(self, paths: Sequence[str]) -> dict[str, str]:
        """Return path -> blob id that git would store for a file, by its filters and line ends."""
        ids = self._run("hash-object", "--stdin-paths", stdin=_quoted_lines(paths)).decode().split()
        return dict(zip(paths, ids, strict=True))

    def diff(self, commit: str, paths: Sequence[str]) -> str:
        """Return the textual difference from a commit to the work tree, for the user to read."""
        options = ("--no-color", "--no-ext-diff", "--no-textconv")
        return self._text("diff", *options, commit, "--", *paths)

    def attributes(self, paths: Sequence[str]) -> Iterator[tuple[str, str, str]]:
        """Yield (path, attribute, value) of what makes git store or check out other bytes."""
        names = ("filter", "ident", "working-tree-encoding", "eol")
        output = self._run("check-attr", "-z", *names, "--", *paths)
        words = output.decode("utf-8", "backslashreplace").split("\0")
        yield from zip(words[0::3], words[1::3], words[2::3], strict=False)

    def identity(self) -> str:
        """Return `Name <mail>` of whoever would commit now."""
        return self._text("var", "GIT_COMMITTER_IDENT").rsplit(" ", 2)[0]

    #### writing

    def log_ref(self) -> str | None:
        """Return the commit of `refs/phases/log`, or None."""
        commit = self._objects.read(LOG_REF + "^{commit}")
        return commit.id if commit else None

    def move_log_ref(self, commit: str) -> None:
        """Move `refs/phases/log`, the anchor against a rewind, to the commit."""
        with self.writing():
            self._run("update-ref", LOG_REF, commit)

    def unstage(self, paths: Sequence[str]) -> None:
        """Set the index to HEAD's version of these paths."""
        entries = self.entries_of("HEAD", paths)
        with self.writing():
            self._run(*_SET_ENTRIES, stdin=_index_lines(paths, entries, self.head()), exact=True)
            self._status("update-index", "-q", "--refresh")

    def commit(self, paths: Sequence[str], message: str, trailers: Mapping[str, str]) -> str:
        """Commit exactly these paths, whatever else is staged or changed; return the new commit.

        `commit --only` leaves every other entry of the user's index and every other byte of the
        work tree as it was. A path that is neither on the disk nor in HEAD is left out.

        Raises:
            EnvironmentFaultError: git refused (no identity, a signing key that does not work, a
                full disk, a lock), or would store other bytes.
        """
        # 1. Which paths git adds, and which it changes or removes. git takes a folder in the place
        #    of a removed file for a submodule; the files in it replace that file without its name.
        existing_paths = self._existing(paths)
        stored_ids = self._store_exactly(existing_paths)
        entries = self.entries_of("HEAD", paths)
        new_entries = {}
        for path, stored_id in stored_ids.items():
            if path not in entries:
                new_entries[path] = TreeEntry(path, PLAIN_FILE, stored_id, size=0)
        removed_paths = [path for path in entries if not (self.root / path).exists()]

        # 2. The index gets HEAD's entries without the user's flags, for skip-worktree would keep a
        #    file out of the commit, and without times, by which git would take a changed file for
        #    the same. What HEAD lacks is added; after a failure the index has HEAD's entries.
        head = self.head()
        head_lines = _index_lines(paths, entries, head)
        new_lines = _index_lines(new_entries, new_entries, head)
        trailer_lines = "\n".join(f"{name}: {value}" for name, value in trailers.items())
        text = f"{message}\n\n{trailer_lines}\n"
        options = ("--only", "--no-verify", "--quiet", "--cleanup=verbatim", "-m", text)
        with self.writing():
            try:
                self._run(*_SET_ENTRIES, stdin=head_lines + new_lines, exact=True)

                # 3. All is committed.
                commit_paths = _nul_ended([*existing_paths, *removed_paths])
                self._run("commit", *options, *_PATHS_FROM_STDIN, stdin=commit_paths, exact=True)
            except EnvironmentFaultError:
                if self._was_killed():
                    clear_stale_locks(self.common_dir)
                self._status(*_SET_ENTRIES, stdin=head_lines, exact=True)
                raise
        return self.head()

    def check_commit(self, commit: str, paths: Sequence[str]) -> None:
        """Check that a commit holds exactly the bytes that these paths have on the disk.

        Raises:
            IntegrityError: a file differs, is missing, or is there and should not be.
        """
        blobs, tree = {}, self.tree(commit)
        for path in self._existing(paths):
            data = (self.root / path).read_bytes()
            blobs[path] = blob_id([data], len(data), tree)
        entries = self.entries_of(commit, paths)
        committed_blobs = {path: entry.id for path, entry in entries.items() if entry.is_file}
        for path in paths:
            expected = blobs.get(path, "no file")
            actual = committed_blobs.get(path, "no file")
            if actual != expected:
                raise IntegrityError(
                    "commit-content",
                    f"the runner's commit {commit[:12]} does not hold {path} as it was recorded: "
                    f"got {actual[:12]}; expected {expected[:12]}",
                    hint=f"`git reset --soft {commit[:12]}~1` takes that commit back and keeps "
                    "every file; find what changed it (a program in the place of git?), then run "
                    "again: what was done is kept and recorded then",
                )

    def _existing(self, paths: Iterable[str]) -> list[str]:
        return [path for path in paths if (self.root / path).is_file()]

    def _store_exactly(self, paths: Sequence[str]) -> dict[str, str]:
        """Store files as git's objects; return path -> id.

        Raises:
            EnvironmentFaultError: git stores other bytes: .gitattributes reaches our files too.
        """
        stdin = _quoted_lines(paths)
        ids = self._run("hash-object", "-w", "--stdin-paths", stdin=stdin, exact=True).decode()
        stored_ids = dict(zip(paths, ids.split(), strict=True))
        for path, stored_id in stored_ids.items():
            data = (self.root / path).read_bytes()
            if blob_id([data], len(data), stored_id) != stored_id:
                folder, slash, _ = path.partition("/")
                pattern = f"{folder}/**" if slash else path
                raise EnvironmentFaultError(
                    f"git would store {path} with other bytes than it has: .gitattributes gives it "
                    "a filter or text",
                    hint=f"add `{pattern} -text -filter` to .gitattributes, commit, run again; "
                    "what was done is kept and recorded then",
                )
        return stored_ids

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep the note of git's locks for a block in which git writes."""
        if self._is_noted:  # by a block around this one
            yield
            return
        paths = lock_paths(self.git_dir, self.common_dir, LOG_REF)
        self._is_noted = True
        try:
            with lock_note(self.common_dir, self.git_dir, paths, self._was_killed):
                yield
        finally:
            self._is_noted = False

    def _was_killed(self) -> bool:
        """Return whether the last git process died by a signal."""
        return self._last_status < 0

    #### calling git

    def _run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        exact: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return stdout; raise where git failed."""
        status, data = self._status(*arguments, stdin=stdin, exact=exact, variables=variables)
        if status == 0:
            return data
        reason = data.decode("utf-8", "replace").strip() or f"exit {status}"
        message = f"git {arguments[0]} failed: {reason}"
        if "fatal: bad object" in reason or "corrupt" in reason:
            raise IntegrityError("git-object", message, hint=DAMAGED_OBJECT_WAY)
        hint = "fix what git names, then run the same command again"
        raise EnvironmentFaultError(message, hint=hint)

    def _text(
        self, *arguments: str, ok: tuple[int, ...] = (0,), errors: str = "backslashreplace"
    ) -> str:
        """Return stdout as text, empty for a status of `ok` other than 0; raise for any other.

        `errors` says what becomes of bytes that are not UTF-8.
        """
        status, data = self._status(*arguments)
        text = data.decode("utf-8", errors)
        if status not in ok:
            message = f"git {arguments[0]} failed: {text.strip()}"
            raise EnvironmentFaultError(message, hint="fix what git names")
        if status:
            return ""
        return text.strip("\n")

    def _status(
        self,
        *arguments: str,
        stdin: bytes = b"",
        exact: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Return exit status and stdout (stderr when it failed); never raise for a status.

        Lists of paths go through `stdin`: a command line has room for 2 MB.
        """
        # 1. The command. `exact` is for what commits; only a commit may wait for a signing program.
        # -C: where the folder cannot be entered, GitPython would stay in the current one.
        argv = ["git", "-C", str(self._git.working_dir), *git_options()]
        if exact:
            argv += _EXACT
        if arguments == _SET_ENTRIES:
            argv += _NO_INDEX_SYNC
        argv += arguments
        timeout_s = None
        if arguments[0] == "commit":
            timeout_s = COMMIT_S
        pass_fds: tuple[int, ...] = ()
        if self.runner_lock_descriptor is not None:
            pass_fds = (self.runner_lock_descriptor,)

        # 2. The call. GitPython's overloads have no type for this set of options.
        command: Any = self._git
        begin = time.monotonic()
        with _open_bytes(stdin) as file:
            status, stdout, stderr = command.execute(
                argv,
                istream=file,
                kill_after_timeout=timeout_s,
                with_extended_output=True,
                with_exceptions=False,
                stdout_as_string=False,
                strip_newline_in_stdout=False,
                env={**GIT_VARIABLES, **(variables or {})},
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


@contextlib.contextmanager
def _open_bytes(data: bytes) -> Iterator[IO[bytes] | None]:
    """Yield a file with these bytes for a child process to read; None for no bytes."""
    if not data:
        yield None
        return
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


def _quoted_lines(paths: Iterable[str]) -> bytes:
    """Return paths as `hash-object --stdin-paths` reads them, one a line."""
    return "".join(f"{_quoted(path)}\n" for path in paths).encode("utf-8", "surrogateescape")


def _quoted(path: str) -> str:
    """Return a path as git reads it from a line: a leading quote begins a C string."""
    if not path.startswith('"') and not {"\n", "\r"} & set(path):
        return path
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    escaped = escaped.replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _index_lines(paths: Iterable[str], entries: Mapping[str, TreeEntry], like: str) -> bytes:
    """Return the input of `update-index --index-info` that gives the paths these entries.

    `like` is any id of the repository: SHA-256 has longer ones.
    """
    lines = []
    for path in paths:
        # Mode 0 removes an entry. Only what is added anew has no flags: a split index keeps them.
        lines.append(f"0 {'0' * len(like)}\t{path}")
        if path in entries:
            lines.append(f"{entries[path].mode} {entries[path].id}\t{path}")
    return _nul_ended(lines)


def _escaped(path: str) -> str:
    """Return a pattern of .gitignore that means this very path."""
    return re.sub(r"([\\*?\[\]!# ])", r"\\\1", path)


def _nul_ended(names: Iterable[str]) -> bytes:
    return "".join(f"{name}\0" for name in names).encode("utf-8", "surrogateescape")


def _sorted_names(raw: bytes) -> list[str]:
    return sorted({name.decode("utf-8", "surrogateescape") for name in raw.split(b"\0") if name})
