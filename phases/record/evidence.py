"""What the history says of the ledger: which entries were committed, which decisions are valid.

`status`, `run` and `audit` judge by this one function. An outcome was recorded by the runner's
commit whose trailers name it and whose progress.txt ends with it. A decision is valid if one commit
brought both its record and the entries that name it, and if the record says what they say and binds
what its commit holds. Whether it could be made in the state that the project had then, the fold
says (state.py). A decision that was lost before it was committed counts for nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from phases.git.probe import blob_id
from phases.git.record_history import (
    RecordCommit,
    is_ancestor,
    read_ids,
    read_record_history,
)
from phases.git.way_back import untrailed_way
from phases.record import entries
from phases.record.decision_check import (
    APPROVALS,
    DecisionCheck,
    ValidDecision,
    ledger_blob_id,
)
from phases.record.ledger import UNFINISHED, Entry, EntryKind, Ledger, Problem

HASHED_ALONE = 100_000_000
"""Bytes below which a second thread does not pay."""


@dataclass(frozen=True)
class Evidence:
    """What the history says of the ledger's entries."""

    commits: Mapping[int, RecordCommit] = field(default_factory=dict)
    """Number of an entry -> the runner's commit that recorded it."""
    decisions: Mapping[int, ValidDecision] = field(default_factory=dict)
    """Number of an entry -> what its valid record is about."""
    problems: tuple[Problem, ...] = ()
    """Why other decisions are not valid."""
    committed: int = 0
    """How many entries HEAD's progress.txt has."""
    lost: frozenset[int] = frozenset()
    """Numbers of the decisions that were lost before a commit had them, as the runner recorded."""

    def ends_commit(self, number: int) -> bool:
        """Return whether a commit of the runner's ends with this entry, as with every outcome."""
        commit = self.commits.get(number)
        return commit is not None and commit.trailers["Phases-Entry"] == f"{number:04d}"

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The numbers of the entries with which commits of the runner's end, in order."""
        return tuple(sorted(filter(self.ends_commit, self.commits)))

    @property
    def newest(self) -> RecordCommit | None:
        """The runner's newest commit in HEAD's history."""
        return self.commits[max(self.commits)] if self.commits else None

    def newest_before(self, number: int) -> RecordCommit | None:
        """Return the runner's newest commit that ends before an entry."""
        position = bisect_left(self.ends, number)
        return self.commits[self.ends[position - 1]] if position else None


def weigh_evidence(
    root: Path, ledger: Ledger, committed_bytes: int, *, is_cut: bool = False
) -> Evidence:
    """Return what HEAD's history says of the ledger.

    Args:
        root: the repository.
        ledger: the ledger.
        committed_bytes: the size of HEAD's progress.txt. Entries beyond it are in no commit: they
            are no problem, and the decisions among them do not count yet.
        is_cut: whether the history is cut, as in a shallow clone, which only views read: what is
            committed then counts as recorded.
    """
    if not ledger.entries:
        return Evidence()
    history = read_history(root, ledger)
    commits = _recording_commits(history, ledger)
    committed = _count_entries(ledger, committed_bytes)
    if is_cut and history:
        return weigh_cut(root, ledger, history[0], committed)
    check = DecisionCheck(root, ledger, commits, {})
    decisions, problems, lost = _check_decisions(check, ledger.entries[:committed])
    untrailed = _untrailed_outcome(root, ledger.entries[:committed], history, commits)
    if untrailed:
        problems = [untrailed, *problems]
    return Evidence(commits, decisions, tuple(problems), committed, lost)


def weigh_cut(root: Path, ledger: Ledger, oldest: RecordCommit, committed: int) -> Evidence:
    """Return the evidence of a history that is cut: each committed entry by a commit of its own.

    Decisions count if their records say what their entries say.
    """
    commits = {}
    for entry in ledger.entries[:committed]:
        trailers = {"Phases-Entry": f"{entry.seq:04d}"}
        commits[entry.seq] = RecordCommit(oldest.sha, oldest.tree, (), trailers, {})
    check = DecisionCheck(root, ledger, commits, {}, is_cut=True)
    decisions, problems, lost = _check_decisions(check, ledger.entries[:committed])
    return Evidence(commits, decisions, tuple(problems), committed, lost)


def weigh_prepared(root: Path, ledger: Ledger, files: Mapping[str, bytes], head: str) -> Evidence:
    """Return what the history would say if HEAD's next commit brought the ledger's end.

    Args:
        root: the repository.
        ledger: the ledger with its new entries.
        files: path -> bytes of what comes with them.
        head: HEAD's commit.
    """
    commits = _recording_commits(read_history(root, ledger), ledger)
    nothing = "0" * len(head)
    blobs = {path: blob_id([data], len(data), head) for path, data in files.items()}
    trailers = {"Phases-Entry": f"{len(ledger.entries):04d}"}
    coming = RecordCommit(nothing, nothing, (head,), trailers, blobs)
    for entry in ledger.entries:
        commits.setdefault(entry.seq, coming)
    check = DecisionCheck(root, ledger, commits, files)
    decisions, problems, lost = _check_decisions(check, ledger.entries)
    return Evidence(commits, decisions, tuple(problems), lost=lost)


