"""Checkpoints and decision records: what a human decided on, and which decisions count.

At a checkpoint the runner writes the review request and commits it (commit C). Approving binds that
commit: C itself, its tree, progress.txt's size, digest and head at C, and the request. There is one
file per decision in `prd/approvals/`, named with its digest by an entry of the ledger.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phases.base import durable
from phases.base.paths import Paths
from phases.git.repo import Repo
from phases.record import entries
from phases.record.decision_record import DecisionRecord, Repository
from phases.record.ledger import Entry, EntryKind, Ledger, parse_ledger
from phases.record.statement import (
    DocumentError,
    ResourceDescriptor,
    find_descriptor,
    sha256_descriptor,
)

FOLDER = "prd/approvals"


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


def find_checkpoint(repo: Repo, phase: int, entry: int, request_path: str) -> Checkpoint | None:
    """Return commit C of a HALTED entry, found by its `Phases-Entry` trailer, or None."""
    for commit in repo.history():
        if commit.trailers.get("Phases-Entry") != f"{entry:04d}":
            continue
        if commit.trailers.get("Phases-Phase") == str(phase):
            return read_checkpoint(repo, commit.sha, phase, entry, request_path)
    return None


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


#### which decisions count


def record_files(root: Path) -> dict[str, str]:
    """Return every file below `prd/approvals/` in the work tree -> SHA-256."""
    digests = {}
    for path in sorted((root / FOLDER).rglob("*")):
        if path.is_file():
            digests[path.relative_to(root).as_posix()] = durable.sha256_file(path)
    return digests


def named_records(ledger: Ledger) -> dict[str, str]:
    """Return record path -> SHA-256 as the ledger's entries name them."""
    digests = {}
    for entry in ledger.entries:
        record = entry.match(entries.RECORD)
        if record:
            digests[record["path"]] = record["sha256"]
    return digests


def unrecorded_files(root: Path, ledger: Ledger) -> list[str]:
    """Return the files below `prd/approvals/` that no entry names with the digest they have."""
    named = named_records(ledger)
    return [path for path, digest in record_files(root).items() if named.get(path) != digest]


def unverified_records(root: Path, ledger: Ledger) -> set[str]:
    """Return digests of the record files that say what their entry says.

    Whether they were committed so, only git can tell: see `committed_records`.
    """
    digests = set()
    for path, digest in record_files(root).items():
        if _says_what_its_entry_says((root / path).read_bytes(), digest, ledger):
            digests.add(digest)
    return digests


def committed_records(repo: Repo, ledger: Ledger) -> set[str]:
    """Return digests of the decisions that count.

    File and entry must both be in one commit of the runner's: the commit brought the record, and
    its progress.txt, whose head the trailer states, holds the entry that names it.
    """
    digests: set[str] = set()
    for path, digest in named_records(ledger).items():
        data = repo.blob("HEAD", path)
        if data is None or durable.sha256(data) != digest:
            continue
        if not _says_what_its_entry_says(data, digest, ledger):
            continue
        for commit in repo.history(paths=[path]):
            progress = repo.blob(commit.sha, "progress.txt") or b""
            is_runners = commit.trailers.get("Phases-Head") == parse_ledger(progress).head
            if is_runners and digest.encode() in progress:
                digests.add(digest)
    return digests


def _says_what_its_entry_says(data: bytes, digest: str, ledger: Ledger) -> bool:
    """Return whether every entry that names this record is of the record's kind."""
    try:
        record = DecisionRecord.decode(data)
    except DocumentError:
        return False
    kinds = set()
    for entry in ledger.entries:
        named = entry.match(entries.RECORD)
        if named and named["sha256"] == digest:
            kinds.add(entry.kind)
    return kinds == {record.predicate.result.entry_kind}


def record_problems(repo: Repo, data: bytes, entry: Entry, ledger: Ledger) -> list[str]:
    """Return why the record that an entry names is invalid.

    What the record binds is read again from its commit.
    """
    # 1. It is a decision record about a commit of this history.
    try:
        record = DecisionRecord.decode(data)
        checkpoint = _recorded_checkpoint(record)
    except DocumentError as error:
        return [f"it is not a decision record: {error}"]
    decision = record.predicate
    if not repo.is_ancestor(checkpoint.commit, "HEAD"):
        return [f"it names commit {checkpoint.commit[:12]}, which is not in HEAD's history"]

    # 2. The commit holds what the record binds.
    problems = []
    actual = read_checkpoint(
        repo, checkpoint.commit, decision.phase.id, checkpoint.entry, checkpoint.request_path
    )
    if actual is None or actual.subject != record.subject:
        problems.append(f"what it binds differs from what commit {checkpoint.commit[:12]} holds")

    # 3. Record and entry say the same.
    if entry.phase != decision.phase.id:
        problems.append(f"it is about phase {decision.phase.id}, its entry about {entry.phase}")
    if decision.result.entry_kind != entry.kind:
        problems.append(f"it says {decision.result.value!r}, its entry says {entry.kind}")
    reset = sorted(fields["feature"] for fields in entry.match_all(entries.RESET))
    if reset != sorted(decision.reset):
        problems.append(f"it resets {sorted(decision.reset)}, its entry resets {reset}")
    if entry.kind == EntryKind.WAIVED and entry.feature not in decision.waived:
        problems.append(f"it waives {list(decision.waived)}, its entry waives {entry.feature}")

    # 4. It was made in this repository and this run.
    genesis = ledger.entries[0].self_hash
    if decision.repository != Repository(root_commit=repo.root_commit(), genesis=genesis):
        problems.append("it was made for another repository or another run")
    return problems


@dataclass(frozen=True)
class _CheckpointReference:
    """What a record says of the checkpoint it is about."""

    commit: str
    entry: int
    request_path: str


def _recorded_checkpoint(record: DecisionRecord) -> _CheckpointReference:
    """Return the checkpoint that a record names; DocumentError if it names none."""
    commit = find_descriptor(record.subject, "commit")
    progress = find_descriptor(record.subject, "progress.txt")
    requests = [item.name for item in record.subject if item not in (commit, progress)]
    if commit is None or progress is None or len(requests) != 1 or requests[0] is None:
        raise DocumentError("subject: expected commit, progress.txt and one request")
    sha = (commit.digest or {}).get("gitCommit")
    entry = (progress.annotations or {}).get("entry")
    if sha is None or not isinstance(entry, int):
        raise DocumentError("subject: expected a gitCommit and the number of an entry")
    return _CheckpointReference(commit=sha, entry=entry, request_path=requests[0])


def next_record_path(paths: Paths, ledger: Ledger, phase: int) -> tuple[str, int]:
    """Return path and number of a phase's next decision: a number that is not taken."""
    prefix = f"{FOLDER}/phase-{phase}."
    number = 1 + sum(path.startswith(prefix) for path in named_records(ledger))
    while (paths.root / f"{prefix}{number}.json").exists():
        number += 1
    return f"{prefix}{number}.json", number
