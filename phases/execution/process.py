"""Run one child process with a limit, a capped log and nothing left behind.

Every experiment and every gate runs through `run`. Between the runner and the job is a small
supervisor (supervisor.py), forked from a server for that purpose (fork_server.py). It is the "child
subreaper" of the job, so a descendant that leaves the process group by `setsid` or by a double fork
becomes its child and dies with the rest. It reads commands from a control pipe, whose end tells it
that the runner itself was killed. And what it has reaped sums up to the CPU time of the whole tree.
If a job kills its supervisor, its descendants become the server's, which kills them.

What remains possible without a PID namespace (sandbox tier `none`): a job of the same user that
kills both its supervisor and the server on purpose can leave behind a process outside of its
session; a process in uninterruptible sleep cannot be killed at all (the log then says so); off
Linux there is no subreaper, only the process group.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from phases.base.command_log import log_command
from phases.base.paths import find_cache_dir
from phases.errors import InterruptedRunError
from phases.execution.capped_log import CappedLog
from phases.execution.fork_server import BARE_SERVER, ForkServer, SupervisorPipes
from phases.execution.supervisor import list_descendants, list_processes

_TICK_S = 0.1  # between two calls of on_tick
_DRAIN_S = 1.0  # granted to output that is still in the pipe when the tree is dead
_SAMPLE_S = 0.25  # at least, between two samples of memory
_SAMPLE_SHARE = 300  # samples take at most a 300th of one CPU's time
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TERMINATE, _KILL = b"T", b"K"  # commands to the supervisor

_ALLOWED_VARIABLES = ("PATH", "LANG", "LANGUAGE", "TZ")
_RUNNER_VARIABLES = {
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    # The runner names files in UTF-8, whatever the locale; -I ignores this, so it is an option too.
    "PYTHONUTF8": "1",
}


EXIT_REASON = "the experiment ended with exit "
"""How the reason of an attempt begins whose process ended with another code than 0."""


@dataclass(frozen=True)
class ProcessResult:
    """How a process ended and what it used."""

    exit_code: int | None
    """None if it died by a signal. As in a shell, 127: the command was not found, 126: it could not
    be started."""
    signal: int | None
    timed_out: bool
    seconds: float
    """Wall time by CLOCK_MONOTONIC, which stops while the machine is suspended; so does the
    time-out. It goes on while the process is stopped by SIGSTOP."""
    cpu_seconds: float
    """User and system time of the whole tree; what a parent inside it threw away by ignoring
    SIGCHLD is missing."""
    peak_memory_bytes: int
    """Peak of the sum of resident sizes over the tree, sampled every quarter second, or more rarely
    where so many processes run that this would take 0.3 % of a CPU; at least the kernel's own peak
    of the largest process (the interpreter that the job is forked from included, some 12 MB), which
    is all that is known off Linux. A page shared by two processes counts twice."""
    log_bytes: int
    """Bytes that the process wrote, before the cap."""
    log_truncated: bool


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return an environment of allowed variables only, overridden by `extra`.

    Nothing of the user's GIT_*, LD_*, PYTHON* and no secrets pass. HOME and TMPDIR are left out:
    the caller passes folders of the staging area. The folder of the running interpreter leads PATH,
    so `python` means this one.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _ALLOWED_VARIABLES or name.startswith("LC_")
    }
    search_path = environment.get("PATH", os.defpath).split(os.pathsep)
    folders = dict.fromkeys([str(Path(sys.executable).parent), *search_path])
    environment["PATH"] = os.pathsep.join(folders)
    cache = find_cache_dir()
    if cache is not None:
        environment["PHASES_CACHE"] = str(cache)
    return {**environment, **_RUNNER_VARIABLES, **extra}


def log_tail(path: Path, limit: int = 1500) -> str:
    """Return the end of a log as text, for a message.

    Args:
        path: the log; where there is no such file, its end is empty.
        limit: bytes of the end; what is not UTF-8 in them is replaced.
    """
    if not path.is_file():
        return ""
    return path.read_bytes()[-limit:].decode("utf-8", "replace")


#### signals: Python hands them to the main thread, but runs may be under way in several


class _Signals:
    """How many stop signals have come since the outermost `forward_signals` began."""

    count = 0
    depth = 0


@contextlib.contextmanager
def forward_signals() -> Iterator[None]:
    """Make SIGINT, SIGTERM and SIGHUP stop every `run` of every thread, for the block.

    They raise no KeyboardInterrupt then. `run` enters this by itself in the main thread. Code that
    starts runs from other threads enters it in the main thread around them; each run then ends with
    InterruptedRunError, and those that have not begun do not start.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _Signals.depth == 0:
        _Signals.count = 0
    _Signals.depth += 1
    # A signal that is ignored stays ignored: nohup and a shell's & mean it so.
    handlers = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    taken_over = [number for number in _STOP_SIGNALS if handlers[number] is not signal.SIG_IGN]
    for number in taken_over:
        signal.signal(number, _count_signal)
    try:
        yield
    finally:
        _Signals.depth -= 1
        for number in taken_over:
            signal.signal(number, handlers[number] or signal.SIG_DFL)