def bringing_commits(root: Path, ledger: Ledger, committed: int) -> list[str]:
    """Return the commits that brought HEAD's progress.txt, among them merges that changed it.

    Args:
        root: the repository.
        ledger: the ledger.
        committed: how many of its entries HEAD's progress.txt has.
    """
    history = read_history(root, ledger)
    if not history:
        return []
    merges = [commit.sha for commit in history if len(commit.parents) > 1]
    versions = read_ids(root, [f"{sha}:progress.txt" for sha in merges])
    blob = ledger_blob_id(ledger, committed, history[0].sha)
    shas = []
    for commit in history:
        if blob in (commit.blobs.get("progress.txt"), versions.get(f"{commit.sha}:progress.txt")):
            shas.append(commit.sha)
    return shas


def _check_decisions(
    check: DecisionCheck, committed: Iterable[Entry]
) -> tuple[dict[int, ValidDecision], list[Problem], frozenset[int]]:
    """Return valid decisions, why others are not valid, and the numbers of those that were lost."""
    lost = _lost_decisions(check.root, check.ledger, check.commits)
    decisions, problems = check.run(entry for entry in committed if entry.seq not in lost)
    return decisions, problems, lost


def _lost_decisions(
    root: Path, ledger: Ledger, commits: Mapping[int, RecordCommit]
) -> frozenset[int]:
    """Return the numbers of the decisions, each with its record, that a LOST entry names.

    What had a commit of its own before that entry's commit was not lost. A commit that was merged
    later changes nothing: it was given up when there was none in the history.
    """
    lost = set()
    for entry in ledger.entries:
        if entry.kind != EntryKind.LOST:
            continue
        for fields in entry.match_all(entries.LOST):
            number = int(fields["entry"])
            if not 0 < number < entry.seq or not ledger.entries[number - 1].match(entries.RECORD):
                continue
            if not _was_committed(root, commits.get(number), commits.get(entry.seq)):
                lost.add(number)
    return frozenset(lost)


def _was_committed(root: Path, brought: RecordCommit | None, gave_up: RecordCommit | None) -> bool:
    """Return whether a decision had its commit before the commit that gave it up, if that is."""
    if brought is None or gave_up is None:
        return brought is not None
    if brought.sha == gave_up.sha:
        return False
    parent = next(iter(gave_up.parents), "")
    return brought.sha == parent or is_ancestor(root, brought.sha, parent)


def read_history(root: Path, ledger: Ledger, *, is_full: bool = False) -> tuple[RecordCommit, ...]:
    """Return the commits that touched the ledger or a decision, oldest first.

    `is_full`: also those that git's simplified history hides behind merges.
    """
    # The commit that the first lock names was HEAD before the runner's first commit.
    heads = (entry.match(entries.HEAD) for entry in ledger.entries)
    first = next((head["commit"] for head in heads if head), None)
    return read_record_history(root, ("progress.txt", APPROVALS), first, is_full=is_full)


def _recording_commits(history: Sequence[RecordCommit], ledger: Ledger) -> dict[int, RecordCommit]:
    """Return number of an entry -> the runner's commit that recorded it.

    A commit records the entries since the one before, and ends with the entry that it names.
    """
    # 1. The runner's commits, by how many entries each ends after.
    counts = {}
    for count, entry in enumerate(ledger.entries, start=1):
        counts[f"{entry.seq:04d}", entry.self_hash] = count
    ends: dict[int, RecordCommit] = {}
    for commit in history:
        named = (commit.trailers.get("Phases-Entry", ""), commit.trailers.get("Phases-Head", ""))
        if named in counts and "progress.txt" in commit.blobs:
            ends.setdefault(counts[named], commit)

    # 2. Those whose progress.txt is the ledger up to that entry, to the byte.
    commits: dict[int, RecordCommit] = {}
    recorded = 0
    for count, blob in zip(sorted(ends), _blob_ids(ledger, ends), strict=True):
        end = ends[count]
        if end.blobs["progress.txt"] != blob:
            continue
        for entry in ledger.entries[recorded:count]:
            commits[entry.seq] = end
        recorded = count
    return commits


def _blob_ids(ledger: Ledger, ends: Mapping[int, RecordCommit]) -> list[str]:
    """Return git's id of progress.txt up to each of the counts of entries, in their order.

    These are all but the whole ledger, again and again: two threads hash at once.
    """

    def blob(count: int) -> str:
        return ledger_blob_id(ledger, count, ends[count].sha)

    if sum(ledger.ends[count] for count in ends) < HASHED_ALONE:
        return [blob(count) for count in sorted(ends)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(blob, sorted(ends)))


def _untrailed_outcome(
    root: Path,
    committed: Iterable[Entry],
    history: Sequence[RecordCommit],
    commits: Mapping[int, RecordCommit],
) -> Problem | None:
    """Return that an outcome came with a commit that is not the runner's; None if none did."""
    for entry in committed:
        if entry.seq in commits or entry.kind in UNFINISHED:
            continue
        runners = {commit.sha for commit in commits.values()}
        others = [commit for commit in history if commit.sha not in runners]
        bringing = [commit for commit in others if "progress.txt" in commit.blobs]
        message = f"{entry.kind} came with a commit without the runner's trailers"
        hint = ""
        if bringing:
            sha = bringing[-1].sha
            message += f": commit {sha[:12]} was made, amended or rebased by a user"
            hint = f"`{untrailed_way(root, sha)}`, then python -m phases run --next commits it anew"
        return Problem("commit-untrailed", entry.seq, message, hint)
    return None


def _count_entries(ledger: Ledger, size: int) -> int:
    """Return how many entries the first `size` bytes hold."""
    return max(0, bisect_right(ledger.ends, size) - 1)
