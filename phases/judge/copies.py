"""Private copies of outputs, in which a mutant's files are changed in place for one run of a gate.

Nothing about a copy tells whether it is a mutant, or which of its files are changed: a changed file
keeps its inode, its mode and its number of links; all times are set anew before every run; and the
folder's name is drawn for that run.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

from phases.base import durable
from phases.base.trees import remove_tree, walk_tree
from phases.errors import IntegrityError

_CHUNK = 1 << 20  # bytes
_TIME_NS = 946_684_800 * 10**9  # of every file: 2000-01-01, as archives know no time before 1980
_TAMPERED = "the gate changed its input: {}"


@dataclass(frozen=True)
class Output:
    """One file to judge, where it was collected."""

    path: str
    """Its path below PHASES_OUT."""
    source: Path
    sha256: str
    """As it was collected."""

    def read(self) -> bytes:
        """Return its bytes; IntegrityError if they are not those that were collected."""
        with _open_regular_file(self) as file:
            data = file.read()
        _check_digest(self, durable.sha256(data))
        return data


def list_outputs(out: Path, digests: Mapping[str, str], prefix: str = "") -> dict[str, Output]:
    """Return the outputs of one folder by their path below PHASES_OUT.

    Args:
        out: the folder that the experiment wrote.
        digests: path below `out` -> SHA-256, as collected.
        prefix: what comes before their path below PHASES_OUT.
    """
    outputs = {}
    for path, sha256 in digests.items():
        outputs[prefix + path] = Output(prefix + path, out / path, sha256)
    return outputs


class OutputCopy:
    """A read-only copy of outputs: what PHASES_OUT names, one run after another."""

    def __init__(self, parent: Path, outputs: Mapping[str, Output]):
        """Copy the outputs, and nothing else, to a folder of `parent`.

        Raises:
            IntegrityError: an output is missing, is not a regular file, or has other bytes.
        """
        self._parent = parent
        self._outputs = outputs
        self._changed: tuple[str, ...] = ()
        self._seen: dict[str, tuple[int, ...]] = {}
        self.folder = _draw_folder(parent)
        self._copy_all()

    def lay_out(self, changed: Mapping[str, bytes]) -> dict[str, str]:
        """Make it a mutant, until `restore`; return path -> SHA-256 of every file.

        Args:
            changed: path -> new bytes; {} lays out the outputs as they are.
        """
        # 1. The bytes.
        digests = {path: output.sha256 for path, output in self._outputs.items()}
        self._changed = tuple(changed)
        for path, data in changed.items():
            _overwrite(self.folder / path, data)
            digests[path] = durable.sha256(data)
        # 2. A new name, and the same time everywhere.
        folder = _draw_folder(self._parent)
        self.folder.rename(folder)
        self.folder = folder
        for path in ("", *self._seen):
            os.utime(folder / path, ns=(_TIME_NS, _TIME_NS))
        # 3. What a run may not change.
        self._seen = dict(_list_entries(folder))
        return digests

    def describe_tampering(self) -> str:
        """Describe the first change that a run made to it since it was laid out; "" without any."""
        entries = dict(_list_entries(self.folder))
        differences = sorted(entries.keys() ^ self._seen.keys())
        if differences:
            action = "added" if differences[0] in entries else "removed"
            return f"{differences[0]} was {action}"
        for path, entry in sorted(entries.items()):
            if entry != self._seen[path]:
                return f"{path} was changed"
        return ""

    def restore(self, *, whole: bool = False) -> None:
        """Bring the outputs' own bytes back.

        Args:
            whole: copy everything anew, as a run may have changed anything.

        Raises:
            IntegrityError: see the constructor.
        """
        if whole:
            remove_tree(self.folder)
            self.folder = _draw_folder(self._parent)  # something of the old one may be left
            self._copy_all()
        else:
            for path in self._changed:
                _overwrite(self.folder / path, self._outputs[path].read())
        self._changed = ()

    def describe_corruption(self) -> str:
        """Describe the first file whose bytes are not the output's own; "" without any.

        This finds what times and sizes cannot show, such as writes through a memory map on file
        systems that keep no time for them.
        """
        for path, output in self._outputs.items():
            if durable.sha256_file(self.folder / path) != output.sha256:
                return f"{path} was changed"
        return ""

    def _copy_all(self) -> None:
        for path, output in self._outputs.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            _check_digest(output, _copy_and_hash(_open_regular_file(output), target))
        self.folder.mkdir(parents=True, exist_ok=True)
        _make_read_only(self.folder)
        self._seen = dict(_list_entries(self.folder))


class CopyPool:
    """Copies of outputs for as many runs as go on at a time."""

    def __init__(self, folder: Path, outputs: Mapping[str, Output], size: int):
        """Copy the outputs `size` times below `folder`; see `OutputCopy`."""
        self._folder = folder
        self._copies = [OutputCopy(folder, outputs) for _ in range(size)]
        self._free: SimpleQueue[OutputCopy] = SimpleQueue()
        for copy in self._copies:
            self._free.put(copy)
        self.tampering = ""
        """What a run changed of what it was given to judge; "" if none changed anything."""

    @contextmanager
    def laid_out(
        self, changed: Mapping[str, bytes] | None
    ) -> Iterator[tuple[Path, Mapping[str, str]]]:
        """Yield a folder to judge, and path -> SHA-256 of its files.

        Args:
            changed: path -> new bytes; None: there are no files.
        """
        if changed is None:
            with self.empty() as folder:
                yield folder, {}
            return
        copy = self._free.get()
        try:
            digests = copy.lay_out(changed)
            yield copy.folder, digests
            tampering = copy.describe_tampering()
            self._note(tampering)
            copy.restore(whole=bool(tampering))
        finally:
            self._free.put(copy)

    @contextmanager
    def empty(self) -> Iterator[Path]:
        """Yield an empty, read-only folder."""
        folder = _draw_folder(self._folder)
        folder.mkdir(parents=True)
        folder.chmod(0o555)
        yield folder
        for entry in folder.iterdir():
            self._note(f"{entry.name} was added")
        remove_tree(folder)

    def find_corruption(self) -> str:
        """Describe the first file of a copy that is not the output; "" without any."""
        for copy in self._copies:
            corruption = copy.describe_corruption()
            if corruption:
                return _TAMPERED.format(corruption)
        return ""

    def remove(self) -> None:
        """Delete all copies."""
        remove_tree(self._folder)

    def _note(self, tampering: str) -> None:
        if tampering:
            self.tampering = _TAMPERED.format(tampering)


def hash_files(folder: Path) -> dict[str, str]:
    """Return path -> SHA-256 of every file below `folder`; {} if there is no such folder.

    What cannot be read has no SHA-256, but "".
    """
    digests = {}
    for entry in walk_tree(folder):
        path = folder / entry.path
        try:
            if path.is_file():
                digests[entry.path] = durable.sha256_file(path)
        except OSError:
            digests[entry.path] = ""
    return digests


def _draw_folder(parent: Path) -> Path:
    return parent / secrets.token_hex(8)


def _open_regular_file(output: Output) -> BinaryIO:
    # O_NOFOLLOW refuses a symbolic link; O_NONBLOCK returns at once for a pipe without a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.fdopen(os.open(output.source, flags), "rb")
    except OSError as error:
        message = f"output {output.path}: {error.strerror}"
        raise IntegrityError(code="output-unreadable", message=message) from error


def _check_digest(output: Output, actual: str) -> None:
    if actual != output.sha256:
        message = (
            f"output {output.path}: got sha256 {actual}; expected {output.sha256}, as collected"
        )
        raise IntegrityError(code="output-changed", message=message)


def _copy_and_hash(file: BinaryIO, target: Path) -> str:
    """Copy one file and return the SHA-256 of the bytes that were written."""
    digest = hashlib.sha256()
    with file, target.open("xb") as copy:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            copy.write(chunk)
    return digest.hexdigest()


def _overwrite(file: Path, data: bytes) -> None:
    """Replace the bytes of a read-only file; it stays the same file."""
    file.chmod(0o644)
    file.write_bytes(data)
    file.chmod(0o444)


def _make_read_only(folder: Path) -> None:
    """Remove the write permission; root ignores it, so `describe_tampering` checks afterwards."""
    for entry in folder.rglob("*"):
        entry.chmod(0o555 if _is_folder(entry) else 0o444)
    folder.chmod(0o555)


def _list_entries(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield path and description of each file and folder; who changes one changes the other."""
    for entry in walk_tree(folder):
        description: tuple[int, ...] = ()
        # A run can add what no path can name.
        with suppress(OSError):
            stat = os.lstat(f"{folder}/{entry.path}")  # with thousands, objects take their time
            description = (stat.st_mode, stat.st_ino)
            # What came into a folder and went again has not changed it: a database's journal.
            if not entry.is_folder:
                # The kernel sets the time of the last change (ctime); a process cannot.
                description += (stat.st_nlink, stat.st_size, stat.st_ctime_ns)
        yield entry.path, description


def _is_folder(entry: Path) -> bool:
    """Whether it is a real folder, not a symbolic link to one."""
    return entry.is_dir() and not entry.is_symlink()
