"""Runs a feature's experiment: a private staging folder, the child process, its progress.

A crash, a time-out or a flood of output is data that stands in `ProcessResult`, never an exception; what the experiment
left in `out` is judged by `collect` and the gate, not here.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from phases.base import strict_json
from phases.errors import EnvironmentFaultError
from phases.execution import process
from phases.execution.process import ProcessResult
from phases.execution.sandbox import Sandbox

_PREFIX = "phases-run-"
_EVENTS_READ = (
    16 * 1024 * 1024
)  # bytes of progress that are read; what a worker writes beyond is not looked at
_EVENT_LINE = 64 * 1024  # bytes of one progress line


@dataclass(frozen=True)
class Staging:
    """A folder of our own outside the repository, mode 0700; gone when its context ends."""

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
    root: Path
    """The repository: working directory of the experiment, which it may read only."""
    env: Mapping[str, str]
    """Laid over the clean environment: staging.environment, then the PRD's `env`."""
    out: Path
    inputs_file: Path
    events: Path
    log: Path
    timeout_s: float
    sandbox: Sandbox
    grace_s: float = 10.0


class ProgressView(Protocol):
    """What of a view the worker needs."""

    def progress(self, done: float, total: float, note: str) -> None:
        """So much is done."""


@contextmanager
def staging(root: Path, base: Path | None = None) -> Iterator[Staging]:
    """A fresh staging folder below `base` (default: $TMPDIR or /tmp), removed at the end.

    Folders there whose runner was killed are removed first: a living runner holds a lock on its own, so no age and
    no process id has to be believed. Raises EnvironmentFaultError if `base` lies inside the repository `root`,
    where the experiment's files would be in the user's way and in git's.
    """
    base = Path(tempfile.gettempdir() if base is None else base).resolve()
    if base.is_relative_to(root.resolve()):
        message = f"the folder for temporary files {base} lies inside the repository {root}; wanted one outside"
        raise EnvironmentFaultError(
            message,
            hint="set TMPDIR to a folder outside the repository, then run the same command again",
        )
    sweep(base)
    place = Staging(Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base)))
    lock = _hold(place.folder)
    try:
        for folder in (place.out, place.home, place.tmp):
            folder.mkdir(mode=0o700)
        place.events.touch(mode=0o600)
        yield place
    finally:
        _remove(place.folder)
        os.close(lock)


def run(job: Job, view: ProgressView) -> ProcessResult:
    """Runs the job in its sandbox and feeds its progress to `view`."""
    own = {"PHASES_INPUTS": str(job.inputs_file), "PHASES_EVENTS": str(job.events)}
    env = process.clean_environment({**job.env, **own})
    private = [Path(env[name]) for name in ("HOME", "TMPDIR") if name in env]
    argv = job.sandbox.command(
        job.argv,
        writable=[job.out, job.events, *private],
        read_only=[job.root, job.inputs_file],
        network=False,
    )
    with _Events(job.events) as events:

        def on_tick() -> None:
            for event in events.read():
                view.progress(event.done, event.total, event.note)

        finished = process.run(
            argv,
            cwd=job.root,
            env=env,
            log=job.log,
            timeout_s=job.timeout_s,
            grace_s=job.grace_s,
            on_tick=on_tick,
        )
        on_tick()
    return finished


#### progress


@dataclass(frozen=True)
class Event:
    """One line of progress: `done` of `total` in the worker's unit."""

    done: float
    total: float
    note: str = ""


def parse_event(line: bytes) -> Event | None:
    """The event in a line, or None: a malformed line is the worker's mistake, not a reason to stop it."""
    try:
        value = strict_json.loads(line, max_bytes=_EVENT_LINE, max_depth=4)
    except strict_json.StrictJsonError:
        return None
    if not isinstance(value, dict):
        return None
    done, total, note = value.get("done"), value.get("total"), value.get("note", "")
    if (
        not isinstance(done, int | float)
        or not isinstance(total, int | float)
        or not isinstance(note, str)
    ):
        return None
    if isinstance(done, bool) or isinstance(total, bool) or not 0 <= done <= total:
        return None
    return Event(done, total, note)


class _Events:
    """Reads what was appended to the events file since the last look, through the descriptor it project at first.

    The worker can replace the file by a link or a FIFO: then nothing more is read, and nothing hangs.
    """

    def __init__(self, path: Path):
        self._path = path
        self._position = 0
        self._rest = b""

    def __enter__(self) -> _Events:
        self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._descriptor)

    def read(self) -> list[Event]:
        """The last well-formed event since the previous call, as a list of none or one: a view shows only that."""
        chunk = os.pread(self._descriptor, _EVENTS_READ - self._position, self._position)
        self._position += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _EVENT_LINE:
            self._rest = self._rest[
                :1
            ]  # too long to be an event; what follows cannot become one either
        for line in reversed(
            lines[-100:]
        ):  # a flood of malformed lines must not hold the runner up
            if event := parse_event(line):
                return [event]
        return []


#### the folder


def _hold(folder: Path) -> int:
    # The lock's name appears only when it is held, so that no sweep of another runner sees it free.
    fresh = folder / ".lock"
    descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    fresh.rename(folder / "lock")
    return descriptor


def _began_and_died(folder: Path) -> bool:
    """Whether the runner in the folder's name was killed before it could lock the folder; a living one is about to."""
    pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
    if {path.name for path in folder.iterdir()} - {".lock"}:
        return False  # somebody else's, by chance of that name
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OSError):
        return False
    return False


def sweep(base: Path | None = None) -> None:
    """Removes staging folders of this user whose runner is dead."""
    base = Path(tempfile.gettempdir() if base is None else base).resolve()
    for folder in base.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            if not (folder / "lock").exists():
                if _began_and_died(folder):
                    _remove(folder)
                continue
            descriptor = os.open(
                folder / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
            try:
                fcntl.flock(
                    descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB
                )  # BlockingIOError: its runner lives
                _remove(folder)
            finally:
                os.close(descriptor)


def _remove(folder: Path) -> None:
    """Removes a tree, also where the worker took its own permissions away; what resists is left to the next sweep.

    The lock goes last: without it a folder that a kill left half removed would be nobody's, and stay for ever.
    """
    for path, folders, _files in os.walk(folder):
        for name in folders:
            inner = Path(path, name)
            if not inner.is_symlink():
                inner.chmod(0o700)
    with suppress(OSError):
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != "lock":
                entry.unlink()
        if all(
            entry.name == "lock" for entry in folder.iterdir()
        ):  # else something resisted, and keeps its lock
            (folder / "lock").unlink(missing_ok=True)
            folder.rmdir()
