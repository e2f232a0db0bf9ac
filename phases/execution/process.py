"""Runs one child process with a limit, a capped log and nothing left behind.

Every experiment and every gate runs through `run`. Between the runner and the job stands a small supervisor
(supervisor.py), an interpreter of its own: it is the "child subreaper" of the job, so a descendant that leaves the
process group by `setsid` or by a double fork comes back to it and dies with the rest; it holds one end of a pipe, so
it also ends the job when the runner itself is killed; and what it has reaped tells the processor time of the whole
tree.

What remains possible without a PID namespace (sandbox tier `none`): a job of the same user that kills its supervisor
on purpose can leave behind a process that was started since the last sample; a process in uninterruptible sleep
cannot be killed by anybody (the log then says so); off Linux there is no subreaper, only the process group.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

from phases.base.paths import cache_dir
from phases.errors import InterruptedRunError
from phases.execution.capped_log import CappedLog

_SUPERVISOR = Path(__file__).absolute().with_name("supervisor.py")
_TICK = 0.1  # seconds between two calls of on_tick
_DRAIN = 1.0  # seconds granted to output that is still in the pipe when the tree is dead
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_TERMINATE, _KILL = b"T", b"K"  # orders to the supervisor

_ALLOWED = ("PATH", "LANG", "LANGUAGE", "TZ")
_SET_BY_RUNNER = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class ProcessResult:
    """How a process ended and what it used."""

    exit_code: int | None
    """None if it died by a signal. 127: the command was not found, 126: it could not be started (as in a shell)."""
    signal: int | None
    timed_out: bool
    seconds: float
    """Wall time by CLOCK_MONOTONIC, which stands still while the machine is suspended; so does the time-out. It goes
    on while the process is stopped by SIGSTOP."""
    cpu_seconds: float
    """User and system time of the whole tree; what a parent inside it threw away by ignoring SIGCHLD is missing."""
    peak_memory_bytes: int
    """Peak of the sum of resident sizes over the tree, sampled every quarter second or more rarely; at least the
    kernel's own peak of the largest process (the bare interpreter that starts the job included, some 9 MB). A page
    shared by two processes counts twice."""
    log_bytes: int
    """Bytes that the process wrote, before the cap."""
    log_truncated: bool


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """An environment of allowed variables only, with `extra` laid over it.

    Nothing of the user's GIT_*, LD_*, PYTHON* and no secrets pass. HOME and TMPDIR are left out: the caller gives
    folders of the staging area. The folder of the running interpreter leads PATH, so `python` means this one.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _ALLOWED or name.startswith("LC_")
    }
    path = [str(Path(sys.executable).parent), *kept.get("PATH", os.defpath).split(os.pathsep)]
    kept["PATH"] = os.pathsep.join(dict.fromkeys(path))
    return {**kept, "PHASES_CACHE": str(cache_dir()), **_SET_BY_RUNNER, **extra}


#### signals: Python hands them to the main thread, but runs may be under way in several


class _Signals:
    """How many stop signals have come since the outermost `signals_forwarded` began."""

    count = 0
    depth = 0


@contextlib.contextmanager
def signals_forwarded() -> Iterator[None]:
    """Inside, SIGINT, SIGTERM and SIGHUP stop every `run` of every thread instead of raising KeyboardInterrupt.

    `run` enters this by itself in the main thread. Whoever starts runs from other threads enters it in the main
    thread around them; each run then ends with InterruptedRunError, and those not yet begun do not start.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _Signals.depth == 0:
        _Signals.count = 0
    _Signals.depth += 1
    # An ignored signal stays ignored: nohup and a shell's & mean it so.
    before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, _count_signal)
    try:
        yield
    finally:
        _Signals.depth -= 1
        for number in taken:
            signal.signal(number, before[number] or signal.SIG_DFL)


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
) -> ProcessResult:
    """Runs `argv` in a session of its own, stdin from /dev/null, stdout and stderr into `log` (capped, see CappedLog).

    After `timeout_s` seconds its group gets SIGTERM, `grace_s` later the whole tree SIGKILL. A stop signal to the
    runner does the same, a second one kills at once; then InterruptedRunError is raised. When the leader has ended,
    everything that it left is killed. `on_tick` is called ten times a second from the calling thread; if it raises,
    the tree is killed and the exception passes on. A job that fails or crashes is a result, not an exception.
    """
    with signals_forwarded():
        if _Signals.count:
            message = f"interrupted before {argv[0]} was started"
            raise InterruptedRunError(message)
        with CappedLog(log) as capped:
            with _Supervised(argv, cwd=cwd, env=env, log=capped) as child:
                timed_out = _follow(child, _Limits(timeout_s, grace_s), on_tick)
            if _Signals.count:
                message = f"interrupted: {argv[0]} was stopped after {time.monotonic() - child.begin:.0f} s"
                raise InterruptedRunError(message)
            return child.result(timed_out=timed_out)


def _follow(child: _Supervised, limits: _Limits, on_tick: Callable[[], None] | None) -> bool:
    """Waits for the job's end and keeps its limits; returns whether it timed out."""
    next_tick = child.begin
    while not child.finished:
        child.drain(_TICK)
        now = time.monotonic()
        if now - child.begin >= limits.timeout_s:
            child.drain(0)  # a runner that was itself stopped sees late what ended in time
        if not child.has_reported:
            child.order(limits.order(now - child.begin, _Signals.count))
        if now >= next_tick:
            child.sample()
            if on_tick is not None:
                on_tick()
            next_tick = time.monotonic() + _TICK
    return limits.timed_out


