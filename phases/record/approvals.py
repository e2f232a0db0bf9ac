"""Checkpoints and the files of decisions: what a human decides on, and where it is recorded.

At a checkpoint the runner writes the review request and commits it (commit C). Approving binds that
commit: C itself, its tree, progress.txt's size, digest and head at C, and the request. There is one
file per decision in `prd/approvals/`, named with its digest by an entry of the ledger.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from phases.base import durable
from phases.base.paths import Paths
from phases.git.probe import run_git
from phases.git.repo import Repo
from phases.record import entries
from phases.record.decision_check import APPROVALS
from phases.record.evidence import Evidence
from phases.record.ledger import Ledger, parse_ledger
from phases.record.statement import ResourceDescriptor, sha256_descriptor


@dataclass(frozen=True)
class Checkpoint:
    """Commit C of a phase that waits, with everything that a decision binds."""

    phase: int
    entry: int
    commit: str
    tree: str
    progress_size: int
    progress_sha256: str
    progress_head: str
    request_path: str
    request_sha256: str

    @property
    def subject(self) -> tuple[ResourceDescriptor, ...]:
        """What the decision is about, as in-toto subjects."""
        progress = ResourceDescriptor(
            name="progress.txt",
            digest={"sha256": self.progress_sha256},
            annotations={
                "size": self.progress_size,
                "head": self.progress_head,
                "entry": self.entry,
            },
        )
        commit = ResourceDescriptor(
            name="commit", digest={"gitCommit": self.commit, "gitTree": self.tree}
        )
        return (commit, progress, sha256_descriptor(self.request_path, self.request_sha256))


def find_checkpoint(
    repo: Repo, evidence: Evidence, phase: int, entry: int, request_path: str
) -> Checkpoint | None:
    """Return commit C of a HALTED entry: the runner's commit that recorded it, or None."""
    commit = evidence.commits.get(entry)
    if commit is None:
        return None
    return read_checkpoint(repo, commit.sha, phase, entry, request_path)


def read_checkpoint(
    repo: Repo, commit: str, phase: int, entry: int, request_path: str
) -> Checkpoint | None:
    """Return a commit as a checkpoint; None if it has no progress.txt or no such request."""
    progress = repo.blob(commit, "progress.txt")
    request = repo.blob(commit, request_path)
    if progress is None or request is None:
        return None
    return Checkpoint(
        phase=phase,
        entry=entry,
        commit=commit,
        tree=repo.tree(commit),
        progress_size=len(progress),
        progress_sha256=durable.sha256(progress),
        progress_head=parse_ledger(progress).head,
        request_path=request_path,
        request_sha256=durable.sha256(request),
    )


#### files of decisions


def record_files(root: Path) -> dict[str, str]:
    """Return what is below `prd/approvals/` in the work tree and is no folder -> SHA-256.

    The digest is empty for what has no bytes: a FIFO, a socket, a link that leads to no file; so
    for `prd/approvals` itself if it is no folder. What a killed write left there is left out: the
    next run sweeps it.
    """
    digests = {}
    folder = root / APPROVALS
    for path in (folder, *sorted(folder.rglob("*"))):
        is_plain = path.is_file()
        if (is_plain and durable.is_temporary(path)) or not os.path.lexists(path):
            continue
        if is_plain or path.is_symlink() or not path.is_dir():
            digest = durable.sha256_file(path) if is_plain else ""
            digests[path.relative_to(root).as_posix()] = digest
    return digests


def named_records(ledger: Ledger) -> dict[str, str]:
    """Return record path -> SHA-256 as the ledger's entries name them."""
    digests = {}
    for entry in ledger.entries:
        record = entry.match(entries.RECORD)
        if record:
            digests[record["path"]] = record["sha256"]
    return digests


def unrecorded_files(root: Path, ledger: Ledger, *, is_committed: bool) -> dict[str, str]:
    """Return each file below `prd/approvals/` that nobody recorded -> why not.

    Args:
        root: the repository.
        ledger: the ledger.
        is_committed: whether HEAD has files there: then those of HEAD are looked at too.
    """
    named = named_records(ledger)
    reasons = {}
    for path, digest in record_files(root).items():
        if named.get(path) != digest:
            reasons[path] = "no entry names it with the digest it has"
    if not is_committed:
        return reasons
    listing = run_git(root, "ls-tree", "-r", "-z", "--name-only", "HEAD", "--", APPROVALS).stdout
    for path in filter(None, listing.split("\0")):
        if path not in named and not durable.is_temporary(Path(path)):
            reasons[path] = "it is committed, and no entry names it"
    return reasons


def next_record_path(paths: Paths, ledger: Ledger, phase: int) -> tuple[str, int]:
    """Return path and number of a phase's next decision: a number that is not taken."""
    prefix = f"{APPROVALS}/phase-{phase}."
    number = 1 + sum(path.startswith(prefix) for path in named_records(ledger))
    while (paths.root / f"{prefix}{number}.json").exists():
        number += 1
    return f"{prefix}{number}.json", number
