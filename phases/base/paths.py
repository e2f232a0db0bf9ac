"""One object knows every file name of a project that the runner uses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """File names below a repository's root, its git common directory and the user's cache."""

    root: Path
    common_dir: Path
    """The git common directory: shared by all worktrees, so lock and journal are too."""
    results_name: str
    """The PRD's field `results`, relative to the root."""

    @property
    def progress(self) -> Path:
        """The ledger that people read."""
        return self.root / "progress.txt"

    @property
    def journal(self) -> Path:
        """The ledger's twin outside the work tree: written first, it shows what was taken away."""
        return self.common_dir / "phases" / "journal"

    @property
    def lock(self) -> Path:
        """The file whose flock makes one runner the only one."""
        return self.common_dir / "phases" / "lock"

    @property
    def lock_holder(self) -> Path:
        """Who holds the lock: information for the message only, never a reason to take it."""
        return self.common_dir / "phases" / "lock.json"

    @property
    def private(self) -> Path:
        """The git-ignored folder of the runner."""
        return self.root / ".phases"

    @property
    def artifacts(self) -> Path:
        """Outputs below `artifacts/`, stored by digest."""
        return self.private / "artifacts"

    @property
    def pending(self) -> Path:
        """Prepared records that are not yet committed; what a killed run left is completed from here."""
        return self.private / "pending"

    def artifact(self, sha256: str) -> Path:
        """Where the bytes with this digest lie."""
        return self.artifacts / sha256[:2] / sha256

    def quarantine(self, feature: str, attempt: int) -> Path:
        """Where the outputs of an attempt that was not verified lie."""
        return self.private / "quarantine" / feature / str(attempt)

    def log(self, feature: str, attempt: int) -> Path:
        """What an attempt's process printed."""
        return self.private / "logs" / feature / f"{attempt}.log"

    def results(self, feature: str) -> str:
        """A feature's committed results, relative to the root."""
        return f"{self.results_name}/{feature}"

    def phase_results(self, phase: int) -> str:
        """A phase's lock, exit verdict and review request, relative to the root."""
        return f"{self.results_name}/phase-{phase}"


def cache_dir() -> Path:
    """`$PHASES_CACHE`, or `~/.cache/phases`: models and data fetched once for all checkouts."""
    return Path(os.environ.get("PHASES_CACHE") or Path.home() / ".cache" / "phases").absolute()


def lock_path(paths: Paths, phase: int) -> str:
    """The committed file that says what is locked."""
    return f"{paths.phase_results(phase)}/lock.json"


def request_path(paths: Paths, phase: int) -> str:
    """The committed review request of a phase."""
    return f"{paths.phase_results(phase)}/request.json"


def is_artifact(name: str) -> bool:
    """Whether an output is stored by digest and not committed."""
    return name.startswith("artifacts/")
