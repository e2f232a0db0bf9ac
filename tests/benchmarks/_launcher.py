"""`python -IS _launcher.py COMMAND…` runs a command and prints what it took, as JSON.

A program of its own, and a small one: the kernel counts the memory of whoever starts a command as
that of the command.
"""

from __future__ import annotations

import json
import os
import sys
import time

TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds: the kernel counts the time of one process in these."""


def own_cpu(pid: int) -> float:
    """Return user and system time of a process that has ended and was not waited for."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - pathlib is large
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


def started() -> int:
    """Return how many processes and threads the machine has started since it booted."""
    with open("/proc/stat") as file:  # noqa: PTH123
        for line in file:
            if line.startswith("processes "):
                return int(line.split()[1])
    return 0


def main(command: list[str]) -> None:
    """Run the command and print what it took."""
    before, begin = started(), time.perf_counter()
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    # It has ended and was not waited for: the kernel still has its own times apart.
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    wall_s, count, own_cpu_s = time.perf_counter() - begin, started() - before, own_cpu(pid)
    # Now come its times and those of its children together.
    _, status, used = os.wait4(pid, 0)
    usage = {
        "wall_s": wall_s,
        "own_cpu_s": own_cpu_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
        "started": count,
    }
    print(json.dumps({"code": os.waitstatus_to_exitcode(status), "usage": usage}))


if __name__ == "__main__":
    main(sys.argv[1:])
