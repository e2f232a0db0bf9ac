"""Trees that something runs in: a commit's, read from git's objects, or the work tree's files.

`CommitTree` reads raw blobs: no index, filter or attribute decides what it contains. It is written
to a folder of its own by one `git cat-file --batch`. `WorkTree` is for scratch runs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, TypeVar

from phases.base import durable
from phases.base.command_log import log_command
from phases.base.text import printable
from phases.base.trees import walk_tree
from phases.errors import EnvironmentFaultError, IntegrityError
from phases.git.probe import DAMAGED_OBJECT_WAY, blob_digest, blob_id, git_environment, git_options
from phases.git.repo import EXECUTABLE, LINK, SUBMODULE, Repo, TreeEntry

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
MAX_POINTER = 1024  # bytes of a Git LFS pointer

BYTECODE = "__pycache__"
"""Folders that are not laid out: Python would run their bytecode in place of the sources."""

MAX_STEPS = 10_000
"""Parts of paths that one link may be followed over."""
MAX_CHANGES = 1_000_000  # that are listed of one layout
_CHUNK = 1 << 20  # bytes

T = TypeVar("T")


class Tree(Protocol):
    """Where plan, gates and inputs are read, and what an experiment runs in."""

    @property
    def commit(self) -> str:
        """The commit; empty for the work tree."""

    def files(self, folder: str) -> list[str]:
        """Return the sorted paths of the regular files below a folder."""

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes; None where there is no such file."""

    def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return path -> bytes of regular files that the tree has."""

    def identity(self, path: str) -> dict[str, str] | None:
        """Return the digest set that names a file or folder; None where there is none."""

    def lay_out(self, folder: Path, paths: Collection[str] | None = None) -> Layout:
        """Return a folder that has the tree; `paths` are those that are needed, by default all."""


#### a folder that has a tree


@dataclass(frozen=True)
class Layout:
    """A folder that has a tree, as it was when it was made."""

    folder: Path
    digests: Mapping[str, str] = field(default_factory=dict)
    """Path -> SHA-256 of every regular file."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Path -> target of every symbolic link."""

    @property
    def contents(self) -> dict[str, str]:
        """Path -> SHA-256 of every file, and of the target of every symbolic link."""
        contents = dict(self.digests)
        for path, target in self.links.items():
            contents[path] = durable.sha256(os.fsencode(target))
        return contents

    def below(self, path: str) -> dict[str, str]:
        """Return path -> SHA-256 of the file with this path, or of every file below it."""
        prefix = f"{path.rstrip('/')}/"
        return {
            name: digest
            for name, digest in self.digests.items()
            if name == path or name.startswith(prefix)
        }

    def changes(self) -> list[str]:
        """Return what was changed, deleted or added in the folder since, at most MAX_CHANGES."""
        # 1. What was laid out; a file that is no longer regular is not opened.
        changes = []
        for path, digest in self.digests.items():
            change = _describe_change(self.folder / path, digest)
            if change:
                changes.append(f"{path} ({change})")
        for path, target in self.links.items():
            if not _is_link_to(self.folder / path, target):
                changes.append(f"{path} (changed)")

        # 2. What was not there.
        known = {*self.digests, *self.links}
        for entry in walk_tree(self.folder):
            if not entry.is_folder and entry.path not in known:
                changes.append(f"{entry.path} (added)")
            if not entry.is_read:
                changes.append(f"{entry.path} (cannot be read)")
            if len(changes) >= MAX_CHANGES:
                break
        return sorted(changes)[:MAX_CHANGES]


def _is_link_to(path: Path, target: str) -> bool:
    try:
        return os.fsdecode(path.readlink()) == target
    except OSError:
        return False


def _describe_change(path: Path, digest: str) -> str:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return "changed"
        if durable.sha256_file(path) != digest:
            return "changed"
    except FileNotFoundError:
        return "deleted"
    except OSError:
        return "changed"
    return ""


#### the tree of a commit


