"""What the runner recorded in HEAD's history and HEAD's progress.txt lacks: a merge hides it.

git shows a file's history simplified: of a merge it follows only the parent that has the same file.
So a merge that keeps the progress.txt of before hides what the other side recorded. Here every
parent is followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from phases.git.objects import GitObject, open_objects
from phases.git.probe import DAMAGED_OBJECT_WAY
from phases.git.record_history import RecordCommit
from phases.git.way_back import before_merge_way
from phases.git.way_parts import PROGRESS, git_lines
from phases.record import entries
from phases.record.evidence import read_history
from phases.record.ledger import Ledger, Problem, parse_ledger


def left_out_problem(root: Path, ledger: Ledger, committed: int, results: str) -> Problem | None:
    """Return that HEAD's history has an entry which HEAD's progress.txt lacks; None if it has all.

    Args:
        root: the repository.
        ledger: the ledger.
        committed: how many of its entries HEAD's progress.txt has.
        results: the folder of results.
    """
    # 1. The runner's commits that end with none of these entries.
    heads = {entry.self_hash for entry in ledger.entries[:committed]}
    others = []
    for commit in read_history(root, ledger, is_full=True):
        is_runners = PROGRESS in commit.blobs and "Phases-Entry" in commit.trailers
        if is_runners and commit.trailers.get("Phases-Head") not in heads:
            others.append(commit)
    if not others:
        return None

    # 2. The first one that is about this project.
    own_roots = git_lines(root, "rev-list", "--max-parents=0", "--first-parent", "HEAD")
    for commit, text in _versions(root, others):
        if text is None:
            message = f"progress.txt of commit {commit.sha[:12]} is missing or damaged"
            return Problem("git-object", None, message, DAMAGED_OBJECT_WAY)
        recorded = parse_ledger(text.data)
        if not recorded.entries or recorded.entries[-1].self_hash in heads:
            continue
        if recorded.header != ledger.header and _root_of(recorded) not in own_roots:
            continue  # another project, merged with a record of its own
        entry = recorded.entries[-1]
        message = (
            f"commit {commit.sha[:12]}, which is in HEAD's history, recorded {entry.kind} as entry "
            f"{entry.seq:04d}, and HEAD lacks it: a merge or a later commit left it out"
        )
        way = before_merge_way(root, commit.sha, results)
        return Problem("ledger-lacks-commit", entry.seq, message, way)
    return None


def _versions(
    root: Path, commits: Sequence[RecordCommit]
) -> Iterator[tuple[RecordCommit, GitObject | None]]:
    """Yield commits with their progress.txt; None where git has not the bytes that it names."""
    with open_objects(root) as reader:
        for commit in commits:
            blob = commit.blobs[PROGRESS]
            if set(blob) == {"0"}:  # it deleted the file, whatever its trailers say
                continue
            text = reader.find(blob)
            yield commit, text if text and text.is_intact else None


def _root_of(ledger: Ledger) -> str | None:
    """Return the first commit of the history that a ledger is about."""
    root = ledger.entries[0].match(entries.ROOT)
    return root["commit"] if root else None
