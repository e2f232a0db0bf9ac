"""One runner per repository: a flock in the git common directory.

The kernel decides who holds it, and frees it when the process dies, however it dies. Age proves
nothing: a suspended runner still holds its lock. `lock.json` beside it says who holds it, for the
message only.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from phases.base import durable
from phases.base.paths import Paths
from phases.base.regular_file import read_regular
from phases.base.text import printable, utc_now
from phases.errors import EnvironmentFaultError, LockedError
from phases.git.repo import Repo


@contextmanager
def one_runner(paths: Paths, repo: Repo) -> Iterator[None]:
    """Hold the runner's lock for the block; the git processes of `repo` hold it too.

    Raises:
        LockedError: another process holds it; raised at once.
    """
    # 1. The lock's file; it is never removed: another runner may have it open.
    durable.make_folder(paths.runner_lock.parent)
    with durable.environment_faults(paths.runner_lock, "open"):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(paths.runner_lock, flags, 0o644)
    try:
        # 2. The lock itself.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"another runner is at work here: {_holder(paths)}",
                hint="wait for it, or stop it; the lock is free as soon as it ends",
            ) from None
        # 3. Who holds it.
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": " ".join(sys.argv),
            "since": utc_now(),
        }
        durable.write(paths.runner_lock_holder, json.dumps(holder).encode())
        repo.runner_lock_descriptor = descriptor
        yield
    finally:
        repo.runner_lock_descriptor = None
        os.close(descriptor)


def _holder(paths: Paths) -> str:
    """Return who holds the lock, as far as lock.json can be read."""
    form = "pid {pid} on {host} since {since}: {command}"
    try:
        return printable(form.format(**json.loads(read_regular(paths.runner_lock_holder))))
    except (OSError, ValueError, KeyError, TypeError, EnvironmentFaultError):
        return f"unknown; {paths.runner_lock_holder} cannot be read"
