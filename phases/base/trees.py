"""Folders that others wrote, read and removed whatever they hold.

They may be nested deeper than a path can name, unreadable, not removable, and have links or other
file systems in them. Nothing here follows a link, enters a mounted folder to remove from it, or
raises for what cannot be read or removed.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_MAX_PATH = 1000  # bytes; the kernel takes 4,095
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NAME_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNERS = stat.S_IRWXU


class FolderEntry(NamedTuple):
    """One entry below a folder."""

    path: str
    """Relative to that folder, with `/`."""
    is_folder: bool
    """A real folder, no link to one."""
    is_read: bool = True
    """False for a folder whose entries cannot be listed, because of its mode or its long path."""


def walk_tree(folder: Path) -> Iterator[FolderEntry]:
    """Yield everything below a folder, each folder before what is in it; nothing if it is none."""
    pending = [""]
    while pending:
        path = pending.pop()
        is_read = True
        try:
            with os.scandir(f"{folder}/{path}") as entries:
                children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError:
            is_read = False
            children = []
        if path:
            yield FolderEntry(path, is_folder=True, is_read=is_read)
        for name, is_folder in children:
            child = f"{path}/{name}" if path else name
            if is_folder:
                pending.append(child)
            else:
                yield FolderEntry(child, is_folder=False)


def remove_tree(folder: Path) -> bool:
    """Remove a folder and what is in it; return whether it is gone, see `empty_folder`."""
    empty_folder(folder)
    with suppress(OSError):
        folder.rmdir()
    return not os.path.lexists(folder)


def empty_folder(folder: Path, *, keep: str = "") -> bool:
    """Remove everything in a folder that can be removed; return whether all is gone.

    What cannot be is left: the rest of a folder of another user, an immutable file, a mount point
    with all that is mounted there.

    Args:
        folder: a folder that no process uses any more.
        keep: the name of an entry that stays.
    """
    try:
        mode = folder.lstat().st_mode
        if stat.S_ISDIR(mode) and mode & _OWNERS != _OWNERS:
            folder.chmod(0o700)
        top = os.open(folder, _OPEN_FOLDER)
    except OSError:
        return not os.path.lexists(folder)
    try:
        mount = _mount_id(top)
        pending = [(name, False) for name in _names(top) if name != keep]
        while pending:
            path, is_emptied = pending.pop()
            with suppress(OSError):
                if is_emptied:
                    os.rmdir(path, dir_fd=top)
                elif not _is_folder(path, top):
                    os.unlink(path, dir_fd=top)
                else:
                    pending.append((path, True))
                    pending += [(child, False) for child in _list_to_remove(path, top, mount)]
        return set(_names(top)) <= {keep}
    finally:
        os.close(top)


def _list_to_remove(path: str, top: int, mount: bytes) -> list[str]:
    """Return the paths of what is in a folder; OSError where it must not be emptied.

    It must be of the same mount as the folder `top`.

    Where they become too long, folders in it are moved to the top first.
    """
    _make_writable(path, top, mount)
    children = []
    descriptor = os.open(path, _OPEN_FOLDER, dir_fd=top)
    try:
        for name in _names(descriptor):
            child = f"{path}/{name}"
            with suppress(OSError):
                if len(os.fsencode(child)) > _MAX_PATH and _is_folder(name, descriptor):
                    child = secrets.token_hex(8)
                    _make_writable(name, descriptor, mount)
                    os.rename(name, child, src_dir_fd=descriptor, dst_dir_fd=top)
                children.append(child)
    finally:
        os.close(descriptor)
    return children


def _make_writable(name: str, parent: int, mount: bytes) -> None:
    """Give a folder its owner's permissions; OSError if it is a mount point: not of `mount`."""
    # 1. What is mounted there is somewhere else. `O_PATH` needs no permission.
    descriptor = os.open(name, _NAME_FOLDER, dir_fd=parent)
    try:
        if _mount_id(descriptor) != mount:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
    finally:
        os.close(descriptor)

    # 2. Who wrote it may have taken the permissions away.
    mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    if mode & _OWNERS != _OWNERS:
        os.chmod(name, 0o700, dir_fd=parent)


def _names(folder: int) -> list[str]:
    return os.listdir(folder)


def _is_folder(path: str, top: int) -> bool:
    return stat.S_ISDIR(os.stat(path, dir_fd=top, follow_symlinks=False).st_mode)


def _mount_id(descriptor: int) -> bytes:
    """Return what differs between two mounts, also between two of one file system."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", "rb", buffering=0) as file:  # noqa: PTH123
            text = file.read()
    except OSError:
        return b"%d" % os.fstat(descriptor).st_dev
    return next(line for line in text.splitlines() if line.startswith(b"mnt_id:"))