def _count_signal(_number: int, _frame: FrameType | None) -> None:
    _Signals.count += 1


#### the run


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    log: Path,
    timeout_s: float,
    grace_s: float = 10.0,
    on_tick: Callable[[], None] | None = None,
    server: ForkServer = BARE_SERVER,
) -> ProcessResult:
    """Run `argv` in a session of its own until nothing of it is left.

    After `timeout_s` seconds its group gets SIGTERM, `grace_s` later the whole tree SIGKILL. A stop
    signal to the runner does the same, a second one kills at once; then InterruptedRunError is
    raised. When the leader has ended, everything that it left is killed. A job that fails or
    crashes is a result, not an exception.

    Args:
        argv: the command; its stdin is /dev/null.
        cwd: its working directory.
        env: its whole environment.
        log: the file that gets its stdout and stderr, capped (see CappedLog).
        timeout_s: seconds that it may take.
        grace_s: seconds between SIGTERM and SIGKILL.
        on_tick: called ten times a second from the calling thread; if it raises, the tree is killed
            and the exception passes on.
        server: what the job is forked from; by default what executes any command.
    """
    with forward_signals():
        if _Signals.count:
            message = f"interrupted before {argv[0]} was started"
            raise InterruptedRunError(message)
        with CappedLog(log) as capped_log:
            with _SupervisedJob(server, argv, cwd=cwd, env=env, log=capped_log) as job:
                timed_out = _follow(job, _Limits(timeout_s, grace_s), on_tick)
            if _Signals.count:
                seconds = time.monotonic() - job.begin
                log_command(argv, status="interrupted", seconds=seconds)
                message = f"interrupted: {argv[0]} was stopped after {seconds:.0f} s"
                raise InterruptedRunError(message)
            result = job.result(timed_out=timed_out)
    status: object = result.exit_code
    if result.signal is not None:
        status = f"signal {result.signal}"
    log_command(argv, status=status, seconds=result.seconds)
    return result


def _follow(job: _SupervisedJob, limits: _Limits, on_tick: Callable[[], None] | None) -> bool:
    """Wait for the job's end and keep its limits; return whether it timed out."""
    next_tick = job.begin
    while not job.is_finished:
        # 1. Output, and perhaps the report of the end.
        job.drain(_TICK_S)
        now = time.monotonic()
        if now - job.begin >= limits.timeout_s:
            # A runner that was itself stopped learns late of what ended in time.
            job.drain(0)

        # 2. Limits; a job that has ended needs no command.
        if not job.has_reported:
            job.send(limits.command(now - job.begin, _Signals.count))

        # 3. Memory and progress.
        if now >= next_tick:
            job.sample()
            if on_tick is not None:
                on_tick()
            next_tick = time.monotonic() + _TICK_S
    return limits.timed_out


@dataclass
class _Limits:
    """Decides when the job is asked to end and when it is killed."""

    timeout_s: float
    grace_s: float
    timed_out: bool = False
    terminated_at: float | None = None
    is_killed: bool = False

    def command(self, elapsed: float, signals: int) -> bytes:
        """Return the command to send: nothing, terminate or kill; each once.

        Args:
            elapsed: seconds since the job's start.
            signals: stop signals that the runner got.
        """
        if self.terminated_at is None:
            is_late = elapsed >= self.timeout_s
            if not is_late and not signals:
                return b""
            self.terminated_at = elapsed
            self.timed_out = is_late and not signals
            return _TERMINATE
        if not self.is_killed and (signals >= 2 or elapsed - self.terminated_at >= self.grace_s):
            self.is_killed = True
            return _KILL
        return b""


