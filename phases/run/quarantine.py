"""Outputs of a failed attempt, kept for a reader and never counted."""

from __future__ import annotations

import shutil
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

from phases.base import durable
from phases.errors import EnvironmentFaultError
from phases.execution import collect
from phases.run.attempt import AttemptSpec

KEPT_BYTES = 4_000_000_000
"""At most so much of a failed attempt's outputs is kept."""


class _Kept:
    """Chooses what of a failed attempt's outputs is kept: a hostile one could fill the disk, or never end.

    What is neither file, folder nor link (a FIFO or a device would be read for ever), what lies too deep, and what
    would go beyond half of the free room is left out.
    """

    def __init__(self, out: Path, target: Path):
        self._depth = len(out.parts)
        self._bytes = min(KEPT_BYTES, shutil.disk_usage(target.parent).free // 2)
        self._entries = collect.MAX_ENTRIES

    def left_out(self, folder: str, names: list[str]) -> list[str]:
        """The names in this folder that are not kept; `ignore` of shutil.copytree."""
        return [name for name in sorted(names) if not self._takes(Path(folder, name))]

    def _takes(self, path: Path) -> bool:
        met = path.lstat()
        if self._entries == 0 or len(path.parts) - self._depth > collect.MAX_DEPTH:
            return False
        self._entries -= 1
        if S_ISREG(met.st_mode) and met.st_size <= self._bytes:
            self._bytes -= met.st_size
            return True
        return S_ISDIR(met.st_mode) or S_ISLNK(met.st_mode)


def quarantine(planned: AttemptSpec) -> None:
    """Outputs of a failed attempt are kept for a person to look at and never counted."""
    target = planned.paths.quarantine(planned.feature.id, planned.number)
    try:
        if any(planned.place.out.iterdir()):
            durable.make_folder(target.parent)
            kept = _Kept(planned.place.out, target)
            shutil.copytree(
                planned.place.out, target, symlinks=True, dirs_exist_ok=True, ignore=kept.left_out
            )
    except (OSError, shutil.Error) as error:
        raise EnvironmentFaultError(
            f"cannot keep the failed attempt's outputs in {target}: {error}"
        ) from error
