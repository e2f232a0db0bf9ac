"""doctor: what is missing on this machine, and what does not work without it.

It reads only, and needs neither plan nor pydantic. An error means that no run or no decision can be
recorded here (exit 7); a warning means that something works less well.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from phases.base.durable import MIN_FREE_BYTES
from phases.base.paths import Paths, find_cache_dir
from phases.base.text import format_count
from phases.errors import EnvironmentFaultError
from phases.execution.sandbox import available_sandboxes
from phases.git.checks import FSYNC_GIT, read_repository_state, repository_problems
from phases.git.probe import probe_repository

PACKAGES = ("pydantic", "git", "click", "rich", "psutil", "pytest")
"""What the runner imports, by the names of the modules."""
NETWORK_FILE_SYSTEMS = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "fuse.sshfs",
    "afs",
    "ceph",
    "lustre",
    "glusterfs",
)


class CheckState(StrEnum):
    """What a check of the machine found."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class MachineCheck:
    """One thing that was checked."""

    name: str
    state: CheckState
    actual: str
    """What is there."""
    impact: str = ""
    """What does not work, or works less well."""
    hint: str = ""
    """What to type or to do."""


def examine_machine(root: Path) -> list[MachineCheck]:
    """Check the machine and the repository at `root`; what cannot be read is an error too."""
    return [
        *_check_python(),
        *_check_repository(root),
        *_check_disk_space(root),
        _check_terminal(),
        _check_sandbox(),
    ]


def is_ready(checks: Sequence[MachineCheck]) -> bool:
    """Return whether runs and decisions can be recorded here."""
    return all(check.state != CheckState.ERROR for check in checks)


def doctor_json(checks: Sequence[MachineCheck]) -> dict[str, Any]:
    """Return the object that `doctor --json` prints."""
    return {"ok": is_ready(checks), "checks": [asdict(check) for check in checks]}


def doctor_text(checks: Sequence[MachineCheck]) -> str:
    """Return the checks for a reader; the last line says whether the machine is ready."""
    lines = []
    for check in checks:
        lines.append(f"{check.state:<7} {check.name}: {check.actual}")
        if check.impact:
            lines.append(f"        impact: {check.impact}")
        if check.hint:
            lines.append(f"        next: {check.hint}")
    if is_ready(checks):
        lines.append("ready")
    else:
        errors = [check for check in checks if check.state == CheckState.ERROR]
        lines.append(f"not ready: {format_count(len(errors), 'error')}")
    return "\n".join(lines)


#### checks


def _check_python() -> Iterator[MachineCheck]:
    # An older Python than the one that is needed cannot even load this module.
    yield MachineCheck("python", CheckState.OK, sys.version.split()[0])
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        yield MachineCheck(
            name="packages",
            state=CheckState.ERROR,
            actual=f"missing: {', '.join(missing)}",
            impact="no runs, decisions or audits",
            hint="make next",
        )
    else:
        yield MachineCheck("packages", CheckState.OK, ", ".join(PACKAGES))


def _check_repository(root: Path) -> Iterator[MachineCheck]:
    """Check git, the repository, its state, its locks and its file system."""
    # 1. Without git or a repository nothing else can be checked.
    if shutil.which("git") is None:
        yield _error("git", "not found on PATH", "nothing works", "install git")
        return
    try:
        probe = probe_repository(root)
    except EnvironmentFaultError as error:
        yield _error("repository", str(error), "nothing works", error.hint)
        return

    # 2. What makes the runner refuse.
    repository = read_repository_state(root)
    yield _check_git_version(repository.version)
    problems = repository_problems(repository)
    for problem in problems:
        yield _error("repository", str(problem), "no runs or decisions", problem.hint)
    if not problems:
        branch = str(repository.branch).removeprefix("refs/heads/")
        actual = f"on {branch}, no operation in progress, identity set"
        yield MachineCheck("repository", CheckState.OK, actual)
    if probe.is_rewound:
        impact = "no runs or decisions: HEAD is not at or after the runner's last commit"
        yield _error("history", "rewound", impact, "python -m phases status")

    # 3. What keeps two runners apart.
    yield _check_runner_lock(Paths(root, probe.common_dir, ""))
    mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace")
    yield _check_file_system(probe.common_dir, mounts)


def _check_git_version(version: tuple[int, ...]) -> MachineCheck:
    actual = ".".join(map(str, version))
    if version >= FSYNC_GIT:
        return MachineCheck("git", CheckState.OK, actual)
    return MachineCheck(
        name="git",
        state=CheckState.WARNING,
        actual=actual,
        impact="commits are not forced to the disk: a power failure may lose the newest",
        hint="install git 2.36 or newer",
    )


