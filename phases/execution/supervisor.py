"""Start jobs, reap everything that comes of them, and leave nothing behind; a program of its own.

`fork_server` hands this file to one bare interpreter (`-I -S`) for all jobs of the runner: a fork
takes a millisecond where a new interpreter takes 20. So it may import nothing but the standard
library, and the less of it the better. The program serves requests (`serve`): for each job it forks
a supervisor, and that forks the job. pytest_server.py does the same, with pytest imported before.

The runner sends a supervisor commands of one byte through the control pipe: T terminates the job's
process group, K kills the whole tree, and so does the end of the pipe, that is the runner's death.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False  # as typing has it; that would be one more import in each process
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    Job = Callable[[list[str], dict[str, str]], None]
    # What a job's own process does with the command and the environment that it was asked for.

    Processes = dict[int, tuple[int, int, int]]
    # Process id -> parent, session, resident bytes.


NUMBER_BYTES = 8  # of the length of a request, and of the number that answers it
DESCRIPTORS = 4  # of a job: working directory, output, control, report
TERMINATE = b"T"
PR_SET_CHILD_SUBREAPER = 36
KILL_S = 10.0  # seconds of SIGKILL after which a process sleeps uninterruptibly
KILL_INTERVAL_S = 0.02
MAX_DESCRIPTOR = 1024  # more than a supervisor opens
OOM_SCORE = "/proc/self/oom_score_adj"
IS_LINUX = sys.platform.startswith("linux")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


#### requests


def serve(descriptor: int, job: Job) -> None:
    """Answer requests until the runner closes the connection; then end.

    A request is its length, with the descriptors of a job, and a JSON object. `argv` and `env`
    start a job under a supervisor; the answer is that one's process id. `wait` is such an id: the
    answer comes when that process is gone, and what it left too.

    Args:
        descriptor: this end of the connection.
        job: what the processes of jobs do; each ends as it ends.
    """
    connection = socket.socket(fileno=descriptor)
    # What a killed supervisor leaves becomes this process's.
    _adopt_orphans()
    gc.collect()
    gc.freeze()
    supervisors: set[int] = set()
    while True:
        length, descriptors, _, _ = socket.recv_fds(connection, NUMBER_BYTES, DESCRIPTORS)
        if not length:
            os._exit(0)
        data = connection.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
        request: dict[str, Any] = json.loads(data)
        if "wait" in request:
            answer = _await_supervisor(request["wait"], supervisors)
        else:
            answer = os.fork()
            if not answer:
                connection.close()
                supervise(descriptors, request, job)
                return
            supervisors.add(answer)
        for number in descriptors:
            os.close(number)
        connection.sendall(answer.to_bytes(NUMBER_BYTES, "big"))


def _await_supervisor(pid: int, supervisors: set[int]) -> int:
    """Wait until a supervisor has ended; kill what it left, if it was killed. Return its status."""
    supervisors.discard(pid)
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return 0  # another server's, which is dead
    end = time.monotonic() + KILL_S
    while status and time.monotonic() < end:
        orphans = list_descendants(list_processes(), os.getpid(), besides=supervisors)
        if not orphans:
            break
        for orphan in orphans:
            with contextlib.suppress(OSError):
                os.kill(orphan, signal.SIGKILL)
        for orphan in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(orphan, os.WNOHANG)
        time.sleep(KILL_INTERVAL_S)
    return status


#### one job


def supervise(descriptors: list[int], request: dict[str, Any], job: Job) -> None:
    """Become the supervisor of a job, and end; or, in the job's own process, return after it.

    It writes one line to the pipe `report`: the leader's process id (written when the job starts),
    wait status, seconds, CPU seconds, peak bytes of the largest process, process ids that could not
    be killed or `-`.

    Args:
        descriptors: working directory, output, control and report.
        request: its `argv` and `env`.
        job: what the job's own process does with them.
    """
    # 1. A session, a working directory and an output of its own. Orphans of the tree become
    #    children of this process.
    folder, output, control, report = descriptors
    os.setsid()
    os.fchdir(folder)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    _adopt_orphans()

    # 2. A child that ends wakes `select`; other signals are the runner's to decide about, which
    #    sends its commands through the control pipe.
    wake, wake_w = os.pipe()
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    # 3. The job, until nothing of it is left.
    begin = time.monotonic()
    leader = _start_job(report)
    if leader is None:
        job(request["argv"], request["env"])
        return
    status, end, survivors = _watch_job(leader, control, wake)

    # 4. The rest of the line.
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = usage.ru_utime + usage.ru_stime
    peak_bytes = usage.ru_maxrss
    if IS_LINUX:
        peak_bytes *= 1024
    listed = ",".join(map(str, survivors)) or "-"
    os.write(report, f" {status} {end - begin} {cpu_seconds} {peak_bytes} {listed}\n".encode())
    os._exit(0)


def _adopt_orphans() -> None:
    """Make this process the parent of what its descendants leave behind."""
    if IS_LINUX:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


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


def execute(argv: list[str], env: dict[str, str]) -> None:
    """Execute a command in the place of this process; exit 127 or 126 where that is impossible."""
    try:
        os.execvpe(argv[0], argv, env)
    except OSError as error:
        os.write(2, f"[phases: cannot start {argv[0]!r}: {error.strerror}]\n".encode())
        if isinstance(error, FileNotFoundError):
            os._exit(127)
        os._exit(126)


def _watch_job(leader: int, control: int, wake: int) -> tuple[int, float, list[int]]:
    """Reap the tree until nothing is left.

    Return the leader's wait status, the time it ended, and what could not be killed.

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
            return leader_status, leader_end, []
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
                survivors = list_descendants(list_processes(), os.getpid())
                return leader_status, leader_end or now, survivors
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
        targets = list_descendants(list_processes(), os.getpid())
    for target in targets:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(target, signal.SIGKILL)


#### what runs


def list_processes() -> Processes:
    """Return all processes, as /proc has them now; none off Linux."""
    processes = {}
    names = os.listdir("/proc") if IS_LINUX else []  # noqa: PTH208
    for name in names:
        # A process may end between two lines; what is no process has no number.
        with contextlib.suppress(OSError, ValueError):
            pid = int(name)
            with open(f"/proc/{name}/stat", "rb", buffering=0) as file:  # noqa: PTH123
                stat = file.read()
            # The process's name comes before the bracket; it may hold spaces and brackets itself.
            fields = stat[stat.rindex(b")") :].split(None, 23)
            processes[pid] = int(fields[2]), int(fields[4]), int(fields[22]) * PAGE_BYTES
    return processes


def list_descendants(
    processes: Processes, ancestor: int, besides: Collection[int] = ()
) -> list[int]:
    """Return process ids of all descendants of a process, without `besides` and theirs."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _session, _bytes) in processes.items():
        if pid not in besides:
            children.setdefault(parent, []).append(pid)
    # Its children, their children, and so on: the list grows while it is read.
    descendants = list(children.get(ancestor, ()))
    for pid in descendants:
        descendants += children.get(pid, ())
    return descendants


if __name__ == "__main__":
    serve(int(sys.argv[1]), execute)
