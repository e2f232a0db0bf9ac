"""Start one job, reap everything that comes of it, and leave nothing behind; a program of its own.

`process.run` hands this file to a bare interpreter (`-I -S`), which starts in 20 ms instead of 300;
so it may import nothing but the standard library, and the less of it the better.

The runner sends commands of one byte through the control pipe: T terminates the job's process
group, K kills the whole tree, and so does the end of the pipe, that is the runner's death.
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

TYPE_CHECKING = False  # as typing has it; that would be one more import in each process
if TYPE_CHECKING:
    from collections.abc import Callable

TERMINATE = b"T"
PR_SET_CHILD_SUBREAPER = 36
KILL_S = 10.0  # seconds of SIGKILL after which a process sleeps uninterruptibly
KILL_INTERVAL_S = 0.02
MAX_DESCRIPTOR = 1024  # more than a supervisor opens
OOM_SCORE = "/proc/self/oom_score_adj"
IS_LINUX = sys.platform.startswith("linux")


def supervise(control: int, report: int, job: Callable[[], None]) -> bool:
    """Run a job under the commands of the pipe `control`; write one line to the pipe `report`.

    Return whether this is the supervisor: False in the job's own process, once `job` has returned.

    The line: the leader's process id (written when the job starts), wait status, seconds, CPU
    seconds, peak bytes of the largest process, process ids that could not be killed or `-`.
    """
    # 1. Orphans of the tree become children of this process.
    if IS_LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    # 2. A child that ends wakes `select`; other signals are the runner's to decide about, which
    #    sends its commands through the control pipe.
    wake, wake_w = os.pipe()
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(control, False)  # noqa: FBT003
    os.set_inheritable(report, False)  # noqa: FBT003

    # 3. The job, until nothing of it is left.
    begin = time.monotonic()
    leader = _start_job(report)
    if leader is None:
        job()
        return False
    status, end = _watch_job(leader, control, wake)

    # 4. The rest of the line.
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = usage.ru_utime + usage.ru_stime
    peak_bytes = usage.ru_maxrss
    if IS_LINUX:
        peak_bytes *= 1024
    survivors = ",".join(map(str, _descendants())) or "-"
    os.write(report, f" {status} {end - begin} {cpu_seconds} {peak_bytes} {survivors}\n".encode())
    return True


def _start_job(report: int) -> int | None:
    """Fork; return the job's pid when it has its own session, and None in the job's process."""
    is_started, is_started_w = os.pipe()
    leader = os.fork()
    if leader:
        os.write(report, str(leader).encode())
        os.close(is_started_w)
        # Ends when the job has closed the pipe: from here on SIGTERM reaches its own group.
        os.read(is_started, 1)
        os.close(is_started)
        return leader
    os.setsid()
    # Python ignores SIGPIPE and SIGXFSZ, this program the others; the job would inherit that.
    signal.set_wakeup_fd(-1)
    for number in (
        signal.SIGPIPE,
        signal.SIGXFSZ,
        signal.SIGCHLD,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Out of memory: the kernel takes the job, not the runner.
    with contextlib.suppress(OSError), open(OOM_SCORE, "w") as file:  # noqa: PTH123
        file.write("1000")
    # The pipes of this program are not the job's.
    os.closerange(3, MAX_DESCRIPTOR)
    return None


def execute(argv: list[str]) -> None:
    """Execute a command in the place of this process; exit 127 or 126 where that is impossible."""
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, f"[phases: cannot start {argv[0]!r}: {error.strerror}]\n".encode())
        if isinstance(error, FileNotFoundError):
            os._exit(127)
        os._exit(126)


def _watch_job(leader: int, control: int, wake: int) -> tuple[int, float]:
    """Reap the tree until nothing is left; return the leader's wait status and the time it ended.

    Once the leader has ended, or a command says so, everything is killed again and again until
    `waitpid` finds no child: a tree that forks can outrun one pass over it.
    """
    leader_status, leader_end = int(signal.SIGKILL), 0.0  # of a leader that nothing ends
    kill_since = 0.0
    watched_pipes = [control, wake]
    while True:
        # 1. Reap what has ended.
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return leader_status, leader_end
        now = time.monotonic()
        if pid == leader:
            leader_status, leader_end = status, now
            kill_since = kill_since or now
        if pid:
            continue

        # 2. Kill what is left.
        timeout = None
        if kill_since:
            if now - kill_since > KILL_S:
                return leader_status, leader_end or now
            _kill_tree(leader)
            timeout = KILL_INTERVAL_S

        # 3. Wait for the end of a child or for a command.
        command = _wait(watched_pipes, control, wake, timeout)
        if command == TERMINATE and not leader_end:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader, signal.SIGTERM)
        elif command not in (None, TERMINATE):
            kill_since = kill_since or now


def _wait(watched_pipes: list[int], control: int, wake: int, timeout: float | None) -> bytes | None:
    """Wait for a child's end or a command; return the command, None where there is none.

    The end of the control pipe is the empty command, once: it is no longer in `watched_pipes` then.
    """
    ready = select.select(watched_pipes, [], [], timeout)[0]
    if wake in ready:
        os.read(wake, 4096)
    if control not in ready:
        return None
    command = os.read(control, 1)
    if not command:
        watched_pipes.remove(control)
    return command


def _kill_tree(leader: int) -> None:
    # Off Linux there is only the group; on Linux its number is not used, as it may be free again.
    targets = [-leader]
    if IS_LINUX:
        targets = _descendants()
    for target in targets:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(target, signal.SIGKILL)


def _descendants() -> list[int]:
    """Return process ids of all descendants of this process, as /proc lists them now."""
    if not IS_LINUX:
        return []
    # 1. The children of every process.
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        # A process may end between two lines; what is no process has no number.
        with contextlib.suppress(OSError, ValueError):
            pid = int(name)
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
                stat = file.read()
            # The process's name comes before the bracket; it may hold spaces and brackets itself.
            parent = int(stat[stat.rindex(b")") :].split()[2])
            children.setdefault(parent, []).append(pid)

    # 2. This process's children, their children, and so on: the list grows while it is read.
    descendants = list(children.get(os.getpid(), ()))
    for pid in descendants:
        descendants += children.get(pid, ())
    return descendants


if __name__ == "__main__":
    supervise(int(sys.argv[1]), int(sys.argv[2]), lambda: execute(sys.argv[3:]))
