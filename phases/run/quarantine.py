"""Outputs of a failed attempt: kept for a reader, never counted."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

from phases.base import durable
from phases.base.trees import walk_tree
from phases.execution import collect
from phases.run.attempt import AttemptSpec

MAX_BYTES = 4_000_000_000  # of one failed attempt's outputs
_CHUNK = 1 << 20  # bytes


def quarantine(spec: AttemptSpec) -> None:
    """Copy the outputs of a failed attempt to `.phases/quarantine/`.

    Hostile outputs could fill the disk, or never end. Left out is what is neither file, folder nor
    link (reading a FIFO or a device may never end), what is nested too deep, what cannot be read
    or has too long a path, and what would take more than half of the free disk space.

    Raises:
        EnvironmentFaultError: the target cannot be written.
    """
    target = spec.project.paths.quarantine(spec.feature.id, spec.number)
    with durable.environment_faults(target, "keep the failed attempt's outputs in"):
        durable.make_folder(target.parent)
        free_bytes = min(MAX_BYTES, shutil.disk_usage(target.parent).free // 2)
        folders = {""}  # that are kept
        for number, entry in enumerate(walk_tree(spec.out)):
            parent = entry.path.rpartition("/")[0]
            if number == collect.MAX_ENTRIES:
                break
            if parent not in folders or entry.path.count("/") >= collect.MAX_DEPTH:
                continue
            try:
                target.mkdir(exist_ok=True)
                size = _copy_entry(spec.out / entry.path, target / entry.path, free_bytes)
            except OSError as error:
                if error.errno in (errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR, errno.ENOTDIR):
                    continue
                raise
            free_bytes -= size
            if entry.is_folder:
                folders.add(entry.path)


def _copy_entry(source: Path, target: Path, max_bytes: int) -> int:
    """Copy a file, a link or an empty folder if it can be read; return the bytes written."""
    # 1. What it is.
    try:
        status = source.lstat()
        link = source.readlink() if S_ISLNK(status.st_mode) else None
    except OSError:
        return 0
    if S_ISDIR(status.st_mode):
        target.mkdir(exist_ok=True)
    if link is not None:
        target.symlink_to(link)
    if not S_ISREG(status.st_mode) or status.st_size > max_bytes:
        return 0

    # 2. Its bytes, and not one more than it has now.
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(source, flags)
    except OSError:
        return 0
    with os.fdopen(descriptor, "rb") as file, target.open("wb") as copy:
        rest = status.st_size
        while rest and (data := file.read(min(rest, _CHUNK))):
            copy.write(data)
            rest -= len(data)
    return status.st_size
