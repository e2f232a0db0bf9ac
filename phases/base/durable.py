"""The only module that writes files the project must not lose, and the one that takes SHA-256.

A file is replaced whole: temporary file in the same folder, write loop, fsync, rename, fsync of the
folder. An append is one write and one fsync. A failed fsync is fatal and never retried: the kernel
may have dropped the dirty pages, so a second fsync could report a success that never was.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from phases.errors import EnvironmentFaultError

MIN_FREE_BYTES = 1 << 30
"""Free disk space that the staging folder, artifacts and gate copies of a feature need at least."""

_HINTS = {
    errno.ENOSPC: "free disk space there, then run the same command again",
    errno.EDQUOT: "raise the quota or free disk space, then run the same command again",
    errno.EROFS: "make the file system writable, then run the same command again",
    errno.EACCES: "make the folder writable for this user, then run the same command again",
    errno.EIO: "check the disk (dmesg); then run the same command again",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), then run the same command again",
    errno.EMFILE: "raise the limit on open files (ulimit -n), then run the same command again",
}
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


def hint_for(error: OSError) -> str:
    """Return what the user does about an error of the environment."""
    default = "fix the cause named above, then run the same command again"
    return _HINTS.get(error.errno or 0, default)


@contextmanager
def environment_faults(path: Path, action: str) -> Iterator[None]:
    """Turn an OSError into an EnvironmentFaultError that names the action, the path and a hint."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        message = f"cannot {action} {path}: {reason}"
        raise EnvironmentFaultError(message, hint=hint_for(error)) from error


#### writing


def write(path: Path, data: bytes) -> None:
    """Replace the file by `data`.

    Afterwards it has the old bytes or all of the new ones, also after a power loss.
    """
    write_files({path: data})


def write_files(files: Mapping[Path, bytes]) -> None:
    """Replace each file by its bytes, with one fsync for each file and one for each folder.

    Afterwards each has the old bytes or all of the new ones, also after a power loss.
    """
    for path, data in files.items():
        with environment_faults(path, "write"):
            make_folder(path.parent)
            temporary_path = _temporary_path(path)
            try:
                # 1. All bytes, on the disk, under the temporary name.
                _write_new(temporary_path, data)
                # 2. The new name, all at once.
                temporary_path.replace(path)
            except OSError:
                temporary_path.unlink(missing_ok=True)
                raise
    # 3. Without this the renames themselves could be lost.
    for folder in dict.fromkeys(path.parent for path in files):
        with environment_faults(folder, "write"):
            _sync_folder(folder)


def append(path: Path, data: bytes, *, with_sync: bool = True) -> None:
    """Append `data` in one write and fsync it; a short write is undone: no half entry stays.

    Without `with_sync` a power loss may take it until `sync` was called.
    """
    with environment_faults(path, "append to"):
        make_folder(path.parent)
        is_new = not path.exists()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
        try:
            size_before = os.fstat(descriptor).st_size
            written = os.write(descriptor, data)
            if written != len(data):
                os.ftruncate(descriptor, size_before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if with_sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            _sync_folder(path.parent)


def sync(path: Path) -> None:
    """Fsync a file that was appended to."""
    with environment_faults(path, "write"):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def copy(source: Path, target: Path, expected_sha256: str) -> None:
    """Copy a file durably; EnvironmentFaultError if the source changed since it was hashed."""
    with environment_faults(target, "write"):
        make_folder(target.parent)
        temporary_path = _temporary_path(target)
        try:
            _copy_checked(source, temporary_path, expected_sha256)
            temporary_path.replace(target)
        except BaseException:
            temporary_path.unlink(missing_ok=True)  # half a copy would keep a full disk full
            raise
        _sync_folder(target.parent)


def make_folder(path: Path) -> None:
    """Create a folder and its parents; fsync the entry of each in its parent."""
    missing_folders = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing_folders):
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it exists."""
    with environment_faults(path, "remove"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed `write` or `copy` left in this very folder.

    Only under the runner's lock: another runner's temporary file is in use.
    """
    if not folder.is_dir():
        return
    for path in folder.glob(".*.tmp"):
        if is_temporary(path) and path.is_file() and not path.is_symlink():
            remove(path)


def is_temporary(path: Path) -> bool:
    """Return whether a file is called as `write` and `copy` call theirs until they are whole."""
    return _TEMPORARY.fullmatch(path.name) is not None


#### SHA-256


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return sha256_stream(file)


def sha256_stream(file: BufferedReader) -> str:
    """Return the SHA-256 of an open file from its position to its end, read in pieces."""
    return hashlib.file_digest(file, "sha256").hexdigest()


#### helpers


def _write_new(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o644)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _copy_checked(source: Path, target: Path, expected_sha256: str) -> None:
    shutil.copyfile(source, target, follow_symlinks=False)
    with target.open("rb+") as file:
        os.fsync(file.fileno())
    # The copy is hashed, not the source: the source may change at any moment.
    actual = sha256_file(target)
    if actual != expected_sha256:
        raise EnvironmentFaultError(
            f"{source} changed while it was copied: got sha256 {actual}; expected "
            f"{expected_sha256}",
            hint="stop whatever writes there, then run the same command again",
        )


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes: one write may take fewer than it was given (a signal, a network)."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