def _check_runner_lock(paths: Paths) -> MachineCheck:
    """Check whether a runner is at work: take its lock, and release it."""
    if not paths.runner_lock.exists():
        return MachineCheck("runner lock", CheckState.OK, "never taken")
    descriptor = os.open(paths.runner_lock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        # Shared, so that two doctors at the same time do not take each other for a runner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return MachineCheck(
            name="runner lock",
            state=CheckState.WARNING,
            actual="held: a runner is at work",
            impact="a second run ends with exit 6",
            hint=f"wait for it; {paths.runner_lock_holder} names it",
        )
    finally:
        os.close(descriptor)
    return MachineCheck("runner lock", CheckState.OK, "free")


def _check_file_system(common_dir: Path, mounts: str) -> MachineCheck:
    """Check the file system of the git directory; `mounts` is the text of /proc/self/mountinfo."""
    # 1. The mount point with the longest path above the git directory.
    file_system = "unknown"
    longest = -1
    for line in mounts.splitlines():
        words = line.split()
        mount_point = words[4].replace("\\040", " ")
        if len(mount_point) >= longest and common_dir.is_relative_to(mount_point):
            file_system = words[words.index("-") + 1]
            longest = len(mount_point)
    # 2. Over a network flock may exclude only the processes of one machine.
    if file_system not in NETWORK_FILE_SYSTEMS:
        return MachineCheck("file system", CheckState.OK, file_system)
    return MachineCheck(
        name="file system",
        state=CheckState.WARNING,
        actual=file_system,
        impact="the lock that keeps two runners apart may work on one machine only",
        hint="start runners in this checkout from one machine only",
    )


def _check_disk_space(root: Path) -> Iterator[MachineCheck]:
    """Check free space and permissions where the runner writes."""
    temporary = Path(tempfile.gettempdir())
    folders = {"repository": root, "temporary files": temporary}
    cache = find_cache_dir()
    if cache is None:
        yield MachineCheck(
            name="cache",
            state=CheckState.WARNING,
            actual="unknown: PHASES_CACHE and HOME are not set",
            impact="no setup commands, and no inputs of the cache",
            hint="export PHASES_CACHE=/a/folder",
        )
    else:
        folders["cache"] = cache
    for name, folder in folders.items():
        # The cache may not exist yet: what counts is the folder that it would be made in.
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        title = f"disk space for {name}"
        actual = f"{folder}: {free / 1e9:.1f} GB free"
        if not os.access(existing, os.W_OK):
            actual = f"{folder}: not writable"
            yield _error(title, actual, "no runs", f"make {existing} writable")
        elif free < MIN_FREE_BYTES:
            impact = f"no runs: they need {MIN_FREE_BYTES / 1e9:.1f} GB"
            yield _error(title, actual, impact, f"free disk space in {existing}")
        else:
            yield MachineCheck(title, CheckState.OK, actual)
    if temporary.resolve().is_relative_to(root.resolve()):
        actual = f"{temporary} is inside the repository"
        hint = "set TMPDIR to a folder outside the repository"
        yield _error("temporary files", actual, "no runs", hint)


def _check_terminal() -> MachineCheck:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return MachineCheck(
            name="terminal",
            state=CheckState.WARNING,
            actual="no controlling terminal",
            impact="approve, reject and relock do not work here; everything else does",
            hint="decide at a terminal",
        )
    return MachineCheck("terminal", CheckState.OK, "there is one")


def _check_sandbox() -> MachineCheck:
    """Check the strongest tier that this version builds here, and name what the machine has."""
    tier = available_sandboxes()[0].tier
    programs = [name for name in ("bwrap", "unshare") if shutil.which(name)]
    tools = ", ".join(programs) or "neither bwrap nor unshare"
    actual = f"{tier}; on this machine: {tools}, {_landlock_support()}"
    if tier != "none":
        return MachineCheck("sandbox", CheckState.OK, actual)
    return MachineCheck(
        name="sandbox",
        state=CheckState.WARNING,
        actual=actual,
        impact="experiments run with your permissions, network included",
        hint="run only code that you would run by hand",
    )


def _landlock_support() -> str:
    try:
        modules = Path("/sys/kernel/security/lsm").read_text()
    except OSError:
        return "landlock unknown"
    if "landlock" in modules:
        return "landlock"
    return "no landlock"


def _error(name: str, actual: str, impact: str, hint: str) -> MachineCheck:
    return MachineCheck(name, CheckState.ERROR, actual, impact, hint)
