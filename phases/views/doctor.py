"""doctor: what is missing on this machine, and what is lost without it. Reads only; needs neither plan nor pydantic.

`broken` means that no run or no decision can be recorded here (exit 7); `lacks` means that something works less well.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phases.base.paths import Paths, cache_dir
from phases.errors import EnvironmentFaultError
from phases.execution import sandbox
from phases.git import checks
from phases.git.checks import read_repository_state, repository_problems
from phases.git.probe import probe_repository

FREE_BYTES = 1 << 30
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


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: str
    """`ok`, `lacks` or `broken`."""
    met: str
    lost: str = ""
    hint: str = ""


def examine(root: Path) -> list[Check]:
    """Looks at everything; what cannot be looked at is a finding too."""
    return [*_python(), *_repository(root), *_room(root), _terminal(), *_sandbox()]


def is_fit(checks: list[Check]) -> bool:
    """Whether runs and decisions can be recorded here."""
    return all(check.state != "broken" for check in checks)


def as_json(checks: list[Check]) -> dict[str, Any]:
    """`doctor --json`."""
    return {"ok": is_fit(checks), "checks": [vars(check) for check in checks]}


def text(checks: list[Check]) -> str:
    """The same for a person."""
    lines = []
    for check in checks:
        lines.append(f"{check.state:<6} {check.name}: {check.met}")
        lines += [f"       lost: {check.lost}"] if check.lost else []
        lines += [f"       next: {check.hint}"] if check.hint else []
    broken = sum(check.state == "broken" for check in checks)
    lines.append(
        "fit to run" if not broken else f"not fit to run: {broken} of {len(checks)} are broken"
    )
    return "\n".join(lines)


def _python() -> Iterator[Check]:
    yield Check("python", "ok", sys.version.split()[0])  # an older one cannot even load this
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        yield Check(
            "packages",
            "broken",
            f"missing: {', '.join(missing)}",
            "runs, decisions and audits",
            "make next",
        )
    else:
        yield Check("packages", "ok", ", ".join(PACKAGES))


def _repository(root: Path) -> Iterator[Check]:
    """git, the repository, its state, its locks, its file system."""
    if shutil.which("git") is None:
        yield Check("git", "broken", "not found on PATH", "everything", "install git")
        return
    try:
        probed = probe_repository(root)
    except EnvironmentFaultError as error:
        yield Check("repository", "broken", str(error), "everything", error.hint)
        return
    found = read_repository_state(root)
    yield _git(found.version)
    problems = repository_problems(found)
    yield from (
        Check("repository", "broken", str(item), "runs and decisions", item.hint)
        for item in problems
    )
    if not problems:
        yield Check(
            "repository",
            "ok",
            f"on {str(found.branch).removeprefix('refs/heads/')}, nothing half done, identity known",
        )
    if probed.rewound:
        lost = "runs and decisions: HEAD is not at or after the runner's last commit"
        yield Check("history", "broken", "rewound", lost, "python -m phases status")
    yield _runner_lock(Paths(root, probed.common_dir, ""))
    yield _file_system(
        probed.common_dir, Path("/proc/self/mountinfo").read_text("utf-8", "replace")
    )


def _git(version: tuple[int, ...]) -> Check:
    met = ".".join(map(str, version))
    if version < checks.FSYNC_GIT:
        lost = "commits are not forced to the disk; a power failure may take the newest"
        return Check("git", "lacks", met, lost, "install git 2.36 or newer")
    return Check("git", "ok", met)


def _runner_lock(paths: Paths) -> Check:
    """Whether a runner is at work: asked of the kernel, by taking the lock and letting it go."""
    if not paths.lock.exists():
        return Check("runner's lock", "ok", "never taken")
    descriptor = os.open(paths.lock, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return Check("runner's lock", "lacks", "held: a runner is at work", "a second run would end with exit 6",
                     f"wait for it; {paths.lock_holder} says who")  # fmt: skip
    finally:
        os.close(descriptor)
    return Check("runner's lock", "ok", "free")


def _file_system(common_dir: Path, mounts: str) -> Check:
    """The file system of the git directory: over a network, a lock may hold on one machine only. Pure."""
    kind, best = "unknown", -1
    for line in mounts.splitlines():
        words = line.split()
        where, name = words[4].replace("\\040", " "), words[words.index("-") + 1]
        if len(where) >= best and common_dir.is_relative_to(where):
            kind, best = name, len(where)
    if kind in NETWORK_FILE_SYSTEMS:
        lost = "the lock that keeps two runners apart may hold on one machine only"
        return Check(
            "file system",
            "lacks",
            kind,
            lost,
            "let runners of one machine alone work in this checkout",
        )
    return Check("file system", "ok", kind)


def _room(root: Path) -> Iterator[Check]:
    """Room and rights where the runner writes."""
    places = {
        "repository": root,
        "cache": cache_dir(),
        "temporary files": Path(tempfile.gettempdir()),
    }
    for name, place in places.items():
        there = next(folder for folder in (place, *place.parents) if folder.exists())
        free = shutil.disk_usage(there).free
        met = f"{place}: {free / 1e9:.1f} GB free"
        if not os.access(there, os.W_OK):
            yield Check(
                f"room for {name}",
                "broken",
                f"{place}: cannot be written",
                "runs",
                f"make {there} writable",
            )
        elif free < FREE_BYTES:
            yield Check(
                f"room for {name}",
                "broken",
                met,
                "runs need at least 1.1 GB",
                f"free space in {there}",
            )
        else:
            yield Check(f"room for {name}", "ok", met)
    if Path(tempfile.gettempdir()).resolve().is_relative_to(root.resolve()):
        yield Check("temporary files", "broken", f"{tempfile.gettempdir()} lies inside the repository", "runs",
                    "set TMPDIR to a folder outside the repository")  # fmt: skip


def _terminal() -> Check:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        lost = "approve, reject and relock cannot be typed from here; everything else works"
        return Check("terminal", "lacks", "no controlling terminal", lost, "decide at a terminal")
    return Check("terminal", "ok", "there is one")


def _sandbox() -> Iterator[Check]:
    """The tiers that this version builds here, and what the machine would have."""
    tiers = sandbox.available()
    programs = [name for name in ("bwrap", "unshare") if shutil.which(name)]
    met = f"{tiers[0].tier}; on this machine: {', '.join(programs) or 'neither bwrap nor unshare'}, {_landlock()}"
    if tiers[0].tier == "none":
        lost = "experiments run with your rights, network included"
        yield Check("sandbox", "lacks", met, lost, "run only code that you would run by hand")
    else:
        yield Check("sandbox", "ok", met)


def _landlock() -> str:
    """Whether the kernel has Landlock."""
    try:
        modules = Path("/sys/kernel/security/lsm").read_text()
    except OSError:
        return "landlock unknown"
    return "landlock" if "landlock" in modules else "no landlock"
