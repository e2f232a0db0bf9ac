"""Copies of outputs on disk: each is made for one run of a gate and checked after that run.

One baseline is written; every other copy hard-links its unchanged files to the baseline, never to
the original. A write through such a link reaches the baseline too, so hashing the baseline
afterwards shows what a gate changed through any of the links.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from phases.base import durable
from phases.errors import IntegrityError

_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Copy:
    """The folder that is PHASES_OUT in one run."""

    folder: Path
    digests: Mapping[str, str]
    """Path -> SHA-256 of every file in the folder."""
    own_files: frozenset[str]
    """Paths of the files that are not links to the baseline."""

    def read(self, path: str) -> bytes:
        """Return the bytes of one of its files."""
        return (self.folder / path).read_bytes()


def snapshot_outputs(out: Path, outputs: Mapping[str, str], folder: Path) -> Copy:
    """Copy the declared outputs, and nothing else, from `out` to `folder`: the baseline, read-only.

    Args:
        out: the folder that the experiment wrote.
        outputs: path below `out` -> SHA-256, as collected.
        folder: where the baseline is written.

    Raises:
        IntegrityError: an output is missing, is not a regular file, or has other bytes.
    """
    for path, expected in outputs.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        actual = _copy_and_hash(_open_regular_file(out / path, path), target)
        if actual != expected:
            message = f"output {path}: got sha256 {actual}; expected {expected}, as collected"
            raise IntegrityError(code="output-changed", message=message)
    folder.mkdir(parents=True, exist_ok=True)
    _make_read_only(folder)
    return Copy(folder, dict(outputs), frozenset(outputs))


def make_mutant(baseline: Copy, folder: Path, changed: Mapping[str, bytes]) -> Copy:
    """Write a read-only copy with `changed` files in it and hard links for all the others.

    Args:
        baseline: the copy that the links lead to.
        folder: where the mutant is written; it must not exist.
        changed: path -> new bytes; {} makes an untouched copy.
    """
    digests = dict(baseline.digests)
    folder.mkdir(parents=True)
    for path in baseline.digests:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path in changed:
            target.write_bytes(changed[path])
            digests[path] = durable.sha256(changed[path])
        else:
            os.link(baseline.folder / path, target, follow_symlinks=False)
    _make_read_only(folder)
    return Copy(folder, digests, frozenset(changed))


def make_empty(folder: Path) -> Copy:
    """Make a read-only copy without any file."""
    folder.mkdir(parents=True)
    _make_read_only(folder)
    return Copy(folder, {}, frozenset())


def describe_tampering(copy: Copy, baseline: Copy) -> str:
    """Describe the first change that a run made to its copy; "" if it made none.

    Own files are hashed. Linked files are only compared by inode: their bytes are those of the
    baseline, which is hashed by a call with the baseline as `copy`.
    """
    entries = {}
    for entry in copy.folder.rglob("*"):
        if not _is_folder(entry):
            entries[entry.relative_to(copy.folder).as_posix()] = entry
    # 1. Files that were added or removed.
    differences = sorted(entries.keys() ^ copy.digests.keys())
    if differences:
        action = "added" if differences[0] in entries else "removed"
        return f"{differences[0]} was {action}"
    # 2. Files that are no longer the same: another type, other bytes, or no link any more.
    for path, entry in sorted(entries.items()):
        if entry.is_symlink() or not entry.is_file():
            return f"{path} was replaced"
        if path in copy.own_files:
            if durable.sha256_file(entry) != copy.digests[path]:
                return f"{path} was changed"
        elif not entry.samefile(baseline.folder / path):
            return f"{path} was replaced"
    return ""


def hash_files(folder: Path) -> dict[str, str]:
    """Return path -> SHA-256 of every file below `folder`; {} if there is no such folder."""
    digests = {}
    for entry in folder.rglob("*"):
        if entry.is_file():
            digests[entry.relative_to(folder).as_posix()] = durable.sha256_file(entry)
    return digests


def remove_copy(folder: Path) -> None:
    """Delete a copy, whose folders are read-only; nothing happens if it does not exist."""
    if not folder.exists():
        return
    subfolders = [entry for entry in folder.rglob("*") if _is_folder(entry)]
    for directory in [folder, *subfolders]:
        directory.chmod(0o700)
    shutil.rmtree(folder)


def _open_regular_file(source: Path, path: str) -> BinaryIO:
    """Open an output; `path` is its name in the error message."""
    # O_NOFOLLOW refuses a symbolic link; O_NONBLOCK returns at once for a pipe without a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.fdopen(os.open(source, flags), "rb")
    except OSError as error:
        message = f"output {path}: {error.strerror}"
        raise IntegrityError(code="output-unreadable", message=message) from error


def _copy_and_hash(file: BinaryIO, target: Path) -> str:
    """Copy one file and return the SHA-256 of the bytes that were written."""
    digest = hashlib.sha256()
    with file, target.open("xb") as copy:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            copy.write(chunk)
    return digest.hexdigest()


def _make_read_only(folder: Path) -> None:
    """Remove the write permission; root ignores it, so `describe_tampering` checks afterwards."""
    for entry in folder.rglob("*"):
        entry.chmod(0o555 if _is_folder(entry) else 0o444)
    folder.chmod(0o555)


def _is_folder(entry: Path) -> bool:
    """Whether it is a real folder, not a symbolic link to one."""
    return entry.is_dir() and not entry.is_symlink()