class _SupervisedJob:
    """The supervisor's process, the pipes to it, and what was measured.

    To leave the context is to kill the whole tree.
    """

    def __init__(
        self,
        server: ForkServer,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        log: CappedLog,
    ):
        self._log = log
        self._report = b""
        self.begin = time.monotonic()
        self._peak_bytes = 0
        self._next_sample = self.begin + _SAMPLE_S
        self._server = server
        self.is_finished = False
        # 1. Three pipes: output and report come from the supervisor, control goes to it.
        output, output_w = os.pipe()
        report, report_w = os.pipe()
        control, control_w = os.pipe()
        # 2. The supervisor, with its ends; whatever happens, this process closes those.
        pipes = SupervisorPipes(output=output_w, control=control, report=report_w)
        try:
            self._supervisor = server.start(argv, cwd=cwd, env=env, pipes=pipes)
        except BaseException:
            for descriptor in (output, report, control_w):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (output_w, report_w, control):
                os.close(descriptor)
        # 3. Output is read as far as it is there, the report to its end.
        self._output, self._report_pipe, self._control = output, report, control_w
        os.set_blocking(output, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(output, selectors.EVENT_READ)
        self._selector.register(report, selectors.EVENT_READ)

    def __enter__(self) -> _SupervisedJob:
        return self

    def __exit__(self, *_exc: object) -> None:
        # A supervisor that is still there kills the tree when the control pipe ends.
        os.close(self._control)
        while not self.is_finished:
            self._read_report()
        self._server.wait(self._supervisor)
        if not self.has_reported:
            self._kill_without_supervisor()
        # All writers are dead, so output ends at once; but a process that cannot be killed must not
        # make us wait for it.
        deadline = time.monotonic() + _DRAIN_S
        while self._copy_output() and time.monotonic() < deadline:
            pass
        self._selector.close()
        os.close(self._output)
        os.close(self._report_pipe)

    @property
    def has_reported(self) -> bool:
        """Whether the supervisor has said how the job ended."""
        return b"\n" in self._report

    def drain(self, seconds: float) -> None:
        """Wait at most `seconds` for output or the report, and take what is there."""
        for key, _events in self._selector.select(seconds):
            if key.fd == self._report_pipe:
                self._read_report()
            elif not self._copy_output():
                self._selector.unregister(self._output)

    def send(self, command: bytes) -> None:
        """Send a command to the supervisor; one that has just ended needs none."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._control, command)

    def sample(self) -> None:
        """Add up the resident size of the tree, unless the last sample was too recent."""
        now = time.monotonic()
        if now < self._next_sample:
            return
        begin = time.thread_time()
        processes = list_processes()
        tree = list_descendants(processes, self._supervisor)
        total = sum(processes[pid][2] for pid in tree)
        self._peak_bytes = max(self._peak_bytes, total)
        cost = time.thread_time() - begin
        self._next_sample = now + max(_SAMPLE_S, _SAMPLE_SHARE * cost)

    def result(self, *, timed_out: bool) -> ProcessResult:
        """Return how the job ended, after the context was left."""
        # 1. The supervisor's line (see supervisor.py), or what is known without it.
        if self.has_reported:
            _leader, status_text, *numbers, survivors = self._report.decode().split()
            status = int(status_text)
            seconds, cpu_seconds, peak_bytes = map(float, numbers)
            if survivors != "-":
                self._log.note(f"could not be killed and still run: {survivors}")
        else:
            status = int(signal.SIGKILL)
            seconds, cpu_seconds, peak_bytes = time.monotonic() - self.begin, 0.0, 0.0
            self._log.note("the supervisor of this process was killed")

        # 2. The wait status is an exit code or a signal.
        exit_code, signal_number = None, None
        if os.WIFSIGNALED(status):
            signal_number = os.WTERMSIG(status)
        else:
            exit_code = os.WEXITSTATUS(status)
        return ProcessResult(
            exit_code=exit_code,
            signal=signal_number,
            timed_out=timed_out,
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            peak_memory_bytes=max(int(peak_bytes), self._peak_bytes),
            log_bytes=self._log.total,
            log_truncated=self._log.is_truncated,
        )

    def _read_report(self) -> None:
        chunk = os.read(self._report_pipe, 4096)
        if not self._report:
            # The first chunk is the leader's pid: the job has started, and its time runs from here.
            self.begin = time.monotonic()
        self._report += chunk
        self.is_finished = not chunk or self.has_reported

    def _copy_output(self) -> bool:
        """Move one piece of output into the log; return False at its end."""
        try:
            chunk = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return True
        self._log.write(chunk)
        return bool(chunk)

    def _kill_without_supervisor(self) -> None:
        """Kill the leader's session, in case that the server was killed with the supervisor."""
        leader = int(self._report or b"0")
        for pid, (_parent, session, _bytes) in list_processes().items():
            if leader and session == leader:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
