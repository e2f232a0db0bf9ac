"""What a commit that this run just made adds to the evidence, without reading the history again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from phases.git.probe import blob_id
from phases.git.record_history import RecordCommit
from phases.git.repo import Repo
from phases.record import entries
from phases.record.evidence import Evidence
from phases.record.ledger import DECISIONS, Entry, EntryKind, Ledger


def extend_evidence(
    evidence: Evidence, ledger: Ledger, repo: Repo, parent: str | None
) -> Evidence | None:
    """Return the evidence with HEAD's commit; None where the history must be read for it.

    Args:
        evidence: what the history said of the ledger when `parent` was HEAD.
        ledger: the ledger.
        repo: the repository.
        parent: HEAD before the commit. Nobody else's commit may have come since.
    """
    added = ledger.entries[len(evidence.commits) :]
    sha = repo.head()
    commit = repo.own_commit(sha)
    if commit.parents != (parent,) or _has_decision(added):
        return None
    data, last = ledger.data, ledger.entries[-1]
    progress = repo.entries_of(sha, ["progress.txt"]).get("progress.txt")
    names_last = commit.trailers.get("Phases-Entry") == f"{last.seq:04d}"
    has_hash = commit.trailers.get("Phases-Head") == last.self_hash
    is_whole = progress and progress.id == blob_id([data], len(data), sha)
    if not (progress and is_whole and names_last and has_hash):
        return None
    recorded = RecordCommit(
        sha=sha,
        tree=repo.tree(sha),
        parents=commit.parents,
        trailers=commit.trailers,
        blobs={"progress.txt": progress.id},
    )
    commits = {**evidence.commits, **{entry.seq: recorded for entry in added}}
    return replace(evidence, commits=commits, committed=len(ledger.entries))


def _has_decision(added: Sequence[Entry]) -> bool:
    """Return whether entries are, name or give up decisions, which are judged by the history."""
    kinds = (*DECISIONS, EntryKind.LOST)
    return any(entry.kind in kinds or entry.match(entries.RECORD) for entry in added)
