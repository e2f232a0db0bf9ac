"""The only module that writes files the project must not lose.

A file is replaced whole: temporary file in the same folder, write loop, fsync, rename, fsync of the folder. An append
is one write and one fsync. A failed fsync is fatal and never retried: the kernel may have dropped the dirty pages, so
a second fsync could report a success that never was.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from phases.errors import EnvironmentFaultError

_HINTS = {
    errno.ENOSPC: "free space there, then run the same command again",
    errno.EDQUOT: "raise the quota or free space, then run the same command again",
    errno.EROFS: "make the file system writable, then run the same command again",
    errno.EACCES: "make the folder writable for this user, then run the same command again",
    errno.EIO: "check the disk (dmesg); then run the same command again",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), then run the same command again",
    errno.EMFILE: "raise the limit on open files (ulimit -n), then run the same command again",
}


def hint_for(error: OSError) -> str:
    """What a person does about a fault of the environment."""
    return _HINTS.get(
        error.errno or 0, "mend the cause named above, then run the same command again"
    )


@contextmanager
def faults_named(path: Path, action: str) -> Iterator[None]:
    """Turns an OSError into the environment's fault, with the path and the hint."""
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        reason = os.strerror(code) if code else str(error)
        raise EnvironmentFaultError(
            f"cannot {action} {path}: {reason}", hint=hint_for(error)
        ) from error


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replaces `path` by `data`: afterwards it holds the old bytes or all of the new ones, also after a power loss."""
    with faults_named(path, "write"):
        make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode
        )
        try:
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


def sweep(folder: Path) -> None:
    """Removes the temporary files that a killed `write` or `copy` left in this very folder; only under the lock."""
    for path in folder.glob(".*.tmp") if folder.is_dir() else ():
        if _TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            remove(path)


def append(path: Path, data: bytes) -> None:
    """Appends `data` in one write and fsyncs it; a short write is taken back, so that no half entry stays."""
    with faults_named(path, "append to"):
        make_folder(path.parent)
        is_new = not path.exists()
        descriptor = os.open(
            path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
        )
        try:
            before = os.fstat(descriptor).st_size
            written = os.write(descriptor, data)
            if written != len(data):
                os.ftruncate(descriptor, before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            _sync_folder(path.parent)


def copy(source: Path, target: Path, expected_sha256: str) -> None:
    """Copies a file durably and refuses bytes other than expected (the source changed since it was hashed)."""
    with faults_named(target, "write"):
        make_folder(target.parent)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            _copy_checked(source, temporary, expected_sha256)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)  # half a copy would keep a full disk full
            raise
        _sync_folder(target.parent)


def _copy_checked(source: Path, target: Path, expected_sha256: str) -> None:
    shutil.copyfile(source, target, follow_symlinks=False)
    with target.open("rb+") as file:
        os.fsync(file.fileno())
    met = sha256_file(target)
    if met != expected_sha256:
        raise EnvironmentFaultError(
            f"{source}: sha256 {met} where {expected_sha256} was hashed before: it changed while it was copied",
            hint="stop whatever writes there, then run the same command again",
        )


def make_folder(path: Path) -> None:
    """Creates a folder and its parents, each one's entry fsynced in its parent."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def remove(path: Path) -> None:
    """Removes a file or a whole folder, if it is there."""
    with faults_named(path, "remove"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync_folder(path.parent)


def sha256(data: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
