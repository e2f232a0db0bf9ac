"""Outputs of a failed attempt: kept for a reader, never counted."""

from __future__ import annotations

import shutil
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

from phases.base import durable
from phases.errors import EnvironmentFaultError
from phases.execution import collect
from phases.run.attempt import AttemptSpec

MAX_BYTES = 4_000_000_000  # of one failed attempt's outputs


def quarantine(spec: AttemptSpec) -> None:
    """Copy the outputs of a failed attempt to `.phases/quarantine/`."""
    target = spec.project.paths.quarantine(spec.feature.id, spec.number)
    try:
        if not spec.out.is_dir() or not any(spec.out.iterdir()):
            return  # an experiment can remove its own folder
        durable.make_folder(target.parent)
        limits = _Limits(spec.out, target)
        shutil.copytree(
            spec.out, target, symlinks=True, dirs_exist_ok=True, ignore=limits.ignored_names
        )
    except (OSError, shutil.Error) as error:
        message = f"cannot keep the failed attempt's outputs in {target}: {error}"
        raise EnvironmentFaultError(message) from error


class _Limits:
    """Chooses what is copied: hostile outputs could fill the disk, or never end.

    Left out: what is neither file, folder nor link (reading a FIFO or a device may never end), what
    is nested too deep, and what would take more than half of the free disk space.
    """

    def __init__(self, out: Path, target: Path):
        self._depth = len(out.parts)
        self._bytes = min(MAX_BYTES, shutil.disk_usage(target.parent).free // 2)
        self._entries = collect.MAX_ENTRIES

    def ignored_names(self, folder: str, names: list[str]) -> list[str]:
        """Return the names in this folder that are not copied; `ignore` of shutil.copytree."""
        return [name for name in sorted(names) if not self._take(Path(folder, name))]

    def _take(self, path: Path) -> bool:
        status = path.lstat()
        if self._entries == 0 or len(path.parts) - self._depth > collect.MAX_DEPTH:
            return False
        self._entries -= 1
        if S_ISREG(status.st_mode) and status.st_size <= self._bytes:
            self._bytes -= status.st_size
            return True
        return S_ISDIR(status.st_mode) or S_ISLNK(status.st_mode)
