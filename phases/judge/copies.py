"""Copies of outputs on disk, made for one run of a gate each and looked at again after it.

One pristine copy is written; every other copy hard-links its unchanged files to it, never to the original. A write
through such a link reaches the pristine copy too, so hashing that one again shows whatever a gate did to any of them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from phases.errors import IntegrityError

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Copy:
    """A folder that stands for PHASES_OUT in one run."""

    folder: Path
    digests: Mapping[str, str]  # path -> sha256, of every file in it
    own: frozenset[str]  # the files that are not links to the pristine copy

    def read(self, path: str) -> bytes:
        """The bytes of one of its files."""
        return (self.folder / path).read_bytes()


def freeze(out: Path, outputs: Mapping[str, str], pristine: Path) -> Copy:
    """Copy the declared outputs, and nothing else, out of `out`; each must have the digest that was declared.

    Raises:
        IntegrityError: an output is missing, no regular file, or has other bytes.
    """
    for path, wanted in outputs.items():
        target = pristine / path
        target.parent.mkdir(parents=True, exist_ok=True)
        met = _copy(_open(out / path, path), target)
        if met != wanted:
            message = f"output {path}: sha256 {met}; wanted {wanted} as it was collected"
            raise IntegrityError(code="output-changed", message=message)
    pristine.mkdir(parents=True, exist_ok=True)
    _lock(pristine)
    return Copy(pristine, dict(outputs), frozenset(outputs))


def plant(pristine: Copy, folder: Path, changed: Mapping[str, bytes]) -> Copy:
    """A copy with `changed` files in place of the pristine ones, all others hard-linked; read-only."""
    digests = dict(pristine.digests)
    folder.mkdir(parents=True)
    for path in pristine.digests:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if path in changed:
            target.write_bytes(changed[path])
            digests[path] = hashlib.sha256(changed[path]).hexdigest()
        else:
            os.link(pristine.folder / path, target, follow_symlinks=False)
    _lock(folder)
    return Copy(folder, digests, frozenset(changed))


def empty(folder: Path) -> Copy:
    """A copy without any file."""
    folder.mkdir(parents=True)
    _lock(folder)
    return Copy(folder, {}, frozenset())


def tampering(copy: Copy, pristine: Copy) -> str:
    """What a run changed in its copy, as words; "" if nothing.

    Own files are hashed. Of linked ones this says only whether they still are the same files; their bytes are those
    of the pristine copy, hashed by calling this with the pristine copy itself.
    """
    met = {
        entry.relative_to(copy.folder).as_posix(): entry
        for entry in copy.folder.rglob("*")
        if not _is_folder(entry)
    }
    for path in sorted(met.keys() ^ copy.digests.keys()):
        return f"{path} was {'added' if path in met else 'removed'}"
    for path, entry in sorted(met.items()):
        if entry.is_symlink() or not entry.is_file():
            return f"{path} was replaced"
        if path in copy.own:
            if sha256(entry) != copy.digests[path]:
                return f"{path} was changed"
        elif not entry.samefile(pristine.folder / path):
            return f"{path} was replaced"
    return ""


def digests(folder: Path) -> dict[str, str]:
    """Path -> sha256 of every file below a folder; {} if there is no such folder."""
    files = (entry for entry in folder.rglob("*") if entry.is_file())
    return {entry.relative_to(folder).as_posix(): sha256(entry) for entry in files}


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(folder: Path) -> None:
    """Delete a copy, whose folders are read-only."""
    if not folder.exists():
        return
    for directory in [folder, *(entry for entry in folder.rglob("*") if _is_folder(entry))]:
        directory.chmod(0o700)
    shutil.rmtree(folder)


def _open(source: Path, path: str) -> BinaryIO:
    """A regular file project for reading; a symbolic link is refused, and a pipe does not make us wait."""
    try:
        return os.fdopen(
            os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb"
        )
    except OSError as error:
        raise IntegrityError(
            code="output-unreadable", message=f"output {path}: {error.strerror}"
        ) from error


def _copy(file: BinaryIO, target: Path) -> str:
    """Copy one file and hash what was written."""
    digest = hashlib.sha256()
    with file, target.open("xb") as copy:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            copy.write(chunk)
    return digest.hexdigest()


def _lock(folder: Path) -> None:
    """Take away the right to write; as root this binds nobody, so `tampering` looks again afterwards."""
    for entry in folder.rglob("*"):
        entry.chmod(0o555 if _is_folder(entry) else 0o444)
    folder.chmod(0o555)


def _is_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.is_symlink()
