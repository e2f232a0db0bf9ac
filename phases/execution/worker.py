"""Run a feature's experiment: a private staging folder, the child process, its progress.

A crash, a time-out or a flood of output is data in `ProcessResult`, never an exception; what the
experiment left in `out` is judged by `collect` and the gate, not here.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeGuard

from phases.base import strict_json
from phases.base.trees import empty_folder
from phases.errors import EnvironmentFaultError
from phases.execution import process
from phases.execution.process import ProcessResult
from phases.execution.sandbox import Sandbox

MAX_EVENT_BYTES = 16 * 1024 * 1024  # progress of one experiment; the rest is not read
MAX_EVENT_LINE = 64 * 1024  # bytes of one line of progress
MAX_EVENT_LINES = 100  # parsed in one read; a flood of malformed lines must not delay the runner

_PREFIX = "phases-run-"
_LOCK = "lock"
_NEW_LOCK = ".lock"


@dataclass(frozen=True)
class Staging:
    """A folder outside the repository, mode 0700; removed when its context ends."""

    folder: Path

    @property
    def out(self) -> Path:
        """Where the experiment writes its outputs."""
        return self.folder / "out"

    @property
    def home(self) -> Path:
        """An empty HOME: no user's configuration, no keys."""
        return self.folder / "home"

    @property
    def tmp(self) -> Path:
        """TMPDIR."""
        return self.folder / "tmp"

    @property
    def tree(self) -> Path:
        """The experiment's own copy of the commit."""
        return self.folder / "tree"

    @property
    def inputs_file(self) -> Path:
        """JSON written by the runner: name -> kind, path, receipt."""
        return self.folder / "inputs.json"

    @property
    def events(self) -> Path:
        """Progress lines written by the experiment."""
        return self.folder / "events.jsonl"

    @property
    def environment(self) -> dict[str, str]:
        """HOME and TMPDIR inside this folder."""
        return {"HOME": str(self.home), "TMPDIR": str(self.tmp)}


@dataclass(frozen=True)
class Job:
    """One run of one experiment."""

    argv: Sequence[str]
    folder: Path
    """The working directory: a copy of the commit, or in a scratch run the work tree."""
    env: Mapping[str, str]
    """Overrides the clean environment: staging.environment, then the plan's `env`."""
    out: Path
    inputs_file: Path
    events: Path
    log: Path
    timeout_s: float
    sandbox: Sandbox
    grace_s: float = 10.0


class ProgressView(Protocol):
    """What the worker needs of a view."""

    def progress(self, done: float, total: float, note: str) -> None:
        """Show that `done` of `total` is done."""


def run_experiment(job: Job, view: ProgressView) -> ProcessResult:
    """Run the job in its sandbox and report its progress to `view`."""
    variables = {"PHASES_INPUTS": str(job.inputs_file), "PHASES_EVENTS": str(job.events)}
    env = process.clean_environment({**job.env, **variables})
    home_and_tmp = [Path(env[name]) for name in ("HOME", "TMPDIR") if name in env]
    argv = job.sandbox.command(
        job.argv,
        writable=[job.folder, job.out, job.events, *home_and_tmp],
        read_only=[job.inputs_file],
        network=False,
    )
    with _EventReader(job.events) as events:

        def report_progress() -> None:
            event = events.read()
            if event is not None:
                view.progress(event.done, event.total, event.note)

        result = process.run(
            argv,
            cwd=job.folder,
            env=env,
            log=job.log,
            timeout_s=job.timeout_s,
            grace_s=job.grace_s,
            on_tick=report_progress,
        )
        report_progress()  # what came after the last tick
    return result


#### progress


@dataclass(frozen=True)
class Event:
    """One line of progress: `done` of `total` in the worker's unit."""

    done: float
    total: float
    note: str = ""


def parse_event(line: bytes) -> Event | None:
    """Parse a line of progress.

    None if it is malformed: the worker's mistake is no reason to stop it.
    """
    try:
        document = strict_json.loads(line, max_bytes=MAX_EVENT_LINE, max_depth=4)
    except strict_json.StrictJsonError:
        return None
    if not isinstance(document, dict):
        return None
    done, total = document.get("done"), document.get("total")
    note = document.get("note", "")
    if not _is_number(done) or not _is_number(total) or not isinstance(note, str):
        return None
    if not 0 <= done <= total:
        return None
    return Event(done, total, note)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


