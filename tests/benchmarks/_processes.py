"""What a command took: by the clock, of the processor, of memory; its own and its children's."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("_launcher.py")


@dataclass(frozen=True)
class Usage:
    """What one command took, or the medians of several."""

    wall_s: float
    own_cpu_s: float
    """User and system time of the command's own process, without children."""
    cpu_s: float
    """The same with all descendants that were waited for."""
    peak_mb: float
    """Of the largest process of all these: the most that it had in memory at a time. At least the
    8 MB of the launcher."""
    started: float
    """Processes and threads that began on the whole machine meanwhile."""


def measure(
    argv: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    *,
    codes: Collection[int] = (0,),
) -> Usage:
    """Run a command to its end; RuntimeError with its last words where its exit code is another."""
    launcher = [sys.executable, "-I", "-S", str(LAUNCHER), *argv]
    done = subprocess.run(
        launcher, cwd=folder, env=dict(env), capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout)
    if result["code"] not in codes:
        message = f"{' '.join(argv)}: exit {result['code']}\n{done.stderr[-2000:]}"
        raise RuntimeError(message)
    return Usage(**result["usage"])


def precise_cpu(pid: int) -> float:
    """Return the seconds that the threads of a living process ran, to the nanosecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def medians(usages: Sequence[Usage]) -> Usage:
    """Return the median of each field."""
    return Usage(*map(statistics.median, zip(*map(astuple, usages), strict=True)))


def describe_machine() -> str:
    """Return processors, memory and the versions that bear on times, in a sentence."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    git = subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout
    return (
        f"{len(os.sched_getaffinity(0))} cores of {_processor()}, {pages * size / 2**30:.0f} GiB, "
        f"Linux {platform.release()}, Python {platform.python_version()}, {git.strip()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
