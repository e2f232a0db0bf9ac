"""Read a file in whose place anything may be: opening a FIFO would wait for a writer for ever."""

from __future__ import annotations

import errno
import os
import shlex
import stat
from pathlib import Path

from phases.base.text import printable
from phases.errors import EnvironmentFaultError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def mode_problem(mode: int) -> str:
    """Return why the mode of a path is not that of a regular file; empty if it is."""
    if stat.S_ISREG(mode):
        return ""
    kind = _KINDS.get(stat.S_IFMT(mode), "a special file")
    return f"got {kind}; expected a regular file"


def path_problem(path: Path) -> str:
    """Return why a path, or what its link leads to, is no regular file; empty if nothing is there.

    A link that leads to nothing is a problem too.
    """
    try:
        return mode_problem(path.stat().st_mode)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        if path.is_symlink():
            return "got a link that leads to no file; expected a regular file"
        return ""


def read_regular(path: Path) -> bytes:
    """Return the bytes of a regular file, at once.

    Raises:
        FileNotFoundError: there is nothing.
        EnvironmentFaultError: there is something else.
    """
    problem = path_problem(path)
    if problem:
        number, aside = 1, path.with_name(f"{path.name}.aside")
        while os.path.lexists(aside):
            number += 1
            aside = path.with_name(f"{path.name}.aside-{number}")
        command = shlex.join(["mv", str(path), str(aside)])
        raise EnvironmentFaultError(
            f"{printable(str(path))}: {problem}",
            hint=f"`{command}` sets it aside; then type the command again",
        )
    # Without O_NONBLOCK a FIFO that took the file's place meanwhile would stop the program here.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read()