@dataclass(frozen=True)
class CommitTree:
    """The tree of one commit."""

    repo: Repo
    commit: str
    left_out: tuple[str, ...] = ()
    """How the paths begin that are no part of the tree here: the record, which only grows."""
    _read: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    _derived: dict[object, Any] = field(default_factory=dict, repr=False, compare=False)

    def moved_to(self, commit: str) -> CommitTree:
        """Return the tree of a commit that differs from this one in what is left out, alone."""
        return replace(self, commit=commit)

    def derive(self, name: object, compute: Callable[[], T]) -> T:
        """Return what is computed from the tree's files; once, for all commits that have them."""
        if name not in self._derived:
            self._derived[name] = compute()
        derived: T = self._derived[name]
        return derived

    @cached_property
    def id(self) -> str:
        """The git id of the tree."""
        return self.repo.tree(self.commit)

    @property
    def entries(self) -> dict[str, TreeEntry]:
        """Every file, link and submodule by its path."""
        return self.derive("entries", self._list_entries)

    @property
    def links(self) -> dict[str, str]:
        """Path -> target of every symbolic link."""
        return self.derive("links", self._read_links)

    @property
    def incomplete(self) -> dict[str, str]:
        """Path -> what it is, of everything whose content the commit does not have itself."""
        return self.derive("incomplete", self._find_incomplete)

    def _list_entries(self) -> dict[str, TreeEntry]:
        entries = {}
        for entry in self.repo.tree_entries(self.commit):
            _require_plain_path(entry.path, self.commit)
            if not entry.path.startswith(self.left_out):
                entries[entry.path] = entry
        return entries

    def _read_links(self) -> dict[str, str]:
        paths = [path for path, entry in self.entries.items() if entry.mode == LINK]
        return {path: os.fsdecode(data) for path, data in self.read_files(paths).items()}

    def _find_incomplete(self) -> dict[str, str]:
        kinds = {}
        small = []
        for path, entry in self.entries.items():
            if entry.mode == SUBMODULE:
                kinds[path] = "a submodule"
            elif entry.is_file and len(LFS_POINTER) < entry.size <= MAX_POINTER:
                small.append(path)
        for path, data in self.read_files(small).items():
            if data.startswith(LFS_POINTER):
                kinds[path] = "stored by Git LFS"
        return kinds

    def require_links_inside(self) -> None:
        """Refuse symbolic links that lead out of the commit: what is there has no digest."""
        for path, target in self.links.items():
            if _follow(path, self.links) is None:
                raise EnvironmentFaultError(
                    f"{printable(path)} in commit {self.commit[:12]} is a symbolic link to "
                    f"{printable(target)}, which is not in the commit; "
                    "what runs must be in the commit itself",
                    hint="replace the link by the file, or declare the file as an input in "
                    "$PHASES_CACHE with its digest; commit, run again",
                )

    def files(self, folder: str) -> list[str]:
        """Return the sorted paths of the regular files below a folder, bytecode left out."""
        prefix = f"{folder}/"
        return sorted(
            path
            for path, entry in self.entries.items()
            if entry.is_file and path.startswith(prefix) and not _is_bytecode(path)
        )

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes; None where the commit has no such file."""
        path = PurePosixPath(path).as_posix()  # the plan may write `./config.yaml`
        entry = self.entries.get(path)
        if entry is None or not entry.is_file:
            return None
        return self.read_files([path])[path]

    def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return path -> bytes of many files, by one process of git; what was read is kept."""
        paths = list(paths)
        entries = [self.entries[path] for path in paths if path not in self._read]
        if entries:
            with closing(self._blobs(entries)) as blobs:
                for entry, chunks in blobs:
                    self._read[entry.path] = b"".join(chunks)
        return {path: self._read[path] for path in paths}

    def identity(self, path: str) -> dict[str, str] | None:
        """Return the git id of a file or folder, and of what its links lead to; else None."""
        object_id = self.repo.object_id(self.commit, path)
        if object_id is None:
            return None
        identity = {"gitObject": object_id}
        if self.has_links(path):
            for entry in self.select([path]):
                if not entry.path.startswith(f"{path}/"):
                    identity[f"gitObject:{printable(entry.path)}"] = entry.id
        return identity

    def leads_to(self, prefixes: tuple[str, ...]) -> bool:
        """Return whether a symbolic link leads to a path that begins so, or to a folder above."""
        for path in self.links:
            target = _follow(path, self.links)
            if target is None:
                continue
            start = f"{target}/" if target else ""
            if start.startswith(prefixes) or any(item.startswith(start) for item in prefixes):
                return True
        return False

    def has_links(self, path: str) -> bool:
        """Return whether a folder has symbolic links."""
        return any(link.startswith(f"{path}/") for link in self.links)

    def lay_out(self, folder: Path, paths: Collection[str] | None = None) -> Layout:
        """Write the tree, or the files and folders `paths` of it, to a folder that is empty.

        Bytes are those of the blobs, modes are kept. Left out is bytecode (`__pycache__`). A
        submodule is an empty folder.

        Raises:
            EnvironmentFaultError: the disk is too small, or a link leads out of the tree.
        """
        self.require_links_inside()
        entries = self.select(paths)
        _require_space(folder, sum(entry.size for entry in entries))
        with durable.environment_faults(folder, "write"):
            return self._write(folder, entries)

    def only_adds_to(self, other: CommitTree) -> bool:
        """Return whether this tree has every path of another, as the same kind of entry."""
        modes = {path: entry.mode for path, entry in self.entries.items()}
        return all(modes.get(path) == entry.mode for path, entry in other.entries.items())

    def changed_since(self, other: CommitTree) -> list[TreeEntry]:
        """Return the entries that another tree does not have, or has with another content.

        Bytecode is left out.
        """
        entries = self.select(None)
        return [entry for entry in entries if other.entries.get(entry.path) != entry]

    def update(self, folder: Path, layout: Layout, other: CommitTree) -> Layout:
        """Bring a folder that has another tree, to which this one only adds, up to this one.

        Args:
            folder: where the other tree is now.
            layout: the other tree as it was laid out.
            other: the other tree.

        Raises:
            EnvironmentFaultError: see `lay_out`.
        """
        self.require_links_inside()
        entries = self.changed_since(other)
        _require_space(folder, sum(entry.size for entry in entries))
        with durable.environment_faults(folder, "write"):
            for entry in entries:
                if entry.path in other.entries and entry.mode != SUBMODULE:
                    os.unlink(f"{folder}/{entry.path}")  # noqa: PTH108
            new = self._write(folder, entries)
        return Layout(folder, {**layout.digests, **new.digests}, {**layout.links, **new.links})

    def select(self, paths: Collection[str] | None) -> list[TreeEntry]:
        """Return the entries at or below the paths, and what their links lead to.

        Bytecode is left out; `paths` None means every path.
        """
        entries = [entry for entry in self.entries.values() if not _is_bytecode(entry.path)]
        if paths is None:
            return entries
        wanted = set(paths)
        while True:
            prefixes = tuple(f"{path.rstrip('/')}/" for path in wanted)
            selected = [
                entry
                for entry in entries
                if entry.path in wanted or entry.path.startswith(prefixes)
            ]
            targets = {
                _follow(entry.path, self.links) or entry.path
                for entry in selected
                if entry.mode == LINK
            }
            if targets <= wanted:
                return selected
            wanted |= targets

    def _write(self, folder: Path, entries: list[TreeEntry]) -> Layout:
        # 1. Folders.
        folder.mkdir(parents=True, exist_ok=True)
        submodules = [entry.path for entry in entries if entry.mode == SUBMODULE]
        parents = {os.path.dirname(entry.path) for entry in entries}  # noqa: PTH120
        for parent in sorted({*parents, *submodules}):
            (folder / parent).mkdir(parents=True, exist_ok=True)

        # 2. Files. O_NOFOLLOW: no name of a malformed tree can lead out of the folder.
        digests: dict[str, str] = {}
        with closing(self._blobs([entry for entry in entries if entry.is_file])) as blobs:
            for entry, chunks in blobs:
                digests[entry.path] = _write_file(f"{folder}/{entry.path}", entry, chunks)

        # 3. Links come last, so that nothing was written through one.
        links = {entry.path: self.links[entry.path] for entry in entries if entry.mode == LINK}
        for path, target in links.items():
            (folder / path).symlink_to(target)
        return Layout(folder, digests, links)

    def _blobs(self, entries: list[TreeEntry]) -> Generator[tuple[TreeEntry, Iterator[bytes]]]:
        """Yield each entry with the chunks of its blob, which must be read before the next one."""
        if not entries:
            return
        with tempfile.TemporaryFile() as questions:
            questions.write(b"".join(f"{entry.id}\n".encode() for entry in entries))
            questions.seek(0)
            process = subprocess.Popen(
                ["git", *git_options(), "cat-file", "--batch"],
                cwd=self.repo.root,
                env=git_environment(),
                stdin=questions,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        assert process.stdout is not None
        try:
            for entry in entries:
                header = process.stdout.readline().decode().split()
                if header[1:2] != ["blob"]:
                    raise self._damaged(entry)
                yield entry, self._read_blob(process.stdout, entry)
                process.stdout.read(1)  # the line end after each blob
        finally:
            process.stdout.close()
            process.wait()
            log_command(["git", "cat-file", "--batch"], status=process.returncode, seconds=0.0)

    def _read_blob(self, stream: IO[bytes], entry: TreeEntry) -> Iterator[bytes]:
        """Yield the chunks of a blob; IntegrityError where their id is not the entry's."""
        digest = blob_digest(entry.size, entry.id)
        try:
            for chunk in _read_chunks(stream, entry.size):
                digest.update(chunk)
                yield chunk
        except EOFError:
            # git prints the size before it sees that the rest is damaged.
            raise self._damaged(entry) from None
        if digest.hexdigest() != entry.id:
            raise self._damaged(entry)

    def _damaged(self, entry: TreeEntry) -> IntegrityError:
        return IntegrityError(
            "git-object",
            f"git cannot read {printable(entry.path)} (blob {entry.id[:12]}) of "
            f"commit {self.commit[:12]}",
            hint=DAMAGED_OBJECT_WAY,
        )


def _read_chunks(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        chunk = stream.read(min(size, _CHUNK))
        if not chunk:
            message = f"got an end of file; expected {size} bytes more"
            raise EOFError(message)
        size -= len(chunk)
        yield chunk


def _write_file(path: str, entry: TreeEntry, chunks: Iterator[bytes]) -> str:
    """Write one file; return its SHA-256."""
    digest = hashlib.sha256()
    mode = 0o644
    if entry.mode == EXECUTABLE:
        mode = 0o755
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, mode)
    try:
        for chunk in chunks:
            digest.update(chunk)
            durable.write_all(descriptor, chunk)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def _is_bytecode(path: str) -> bool:
    return BYTECODE in path.split("/")


def _follow(path: str, links: Mapping[str, str]) -> str | None:
    """Return where a link leads, followed as the system does; None if out of the tree."""
    resolved = path.split("/")[:-1]
    waiting = links[path].split("/")
    if links[path].startswith("/"):
        return None
    for _step in range(MAX_STEPS):
        if not waiting:
            return "/".join(resolved)
        part = waiting.pop(0)
        if part == "..":
            if not resolved:
                return None
            resolved.pop()
        elif part not in ("", "."):
            resolved.append(part)
        target = links.get("/".join(resolved), "")
        if target.startswith("/"):
            return None
        if target:
            resolved.pop()
            waiting = [*target.split("/"), *waiting]
    return path  # links that lead to each other lead nowhere


def _require_space(folder: Path, size: int) -> None:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < size + durable.MIN_FREE_BYTES:
        raise EnvironmentFaultError(
            f"{existing}: got {free / 1e9:.1f} GB free; expected at least "
            f"{(size + durable.MIN_FREE_BYTES) / 1e9:.1f} GB, as the commit's files have "
            f"{size / 1e9:.1f} GB",
            hint="free disk space there or set TMPDIR to a larger disk, then run again",
        )


def _require_plain_path(path: str, commit: str) -> None:
    """Refuse a name that git itself never writes, and that would lead out of the folder."""
    parts = path.split("/")
    if any(part.casefold() in ("", ".", "..", ".git") for part in parts):
        message = f"commit {commit[:12]} has a file with the name {printable(path)!r}"
        raise IntegrityError("git-object", message, hint=DAMAGED_OBJECT_WAY)


#### the work tree


@dataclass(frozen=True)
class WorkTree:
    """The files of the work tree as they are now: what a scratch run works on."""

    root: Path
    commit = ""

    def files(self, folder: str) -> list[str]:
        """Return the sorted paths of the regular files below a folder."""
        paths = []
        for path in (self.root / folder).rglob("*"):
            if path.is_file() and not _is_bytecode(path.as_posix()):
                paths.append(path.relative_to(self.root).as_posix())
        return sorted(paths)

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes; None where there is no such file."""
        file = self.root / path
        if not file.is_file():
            return None
        return file.read_bytes()

    def read_files(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return path -> bytes of files of the work tree."""
        return {path: (self.root / path).read_bytes() for path in paths}

    def identity(self, path: str) -> dict[str, str] | None:
        """Return {}: the work tree's bytes have no name; None where there is no such path."""
        if (self.root / path).exists():
            return {}
        return None

    def lay_out(self, folder: Path, paths: Collection[str] | None = None) -> Layout:
        """Return the work tree itself; nothing is copied."""
        del folder, paths
        return Layout(self.root)


#### the work tree, compared with a commit


def changed_files(root: Path, entries: Iterable[TreeEntry]) -> list[str]:
    """Return the files of a commit whose bytes in the work tree are others, or are missing.

    Compared by own hashing: git's index, its flags and its filters have no say.
    """
    changed = []
    for entry in entries:
        if entry.mode == SUBMODULE or _is_bytecode(entry.path):
            continue
        if not _has_bytes_of(root / entry.path, entry):
            changed.append(entry.path)
    return sorted(changed)


def _has_bytes_of(path: Path, entry: TreeEntry) -> bool:
    try:
        status = path.lstat()
        if entry.mode == LINK:
            return stat.S_ISLNK(status.st_mode) and (
                blob_id([os.fsencode(path.readlink())], entry.size, entry.id) == entry.id
            )
        if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
            return False
        with path.open("rb") as file:
            return blob_id(_read_chunks(file, entry.size), entry.size, entry.id) == entry.id
    except (OSError, EOFError):
        return False
