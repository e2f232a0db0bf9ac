"""The memory that this machine lets a process use."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
LIMITS = (  # of the control group that a container runs in, versions 2 and 1 of the kernel's
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def machine_bytes(meminfo: Path = MEMINFO, limits: tuple[Path, ...] = LIMITS) -> int:
    """Return the bytes of memory of this machine, or of its container if that is less."""
    kibibytes = 0
    for line in meminfo.read_text("utf-8").splitlines():
        if line.startswith("MemTotal:"):
            kibibytes = int(line.split()[1])
    sizes = [1024 * kibibytes]
    for path in limits:
        text = path.read_text("utf-8").strip() if path.is_file() else ""
        # without a limit version 2 says "max", version 1 a number beyond any machine
        if text.isdigit():
            sizes.append(int(text))
    return min(sizes)
