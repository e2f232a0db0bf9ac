"""Starts one job, reaps everything that comes of it, and leaves nothing behind. A program of its own.

`process.run` hands this file to a bare interpreter (`-I -S`), which starts in 20 ms instead of 300; so it may import
nothing but the standard library, and the less of it the better.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
import time


def supervise(lifeline: int, report: int, argv: list[str]) -> None:
    """Starts the job, obeys the pipe `lifeline` (T, K, end of file) and tells in one line on `report` how it ended.

    The line: the leader's pid (written at its start), wait status, seconds, processor seconds, peak bytes of the
    largest process, pids that could not be killed or `-`.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(
            36, 1, 0, 0, 0
        )  # PR_SET_CHILD_SUBREAPER: orphans of the tree come to this process
    wake, wake_w = os.pipe()
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the runner decides, through the lifeline
    os.set_inheritable(lifeline, False)
    os.set_inheritable(report, False)
    begin = time.monotonic()
    leader = _start_job(argv, report)
    status, ended = _watch_job(leader, lifeline, wake)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = used.ru_maxrss * (1024 if sys.platform.startswith("linux") else 1)
    left = ",".join(map(str, _descendants())) or "-"
    line = f" {status} {ended - begin} {used.ru_utime + used.ru_stime} {peak} {left}\n"
    os.write(report, line.encode())


def _start_job(argv: list[str], report: int) -> int:
    """Forks and executes the job in a session of its own; returns its pid when that session exists."""
    started, started_w = os.pipe()
    leader = os.fork()
    if leader:
        os.write(report, str(leader).encode())
        os.close(started_w)
        os.read(
            started, 1
        )  # ends when exec has closed the pipe: from here on SIGTERM reaches the job's own group
        os.close(started)
        return leader
    try:
        os.setsid()
        for number in (
            signal.SIGPIPE,
            signal.SIGXFSZ,
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
        ):
            signal.signal(
                number, signal.SIG_DFL
            )  # Python ignores the first two, and exec would keep that
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write("1000")  # out of memory: the kernel takes the job, not the runner
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, f"[phases: cannot start {argv[0]!r}: {error.strerror}]\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _watch_job(leader: int, lifeline: int, wake: int) -> tuple[int, float]:
    """Reaps the tree until nobody is left; returns the leader's wait status and the time of its end."""
    status, ended, dying_since = 0, 0.0, 0.0
    watched = [lifeline, wake]
    while True:
        try:
            pid, met = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status, ended
        now = time.monotonic()
        if pid == leader:
            status, ended = met, now
            dying_since = dying_since or now
        if pid:
            continue
        if dying_since:
            if now - dying_since > 10:  # what 10 s of SIGKILL did not end sleeps uninterruptibly
                return (status, ended) if ended else (signal.SIGKILL, now)
            _kill_tree(leader)
        ready = select.select(watched, [], [], 0.02 if dying_since else None)[0]
        if wake in ready:
            os.read(wake, 4096)
        if lifeline in ready:
            order = os.read(lifeline, 1)
            watched = [lifeline, wake] if order else [wake]
            if order != b"T":
                dying_since = dying_since or now
            elif not ended:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(leader, signal.SIGTERM)


def _kill_tree(leader: int) -> None:
    # Off Linux there is only the group; on Linux its number is not used, as it may be free again.
    for pid in _descendants() if sys.platform.startswith("linux") else [-leader]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _descendants() -> list[int]:
    """Process ids of all descendants of this process, as /proc tells at this moment."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if sys.platform.startswith("linux") else ():  # noqa: PTH208
        with (
            contextlib.suppress(OSError, ValueError),
            open(f"/proc/{int(name)}/stat", "rb") as file,
        ):  # noqa: PTH123
            stat = file.read()
            parent = int(
                stat[stat.rindex(b")") :].split()[2]
            )  # the name before it may hold spaces and brackets
            children.setdefault(parent, []).append(int(name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        found += children.get(pid, ())
    return found


if __name__ == "__main__":
    supervise(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
