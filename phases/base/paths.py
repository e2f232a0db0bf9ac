"""One object knows every file name of a project that the runner uses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from phases.errors import EnvironmentFaultError


@dataclass(frozen=True)
class Paths:
    """File names below a repository's root and its git common directory.

    Properties are absolute. A method that returns `str` names a committed file or folder, relative
    to the root, as git and the ledger name it.
    """

    root: Path
    common_dir: Path
    """The git common directory: shared by all worktrees, so lock and journal are too."""
    results_name: str
    """The plan's field `results`, relative to the root."""

    #### the work tree

    @property
    def progress(self) -> Path:
        """The ledger that people read."""
        return self.root / "progress.txt"

    def results(self, feature: str) -> str:
        """Return the folder of a feature's committed results."""
        return f"{self.results_name}/{feature}"

    def phase_results(self, phase: int) -> str:
        """Return the folder of a phase's lock, exit verdict and review request."""
        return f"{self.results_name}/phase-{phase}"

    def plan_lock(self, phase: int) -> str:
        """Return the committed file that says what is locked."""
        return f"{self.phase_results(phase)}/lock.json"

    def review_request(self, phase: int) -> str:
        """Return the committed review request of a phase."""
        return f"{self.phase_results(phase)}/request.json"

    #### the git common directory

    @property
    def journal(self) -> Path:
        """The ledger's twin outside the work tree: written first, it shows what was taken away."""
        return self.common_dir / "phases" / "journal"

    @property
    def bindings(self) -> Path:
        """The folder of the digests by which this runner knows the records that it prepared."""
        return self.common_dir / "phases" / "prepared"

    def binding(self, txn: str) -> Path:
        """Return the file that holds the SHA-256 of the `record.json` of a transaction."""
        return self.bindings / txn

    @property
    def runner_lock(self) -> Path:
        """The file whose flock makes one runner the only one."""
        return self.common_dir / "phases" / "lock"

    @property
    def runner_lock_holder(self) -> Path:
        """The file that says who holds the lock: for the message only, no reason to take it."""
        return self.common_dir / "phases" / "lock.json"

    #### the runner's folder, which git ignores

    @property
    def private(self) -> Path:
        """The git-ignored folder of the runner."""
        return self.root / ".phases"

    @property
    def artifacts(self) -> Path:
        """The store of outputs below `artifacts/`, by digest."""
        return self.private / "artifacts"

    @property
    def pending(self) -> Path:
        """Prepared records not yet committed; what a killed run left is completed from here."""
        return self.private / "pending"

    def artifact(self, sha256: str) -> Path:
        """Return the file that stores the bytes with this digest."""
        return self.artifacts / sha256[:2] / sha256

    def quarantine(self, feature: str, attempt: int) -> Path:
        """Return the folder of the outputs of an attempt that was not verified."""
        return self.private / "quarantine" / feature / str(attempt)

    @property
    def runner_log(self) -> Path:
        """The runner's own debug log."""
        return self.private / "logs" / "runner.log"

    def log(self, feature: str, attempt: int) -> Path:
        """Return the file of what an attempt's process printed."""
        return self.private / "logs" / feature / f"{attempt}.log"


def cache_dir() -> Path:
    """Return `$PHASES_CACHE`, or `~/.cache/phases`: what is fetched once for all checkouts.

    Raises:
        EnvironmentFaultError: the user has no home either.
    """
    folder = find_cache_dir()
    if folder is None:
        message = "the cache's folder is unknown: PHASES_CACHE and HOME are not set"
        raise EnvironmentFaultError(
            message, hint="export PHASES_CACHE=/a/folder, then run the same command again"
        )
    return folder


def find_cache_dir() -> Path | None:
    """Return the same; None for a user id without a home: no HOME, and no entry in passwd."""
    named = os.environ.get("PHASES_CACHE")
    if named:
        return Path(named).absolute()
    try:
        return Path.home().absolute() / ".cache" / "phases"
    except RuntimeError:
        return None


def is_plain(path: str) -> bool:
    """Return whether a path names a file inside the repository, in its only spelling."""
    parts = path.split("/")
    is_relative = not path.startswith("~") and not {"", ".", ".."} & set(parts)
    is_git = any(part.lower() == ".git" for part in parts)
    return is_relative and not is_git and "\\" not in path and "\0" not in path


def link_above(root: Path, path: str) -> Path | None:
    """Return the first folder on the way to a path of the repository that is a link, or None."""
    folder = root
    for part in path.split("/")[:-1]:
        folder /= part
        if folder.is_symlink():
            return folder
    return None


def is_artifact(name: str) -> bool:
    """Return whether an output is stored by digest and not committed."""
    return name.startswith("artifacts/")