class _EventReader:
    """Reads what was appended to the events file since the last read.

    It keeps the descriptor that it opened first. The worker can replace the file by a link or a
    FIFO: then nothing more is read, and nothing hangs.
    """

    def __init__(self, path: Path):
        self._path = path
        self._position = 0
        self._rest = b""

    def __enter__(self) -> _EventReader:
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._descriptor)

    def read(self) -> Event | None:
        """Return the last well-formed event since the previous call: a view shows only that."""
        chunk = os.pread(self._descriptor, MAX_EVENT_BYTES - self._position, self._position)
        self._position += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_EVENT_LINE:
            # Too long to be an event; one byte of it keeps what follows from becoming one.
            self._rest = self._rest[:1]
        for line in reversed(lines[-MAX_EVENT_LINES:]):
            event = parse_event(line)
            if event is not None:
                return event
        return None


#### the staging folder


@contextmanager
def staging_folder(root: Path, base: Path | None = None) -> Iterator[Staging]:
    """Make a staging folder for the block and remove it at the end, as far as it can be removed.

    Staging folders of runners that were killed are removed first: a runner that is alive holds a
    lock on its own, so neither an age nor a process id has to be believed.

    Args:
        root: the repository.
        base: the folder for temporary files; by default $TMPDIR or /tmp.

    Raises:
        EnvironmentFaultError: `base` is inside the repository, where the experiment's files would
            be in the user's way and in git's.
    """
    base = _resolve_base(base)
    if os.pathsep in str(base):
        raise EnvironmentFaultError(
            f"the folder for temporary files: got {base}; expected a path without {os.pathsep!r}",
            hint="set TMPDIR to another folder, then run the same command again",
        )
    if base.is_relative_to(root.resolve()):
        raise EnvironmentFaultError(
            f"the folder for temporary files is inside the repository: got {base}; "
            f"expected a folder outside {root}",
            hint="set TMPDIR to a folder outside the repository, then run the same command again",
        )
    sweep_staging(base)
    staging = Staging(Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base)))
    lock = _lock_folder(staging.folder)
    try:
        for folder in (staging.out, staging.home, staging.tmp):
            folder.mkdir(mode=0o700)
        staging.events.touch(mode=0o600)
        yield staging
    finally:
        _remove_folder(staging.folder)
        os.close(lock)


def sweep_staging(base: Path | None = None) -> None:
    """Remove staging folders of this user whose runner is dead.

    Args:
        base: the folder for temporary files; by default $TMPDIR or /tmp.
    """
    for folder in _resolve_base(base).glob(f"{_PREFIX}*"):
        # What cannot be read or locked is another runner's, or left to its next sweep.
        with suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            if status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
                folder.chmod(0o700)  # as it was made; an experiment changed that
            if not (folder / _LOCK).exists():
                if _is_abandoned(folder):
                    _remove_folder(folder)
                continue
            flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(folder / _LOCK, flags)
            try:
                # BlockingIOError: its runner is alive.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_folder(folder)
            finally:
                os.close(descriptor)


def _resolve_base(base: Path | None) -> Path:
    if base is None:
        base = Path(tempfile.gettempdir())
    return base.resolve()


def _lock_folder(folder: Path) -> int:
    """Take the folder's lock; return its descriptor."""
    # The lock's name appears only when it is held, so that no sweep of another runner sees it free.
    path = folder / _NEW_LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    path.rename(folder / _LOCK)
    return descriptor


def _is_abandoned(folder: Path) -> bool:
    """Return whether the runner was killed before it could lock its folder.

    Its process id is in the folder's name; one that is alive is about to lock it.
    """
    names = {path.name for path in folder.iterdir()}
    if names - {_NEW_LOCK}:
        return False  # not a runner's, by chance of that name
    pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OSError):
        return False
    return False


def _remove_folder(folder: Path) -> None:
    """Remove a staging folder; what resists is left to the next sweep.

    The lock goes last: without it a folder that a kill left half removed would belong to no runner,
    and stay for ever.
    """
    lock = folder / _LOCK
    with suppress(OSError):
        if empty_folder(folder, keep=_LOCK):
            lock.unlink(missing_ok=True)
            folder.rmdir()
        elif not os.path.lexists(lock):
            lock.touch(mode=0o600)  # the experiment removed it
