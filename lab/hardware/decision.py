"""The hardware decision as a whole: everything that follows from the catalogue and this machine.

The experiment stores copies of the YAML files, so that whoever judges it computes from the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.hardware.catalogue import FILES, FOLDER, Catalogue, read_catalogue
from lab.hardware.feasibility import Combination, Machine, combinations, machines_of, not_feasible
from lab.hardware.flips import Dropped, Flip, dropped, flips
from lab.hardware.recommendation import (
    Estimates,
    Recommendation,
    Step,
    need_estimates,
    recommend,
    upgrade_path,
)


@dataclass(frozen=True)
class Decision:
    """What follows from the catalogue and this machine.

    cells: every combination of the tables; estimates: (need, machine) → estimate; path: the upgrade
    path; flips, idle, dropped: what would change the recommendation, which numbers would not, and
    the needs without which it would be another one.
    """

    catalogue: Catalogue
    this: Machine
    cells: tuple[Combination, ...]
    estimates: Estimates
    recommendation: Recommendation
    path: tuple[Step, ...]
    flips: tuple[Flip, ...]
    idle: tuple[str, ...]
    dropped: tuple[Dropped, ...]

    @property
    def nowhere(self) -> tuple[Combination, ...]:
        """Return the combinations that fit on no machine."""
        return not_feasible(self.cells)


def decide(catalogue: Catalogue, this: Machine) -> Decision:
    """Return the whole decision for a measured machine."""
    machines: Sequence[Machine] = machines_of(catalogue, this)
    estimates = need_estimates(catalogue, machines)
    recommendation = recommend(catalogue, estimates, this.name)
    changes, idle = flips(catalogue, estimates, this.name, recommendation)
    return Decision(
        catalogue=catalogue,
        this=this,
        cells=combinations(catalogue, machines),
        estimates=estimates,
        recommendation=recommendation,
        path=upgrade_path(catalogue, estimates, this.name),
        flips=changes,
        idle=idle,
        dropped=dropped(catalogue, estimates, this.name, recommendation),
    )


def store_catalogue(artifacts: Path) -> Catalogue:
    """Copy the user's files to artifacts/decision, and return what is in the copies."""
    folder = artifacts / "decision"
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(FOLDER / name, folder / name)
    return read_catalogue(folder)