@dataclass
class _Limits:
    """Decides when the job is asked to stop and when it is killed."""

    timeout_s: float
    grace_s: float
    timed_out: bool = False
    asked_at: float | None = None
    killed: bool = False

    def order(self, elapsed: float, signals: int) -> bytes:
        """The order to give `elapsed` seconds after the job's start: nothing, terminate or kill; each once."""
        if self.asked_at is None:
            late = elapsed >= self.timeout_s
            if not late and not signals:
                return b""
            self.asked_at = elapsed
            self.timed_out = late and not signals
            return _TERMINATE
        if not self.killed and (signals >= 2 or elapsed - self.asked_at >= self.grace_s):
            self.killed = True
            return _KILL
        return b""


class _Supervised:
    """The supervisor's process, the pipes to it, and what was measured; leaving the context kills the whole tree."""

    def __init__(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: CappedLog):
        self._log = log
        self._report = b""
        self.begin = time.monotonic()
        self._peak = 0
        self._sample_at = 0.0
        self._tree: list[psutil.Process] = []
        self.finished = False
        output, output_w = os.pipe()
        report, report_w = os.pipe()
        lifeline, self._lifeline = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_SUPERVISOR), str(lifeline), str(report_w), *argv],
                stdin=subprocess.DEVNULL,
                stdout=output_w,
                stderr=output_w,
                cwd=cwd,
                env=dict(env),
                pass_fds=(lifeline, report_w),
                start_new_session=True,  # a signal to the runner's whole group must leave it to end the job
            )
        except BaseException:
            for descriptor in (output, report, self._lifeline):
                os.close(descriptor)
            raise
        finally:
            for descriptor in (output_w, report_w, lifeline):
                os.close(descriptor)
        self._output, self._report_pipe = output, report
        os.set_blocking(output, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(output, selectors.EVENT_READ)
        self._selector.register(report, selectors.EVENT_READ)

    def __enter__(self) -> _Supervised:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(
            self._lifeline
        )  # a supervisor that is still there kills the tree when the pipe ends
        while not self.finished:
            self._read_report()
        self._process.wait()
        if b"\n" not in self._report:
            self._kill_without_supervisor()
        self._drain_rest()
        self._selector.close()
        os.close(self._output)
        os.close(self._report_pipe)

    def drain(self, seconds: float) -> None:
        """Waits at most `seconds` for output or the report, and takes what is there."""
        for key, _events in self._selector.select(seconds):
            if key.fd == self._report_pipe:
                self._read_report()
            elif not self._copy_output():
                self._selector.unregister(self._output)

    @property
    def has_reported(self) -> bool:
        """Whether the supervisor has said how the job ended."""
        return b"\n" in self._report

    def order(self, order: bytes) -> None:
        """Sends an order to the supervisor; one that has just ended needs none."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._lifeline, order)

    def sample(self) -> None:
        """Adds up the resident size of the tree, at most for a twentieth of one processor's time."""
        now = time.monotonic()
        if now < self._sample_at:
            return
        total = 0
        with contextlib.suppress(psutil.Error):
            self._tree = psutil.Process(self._process.pid).children(recursive=True)
        for process in self._tree:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        self._peak = max(self._peak, total)
        self._sample_at = now + max(0.25, 20 * (time.monotonic() - now))

    def result(self, *, timed_out: bool) -> ProcessResult:
        if b"\n" in self._report:
            _leader, status_, seconds_, cpu_, peak_, left = self._report.split()
            status, seconds, cpu, peak = int(status_), float(seconds_), float(cpu_), int(peak_)
            if left != b"-":
                self._log.note(f"could not be killed and still run: {left.decode()}")
        else:
            status, seconds, cpu, peak = int(signal.SIGKILL), time.monotonic() - self.begin, 0.0, 0
            self._log.note("the supervisor of this process was killed")
        died = os.WIFSIGNALED(status)
        return ProcessResult(
            exit_code=None if died else os.WEXITSTATUS(status),
            signal=os.WTERMSIG(status) if died else None,
            timed_out=timed_out,
            seconds=seconds,
            cpu_seconds=cpu,
            peak_memory_bytes=max(peak, self._peak),
            log_bytes=self._log.total,
            log_truncated=self._log.truncated,
        )

    def _read_report(self) -> None:
        chunk = os.read(self._report_pipe, 4096)
        if not self._report:
            self.begin = (
                time.monotonic()
            )  # the leader's pid: the job has started, and its time runs from here
        self._report += chunk
        self.finished = not chunk

    def _copy_output(self) -> bool:
        """Moves one piece of output into the log; False at its end."""
        try:
            chunk = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return True
        self._log.write(chunk)
        return bool(chunk)

    def _drain_rest(self) -> None:
        # All writers are dead, so the end comes at once; a process that nobody can kill must not make us wait for it.
        end = time.monotonic() + _DRAIN
        while self._copy_output() and time.monotonic() < end:
            pass

    def _kill_without_supervisor(self) -> None:
        """Kills the leader's session and whatever else the last sample saw."""
        leader = int(self._report or b"0")
        doomed = list(self._tree)
        for process in psutil.process_iter():
            with contextlib.suppress(OSError):
                if leader and os.getsid(process.pid) == leader:
                    doomed.append(process)
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.kill()  # psutil compares the start time: a reused process id is not hit


def log_tail(log: Path, limit: int = 1500) -> str:
    """The last characters of a log, for a message."""
    return log.read_bytes()[-limit:].decode("utf-8", "replace") if log.is_file() else ""
