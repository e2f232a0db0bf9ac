"""One runner per repository: a flock in the git common directory.

The kernel decides who holds it and frees it when the process dies, however it dies. Age never does: a suspended runner
still holds its lock. `lock.json` beside it says who holds it, for the message only.
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
from phases.base.text import printable, utc_now
from phases.errors import LockedError
from phases.git.repo import Repo


@contextmanager
def one_runner(paths: Paths, repo: Repo) -> Iterator[None]:
    """Holds the lock for the block; LockedError at once if another process holds it. `repo`'s gits hold it too."""
    durable.make_folder(paths.lock.parent)
    with durable.faults_named(paths.lock, "open"):
        descriptor = os.open(
            paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
        )
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"another runner is at work here: {_holder(paths)}",
                hint="wait for it, or stop it; the lock frees itself when it ends",
            ) from None
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": " ".join(sys.argv),
            "since": utc_now(),
        }
        durable.write(paths.lock_holder, json.dumps(holder).encode())
        repo.runner_lock = descriptor
        yield
    finally:
        repo.runner_lock = None
        os.close(descriptor)


def _holder(paths: Paths) -> str:
    try:
        facts = json.loads(paths.lock_holder.read_bytes())
        return printable(
            f"pid {facts['pid']} on {facts['host']} since {facts['since']}: {facts['command']}"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return f"no word about whom in {paths.lock_holder}"
