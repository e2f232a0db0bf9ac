"""A record that is read while a runner may write it: what did not fit together is read again.

A view reads ledger, journal, HEAD and `refs/phases/log` one after the other, and a runner at work
moves them one after the other. At each moment they fit together; what was read at several moments
need not. So what a view complains of counts only if nothing moved while it was read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from phases.git.probe import Probe, probe_repository
from phases.record.project import Project, read_ledger_file

READINGS = 5
PAUSE_S = 0.1
MOVED = (
    f"the record changed during each of {READINGS} readings, as while a run is at work: what does "
    "not fit together may come of that; look again when nothing changes it"
)
"""What a view says of a record that it could not read at rest."""

T = TypeVar("T")


def read_at_rest(project: Project, read: Callable[[Project], tuple[T, bool]]) -> tuple[T, bool]:
    """Return what `read` returns of a project; read again if it complains and the record moved.

    Args:
        project: the project.
        read: returns what it read, and whether it complains of anything.

    Returns:
        What was read, and whether the record moved during every reading.
    """
    for _ in range(READINGS):
        before = _moving_parts(project)
        result, complains = read(project)
        if not complains:
            return result, False
        project = replace(project, probe=probe_repository(project.root))
        if _moving_parts(project) == before:
            return result, False
        time.sleep(PAUSE_S)
    return result, True


def _moving_parts(project: Project) -> tuple[Probe, bytes | None, bytes | None, set[str]]:
    """Return what a runner moves while it records something."""
    paths = project.paths
    pending = {path.name for path in paths.pending.glob("*")}
    return project.probe, read_ledger_file(paths.progress), read_ledger_file(paths.journal), pending
